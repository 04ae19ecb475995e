//! The documentation is true: its commands are run as they are printed, and answer what is printed.
//!
//! In a page of Markdown, a block ```` ```console ```` is run: each line that begins with `$ ` in a shell, in order, and
//! what it prints is compared with the lines below it. A comment right above the block changes that:
//!
//! | `<!-- console: … -->` | |
//! |---|---|
//! | `stays` | its one command goes on while the rest of the page runs; at the end Ctrl-C stops it |
//! | `exit N` | its last command ends with this status; else a status that is not 0 is shown by `echo $?` |
//! | `not run: WHY` | it is not |
//!
//! `<!-- file: NAME -->` above any block puts its text into that file. In what is printed, `…` stands for anything (alone
//! on its line: for any lines), and numbers in times, sizes and places may differ.
//!
//! The page's reader is Sam, in a clone in `/home/sam/patgate`; the test has a folder in its place.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::printed::{difference, lines};

const HOME: &str = "/home/sam";
const CLONE: &str = "/home/sam/patgate";
/// The port that the pages name, and the one of the admin listener.
const PORT: u16 = 8443;
const ADMIN: u16 = 9443;
/// How many blocks may be left out, on all pages: those that need another machine, or a vault.
const NOT_RUN: usize = 16;
const PATIENCE: Duration = Duration::from_secs(30);

/// A block of a page.
#[derive(Debug)]
struct Block {
    line: usize,
    language: String,
    comment: Option<String>,
    text: String,
}

/// A command with what it is to print.
#[derive(Debug)]
struct Step {
    line: usize,
    command: String,
    prints: Vec<String>,
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let folders = ["docs", "docs/vaults"].map(|folder| fs::read_dir(root().join(folder)).unwrap());
    let docs = folders.into_iter().flatten().map(|entry| entry.unwrap().path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    pages.sort();
    pages
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let mut blocks = Vec::new();
    let mut above = None;
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text.extend([line, "\n"]),
            (None, Some(language)) => {
                let (language, comment) = (language.to_owned(), above.take());
                open = Some(Block { line: number + 1, language, comment, text: String::new() });
            }
            (None, None) if line.trim().is_empty() => {}
            (None, None) => {
                let comment = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
                above = comment.map(str::to_owned);
            }
        }
    }
    assert!(open.is_none(), "{}: a block is not closed", page.display());
    blocks
}

fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in block.text.lines().enumerate() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step {
                line: block.line + 1 + number,
                command: command.to_owned(),
                prints: Vec::new(),
            }),
            (None, Some(step)) => step.prints.push(line.to_owned()),
            (None, None) => panic!("line {}: output before any command", block.line + 1),
        }
    }
    steps
}

/// Where a page is read: Sam's home.
struct Desk {
    home: TempDir,
    port: u16,
    admin: u16,
    stays: Vec<(Child, PathBuf)>,
}

impl Desk {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("patgate-readme-").tempdir().unwrap();
        let taken = std::net::TcpListener::bind(("127.0.0.1", PORT)).is_err();
        let port = if taken { crate::support::free_address().port() } else { PORT };
        let desk = Self { home, port, admin: ADMIN, stays: Vec::new() };
        let program = desk.path(CLONE).join("target/release");
        fs::create_dir_all(&program).unwrap();
        symlink(env!("CARGO_BIN_EXE_patgate"), program.join("patgate")).unwrap();
        fs::create_dir(desk.path(HOME).join("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_patgate"), desk.path(HOME).join("bin/patgate")).unwrap();
        // Sam's own cargo would build for minutes. It knows no patgate in the path: the lines hold its whole one.
        let listen = if taken { format!("--listen 127.0.0.1:{port}") } else { String::new() };
        let cargo = format!(
            "#!/bin/sh\n[ \"$1 $2 $3\" = 'run --release --' ] || exit 64\nshift 3\nPATH='{}' exec '{}' \"$@\" {listen}\n",
            std::env::var("PATH").unwrap(),
            env!("CARGO_BIN_EXE_patgate"),
        );
        let path = desk.path(HOME).join("bin/cargo");
        fs::write(&path, cargo).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        desk
    }

    /// A path of Sam's here.
    fn path(&self, sams: &str) -> PathBuf {
        self.here(sams).into()
    }

    /// Sam's text here.
    fn here(&self, text: &str) -> String {
        let home = self.home.path().canonicalize().unwrap();
        let text = text.replace(HOME, home.to_str().unwrap());
        let text = text.replace(&format!(":{PORT}"), &format!(":{}", self.port));
        text.replace(&format!("127.0.0.1:{ADMIN}"), &format!("127.0.0.1:{}", self.admin))
    }

    /// What was printed here as Sam would see it.
    fn as_sam(&self, text: &str) -> String {
        let home = self.home.path().canonicalize().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_patgate")).canonicalize().unwrap();
        text.replace(program.to_str().unwrap(), &format!("{CLONE}/target/release/patgate"))
            .replace(home.to_str().unwrap(), HOME)
            .replace(&format!(":{}", self.port), &format!(":{PORT}"))
    }

    /// A shell that knows nothing of this machine's user, proxies, certificates.
    fn shell(&self, command: &str) -> Command {
        let path = format!("{}:{}", self.path(HOME).join("bin").display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("bash");
        shell
            .arg("-c")
            .arg(self.here(command))
            .env_clear()
            .envs([("PATH", path.as_str()), ("LANG", "C.UTF-8"), ("GIT_CONFIG_NOSYSTEM", "1")])
            .envs([("GIT_TERMINAL_PROMPT", "0"), ("no_proxy", "*"), ("PAT", crate::support::PAT)])
            .env("HOME", self.path(HOME))
            .current_dir(self.path(CLONE))
            .stdin(Stdio::null());
        shell
    }

    /// Starts what stays, and waits until it has printed what it is to print.
    fn start(&mut self, step: &Step, place: &str) {
        let out = self.path(HOME).join(format!("stays-{}", self.stays.len()));
        let file = fs::File::create(&out).unwrap();
        let mut shell = self.shell(&format!("exec {}", step.command));
        let child = shell.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        self.stays.push((child, out.clone()));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let printed = self.as_sam(&fs::read_to_string(&out).unwrap());
            let difference = difference(&step.prints, &lines(&printed));
            let Some(difference) = difference else { break };
            assert!(Instant::now() < deadline, "{place}: {}\n{difference}", step.command);
            thread::sleep(Duration::from_millis(50));
        }
        self.until_ready(deadline, place);
        // A port that is taken is another one.
        let config = fs::read_to_string(self.path(CLONE).join("patgate-quickstart/patgate.toml")).unwrap();
        let admin = config.split_once("[admin]").unwrap().1.split_once("127.0.0.1:").unwrap().1;
        self.admin = admin.split_once('"').unwrap().0.parse().unwrap();
    }

    /// The lines are printed before the port is open. This leaves no record.
    fn until_ready(&self, deadline: Instant, place: &str) {
        let ready = format!("curl --silent --insecure https://localhost:{PORT}/_patgate/ready");
        while finished(self.shell(&ready), place).stdout != b"ready\n" {
            assert!(Instant::now() < deadline, "{place}: is not ready");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a command, and gives its status.
    fn run(&self, step: &Step, before: i32, place: &str) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = finished(self.shell(&format!("(exit {before}); {}", step.command)), place);
            let text = self.as_sam(&crate::support::text(&output));
            let Some(difference) = difference(&step.prints, &lines(&text)) else {
                return output.status.code().unwrap_or(-1);
            };
            // An outcome follows its answer within moments.
            let may_come = step.command.contains(" audit ") && Instant::now() < deadline;
            assert!(may_come, "{place}: $ {}\n{difference}\n\nprinted:\n{text}", step.command);
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ctrl-C, which must end it well.
    fn stop(&mut self) {
        for (mut child, out) in self.stays.drain(..) {
            let pid = child.id().to_string();
            assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
            let status = child.wait().unwrap();
            assert!(status.success(), "{status}: {}", fs::read_to_string(out).unwrap());
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for (child, _) in &mut self.stays {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a command to its end, which must come in time.
fn finished(mut command: Command, place: &str) -> Output {
    let (told, tells) = mpsc::channel();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    thread::spawn(move || told.send(child.wait_with_output().unwrap()));
    tells.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = Command::new("kill").arg(pid.to_string()).status();
        panic!("{place}: does not come to an end")
    })
}

fn run(page: &Path) -> usize {
    let mut desk = Desk::new();
    let (mut status, mut run, mut left_out) = (0, 0, 0);
    let name = page.strip_prefix(root()).unwrap().display().to_string();
    for block in blocks(page) {
        let comment = block.comment.as_deref().unwrap_or_default();
        if let Some(file) = comment.strip_prefix("file: ") {
            fs::write(desk.path(CLONE).join(file), desk.here(&block.text)).unwrap();
        }
        if block.language != "console" {
            let what = format!("{name}:{}", block.line);
            assert!(!["sh", "bash", "shell"].contains(&block.language.as_str()), "{what}: write ```console");
            assert!(!comment.starts_with("console"), "{what}: the comment is of no ```console block");
            continue;
        }
        let how = comment.strip_prefix("console: ").unwrap_or_default();
        if how.starts_with("not run: ") {
            left_out += 1;
            continue;
        }
        let steps = steps(&block);
        for (n, step) in steps.iter().enumerate() {
            let place = format!("{name}:{}", step.line);
            run += 1;
            if how == "stays" {
                desk.start(step, &place);
                continue;
            }
            status = desk.run(step, status, &place);
            let shown = steps.get(n + 1).is_some_and(|next| next.command == "echo $?");
            let wanted = how.strip_prefix("exit ").filter(|_| n + 1 == steps.len());
            let wanted = wanted.map_or(0, |code| code.parse().unwrap());
            assert!(shown || status == wanted, "{place}: $ {}: ended with {status}", step.command);
        }
    }
    desk.stop();
    println!("{name}: {run} commands");
    left_out
}

#[test]
fn what_the_pages_print_is_what_happens() {
    let left_out: usize = pages().iter().map(|page| run(page)).sum();
    assert!(left_out <= NOT_RUN, "{left_out} blocks are not run");
}

#[test]
fn links_lead_somewhere() {
    let names =
        ["ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name));
    for page in pages().into_iter().chain(names) {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if path.starts_with("http") {
                continue;
            }
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let found = fs::read_to_string(&target).unwrap();
                assert!(found.lines().any(|line| slug(line) == anchor), "{}: {link}", page.display());
            }
        }
    }
}

/// The anchor of a heading.
fn slug(line: &str) -> String {
    let heading = line.trim_start_matches('#').trim().to_lowercase();
    heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}
