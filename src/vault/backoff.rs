//! How long to wait before the next attempt.

use std::time::Duration;

use aws_lc_rs::rand;

/// Waits that double from `first` to `last`, the upper half of each by chance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) last: Duration,
}

impl Backoff {
    /// The wait after `before` failures that came before this one: never less than `first`, never more than `last`.
    pub(crate) fn wait(self, before: u32) -> Duration {
        let whole =
            self.first.saturating_mul(2_u32.saturating_pow(before.min(20).saturating_add(1))).min(self.last);
        let mut chance = [0; 1];
        // Without randomness the wait is the shortest, which is right as well.
        let _ = rand::fill(&mut chance);
        (whole / 2 + whole / 2 / 255 * u32::from(chance[0])).max(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_their_bounds() {
        let backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_mins(1) };
        for (before, least, most) in
            [(0, 1, 2), (1, 2, 4), (4, 16, 32), (5, 30, 60), (6, 30, 60), (u32::MAX, 30, 60)]
        {
            for _ in 0..50 {
                let wait = backoff.wait(before);
                assert!(
                    (Duration::from_secs(least)..=Duration::from_secs(most)).contains(&wait),
                    "{before}: {wait:?}"
                );
            }
        }
    }
}
