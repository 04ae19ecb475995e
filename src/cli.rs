//! The command line: one file a subcommand.
//!
//! Exit codes follow `sysexits.h`: 0 done, 1 a clear "no" (`explain` refused), 64 usage, 65 an
//! altered audit, 69 an address is taken or a service can't be reached, 71 the system refused,
//! 73 a file can't be made, 75 another patgate is using the audit or the state, 77 not permitted, 78 the configuration
//! is wrong.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};

pub mod audit;
pub mod check;
pub mod credential;
pub mod explain;
pub mod quickstart;
pub mod sample_org;
pub mod serve;
pub mod tour;
pub mod vault;

/// Nobody holds a token, and every use of one is on record.
///
/// patgate is an authenticating reverse proxy between internal tools and Azure DevOps: it knows
/// clients by address, applies rules, adds a token from a vault, and records every use.
#[derive(Debug, Parser)]
#[command(name = "patgate", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  patgate quickstart --sample                       try it: no account is needed
  patgate quickstart --organization contoso         a running proxy for an organization
  patgate serve --config patgate.toml               run it
  patgate check --config patgate.toml               is the configuration right?
  patgate explain --config patgate.toml --from 10.20.1.4 GET /contoso/web/_apis/build/builds
  patgate audit tail --config patgate.toml -f       watch every use";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    Serve(serve::Arguments),
    /// Read a configuration and run its policy tests; exit 0 or 78
    Check(check::Arguments),
    /// Say which client, rule and credential a request would meet, and why; exit 0 allowed, 1 refused
    Explain(explain::Arguments),
    /// From nothing to a running proxy
    Quickstart(quickstart::Arguments),
    /// Run the sample organization alone
    SampleOrg(sample_org::Arguments),
    /// The local sealed vault, and tests of any configured secret
    #[command(subcommand)]
    Vault(vault::Command),
    /// Look at the credentials of a running patgate, and change what is used
    #[command(subcommand)]
    Credential(credential::Command),
    /// Read the audit
    #[command(subcommand)]
    Audit(audit::Command),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder; it must exist
        folder: PathBuf,
    },
}

/// Parses the arguments, does what they say, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Quickstart(arguments) => quickstart::run(&arguments, check::whole, serve::quietly),
        Command::SampleOrg(arguments) => sample_org::run(&arguments),
        Command::Vault(command) => vault::run(command),
        Command::Credential(command) => credential::run(&command),
        Command::Audit(command) => audit::run(&command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "patgate", &mut io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man { folder } => match clap_mangen::generate_to(Arguments::command(), &folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(73, format_args!("{}: {error}", folder.display())),
        },
    }
}

/// Prints one line to standard error and gives the exit code. Each line is marked as patgate's.
pub(crate) fn fail(code: u8, message: impl std::fmt::Display) -> ExitCode {
    let mut stderr = io::stderr().lock();
    for line in message.to_string().lines() {
        let _ = writeln!(stderr, "patgate: {line}");
    }
    ExitCode::from(code)
}

/// Prints to standard output; a reader that left (`| head`) is no error.
pub(crate) fn print(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}
