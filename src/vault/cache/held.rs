//! A value where workers look for it, and how it ends there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use moka::Expiry;

use crate::{clock, vault::Token};

/// A value that may be used.
#[derive(Debug)]
pub(in crate::vault) struct Held {
    pub(in crate::vault) token: Arc<Token>,
    /// As the vault calls it, else the fingerprint.
    pub(in crate::vault) version: Arc<str>,
    pub(super) read: Instant,
    pub(super) fresh: Duration,
    pub(super) ends: Instant,
}

/// How a value stands in moka, which lets go of what it lost when it comes by: emptied, nothing lingers there.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) held: ArcSwapOption<Held>,
    pub(super) ends: Instant,
}

/// The one hand on a value that ends it, wherever else it still stands: its cell is empty from then on, and the value
/// goes with the last request that took it before.
#[derive(Debug)]
pub(in crate::vault) struct Hand(pub(super) Arc<Cell>);

impl Drop for Hand {
    fn drop(&mut self) {
        self.0.held.store(None);
    }
}

impl Held {
    /// Whether it may be used at all.
    pub(super) fn is_kept(&self) -> bool {
        clock::now() < self.ends
    }
}

/// moka's own clock ends a value even where nobody looks after it.
pub(super) struct Keep;

impl Expiry<u64, Arc<Cell>> for Keep {
    fn expire_after_create(&self, _: &u64, cell: &Arc<Cell>, _: Instant) -> Option<Duration> {
        Some(cell.ends.saturating_duration_since(clock::now()))
    }
    fn expire_after_update(
        &self,
        _: &u64,
        cell: &Arc<Cell>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(cell.ends.saturating_duration_since(clock::now()))
    }
}
