//! The lines to paste into another terminal.

use std::{
    env,
    fmt::Write,
    path::{Path, PathBuf},
};

/// What the lines are about.
#[derive(Debug)]
pub struct Lines {
    /// How this program is called.
    pub program: String,
    /// The URL that clients use.
    pub url: String,
    /// The authority that clients have to trust.
    pub ca: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// An organization.
    pub organization: String,
    /// The path of a repository in it, if one is known.
    pub repository: Option<String>,
    /// Something that the rules refuse.
    pub refused: String,
}

impl Lines {
    /// The text for the terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { program, url, organization, refused, .. } = self;
        let (ca, config) = (quoted(&self.ca), quoted(&self.config));
        // The variable, because one that is set already would win against `-c http.sslCAInfo`.
        let mut text = String::from("In another terminal, with no token anywhere:\n\n");
        match &self.repository {
            Some(path) => {
                let _ = writeln!(text, "  GIT_SSL_CAINFO={ca} git clone {url}{path}");
            }
            None => {
                let _ = writeln!(
                    text,
                    "  GIT_SSL_CAINFO={ca} git clone {url}/{organization}/PROJECT/_git/REPOSITORY   # fill in"
                );
            }
        }
        let _ = write!(
            text,
            "  curl --cacert {ca} {url}/{organization}/_apis/projects\n  \
               {program} explain --config {config} --from 127.0.0.1 {refused}\n  \
               {program} audit tail --config {config}\n\n\
             Ctrl-C stops everything.\n"
        );
        text
    }
}

/// How this program is called from any folder: by its name if that is what the shell would find, else by
/// its whole path.
#[must_use]
pub fn program() -> String {
    let Ok(own) = env::current_exe() else { return "patgate".to_owned() };
    let found = env::var_os("PATH").and_then(|path| {
        env::split_paths(&path).map(|folder| folder.join("patgate")).find(|program| program.is_file())
    });
    match found.and_then(|found| found.canonicalize().ok()) {
        Some(found) if found == own => "patgate".to_owned(),
        _ => quoted(&own),
    }
}

/// A path as a POSIX shell reads it back.
#[must_use]
pub fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte);
    if text.bytes().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_would_break_it() {
        for (path, expected) in [
            ("/home/sam/q/ca.pem", "/home/sam/q/ca.pem"),
            ("/home/sam smith/ca.pem", "'/home/sam smith/ca.pem'"),
            ("/it's", r"'/it'\''s'"),
            ("/$HOME", "'/$HOME'"),
        ] {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }

    #[test]
    fn every_line_is_there() {
        let lines = Lines {
            program: "patgate".into(),
            url: "https://localhost:8443".into(),
            ca: "/q/certs/ca.pem".into(),
            config: "/q/patgate.toml".into(),
            organization: "contoso".into(),
            repository: Some("/contoso/web/_git/web".into()),
            refused: "DELETE /contoso/web".into(),
        };
        let text = lines.text();
        for line in [
            "  GIT_SSL_CAINFO=/q/certs/ca.pem git clone https://localhost:8443/contoso/web/_git/web\n",
            "  curl --cacert /q/certs/ca.pem https://localhost:8443/contoso/_apis/projects\n",
            "  patgate explain --config /q/patgate.toml --from 127.0.0.1 DELETE /contoso/web\n",
            "  patgate audit tail --config /q/patgate.toml\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
