//! `patgate explain`

use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use super::{fail, print};
use crate::{app::Snapshot, policy};

/// What `explain` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  patgate explain --config patgate.toml --from 10.20.1.4 GET /contoso/web/_apis/build/builds
  patgate explain --config patgate.toml --from 10.20.1.4 GET '/contoso/web/_git/web/info/refs?service=git-receive-pack'

Exit codes: 0 it would be allowed, 1 it would be refused, 78 the configuration is wrong.")]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The caller's address
    #[arg(long, value_name = "ADDRESS")]
    from: IpAddr,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The method
    method: String,
    /// Path and query, as they stand in a request to patgate
    target: String,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let snapshot = match Snapshot::read(&arguments.config, 1) {
        Ok(snapshot) => snapshot,
        Err(problems) => return fail(78, problems),
    };
    let explanation = policy::explain::explain(
        &snapshot.policy,
        &snapshot.clients,
        arguments.from,
        &arguments.method,
        &arguments.target,
    );
    if arguments.json {
        match serde_json::to_string(&explanation) {
            Ok(json) => print(json),
            Err(error) => return fail(70, error),
        }
    } else {
        print(&explanation);
    }
    ExitCode::from(u8::from(!explanation.allowed))
}
