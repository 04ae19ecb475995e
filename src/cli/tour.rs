//! Three scenes that show what patgate does: with the real git, the real curl, and patgate's own commands.

use std::{
    env, fs,
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{cli::quickstart::lines::quoted, clock};

/// How long patgate may take to begin to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running patgate before a sample organisation.
#[derive(Clone, Debug)]
pub struct Tour {
    /// patgate's program.
    pub program: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// The URL that clients use.
    pub url: String,
    /// The authority that clients have to trust.
    pub ca: PathBuf,
    /// The audit's folder.
    pub audit: PathBuf,
    /// The sample organisation's name.
    pub organization: String,
}

impl Tour {
    /// Waits (at most 20 s) until something listens, then plays.
    pub fn play_when_ready(&self, listen: SocketAddr, out: &mut dyn Write) {
        let until = clock::now() + PATIENCE;
        while TcpStream::connect_timeout(&listen, Duration::from_secs(1)).is_err() {
            if clock::now() > until {
                let _ = writeln!(out, "The tour ends: nothing listens on {listen}.");
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        if let Err(error) = self.play(out) {
            let _ = writeln!(out, "The tour ends: {error}");
        }
    }

    /// Plays the three scenes.
    ///
    /// # Errors
    /// What did not go as it should, as a sentence.
    pub fn play(&self, out: &mut dyn Write) -> Result<(), String> {
        self.clone_without_a_credential(out)?;
        self.refused_request(out)?;
        self.flipped_byte(out)?;
        tell(out, "\nThat was the tour. patgate goes on serving until Ctrl-C.\n")
    }

    /// Scene 1: git has no credential and clones all the same.
    ///
    /// # Errors
    /// As [`Self::play`].
    pub fn clone_without_a_credential(&self, out: &mut dyn Write) -> Result<(), String> {
        title(out, "1. A clone without a credential")?;
        let desk = desk()?;
        let clone = desk.path().join("web");
        let url = format!("{}/{}/web/_git/web", self.url, self.organization);
        show(out, &format!("GIT_SSL_CAINFO={} git clone {url}", quoted(&self.ca)))?;
        let mut git = self.git();
        let cloned = finished(git.args(["clone", "--quiet", &url]).arg(&clone))?;
        expect(cloned.status.success(), &cloned, "git could not clone")?;
        let log = finished(self.git().arg("-C").arg(&clone).args(["log", "--oneline"]))?;
        expect(log.status.success(), &log, "git could not read the clone")?;
        show(out, "git log --oneline")?;
        tell(out, &indented(&log.stdout))?;
        tell(out, "  git was asked for no password and has none. patgate put the token in.\n")
    }

    /// Scene 2: a request that no rule allows, the words its caller reads, and why.
    ///
    /// # Errors
    /// As [`Self::play`].
    pub fn refused_request(&self, out: &mut dyn Write) -> Result<(), String> {
        title(out, "2. A request that is refused")?;
        let path = format!("/{}/payroll/_apis/git/repositories", self.organization);
        let url = format!("{}{path}", self.url);
        show(out, &format!("curl --cacert {} {url}", quoted(&self.ca)))?;
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*", "--cacert"])
            .arg(&self.ca);
        let refused = finished(curl.args(["--write-out", "\n%{http_code}"]).arg(&url))?;
        expect(refused.status.success(), &refused, "curl got no answer")?;
        let text = String::from_utf8_lossy(&refused.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or((&text, ""));
        let message = serde_json::from_str::<Value>(body)
            .ok()
            .and_then(|body| body.get("message")?.as_str().map(str::to_owned))
            .unwrap_or_else(|| body.to_owned());
        tell(out, &format!("  {status} {message}\n"))?;
        expect(status == "403", &refused, "the request should have been refused with 403")?;

        show(out, &format!("patgate explain --config {} --from 127.0.0.1 GET {path}", quoted(&self.config)))?;
        let mut explain = Command::new(&self.program);
        explain.arg("explain").arg("--config").arg(&self.config).args(["--from", "127.0.0.1", "GET", &path]);
        let explained = finished(&mut explain)?;
        tell(out, &indented(&explained.stdout))?;
        expect(explained.status.code() == Some(1), &explained, "explain should have said refused")
    }

    /// Scene 3: a copy of the audit with one byte changed.
    ///
    /// # Errors
    /// As [`Self::play`].
    pub fn flipped_byte(&self, out: &mut dyn Write) -> Result<(), String> {
        title(out, "3. A byte of the audit is changed")?;
        let desk = desk()?;
        let copy = desk.path().join("audit");
        let io = |error: io::Error| format!("the audit can't be copied: {error}");
        copy_folder(&self.audit, &copy).map_err(io)?;
        show(out, &format!("cp -r {} {}", quoted(&self.audit), quoted(&copy)))?;
        let whole = self.verify(&copy, out)?;
        expect(whole.status.success(), &whole, "the copy should have been whole")?;

        let (file, at) = flip(&copy).map_err(io)?;
        tell(out, &format!("\n  (one bit of byte {at} of {} is flipped)\n", file.display()))?;
        let altered = self.verify(&copy, out)?;
        expect(!altered.status.success(), &altered, "verify should have noticed")
    }

    fn verify(&self, folder: &Path, out: &mut dyn Write) -> Result<Output, String> {
        show(out, &format!("patgate audit verify {}", quoted(folder)))?;
        let verified = finished(Command::new(&self.program).args(["audit", "verify"]).arg(folder))?;
        tell(out, &indented(&verified.stdout))?;
        tell(out, &indented(&verified.stderr))?;
        Ok(verified)
    }

    /// A git that has no credential, and asks for none.
    fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_SSL_CAINFO", &self.ca)
            .env_remove("GIT_SSL_NO_VERIFY")
            .env_remove("GIT_ASKPASS")
            .env_remove("SSH_ASKPASS")
            .args(["-c", "credential.helper=", "-c", "http.proxy="]);
        git
    }
}

/// Runs a program to its end, without what the environment may hold of tokens.
fn finished(command: &mut Command) -> Result<Output, String> {
    let tokens = env::vars_os().map(|(name, _)| name);
    for name in tokens.filter(|name| name.to_string_lossy().starts_with("AZURE_DEVOPS_PAT")) {
        command.env_remove(name);
    }
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).output().map_err(|error| format!("{name} can't be run: {error}"))
}

fn expect(as_it_should: bool, output: &Output, otherwise: &str) -> Result<(), String> {
    if as_it_should {
        return Ok(());
    }
    Err(format!("{otherwise} ({}):\n{}", output.status, indented(&output.stderr)))
}

fn desk() -> Result<tempfile::TempDir, String> {
    tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Flips a bit in the middle of what the largest file of a folder holds (a file's end may be room that was
/// set aside: zeros). Returns where.
fn flip(folder: &Path) -> io::Result<(PathBuf, usize)> {
    let largest = files(folder)?
        .into_iter()
        .filter_map(|path| Some((fs::metadata(&path).ok()?.len(), path)))
        .max()
        .ok_or_else(|| io::Error::other("there is no file in it"))?
        .1;
    let mut content = fs::read(&largest)?;
    let end = content.iter().rposition(|&byte| byte != 0).unwrap_or(0);
    let at = end / 2;
    if let Some(byte) = content.get_mut(at) {
        *byte ^= 1;
    }
    fs::write(&largest, content)?;
    Ok((largest, at))
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.append(&mut files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

fn title(out: &mut dyn Write, words: &str) -> Result<(), String> {
    tell(out, &format!("\n{words}\n{}\n", "-".repeat(words.len())))
}

fn show(out: &mut dyn Write, command: &str) -> Result<(), String> {
    tell(out, &format!("$ {command}\n"))
}

fn indented(output: &[u8]) -> String {
    String::from_utf8_lossy(output).lines().flat_map(|line| ["  ", line, "\n"].map(str::to_owned)).collect()
}

fn tell(out: &mut dyn Write, words: &str) -> Result<(), String> {
    out.write_all(words.as_bytes()).and_then(|()| out.flush()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_of_the_largest_file_is_flipped_where_it_holds_something() {
        let desk = tempfile::tempdir().unwrap();
        let (from, to) = (desk.path().join("from"), desk.path().join("to"));
        fs::create_dir_all(from.join("1")).unwrap();
        fs::write(from.join("lock"), b"x").unwrap();
        let segment = [vec![7_u8; 100], vec![0; 1_000]].concat();
        fs::write(from.join("1/segment"), &segment).unwrap();
        copy_folder(&from, &to).unwrap();
        let (file, at) = flip(&to).unwrap();
        assert_eq!((file, at), (to.join("1/segment"), 49));
        let flipped = fs::read(to.join("1/segment")).unwrap();
        assert_eq!(flipped.iter().zip(&segment).filter(|(new, old)| new != old).count(), 1);
        assert_eq!(fs::read(from.join("1/segment")).unwrap(), segment);
    }
}
