//! `patgate vault test`, and the part of `patgate check --online` that reads credentials.

use std::{io::Write, path::PathBuf, time::Duration};

use jiff::Timestamp;
use serde_json::json;

use super::{Failure, UNAVAILABLE, wrong};
use crate::{
    audit::Audit,
    clock,
    config::{self, Config, Credential, CredentialSource},
    vault::{
        Facts, FingerprintKey, VaultError,
        health::notice,
        token::Format,
        trial::{Record, Tried, opened, try_credential},
    },
};

/// What `test` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  patgate vault test --config patgate.toml
  patgate vault test --config patgate.toml web-read web-write --json | jq 'select(.usable | not)'

Each read is recorded in the audit. No secret is printed. Exit codes: 0 all are usable, 69 some are not, 78 the
configuration is wrong.")]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// One JSON object a line: credential, vault, usable, and format, fingerprint, version, expires, or error
    #[arg(long)]
    json: bool,
    /// Names of credentials; all of them if none is given
    #[arg(value_name = "CREDENTIAL")]
    credentials: Vec<String>,
}

pub(super) fn run(test: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let config = config::file::read(&test.config).map_err(wrong)?;
    let chosen = choose(&config, &test.credentials)?;
    let mut all_usable = true;
    for (credential, tried) in chosen.iter().zip(try_all(&config, &chosen)?) {
        all_usable &= tried.is_ok();
        if test.json {
            writeln!(out, "{}", as_json(credential, &tried))?;
        } else {
            writeln!(out, "{}", as_text(credential, &tried))?;
        }
    }
    if all_usable { Ok(()) } else { Err(Failure(UNAVAILABLE, String::new())) }
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

/// Reads credentials, each with its record. A vault that can't even be opened is told for each of its own.
pub(in crate::cli) fn try_all(
    config: &Config,
    chosen: &[&Credential],
) -> Result<Vec<Result<Tried, VaultError>>, Failure> {
    let environment = config::environment_problems(std::env::vars_os());
    if !environment.is_empty() {
        return Err(wrong(environment.join("\n")));
    }
    // Another patgate may be serving meanwhile.
    let audit = Audit::open(&config.audit, true).map_err(|error| Failure(UNAVAILABLE, error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tried = runtime.block_on(read_all(config, chosen, &audit));
    // A read that hangs in the file system is not waited for.
    runtime.shutdown_background();
    audit.close(Duration::from_secs(10));
    tried
}

async fn read_all(
    config: &Config,
    chosen: &[&Credential],
    record: &dyn Record,
) -> Result<Vec<Result<Tried, VaultError>>, Failure> {
    let key = FingerprintKey::random().map_err(|why| Failure(UNAVAILABLE, why))?;
    let mut all = Vec::with_capacity(chosen.len());
    for credential in chosen {
        let tried = match opened(config, credential) {
            Ok((source, deadline)) => try_credential(&*source, deadline, credential, &key, record).await,
            Err(why) => Err(VaultError::Unavailable(why.into())),
        };
        all.push(tried);
    }
    Ok(all)
}

/// Until when it is good, by the configuration or the vault, whichever ends first.
fn expires(credential: &Credential, facts: &Facts) -> Option<Timestamp> {
    let renewed = matches!(credential.source, CredentialSource::Entra(_));
    [credential.expires, facts.expires.filter(|_| !renewed)].into_iter().flatten().min()
}

pub(in crate::cli) fn as_text(credential: &Credential, tried: &Result<Tried, VaultError>) -> String {
    let (name, vault) = (&credential.name, credential.source.giver());
    match tried {
        Ok(Tried { format, fingerprint, version, facts }) => {
            let version = version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
            let now = clock::timestamp();
            let expires =
                expires(credential, facts).map_or_else(String::new, |expires| match notice(expires, now) {
                    Some(notice) => format!(", {notice}"),
                    None => format!(", expires on {}", expires.strftime("%Y-%m-%d")),
                });
            let format = format.as_str();
            format!("{name}: ok, from vault {vault}: {format}, fingerprint {fingerprint}{version}{expires}")
        }
        Err(error) => format!("{name}: FAILED, vault {vault}: {error}"),
    }
}

pub(in crate::cli) fn as_json(
    credential: &Credential,
    tried: &Result<Tried, VaultError>,
) -> serde_json::Value {
    let (name, vault) = (&*credential.name, &*credential.source.giver());
    match tried {
        Ok(Tried { format, fingerprint, version, facts }) => {
            let format = match format {
                Format::New => "84",
                Format::Old => "52",
                Format::Entra => "entra",
                Format::Other => "other",
            };
            let expires = expires(credential, facts).map(|expires| format!("{expires:.0}"));
            json!({ "credential": name, "vault": vault, "usable": true, "format": format,
                "fingerprint": &**fingerprint, "version": version.as_deref(), "expires": expires })
        }
        Err(error) => {
            json!({ "credential": name, "vault": vault, "usable": false, "error": error.to_string() })
        }
    }
}
