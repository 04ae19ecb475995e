//! The only reader of time.

use std::time::{Instant, SystemTime};

/// The monotonic clock: tokio's, so that a test that pauses time pauses it here as well.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
