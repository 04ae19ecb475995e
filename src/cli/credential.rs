//! `patgate credential`: asks a running patgate, over its admin socket.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{fail, print};
use crate::config::socket_of;

mod ask;
mod table;

use ask::{Unasked, ask};

/// A clear "no": there is no such credential, or its vault gave none.
const NO: u8 = 1;
/// `EX_UNAVAILABLE`: nobody answers, or patgate can't at present.
const UNAVAILABLE: u8 = 69;
/// `EX_NOPERM`
const FORBIDDEN: u8 = 77;
/// `EX_CONFIG`
const CONFIGURATION: u8 = 78;

/// What `patgate credential` can do.
///
/// Exit codes: 0 done; 1 there is no such credential, or its vault gave none; 64 wrong arguments; 69 no patgate answers
/// there, or it can't at present; 77 this user may not; 78 the configuration is wrong, or names no socket.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print all credentials and their states
    #[command(after_help = "Examples:
  patgate credential list --config patgate.toml
  patgate credential list --socket /run/patgate/admin.sock --json | jq '.credentials[] | select(.state != \"valid\")'")]
    List(List),
    /// Read a credential from its vault now
    #[command(after_help = "Examples:
  patgate credential refresh web-read --config patgate.toml
  patgate credential refresh --all --config patgate.toml")]
    Refresh(Refresh),
    /// Take a credential out of use, from the next request on
    #[command(after_help = "Examples:
  patgate credential disable web-read --reason 'it stands in a build log' --config patgate.toml
  patgate credential disable web-read --reason 'it leaked' --cut --config patgate.toml")]
    Disable(Disable),
    /// Let a credential be used again
    Enable(Enable),
}

/// Where the running patgate is.
#[derive(Debug, Args)]
struct Place {
    /// The configuration that names the socket
    #[arg(long, value_name = "FILE", required_unless_present = "socket", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// The admin socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print what patgate answers, one JSON object
    #[arg(long)]
    json: bool,
}

/// `patgate credential list`
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    place: Place,
}

/// `patgate credential refresh`
#[derive(Debug, Args)]
pub struct Refresh {
    /// The credential
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    place: Place,
}

/// `patgate credential disable`
#[derive(Debug, Args)]
pub struct Disable {
    /// The credential
    name: String,
    /// Why; it stands in the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Also break off the requests under way that use it
    #[arg(long)]
    cut: bool,
    #[command(flatten)]
    place: Place,
}

/// `patgate credential enable`
#[derive(Debug, Args)]
pub struct Enable {
    /// The credential
    name: String,
    /// Why; it stands in the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    place: Place,
}

/// Why a command did not do what it was to do: an exit code and a sentence.
#[derive(Debug)]
struct Failure(u8, String);

pub(super) fn run(command: &Command) -> ExitCode {
    match carry_out(command) {
        Ok(code) => ExitCode::from(code),
        Err(Failure(code, text)) => fail(code, text),
    }
}

fn carry_out(command: &Command) -> Result<u8, Failure> {
    match command {
        Command::List(List { place }) => {
            let said = place.ask(&Method::GET, "credentials", &Value::Null)?;
            place.show(&said, |said| table::credentials(said, io::stdout().is_terminal()));
            Ok(0)
        }
        Command::Refresh(Refresh { name, place, .. }) => {
            let path = name.as_ref().map_or_else(|| "refresh".into(), |name| of(name, "refresh"));
            let said = place.ask(&Method::POST, &path, &Value::Null)?;
            place.show(&said, table::reads);
            Ok(if table::each_read(&said).iter().all(|read| read.get("read") == Some(&Value::Bool(true))) {
                0
            } else {
                NO
            })
        }
        Command::Disable(Disable { name, reason, cut, place }) => {
            let body = json!({ "reason": reason, "cut": cut });
            let said = place.ask(&Method::POST, &of(name, "disable"), &body)?;
            place.show(&said, |_| format!("{name} is disabled from the next request on"));
            if said.get("kept") == Some(&Value::Bool(false)) {
                fail(0, "warning: only until that process ends, for its configuration has no [state] folder");
            }
            Ok(0)
        }
        Command::Enable(Enable { name, reason, place }) => {
            let said = place.ask(&Method::POST, &of(name, "enable"), &json!({ "reason": reason }))?;
            place.show(&said, |_| format!("{name} may be used again"));
            Ok(0)
        }
    }
}

/// The path of an operation on one credential.
fn of(name: &str, operation: &str) -> String {
    format!("credentials/{}/{operation}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

impl Place {
    fn socket(&self) -> Result<PathBuf, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let path = self.config.as_deref().unwrap_or(Path::new(""));
        let socket = socket_of(path).map_err(|problem| Failure(CONFIGURATION, problem))?;
        socket.ok_or_else(|| {
            let text = "has no [admin] socket; add socket = \"/run/patgate/admin.sock\" and restart patgate";
            Failure(CONFIGURATION, format!("{} {text}", path.display()))
        })
    }

    fn ask(&self, method: &Method, path: &str, body: &Value) -> Result<Value, Failure> {
        let socket = self.socket()?;
        let at = socket.display();
        let (status, said) = ask(&socket, method, path, body).map_err(|unasked| match unasked {
            Unasked::Absent => {
                Failure(UNAVAILABLE, format!("no patgate answers at {at}; is it running, with this [admin] socket?"))
            }
            Unasked::Forbidden => Failure(FORBIDDEN, format!(
                "this user may not use {at}; run this as root or as patgate's user, or as one of [admin] admins"
            )),
            Unasked::Failed(why) => Failure(UNAVAILABLE, format!("{at}: {why}")),
        })?;
        let error =
            said.get("error").and_then(Value::as_str).unwrap_or("patgate's answer can't be read").to_owned();
        match status {
            StatusCode::OK => Ok(said),
            StatusCode::FORBIDDEN => Err(Failure(
                FORBIDDEN,
                format!("{error}; run this as one of them, or add this user to `admins` and restart patgate"),
            )),
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::CONFLICT => Err(Failure(NO, error)),
            _ => Err(Failure(UNAVAILABLE, error)),
        }
    }

    fn show(&self, said: &Value, as_text: impl FnOnce(&Value) -> String) {
        if self.json {
            print(said);
        } else {
            print(as_text(said));
        }
    }
}
