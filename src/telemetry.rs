//! The log: what operators read while patgate runs. Not the audit, which is the record.
//!
//! Lines go to standard error, for people or as JSON. What is logged is chosen by `PATGATE_LOG`
//! (`info`, `patgate=debug`, …). It must never hold a secret, so a panic is logged by its place
//! alone: its message may quote what was being worked on.

use std::{
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// The environment variable that chooses what is logged.
pub const VARIABLE: &str = "PATGATE_LOG";

/// Never logged: the AWS SDK quotes lines of `~/.aws` that it can't read, and such a line may be a key. Nor that it
/// can't close a connection after an error of AWS, which it logs as an error: connections are not its own here.
const SILENT: &str = "aws_runtime::env_config=off,aws_smithy_runtime::client::http::connection_poisoning=off";

/// In which form lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For people; in colour on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `PATGATE_LOG` can't be read.
    #[error("{VARIABLE}: {0}; for example \"info\" or \"patgate=debug\" would be right")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// There is one already.
    #[error("the log is set up already")]
    Twice,
}

/// Starts the log on standard error, with `filter` as `PATGATE_LOG` holds it (`info` where it is
/// absent or empty), and logs panics by their place. Once in a process.
///
/// # Errors
/// See [`LogError`].
pub fn start(form: Form, filter: Option<&str>) -> Result<(), LogError> {
    let colour = io::stderr().is_terminal();
    subscriber(form, filter, colour, io::stderr)?.try_init().map_err(|_| LogError::Twice)?;
    panic::set_hook(Box::new(panicked));
    Ok(())
}

fn subscriber<W>(
    form: Form,
    filter: Option<&str>,
    colour: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = filter.filter(|text| !text.trim().is_empty()).unwrap_or("info");
    let lines = fmt::layer().with_writer(writer).with_ansi(colour && form == Form::Human);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match form {
        Form::Human => lines.boxed(),
        Form::Json => lines.json().flatten_event(true).boxed(),
    };
    Ok(tracing_subscriber::registry()
        .with(lines.with_filter(EnvFilter::try_new(format!("{filter},{SILENT}"))?)))
}

fn panicked(info: &PanicHookInfo<'_>) {
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        place,
        thread = thread.name().unwrap_or("unnamed"),
        "a panic: this is a fault of patgate's"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(form: Form, filter: Option<&str>, colour: bool, what: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(form, filter, colour, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, what);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn info_is_logged_unless_another_level_is_asked_for() {
        for (filter, expected) in
            [(None, 1), (Some(""), 1), (Some("info"), 1), (Some("debug"), 2), (Some("off"), 0)]
        {
            let text = logged(Form::Human, filter, false, || {
                tracing::info!(credential = "web", "taken");
                tracing::debug!("more");
            });
            assert_eq!(text.lines().count(), expected, "{filter:?}: {text}");
        }
    }

    #[test]
    fn what_may_quote_a_key_is_not_logged_at_any_level() {
        for filter in [None, Some("trace"), Some("aws_runtime=trace")] {
            let text = logged(Form::Human, filter, false, || {
                tracing::warn!(target: "aws_runtime::env_config::normalize", "`canary` ignored");
                tracing::error!(target: "aws_runtime::auth", "told");
            });
            assert!(
                !text.contains("canary") && (filter.is_none() || text.contains("told")),
                "{filter:?}: {text}"
            );
        }
    }

    #[test]
    fn a_line_of_json_is_one_object() {
        let text = logged(Form::Json, None, true, || tracing::info!(credential = "web", "taken\nover"));
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["credential"], "web");
        assert_eq!(object["message"], "taken\nover");
    }

    #[test]
    fn colours_are_for_terminals_alone() {
        assert!(!logged(Form::Human, None, false, || tracing::info!("taken")).contains('\u{1b}'));
        assert!(logged(Form::Human, None, true, || tracing::info!("taken")).contains('\u{1b}'));
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_a_sentence() {
        let Err(error) = subscriber(Form::Human, Some("patgate=loud"), false, io::sink) else {
            panic!("it was read");
        };
        assert!(error.to_string().starts_with("PATGATE_LOG: "), "{error}");
    }

    #[test]
    fn a_panic_is_logged_by_its_place_without_its_message() {
        let text = logged(Form::Human, None, false, || {
            let before = panic::take_hook();
            panic::set_hook(Box::new(panicked));
            let caught = panic::catch_unwind(|| panic!("canary-of-a-secret"));
            panic::set_hook(before);
            assert!(caught.is_err());
        });
        assert!(text.contains("src/telemetry.rs:"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}
