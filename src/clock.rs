//! The only reader of time.

use std::time::{Instant, SystemTime};

use jiff::Timestamp;

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

/// The wall clock, as records write it: the epoch where it shows what no timestamp can. Where something has an end,
/// [`wall`] lets that be decided otherwise.
#[must_use]
pub fn timestamp() -> Timestamp {
    Timestamp::try_from(wall()).unwrap_or(Timestamp::UNIX_EPOCH)
}
