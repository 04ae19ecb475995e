//! `patgate vault seal`

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read, Write},
    os::fd::AsFd as _,
    path::Path,
};

use jiff::Timestamp;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{Failure, Place, wrong};
use crate::{
    clock,
    config::SealedKey,
    vault::{sealed, token::LONGEST, without_line_end},
};

/// What `seal` takes. Never a secret: arguments stand in the list of processes and in the shell's history.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  patgate vault seal --vault vault.sealed --new-key web-read     asks for the secret, without showing it
  pass show ado/web | patgate vault seal --vault vault.sealed --from-stdin web-read
  patgate vault seal --vault vault.sealed --expires 2026-12-31 web-read

What was sealed under the name before is kept as its previous value. Sealing replaces the whole file, so it needs the
vault's key, not only its public half. Exit codes: 0 sealed, 69 a file can't be written, 78 what was given is wrong.")]
pub struct Arguments {
    #[command(flatten)]
    pub(super) place: Place,
    /// Make the key file if there is none
    #[arg(long, conflicts_with_all = ["key_credential", "passphrase_file"])]
    pub(super) new_key: bool,
    /// Read the secret from standard input, which must not be a terminal. Without it, a terminal is asked, and anything
    /// else is read
    #[arg(long)]
    pub(super) from_stdin: bool,
    /// When the secret expires: 2026-12-31, or 2026-12-31T18:00:00Z
    #[arg(long, value_name = "DATE", value_parser = moment)]
    pub(super) expires: Option<Timestamp>,
    /// The name under which the configuration finds the secret (`secret = "NAME"`)
    pub(super) name: String,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    crate::config::timestamp(text)
}

pub(super) fn run(
    seal: &Arguments,
    secret: impl FnOnce(&Arguments) -> Result<SecretString, Failure>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (vault, key) = (&seal.place.vault, seal.place.key());
    if let Some(expires) = seal.expires
        && Timestamp::try_from(clock::wall()).is_ok_and(|now| expires <= now)
    {
        return Err(wrong(format!("{expires} is past; a secret that has expired is of no use")));
    }
    let secret = secret(seal)?;
    if let SealedKey::File(path) = &key
        && !path.try_exists()?
    {
        make_key(seal, path, out)?;
    }
    sealed::put(vault, &key, &seal.name, &secret, seal.expires)?;
    writeln!(out, "{} is sealed in {}", seal.name, vault.display())?;
    Ok(())
}

fn make_key(seal: &Arguments, key: &Path, out: &mut impl Write) -> Result<(), Failure> {
    if !seal.new_key {
        return Err(wrong(format!("there is no key {}; --new-key makes one", key.display())));
    }
    if seal.place.vault.try_exists()? {
        return Err(wrong(format!(
            "there is a vault {} but no key {}; a new key would not open it",
            seal.place.vault.display(),
            key.display()
        )));
    }
    sealed::generate_key(key)?;
    writeln!(out, "{} is the new key: without it, what is sealed is lost", key.display())?;
    Ok(())
}

pub(super) fn read_secret(seal: &Arguments) -> Result<SecretString, Failure> {
    let stdin = io::stdin();
    match (stdin.is_terminal(), seal.from_stdin) {
        (true, true) => {
            Err(wrong("--from-stdin does not read a terminal; pipe the secret in, or leave it out"))
        }
        (true, false) => {
            let typed = rpassword::prompt_password(format!("Secret for {} (not shown): ", seal.name))?;
            Ok(without_line_end(typed))
        }
        // Without `std`'s buffer in between, which nobody zeroizes.
        (false, _) => from_stdin(File::from(io::stdin().as_fd().try_clone_to_owned()?)),
    }
}

fn from_stdin(from: impl Read) -> Result<SecretString, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 4));
    from.take(LONGEST as u64 + 3).read_to_end(&mut bytes)?;
    // Bytes outside ASCII are refused anyway, with their sentence.
    let text = str::from_utf8(&bytes).map_err(|_| wrong("the secret on standard input is not text"))?;
    Ok(without_line_end(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::{FingerprintKey, Scheme, Token};

    #[test]
    fn what_is_piped_in_loses_one_lines_end_and_nothing_else() {
        let key = FingerprintKey::new(&[1; 32]);
        for (given, is_token) in
            [("canary", true), ("canary\n", true), ("canary\r\n", true), ("canary\n\n", false), ("", false)]
        {
            let token = Token::new(from_stdin(given.as_bytes()).unwrap(), Scheme::Basic, &key);
            assert_eq!(token.is_ok_and(|token| token.occurs_in(b"canary")), is_token, "{given:?}");
        }
        let Err(Failure(_, why)) = from_stdin(b"canary\xff".as_slice()) else { panic!("not text") };
        assert!(!why.contains("canary"), "{why}");
    }
}
