//! Stub: one file a subcommand.
pub mod quickstart;
pub mod sample_org;
pub mod tour;
