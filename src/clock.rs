//! The only reader of time.

use std::time::{Instant, SystemTime};

/// The monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
