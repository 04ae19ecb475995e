//! `patgate vault recipients`

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Place};
use crate::vault::sealed;

/// What `recipients` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the public keys that a vault is sealed for
    #[command(after_help = "\
Examples:
  patgate vault recipients list --vault vault.sealed

Exit codes: 0 listed, 69 a file can't be read now, 78 the key does not open the vault.")]
    List(List),
    /// Seal a vault for one more public key
    #[command(after_help = "\
Examples:
  patgate vault new-key recovery.key    on another machine: it prints the public key, and the file goes into a safe
  patgate vault recipients add --vault vault.sealed --note recovery age1…

Every recipient can read all that is in the vault, now and after each later change. Exit codes: 0 done, 69 a file can't be
written, 78 what was given is no public key, or the vault's key is a passphrase, or does not open the vault.")]
    Add(Add),
    /// Seal a vault without one of its public keys
    #[command(after_help = "\
Examples:
  patgate vault recipients remove --vault vault.sealed age1…

It opens older copies of the file as before, and whoever had it may know what was inside: replace those tokens. Exit
codes: 0 done, 69 a file can't be written, 78 it is not a recipient, or the one whose key is used here.")]
    Remove(Remove),
}

/// `recipients list`
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    place: Place,
    /// One JSON object a line: key, note, own
    #[arg(long)]
    json: bool,
}

/// `recipients add`
#[derive(Debug, Args)]
pub struct Add {
    #[command(flatten)]
    place: Place,
    /// Whose it is, for people
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// The public key: age1…
    public_key: String,
}

/// `recipients remove`
#[derive(Debug, Args)]
pub struct Remove {
    #[command(flatten)]
    place: Place,
    /// The public key: age1…
    public_key: String,
}

pub(super) fn run(command: &Command, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        Command::List(list) => run_list(list, out),
        Command::Add(Add { place, note, public_key }) => {
            sealed::add_recipient(&place.vault, &place.key(), public_key, note.as_deref())?;
            Ok(writeln!(out, "{} is sealed for {public_key} too", place.vault.display())?)
        }
        Command::Remove(Remove { place, public_key }) => {
            sealed::remove_recipient(&place.vault, &place.key(), public_key)?;
            Ok(writeln!(out, "{} is no longer sealed for {public_key}", place.vault.display())?)
        }
    }
}

fn run_list(list: &List, out: &mut impl Write) -> Result<(), Failure> {
    let recipients = sealed::recipients(&list.place.vault, &list.place.key())?;
    if recipients.all.is_empty() && !list.json {
        writeln!(out, "the vault is sealed with a passphrase, and so for nobody else")?;
    }
    for one in &recipients.all {
        let own = recipients.own.contains(&one.key);
        if list.json {
            writeln!(out, "{}", json!({ "key": one.key, "note": one.note, "own": own }))?;
            continue;
        }
        let note = one.note.as_ref().map(|note| format!("  {note}")).unwrap_or_default();
        let own = if own { "  (the key that opened it now)" } else { "" };
        writeln!(out, "{}{note}{own}", one.key)?;
    }
    Ok(())
}
