//! `patgate check`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    fail, print,
    vault::{Failure, test},
};
use crate::{
    app::{Snapshot, keep_to_ourselves},
    config::{Config, Problem},
    upstream, vault,
};

/// What `check` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  patgate check --config patgate.toml
  patgate check --config patgate.toml --online
  patgate check --config patgate.toml --json | jq .problems

With --online every credential is read from its vault, which is recorded in the audit, and nothing of it is printed; and
the hosts that the rules allow are connected to, without a request. Exit codes: 0 all is right, 69 a credential can't be
used or a host can't be reached, 78 the configuration is wrong.")]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Also read every credential from its vault, and connect to Azure DevOps' hosts
    #[arg(long)]
    online: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    keep_to_ourselves();
    let (problems, config) = match Snapshot::read(&arguments.config, 1) {
        Ok(snapshot) => (Vec::new(), Some(snapshot.config)),
        Err(problems) => (problems.0, None),
    };
    let online = match config.as_ref().filter(|_| arguments.online).map(reach).transpose() {
        Ok(online) => online,
        Err(Failure(code, text)) => return fail(code, text),
    };
    let warnings = config.as_ref().map(|config| &*config.warnings).unwrap_or_default();
    let code = match (&config, &online) {
        (None, _) => 78,
        (_, Some(online)) if !online.iter().all(|part| part.right) => 69,
        _ => 0,
    };
    if arguments.json {
        let list = |problems: &[Problem]| problems.iter().map(as_json).collect::<Vec<_>>();
        let (problems, warnings) = (list(&problems), list(warnings));
        print(match online {
            None => json!({ "problems": problems, "warnings": warnings }),
            Some(online) => {
                let online: Vec<_> = online.into_iter().map(|part| part.json).collect();
                json!({ "problems": problems, "warnings": warnings, "online": online })
            }
        });
        return ExitCode::from(code);
    }
    for warning in warnings {
        fail(0, format_args!("warning: {warning}"));
    }
    let Some(config) = &config else { return fail(78, crate::config::Problems(problems)) };
    print(summary(config));
    for part in online.into_iter().flatten() {
        print(part.text);
    }
    ExitCode::from(code)
}

fn summary(config: &Config) -> String {
    format!(
        "{}: right; {} clients, {} rules, {} credentials, {} expectations met",
        config.file.display(),
        config.clients.len(),
        config.rules.len(),
        config.credentials.len(),
        config.expects.len(),
    )
}

/// One thing that was tried.
struct Tried {
    right: bool,
    text: String,
    json: Value,
}

/// Reads every credential, and connects to the hosts.
fn reach(config: &Config) -> Result<Vec<Tried>, Failure> {
    let credentials: Vec<_> = config.credentials.values().map(|credential| &**credential).collect();
    let read = test::try_all(config, &credentials)?;
    let mut all: Vec<Tried> = credentials
        .iter()
        .zip(&read)
        .map(|(credential, tried)| Tried {
            right: tried.is_ok(),
            text: format!("credential {}", test::as_text(credential, tried)),
            json: test::as_json(credential, tried),
        })
        .collect();
    for (name, set_up) in unread(config) {
        let (text, error) = match &set_up {
            Ok(()) => (format!("vault {name}: not read, for no credential is in it"), None),
            Err(why) => (format!("vault {name}: FAILED: {why}"), Some(why)),
        };
        let json = json!({ "vault": &**name, "read": false, "error": error });
        all.push(Tried { right: set_up.is_ok(), text, json });
    }
    for (host, reached) in upstream::reach(config)? {
        let host = host.authority();
        all.push(match reached {
            Ok(()) => Tried {
                right: true,
                text: format!("host {host}: ok"),
                json: json!({ "host": host, "reached": true }),
            },
            Err(why) => Tried {
                right: false,
                text: format!("host {host}: FAILED: {why}"),
                json: json!({ "host": host, "reached": false, "error": &*why }),
            },
        });
    }
    Ok(all)
}

/// The vaults that no credential is in, and whether they can be set up, as every start does.
fn unread(config: &Config) -> impl Iterator<Item = (&Arc<str>, Result<(), String>)> {
    let read: Vec<_> = config.credentials.values().map(|credential| credential.source.giver()).collect();
    let unread = config.vaults.iter().filter(move |(name, _)| !read.contains(name));
    unread.map(|(name, vault)| (name, vault::source(vault, &config.outbound).map(drop)))
}

/// Everything that is wrong with a configuration, as text.
pub(super) fn whole(config: &Path) -> Result<(), String> {
    Snapshot::read(config, 1).map(drop).map_err(|problems| problems.to_string())
}

fn as_json(problem: &Problem) -> Value {
    json!({
        "file": *problem.place.file,
        "line": problem.place.line,
        "column": problem.place.column,
        "key": problem.key,
        "text": problem.text,
    })
}
