//! patgate
#![allow(dead_code, clippy::todo, unused, reason = "skeleton")]
pub mod admin;
pub mod answer;
pub mod app;
pub mod audit;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod gate;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod policy;
pub mod refusal;
pub mod sample;
pub mod stage;
pub mod telemetry;
pub mod vault;
