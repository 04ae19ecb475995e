//! `patgate vault test`, and the part of `patgate check --online` that reads credentials.

use std::{io::Write, path::PathBuf, time::Duration};

use serde_json::json;

use super::{Failure, UNAVAILABLE, wrong};
use crate::{
    audit::Audit,
    clock,
    config::{self, Config, Credential},
    vault::{
        Facts, FingerprintKey, VaultError,
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
    /// One JSON object a line: credential, vault, usable, and format, fingerprint, version, notBefore, expires, or error
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
        all.push(tried.and_then(in_time));
    }
    Ok(all)
}

/// What the vault itself says is past, or not yet there, is of no use.
fn in_time(tried: Tried) -> Result<Tried, VaultError> {
    let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    match tried.facts {
        Facts { expires: Some(end), .. } if end <= now => {
            Err(VaultError::Unusable(format!("it expired on {end}").into()))
        }
        Facts { not_before: Some(begin), .. } if begin > now => {
            Err(VaultError::Unusable(format!("it is not valid before {begin}").into()))
        }
        _ => Ok(tried),
    }
}

pub(in crate::cli) fn as_text(credential: &Credential, tried: &Result<Tried, VaultError>) -> String {
    let (name, vault) = (&credential.name, credential.source.giver());
    match tried {
        Ok(Tried { format, fingerprint, version, facts }) => {
            let version = version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
            let expires = facts.expires.map(|end| format!(", expires {end}")).unwrap_or_default();
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
                Format::Other => "other",
            };
            let text = |moment: Option<jiff::Timestamp>| moment.map(|moment| moment.to_string());
            json!({ "credential": name, "vault": vault, "usable": true, "format": format,
                "fingerprint": &**fingerprint, "version": version.as_deref(),
                "notBefore": text(facts.not_before), "expires": text(facts.expires) })
        }
        Err(error) => {
            json!({ "credential": name, "vault": vault, "usable": false, "error": error.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_past_or_not_yet_there_is_not_usable() {
        let moment = |text: &str| Some(text.parse().unwrap());
        let (past, future) = (moment("2020-01-01T00:00:00Z"), moment("2099-01-01T00:00:00Z"));
        for (not_before, expires, said) in [
            (None, None, None),
            (past, future, None),
            (past, past, Some("it expired on 2020-01-01T00:00:00Z")),
            (future, None, Some("it is not valid before 2099-01-01T00:00:00Z")),
        ] {
            let facts = Facts { not_before, expires };
            let tried = Tried { format: Format::New, fingerprint: "f".into(), version: None, facts };
            let error = in_time(tried).err().map(|error| error.to_string());
            assert_eq!(error.is_some(), said.is_some());
            assert!(said.is_none_or(|said| error.is_some_and(|error| error.ends_with(said))), "{said:?}");
        }
    }
}
