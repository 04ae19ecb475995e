//! Integration tests: the real binary, real git and curl, and a sample organisation on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::format_collect,
    clippy::similar_names,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    dead_code,
    reason = "a test stops where something is not as it should be; `support` is shared by two binaries"
)]

mod support;

mod attacks;
mod audit;
mod choice;
mod crash;
mod credentials;
mod failure;
mod git;
mod handover;
mod load;
mod printed;
mod readme;
mod reference;
mod reload;
mod requests;
mod rotation;
mod start;
