//! `patgate audit verify` and `patgate audit tail`.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use crate::{
    audit::{
        tail::{Form, Tail},
        verify::{self, Chain, Verdict},
    },
    config::file,
};

/// A configuration that is wrong (`EX_CONFIG`).
const CONFIGURATION: u8 = 78;
/// A file that can't be read (`EX_IOERR`).
const FILES: u8 = 74;
/// How often a followed folder is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// What to do with an audit folder.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Prove that nothing in the audit was altered.
    ///
    /// Exit code: 0 intact; 1 the last record was not written whole; 2 something is known to be
    /// missing; 3 altered; 64 wrong arguments; 74 a file can't be read; 78 the configuration is wrong.
    #[command(
        after_help = "Examples:\n  patgate audit verify /var/lib/patgate/audit\n  patgate audit verify --config patgate.toml --json"
    )]
    Verify(VerifyArgs),
    /// Show the last records, and those that come.
    #[command(
        after_help = "Examples:\n  patgate audit tail --config patgate.toml -f\n  patgate audit tail audit --all --json | jq 'select(.kind == \"refusal\")'"
    )]
    Tail(TailArgs),
}

/// Which folder.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// The audit's folder
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    folder: Option<PathBuf>,
    /// The configuration that names it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    source: Source,
    /// Print one JSON object a chain
    #[arg(long)]
    json: bool,
}

/// The arguments of `tail`.
#[derive(Debug, clap::Args)]
pub struct TailArgs {
    #[command(flatten)]
    source: Source,
    /// How many records to begin with
    #[arg(short = 'n', value_name = "N", default_value_t = 10)]
    lines: usize,
    /// Show all there are
    #[arg(long, conflicts_with = "lines")]
    all: bool,
    /// Go on with those that come
    #[arg(short, long)]
    follow: bool,
    /// Print the records as they are stored, one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs the command; the exit code is as [`Command`] says.
#[must_use]
pub fn run(command: &Command) -> ExitCode {
    let mut out = io::stdout().lock();
    let done = match command {
        Command::Verify(args) => verify(args, &mut out),
        Command::Tail(args) => tail(args, &mut out).map(|()| 0),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // Whoever read had enough.
        Err(Stop::Io(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(stop) => {
            // There is nowhere left to say that this failed.
            let _ = writeln!(io::stderr(), "patgate: {stop}");
            ExitCode::from(stop.code())
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("{0}")]
    Configuration(String),
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, #[source] io::Error),
}

impl Stop {
    fn code(&self) -> u8 {
        match self {
            Self::Configuration(_) => CONFIGURATION,
            Self::Io(..) => FILES,
        }
    }
}

impl Source {
    fn folder(&self) -> Result<PathBuf, Stop> {
        match (&self.folder, &self.config) {
            (Some(folder), _) => Ok(folder.clone()),
            (None, Some(path)) => file::read(path)
                .map(|config| config.audit.folder)
                .map_err(|problems| Stop::Configuration(problems.to_string())),
            (None, None) => Err(Stop::Configuration("name the audit's folder, or --config FILE".to_owned())),
        }
    }
}

fn verify(args: &VerifyArgs, out: &mut dyn Write) -> Result<u8, Stop> {
    let folder = args.source.folder()?;
    let io = |error| Stop::Io(folder.clone(), error);
    let report = verify::verify(&folder).map_err(io)?;
    for chain in &report.chains {
        let line = if args.json { json(chain) } else { text(chain) };
        writeln!(out, "{line}").map_err(io)?;
    }
    Ok(report.code())
}

fn text(chain: &Chain) -> String {
    let live = if chain.live { ", being written" } else { "" };
    let counts = format!(
        "{} records ({} intents, {} outcomes) in {} segments{live}",
        chain.records, chain.intents, chain.outcomes, chain.segments
    );
    let verdict = match &chain.verdict {
        Verdict::Intact => "intact".to_owned(),
        Verdict::Torn { segment, offset, bytes } => format!(
            "torn: the last {bytes} bytes of {}, from byte {offset}, are no whole record; the next start of patgate cuts them off and records it",
            segment.display()
        ),
        Verdict::Gap(gaps) => format!("gap: {}", gaps.join("; ")),
        Verdict::Altered { segment, offset, seq, what } => {
            format!("ALTERED: {}, byte {offset}, record {seq}: {what}", segment.display())
        }
    };
    let good = match chain.verdict {
        // What stands before the place is proved.
        Verdict::Altered { seq, .. } => {
            format!("{} records before it are good", chain.records.min(seq.saturating_sub(1)))
        }
        _ => counts,
    };
    format!("{}: {verdict}; {good}", chain.folder.display())
}

fn json(chain: &Chain) -> String {
    let mut value = serde_json::json!({
        "chain": chain.folder.file_name().map(|name| name.to_string_lossy()),
        "id": chain.id,
        "live": chain.live,
        "verdict": chain.verdict.as_str(),
        "segments": chain.segments,
        "records": chain.records,
        "intents": chain.intents,
        "outcomes": chain.outcomes,
        "last-seq": chain.last,
    });
    let mut add = |key: &str, with: serde_json::Value| {
        if let Some(fields) = value.as_object_mut() {
            fields.insert(key.to_owned(), with);
        }
    };
    match &chain.verdict {
        Verdict::Intact => {}
        Verdict::Torn { segment, offset, bytes } => {
            add("segment", segment.display().to_string().into());
            add("offset", (*offset).into());
            add("bytes", (*bytes).into());
        }
        Verdict::Gap(gaps) => add("gaps", gaps.clone().into()),
        Verdict::Altered { segment, offset, seq, what } => {
            add("segment", segment.display().to_string().into());
            add("offset", (*offset).into());
            add("seq", (*seq).into());
            add("what", what.clone().into());
        }
    }
    value.to_string()
}

fn tail(args: &TailArgs, out: &mut dyn Write) -> Result<(), Stop> {
    let folder = args.source.folder()?;
    let io = |error| Stop::Io(folder.clone(), error);
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let form = if args.json { Form::Json } else { Form::Text { colour } };
    let mut tail = Tail::new(&folder, form);
    tail.last((!args.all).then_some(args.lines), out).map_err(io)?;
    if args.follow {
        loop {
            std::thread::sleep(LOOK);
            tail.more(out).map_err(io)?;
        }
    }
    for place in tail.unreadable() {
        let what = "there are bytes that are no record; `patgate audit verify` says more";
        writeln!(io::stderr(), "patgate: {place}: {what}").map_err(io)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn the_arguments_name_one_folder() {
        for (line, right) in [
            ("audit verify folder", true),
            ("audit verify --config patgate.toml --json", true),
            ("audit verify", false),
            ("audit verify folder --config patgate.toml", false),
            ("audit tail folder -n 5 -f --json", true),
            ("audit tail folder --all", true),
            ("audit tail folder --all -n 5", false),
            ("audit tail folder -n -1", false),
        ] {
            assert_eq!(Line::try_parse_from(line.split(' ')).is_ok(), right, "{line}");
        }
    }

    #[test]
    fn a_flipped_byte_is_pointed_at() {
        let outer = tempfile::tempdir().unwrap();
        let config = crate::config::Audit {
            folder: outer.path().to_owned(),
            durability: crate::config::Durability::Os,
            segment_size: 1 << 20,
            segment_age: Duration::from_hours(1),
            reserve: 0,
        };
        let audit = crate::audit::Audit::open(&config, false).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for reason in ["one", "two", "three"] {
            runtime.block_on(audit.event(crate::audit::Event::Stop { reason })).unwrap();
        }
        audit.close(Duration::from_secs(20));
        let args =
            |json| VerifyArgs { source: Source { folder: Some(outer.path().into()), config: None }, json };
        let mut out = Vec::new();
        assert_eq!(verify(&args(false), &mut out).unwrap(), 0);
        assert!(String::from_utf8(out).unwrap().contains("intact; 3 records"));
        let path = outer.path().join("chain-1/000001.seg");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(3).position(|window| window == b"two").unwrap();
        bytes[at] = b'T';
        std::fs::write(&path, bytes).unwrap();
        let mut out = Vec::new();
        assert_eq!(verify(&args(false), &mut out).unwrap(), 3);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("ALTERED") && text.contains("record 2: "), "{text}");
        let mut out = Vec::new();
        assert_eq!(verify(&args(true), &mut out).unwrap(), 3);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&value["verdict"], &value["seq"]), (&"altered".into(), &2.into()));
        let missing = Source { folder: Some(outer.path().join("none")), config: None };
        let stop = verify(&VerifyArgs { source: missing, json: false }, &mut Vec::new()).unwrap_err();
        assert_eq!(stop.code(), FILES);
    }
}
