//! `patgate vault`: seals secrets into a local vault, lists their names, tests what is configured.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Read as _, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use secrecy::SecretString;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    audit::Audit,
    config::{self, Config, Credential, SealedKey},
    vault::{
        FingerprintKey, VaultError,
        sealed::{self, Sealed, SealedError},
        token::{Format, LONGEST},
        trial::{Record, Tried, opened, try_credential},
        without_line_end,
    },
};

/// `EX_UNAVAILABLE`: a vault, or the file system, does not do its part.
const UNAVAILABLE: u8 = 69;

/// `EX_CONFIG`: what was given can't be right.
const CONFIG: u8 = 78;

/// What `patgate vault` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put a secret into a sealed vault, or replace it.
    #[command(after_help = "\
Examples:
  patgate vault seal --vault vault.age --new-key web-read     asks for the secret, without showing it
  pass ado/web | patgate vault seal --vault vault.age web-read")]
    Seal(Seal),
    /// Print the names in a sealed vault.
    List(List),
    /// Read configured secrets and say whether they could be used, without printing them.
    #[command(after_help = "\
Each read is recorded in the audit. Exit codes: 0 all are usable, 69 some are not, 78 the configuration is wrong.")]
    Test(Test),
}

/// `patgate vault seal`
#[derive(Debug, Args)]
pub struct Seal {
    #[command(flatten)]
    place: Place,
    /// Make the key file if there is none.
    #[arg(long, conflicts_with_all = ["key_credential", "passphrase_file"])]
    new_key: bool,
    /// The name under which the configuration finds the secret (`secret = "NAME"`).
    name: String,
}

/// `patgate vault list`
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    place: Place,
    /// One JSON string a line.
    #[arg(long)]
    json: bool,
}

/// `patgate vault test`
#[derive(Debug, Args)]
pub struct Test {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Names of credentials; all of them if none is given.
    #[arg(value_name = "CREDENTIAL")]
    credentials: Vec<String>,
}

/// A sealed vault and its key.
#[derive(Debug, Args)]
struct Place {
    /// The file of the vault.
    #[arg(long, value_name = "PATH")]
    vault: PathBuf,
    /// The file of its key. Default: beside the vault, with the extension `key`.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["key_credential", "passphrase_file"])]
    key: Option<PathBuf>,
    /// The key is a credential of systemd, in `$CREDENTIALS_DIRECTORY`.
    #[arg(long, value_name = "NAME", conflicts_with = "passphrase_file")]
    key_credential: Option<String>,
    /// A file with a passphrase takes the place of the key.
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
struct Failure(u8, String);

impl From<SealedError> for Failure {
    fn from(error: SealedError) -> Self {
        let code = if let SealedError::Io(..) = error { UNAVAILABLE } else { CONFIG };
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
        Command::Seal(seal) => run_seal(&seal, read_secret, &mut out),
        Command::List(list) => run_list(&list, &mut out),
        Command::Test(test) => run_test(&test, &mut out),
    };
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

fn run_seal(
    seal: &Seal,
    secret: impl FnOnce(&str) -> Result<SecretString, Failure>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (vault, key) = (&seal.place.vault, seal.place.key());
    let secret = secret(&seal.name)?;
    if let SealedKey::File(path) = &key
        && !path.try_exists()?
    {
        make_key(seal, path, out)?;
    }
    sealed::put(vault, &key, &seal.name, &secret)?;
    writeln!(out, "{} is sealed in {}", seal.name, vault.display())?;
    Ok(())
}

fn make_key(seal: &Seal, key: &Path, out: &mut impl Write) -> Result<(), Failure> {
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

/// Never from an argument: those stand in the list of processes and in the shell's history.
fn read_secret(name: &str) -> Result<SecretString, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let typed = rpassword::prompt_password(format!("Secret for {name} (not shown): "))?;
        return Ok(without_line_end(typed));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 4));
    stdin.lock().take(LONGEST as u64 + 3).read_to_end(&mut bytes)?;
    // Bytes outside ASCII are refused anyway, with their sentence.
    let text = str::from_utf8(&bytes).map_err(|_| wrong("the secret on standard input is not text"))?;
    Ok(without_line_end(text.to_owned()))
}

fn run_list(list: &List, out: &mut impl Write) -> Result<(), Failure> {
    for name in Sealed::open(&list.place.vault, &list.place.key())?.names()? {
        if list.json {
            writeln!(out, "{}", json!(name))?;
        } else {
            writeln!(out, "{name}")?;
        }
    }
    Ok(())
}

fn run_test(test: &Test, out: &mut impl Write) -> Result<(), Failure> {
    let config = config::file::read(&test.config).map_err(wrong)?;
    let chosen = choose(&config, &test.credentials)?;
    // Another patgate may be serving meanwhile.
    let audit = Audit::open(&config.audit, true).map_err(|error| Failure(UNAVAILABLE, error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tested = runtime.block_on(test_all(&config, &chosen, &audit, test.json, out));
    drop(runtime);
    audit.close(Duration::from_secs(10));
    if tested? { Ok(()) } else { Err(Failure(UNAVAILABLE, String::new())) }
}

fn choose<'a>(config: &'a Config, names: &[String]) -> Result<Vec<&'a Credential>, Failure> {
    if names.is_empty() {
        return Ok(config.credentials.values().map(|credential| &**credential).collect());
    }
    let find = |name: &String| {
        config.credentials.get(name.as_str()).map(|credential| &**credential).ok_or_else(|| {
            let all: Vec<_> = config.credentials.keys().map(|name| &**name).collect();
            wrong(format!("there is no credential {name}; there are {}", all.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

async fn test_all(
    config: &Config,
    chosen: &[&Credential],
    record: &dyn Record,
    json: bool,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    let key = FingerprintKey::random().map_err(|why| Failure(UNAVAILABLE, why))?;
    let mut all_usable = true;
    for credential in chosen {
        let tried = match opened(config, credential) {
            Ok((source, deadline)) => try_credential(&*source, deadline, credential, &key, record).await,
            Err(why) => Err(VaultError::Unavailable(why.into())),
        };
        all_usable &= tried.is_ok();
        writeln!(out, "{}", if json { as_json(credential, &tried) } else { as_text(credential, &tried) })?;
    }
    Ok(all_usable)
}

fn as_text(credential: &Credential, tried: &Result<Tried, VaultError>) -> String {
    let (name, vault) = (&credential.name, credential.source.giver());
    match tried {
        Ok(Tried { format, fingerprint, version, .. }) => {
            let version = version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
            format!("{name}: ok, from vault {vault}: {}, fingerprint {fingerprint}{version}", format.as_str())
        }
        Err(error) => format!("{name}: FAILED, vault {vault}: {error}"),
    }
}

fn as_json(credential: &Credential, tried: &Result<Tried, VaultError>) -> String {
    let (name, vault) = (&*credential.name, &*credential.source.giver());
    match tried {
        Ok(Tried { format, fingerprint, version, .. }) => {
            let format = match format {
                Format::New => "84",
                Format::Old => "52",
                Format::Other => "other",
            };
            json!({ "credential": name, "vault": vault, "usable": true, "format": format,
                "fingerprint": &**fingerprint, "version": version.as_deref() })
        }
        Err(error) => {
            json!({ "credential": name, "vault": vault, "usable": false, "error": error.to_string() })
        }
    }
    .to_string()
}

#[cfg(test)]
mod tests;
