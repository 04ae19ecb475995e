//! `patgate vault remove`

use std::io::Write;

use super::{Failure, Place, wrong};
use crate::vault::sealed::{self, SealedError};

/// What `remove` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  patgate vault remove --vault vault.sealed web-read

The previous value goes with it. A credential of a configuration that names it is refused with `credential-missing` from
then on. Exit codes: 0 removed, 69 a file can't be written, 78 there is no such name, or the key does not open the vault.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The name it was sealed under
    name: String,
}

pub(super) fn run(remove: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let (vault, key) = (&remove.place.vault, remove.place.key());
    match sealed::remove(vault, &key, &remove.name) {
        Err(error @ SealedError::NoSecret(..)) => {
            let names: Vec<_> = sealed::list(vault, &key)?.into_iter().map(|one| one.name).collect();
            let there = if names.is_empty() { "it is empty".to_owned() } else { names.join(", ") };
            Err(wrong(format!("{error}; there are: {there}")))
        }
        done => {
            done?;
            writeln!(out, "{} is no longer in {}", remove.name, vault.display())?;
            Ok(())
        }
    }
}
