//! `patgate serve`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::fail;
use crate::{app, telemetry};

/// What `serve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  patgate serve --config /etc/patgate/patgate.toml
  PATGATE_LOG=warn patgate serve --config patgate.toml --log json

Signals: SIGHUP reads the configuration again (it is also noticed by itself). SIGUSR1 reads all
credentials from their vaults. SIGTERM or SIGINT
stops: new connections are taken for `drain-delay` more, then requests under way have `drain` to
end. Each further signal ends the wait that is under way.")]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The form of the log, which goes to standard error
    #[arg(long, value_name = "FORM", default_value = "human")]
    log: telemetry::Form,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    if let Err(code) = log(arguments.log) {
        return code;
    }
    serve(&arguments.config)
}

/// Starts the log as `PATGATE_LOG` wants it.
pub(super) fn log(form: telemetry::Form) -> Result<(), ExitCode> {
    let filter = std::env::var(telemetry::VARIABLE).ok();
    telemetry::start(form, filter.as_deref()).map_err(|error| fail(64, error))
}

/// [`serve`] with a log of warnings only: somebody else has told the user where it listens.
pub(super) fn quietly(config: &Path) -> ExitCode {
    let filter = std::env::var(telemetry::VARIABLE).unwrap_or_else(|_| "warn".into());
    match telemetry::start(telemetry::Form::Human, Some(&filter)) {
        Ok(()) => serve(config),
        Err(error) => fail(64, error),
    }
}

/// Runs until told to stop.
#[must_use]
pub fn serve(config: &Path) -> ExitCode {
    let started = |addresses: &[std::net::SocketAddr]| {
        for address in addresses {
            tracing::info!(%address, "listening");
        }
    };
    match app::run(config, started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), error),
    }
}
