//! Tests that need an installation, root, or much time: `tests/run` installs, and runs them with
//! `--ignored`. `tests/long` runs the same with larger numbers.

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

#[path = "../it/load.rs"]
mod load;
#[path = "../it/rotation.rs"]
mod rotation;
#[path = "../it/support.rs"]
mod support;

mod aws;
mod disk;
mod failing;
mod faults;
mod forgotten;
mod hashicorp;
mod helpers;
mod memory;
mod moto;
mod openbao;
mod outages;
mod outbound;
mod rotated;
mod soak;
