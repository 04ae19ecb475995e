//! `patgate vault rotate-key`

use std::{io::Write, path::PathBuf};

use super::Failure;
use crate::vault::sealed;

/// What `rotate-key` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  patgate vault rotate-key --vault vault.sealed
  patgate vault rotate-key --vault vault.sealed --key /etc/patgate/vault.key --keep-old-key /root/vault-2026.key

The key file gets the new key beside the old one, the vault is sealed for the new one, and the old one leaves the key
file: wherever this is interrupted, the key opens the vault, and the same command brings it to its end. A patgate that is
running reads on. Copies of the vault that were made before, and other vaults with the same key, need the old key:
--keep-old-key keeps it.

A key that systemd gives, and a passphrase, are not in a file of patgate's: add the new key with `patgate vault recipients
add`, give it to patgate, and remove the old one with the new one.

Exit codes: 0 done, 69 a file can't be written, 78 the key does not open the vault, or a file to be made exists.")]
pub struct Arguments {
    /// The file of the vault
    #[arg(long, value_name = "PATH")]
    vault: PathBuf,
    /// The file of its key. Default: beside the vault, with the extension `key`
    #[arg(long, value_name = "PATH")]
    key: Option<PathBuf>,
    /// Where the old key is kept; without it, it is gone
    #[arg(long, value_name = "PATH")]
    keep_old_key: Option<PathBuf>,
}

pub(super) fn run(rotate: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let key = rotate.key.clone().unwrap_or_else(|| rotate.vault.with_extension("key"));
    let rotated = sealed::rotate_key(&rotate.vault, &key, rotate.keep_old_key.as_deref())?;
    if rotated.resumed {
        writeln!(out, "a rotation that was interrupted is brought to its end")?;
    }
    writeln!(out, "{} has a new key, in {}: {}", rotate.vault.display(), key.display(), rotated.public)?;
    match &rotate.keep_old_key {
        Some(kept) => writeln!(out, "the old key is kept in {}", kept.display())?,
        None => {
            writeln!(out, "the old key is gone; copies of the vault that were made before can't be opened")?;
        }
    }
    Ok(())
}
