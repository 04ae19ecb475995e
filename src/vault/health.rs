//! What may be said of a credential: its state, since when, and until when it is good.

use std::{fmt, sync::Arc};

use jiff::{SignedDuration, Timestamp};

/// From so long before its known expiry a credential is `expiring`.
pub const NOTICE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The state of a credential. The words are those of metrics, `/readyz` and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Read, and in use or ready for it.
    Valid,
    /// As valid; its known expiry is less than 14 days away.
    Expiring,
    /// Its expiry, as the configuration has it, is past. It is used until Azure DevOps rejects it.
    Expired,
    /// Kept past its time, for the vault is silent.
    Stale,
    /// Azure DevOps refuses the value that the vault gives.
    Rejected,
    /// There is no value, and the vault does not answer.
    Unreachable,
    /// The vault says that there is none, or gives what is no token.
    Missing,
    /// Not read yet.
    Unused,
    /// An operator took it out of use.
    Disabled,
}

impl State {
    /// Every state there is.
    pub const ALL: [Self; 9] = [
        Self::Valid,
        Self::Expiring,
        Self::Expired,
        Self::Stale,
        Self::Rejected,
        Self::Unreachable,
        Self::Missing,
        Self::Unused,
        Self::Disabled,
    ];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Stale => "stale",
            Self::Rejected => "rejected",
            Self::Unreachable => "unreachable",
            Self::Missing => "missing",
            Self::Unused => "unused",
            Self::Disabled => "disabled",
        }
    }

    /// Whether nobody has to do anything.
    #[must_use]
    pub fn is_sound(self) -> bool {
        matches!(self, Self::Valid | Self::Unused)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The health of one credential. It has no place for a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its name.
    pub credential: Arc<str>,
    /// Its state.
    pub state: State,
    /// Since when it is in this state, to a second.
    pub since: Timestamp,
    /// The version in use, as the vault calls it, else its fingerprint.
    pub version: Option<Arc<str>>,
    /// When the value in use was read from the vault.
    pub read: Option<Timestamp>,
    /// Until when it is known to be good: by the configuration or the vault, whichever ends first. Tokens that are
    /// renewed by themselves have none.
    pub expires: Option<Timestamp>,
    /// The version before the present one is in use, until then at the latest.
    pub previous_until: Option<Timestamp>,
    /// What the vault, or Azure DevOps, said last, where that was no value.
    pub detail: Option<Arc<str>>,
}

impl Health {
    /// Where it expires within [`NOTICE`], or has: how long that is away, in words.
    #[must_use]
    pub fn notice(&self, now: Timestamp) -> Option<String> {
        notice(self.expires?, now)
    }
}

/// Whether an expiry is near or past, in words.
#[must_use]
pub fn notice(expires: Timestamp, now: Timestamp) -> Option<String> {
    let left = expires.duration_since(now);
    if left > NOTICE {
        return None;
    }
    let day = expires.strftime("%Y-%m-%d");
    Some(match left.as_hours() {
        _ if !left.is_positive() => format!("expired on {day}"),
        0 => format!("expires on {day}, within the hour"),
        hours @ 1..48 => format!("expires on {day}, in {hours} h"),
        hours => format!("expires on {day}, in {} days", hours / 24),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_told_from_fourteen_days_before() {
        let now: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
        for (expires, told) in [
            ("2026-11-15T12:00:01Z", None),
            ("2026-11-15T12:00:00Z", Some("expires on 2026-11-15, in 14 days")),
            ("2026-11-04T11:00:00Z", Some("expires on 2026-11-04, in 2 days")),
            ("2026-11-03T11:00:00Z", Some("expires on 2026-11-03, in 47 h")),
            ("2026-11-01T12:30:00Z", Some("expires on 2026-11-01, within the hour")),
            ("2026-11-01T12:00:00Z", Some("expired on 2026-11-01")),
            ("2026-10-31T12:00:00Z", Some("expired on 2026-10-31")),
        ] {
            assert_eq!(notice(expires.parse().unwrap(), now).as_deref(), told, "{expires}");
        }
    }

    #[test]
    fn each_state_has_a_word_of_its_own() {
        let words: std::collections::BTreeSet<_> = State::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(words.len(), State::ALL.len());
    }
}
