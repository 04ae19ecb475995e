//! `patgate vault`: seals secrets into a local vault, looks after its key, tests what is configured.

use std::{
    fmt::Display,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};

use crate::{config::SealedKey, vault::sealed::SealedError};

mod list;
mod new_key;
mod recipients;
mod remove;
mod rotate_key;
mod seal;
pub(super) mod test;

/// `EX_UNAVAILABLE`: a vault, or the file system, does not do its part.
const UNAVAILABLE: u8 = 69;

/// `EX_CONFIG`: what was given can't be right.
const CONFIG: u8 = 78;

/// What `patgate vault` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put a secret into a sealed vault, or replace it
    Seal(seal::Arguments),
    /// Print the names in a sealed vault, and when each was sealed
    List(list::Arguments),
    /// Take a secret out of a sealed vault
    Remove(remove::Arguments),
    /// Give a sealed vault another key
    RotateKey(rotate_key::Arguments),
    /// Make a key for a vault, and print its public key
    NewKey(new_key::Arguments),
    /// For whom a sealed vault is sealed: other instances, a recovery key
    #[command(subcommand)]
    Recipients(recipients::Command),
    /// Read configured secrets and say whether they could be used, without printing them
    Test(test::Arguments),
}

/// A sealed vault and its key.
#[derive(Debug, Args)]
struct Place {
    /// The file of the vault
    #[arg(long, value_name = "PATH")]
    vault: PathBuf,
    /// The file of its key. Default: beside the vault, with the extension `key`
    #[arg(long, value_name = "PATH", conflicts_with_all = ["key_credential", "passphrase_file"])]
    key: Option<PathBuf>,
    /// The key is a credential of systemd, in `$CREDENTIALS_DIRECTORY`
    #[arg(long, value_name = "NAME", conflicts_with = "passphrase_file")]
    key_credential: Option<String>,
    /// A file with a passphrase takes the place of the key
    #[arg(long, value_name = "PATH")]
    passphrase_file: Option<PathBuf>,
}

impl Place {
    fn key(&self) -> SealedKey {
        match (&self.key_credential, &self.passphrase_file, &self.key) {
            (Some(name), _, _) => SealedKey::Systemd(name.clone()),
            (_, Some(path), _) => SealedKey::Passphrase(path.clone()),
            (_, _, Some(path)) => SealedKey::File(path.clone()),
            _ => SealedKey::File(self.vault.with_extension("key")),
        }
    }
}

/// Why a command did not do what it was to do: an exit code, and a sentence unless all is said already.
#[derive(Debug)]
pub(super) struct Failure(pub(super) u8, pub(super) String);

impl From<SealedError> for Failure {
    fn from(error: SealedError) -> Self {
        let code = match error {
            SealedError::Io(..) | SealedError::Busy(_) => UNAVAILABLE,
            _ => CONFIG,
        };
        Self(code, error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(UNAVAILABLE, error.to_string())
    }
}

fn wrong(text: impl Display) -> Failure {
    Failure(CONFIG, text.to_string())
}

/// Runs a command. Exit codes: 0, 69 (a vault, or a file, does not do its part), 78 (what was given is wrong).
pub fn run(command: Command) -> ExitCode {
    crate::app::keep_to_ourselves();
    let mut out = io::stdout().lock();
    let done = match command {
        Command::Seal(seal) => seal::run(&seal, seal::read_secret, &mut out),
        Command::List(list) => list::run(&list, &mut out),
        Command::Remove(remove) => remove::run(&remove, &mut out),
        Command::RotateKey(rotate) => rotate_key::run(&rotate, &mut out),
        Command::NewKey(new_key) => new_key::run(&new_key, &mut out),
        Command::Recipients(recipients) => recipients::run(&recipients, &mut out),
        Command::Test(test) => test::run(&test, &mut out),
    };
    ended(done)
}

/// The exit code, once what there is to say is said.
pub(super) fn ended(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, text)) => {
            if !text.is_empty() {
                let _ = writeln!(io::stderr(), "patgate: {text}");
            }
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests;
