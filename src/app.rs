//! From a configuration to running parts: the only wiring.

use crate::{client, config::Config, policy::Policy};

/// One configuration, compiled: what one request sees from start to end.
#[derive(Debug)]
pub struct Snapshot {
    /// The values.
    pub config: Config,
    /// The clients by address.
    pub clients: client::Table,
    /// The rules, compiled.
    pub policy: Policy,
    /// Counts reloads, from 1.
    pub generation: u64,
}
