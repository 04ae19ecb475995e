//! Secrets that a program prints: a credential helper, run for each read.
//!
//! It is started without a shell, with nothing of patgate's environment but what the configuration names, in a process
//! group of its own that is killed as a whole: when it ends, when nobody waits for it any more, and when it prints more
//! than a secret. What it writes to standard error may hold a secret, so it is not shown unless the configuration says so.

use std::{fmt, path::Path, sync::Arc};

use secrecy::SecretString;
use tokio::sync::Semaphore;

use super::{
    Facts, Fetch, Fetched, SecretSource, VaultError,
    private::{self, Readers, without_line_end},
};
use crate::config::{CommandFormat, CommandVault};

mod git;
mod json;
pub(super) mod run;

use run::{Ended, Job, run};

/// Where the program looks for others, unless the configuration says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest value of a variable that comes from a file, in bytes.
const LONGEST_VARIABLE: usize = 16 * 1024;

/// Runs a program. `secret` is a JSON array of the arguments that follow the configured ones, or, in git's protocol, the
/// URL that is asked for.
pub struct Command {
    config: CommandVault,
    turns: Arc<Semaphore>,
    /// For the files of variables.
    reads: Arc<Semaphore>,
}

impl Command {
    /// A source; nothing is started yet.
    #[must_use]
    pub fn new(config: &CommandVault) -> Self {
        let turns = |count| Arc::new(Semaphore::new(count));
        Self { config: config.clone(), turns: turns(config.at_once), reads: turns(config.at_once) }
    }

    async fn read(&self, secret: &str) -> Result<Fetched, VaultError> {
        let broke_off = |_| VaultError::Unavailable("the read broke off".into());
        let Job { arguments, input, .. } = self.request(secret)?;
        let program = arguments.first().cloned().unwrap_or_default();
        let _turn = self.turns.acquire().await.map_err(broke_off)?;
        let job = Job { arguments, environment: self.environment().await?, input };
        let ended = run(job).await?;
        self.judge(&program, &ended)?;
        self.take(&ended.output, secret)
    }

    /// The whole list of arguments, and what is written to standard input; no environment yet.
    fn request(&self, secret: &str) -> Result<Job, VaultError> {
        let mut arguments: Vec<String> = self.config.command.iter().map(|one| (**one).to_owned()).collect();
        if self.config.format == CommandFormat::GitCredential {
            let input = git::request(secret).ok_or_else(|| denied("the secret's name is no https URL"))?;
            return Ok(Job { arguments, environment: Vec::new(), input: Some(input) });
        }
        let more: Vec<String> =
            serde_json::from_str(secret).map_err(|_| denied("the secret's name is no list of arguments"))?;
        arguments.extend(more);
        if arguments.is_empty() {
            return Err(denied("the secret's name is an empty list of arguments"));
        }
        Ok(Job { arguments, environment: Vec::new(), input: None })
    }

    async fn environment(&self) -> Result<Vec<(String, SecretString)>, VaultError> {
        let owned = |name: &str, value: &str| (name.to_owned(), SecretString::from(value));
        let mut all = vec![owned("PATH", PATH), owned("LANG", "C.UTF-8")];
        if self.config.format == CommandFormat::GitCredential {
            all.push(owned("GIT_TERMINAL_PROMPT", "0"));
        }
        let passed = self.config.pass_environment.iter();
        all.extend(passed.filter_map(|name| Some(owned(name, &std::env::var(&**name).ok()?))));
        all.extend(self.config.environment.iter().map(|(name, value)| owned(name, value)));
        for (name, path) in &self.config.environment_files {
            let path = path.clone();
            let read = move || private::read_line(&path, Readers::Group, LONGEST_VARIABLE);
            // Without it the program can't run, which says nothing about the secret.
            let value = private::aside(Arc::clone(&self.reads), read)
                .await?
                .map_err(|unread| VaultError::Unavailable(unread.to_string().into()))?;
            all.push(((**name).to_owned(), value));
        }
        // A later one of the same name counts.
        Ok(all)
    }

    /// Whether it ended well. An exit code does not say why, unless the configuration does.
    fn judge(&self, program: &str, ended: &Ended) -> Result<(), VaultError> {
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
        let status = ended.status;
        if status.success() {
            return Ok(());
        }
        let how = match status.code() {
            Some(code) => format!("ended with exit code {code}"),
            None => format!("was ended by {status}"),
        };
        let text: Arc<str> = format!("{name} {how}{}", self.complaint(ended)).into();
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        if code.is_some_and(|code| self.config.denied_exit_codes.contains(&code)) {
            return Err(VaultError::Denied(text));
        }
        Err(VaultError::Unavailable(text))
    }

    fn complaint(&self, ended: &Ended) -> String {
        const LONGEST: usize = 200;
        if ended.complained == 0 {
            return ", and no word on standard error".to_owned();
        }
        if !self.config.show_errors {
            return format!(
                "; its {} bytes on standard error are not shown (show-errors = true shows the first line)",
                ended.complained
            );
        }
        let text = String::from_utf8_lossy(&ended.complaint);
        let line = text.trim_start().lines().next().unwrap_or_default();
        format!(": {}", line.chars().filter(|c| !c.is_control()).take(LONGEST).collect::<String>())
    }

    /// The secret, out of what was printed.
    fn take(&self, output: &[u8], asked: &str) -> Result<Fetched, VaultError> {
        let text = str::from_utf8(output)
            .map_err(|_| VaultError::Unusable("what the program printed is not text".into()))?;
        match &self.config.format {
            CommandFormat::Plain => Ok(Fetched::new(without_line_end(text.to_owned()))),
            CommandFormat::FirstLine => {
                let line = text.lines().next().unwrap_or_default();
                Ok(Fetched::new(SecretString::from(line)))
            }
            CommandFormat::Json(path) => {
                let found = json::find(text, path)?;
                let facts = Facts { expires: found.expires, ..Facts::default() };
                Ok(Fetched { value: found.value, version: None, facts })
            }
            CommandFormat::GitCredential => {
                let answer = git::answer(text, asked)?;
                let facts = Facts { expires: answer.expires, ..Facts::default() };
                Ok(Fetched { value: answer.password, version: None, facts })
            }
        }
    }
}

fn denied(text: &str) -> VaultError {
    VaultError::Denied(text.into())
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("command", &self.config.command).finish_non_exhaustive()
    }
}

impl SecretSource for Command {
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        Box::pin(self.read(secret))
    }
}

#[cfg(test)]
mod tests;
