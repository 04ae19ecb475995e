//! `patgate vault new-key`

use std::{io::Write, path::PathBuf};

use super::Failure;
use crate::vault::sealed;

/// What `new-key` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  patgate vault new-key recovery.key
  patgate vault recipients add --vault vault.sealed --note recovery age1…

It is an age identity, as age-keygen makes them, in a file that only its owner can read. Keep one offline, so that a vault
can be opened when its own key is lost. Exit codes: 0 made, 69 the file can't be written, 78 there is one already.")]
pub struct Arguments {
    /// The file; it must not exist
    path: PathBuf,
}

pub(super) fn run(new_key: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let public = sealed::generate_key(&new_key.path)?;
    writeln!(out, "{} is the new key; its public key is {public}", new_key.path.display())?;
    Ok(())
}
