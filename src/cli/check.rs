//! `patgate check`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{fail, print};
use crate::{app::Snapshot, config::Problem};

/// What `check` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  patgate check --config patgate.toml
  patgate check --config patgate.toml --json | jq .problems")]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (problems, warnings, summary) = match Snapshot::read(&arguments.config, 1) {
        Ok(snapshot) => {
            let config = snapshot.config;
            let summary = format!(
                "{}: right; {} clients, {} rules, {} credentials, {} expectations met",
                config.file.display(),
                config.clients.len(),
                config.rules.len(),
                config.credentials.len(),
                config.expects.len(),
            );
            (Vec::new(), config.warnings, Some(summary))
        }
        Err(problems) => (problems.0, Vec::new(), None),
    };
    if arguments.json {
        let list = |problems: &[Problem]| problems.iter().map(as_json).collect::<Vec<_>>();
        print(serde_json::json!({ "problems": list(&problems), "warnings": list(&warnings) }));
        return ExitCode::from(if problems.is_empty() { 0 } else { 78 });
    }
    for warning in &warnings {
        fail(0, format_args!("warning: {warning}"));
    }
    match summary {
        Some(summary) => {
            print(summary);
            ExitCode::SUCCESS
        }
        None => fail(78, crate::config::Problems(problems)),
    }
}

/// Everything that is wrong with a configuration, as text.
pub(super) fn whole(config: &Path) -> Result<(), String> {
    Snapshot::read(config, 1).map(drop).map_err(|problems| problems.to_string())
}

fn as_json(problem: &Problem) -> serde_json::Value {
    serde_json::json!({
        "file": *problem.place.file,
        "line": problem.place.line,
        "column": problem.place.column,
        "key": problem.key,
        "text": problem.text,
    })
}
