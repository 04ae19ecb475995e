//! patgate
#![allow(dead_code, clippy::todo, unused, reason = "skeleton")]
pub mod app;
pub mod audit;
pub mod client;
pub mod clock;
pub mod config;
pub mod gate;
pub mod limits;
pub mod listener;
pub mod policy;
pub mod refusal;
pub mod stage;
pub mod upstream;
pub mod vault;
