//! The command line.

pub mod vault;
