//! Tests that need an installation, root, or much time: `tests/run` installs, and runs them with
//! `--ignored`. `tests/long` runs the same with larger numbers.

#[path = "../it/support.rs"]
mod support;

mod disk;
mod memory;
mod outbound;
