//! Stub: one file a subcommand.
pub mod quickstart;
pub mod sample_org;
pub mod tour;

/// Stub.
pub(crate) fn fail(code: u8, message: impl std::fmt::Display) -> std::process::ExitCode {
    use std::io::Write;
    for line in message.to_string().lines() {
        let _ = writeln!(std::io::stderr(), "patgate: {line}");
    }
    std::process::ExitCode::from(code)
}
