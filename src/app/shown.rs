//! What the admin listener shows of the whole process.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    admin, audit::Audit, limits::Counts, listener::Life, metrics::Metrics, rotation::Rotation, vault::Vaults,
};

/// What the admin listener shows.
pub(super) struct Shown {
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit: Audit,
    pub(super) vaults: Vaults,
    pub(super) rotation: Rotation,
    pub(super) counts: Arc<Counts>,
    pub(super) life: watch::Receiver<Life>,
}

impl admin::Shown for Shown {
    fn readiness(&self) -> admin::Readiness {
        let stopping = *self.life.borrow() != Life::Serving;
        let reasons = [(stopping, "stopping"), (!self.audit.is_available(), "audit-unavailable")];
        let reasons = reasons.into_iter().filter_map(|(holds, reason)| holds.then_some(reason)).collect();
        admin::Readiness::new(reasons, self.vaults.health())
    }

    fn metrics(&self) -> String {
        self.metrics.open(self.counts.connections(), self.counts.in_flight());
        self.metrics.audit(self.audit.statistics(), self.audit.is_available());
        self.metrics.credentials(&self.vaults.health());
        self.metrics.rotations(&self.rotation.standing());
        self.metrics.encode()
    }
}
