//! Refusals under flood: the first few of a kind are written one by one, the rest of that second
//! as one record with a count, so that whoever is refused can't fill the disk.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

/// How many of a kind are written one by one in a second.
const FIRST: u32 = 4;
/// How many kinds are told apart in a second; beyond, only reasons are.
const KINDS: usize = 256;

/// What makes two refusals the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The record's kind.
    pub(crate) kind: &'static str,
    /// Who was refused.
    pub(crate) address: Option<IpAddr>,
    /// Under which name.
    pub(crate) client: Option<Arc<str>>,
    /// A refusal's code, or the name of an ending.
    pub(crate) reason: &'static str,
    /// Whether `reason` is a refusal's code.
    pub(crate) refused: bool,
}

/// Counts what is not written one by one. Each refusal is either written by the caller or in a
/// count, never both.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    second: u64,
    tallies: HashMap<Key, Tally>,
    overflow: HashMap<Key, u64>,
}

#[derive(Debug, Default)]
struct Tally {
    written: u32,
    held: u64,
}

impl Flood {
    /// Whether another second has begun, so that what is held should be drained.
    pub(crate) fn is_due(&self, second: u64) -> bool {
        second != self.second && !self.is_empty()
    }

    /// Whether nothing is held or remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.tallies.is_empty() && self.overflow.is_empty()
    }

    /// Whether the caller is to write this one. Otherwise it is counted here. `hold`: nothing can
    /// be written at present.
    pub(crate) fn admit(&mut self, mut key: Key, second: u64, hold: bool) -> bool {
        if self.is_empty() {
            self.second = second;
        }
        if self.tallies.len() >= KINDS && !self.tallies.contains_key(&key) {
            key.address = None;
            key.client = None;
            // As many as there are reasons.
            *self.overflow.entry(key).or_default() += 1;
            return false;
        }
        let tally = self.tallies.entry(key).or_default();
        if !hold && tally.written < FIRST {
            tally.written += 1;
            return true;
        }
        tally.held += 1;
        false
    }

    /// Gives out what is held, with counts, and begins anew.
    pub(crate) fn drain(&mut self) -> Vec<(Key, u64)> {
        let tallies = self.tallies.drain().map(|(key, tally)| (key, tally.held));
        tallies.chain(self.overflow.drain()).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: [u8; 4], reason: &'static str) -> Key {
        Key { kind: "refusal", address: Some(IpAddr::from(address)), client: None, reason, refused: true }
    }

    #[test]
    fn every_refusal_is_counted_once() {
        // (kinds, refusals of each) → (written one by one, records of counts at most)
        for (kinds, each, written, records) in
            [(1, 3, 3, 0), (1, 1000, 4, 1), (10, 10, 40, 10), (256, 4, 1024, 0), (1000, 5, 1024, 257)]
        {
            let mut flood = Flood::default();
            let mut alone = 0;
            for n in 0..each {
                for kind in 0..kinds {
                    let [a, b, ..] = u32::to_le_bytes(kind);
                    assert!(!flood.is_due(7), "{n}");
                    alone += u64::from(flood.admit(key([10, 0, b, a], "no-rule"), 7, false));
                }
            }
            let held = flood.drain();
            assert_eq!(alone, written);
            assert!(held.len() <= records, "{}", held.len());
            let counted: u64 = held.iter().map(|(_, count)| count).sum();
            assert_eq!(alone + counted, u64::from(kinds) * each);
            assert!(flood.is_empty());
        }
    }

    #[test]
    fn nothing_is_written_one_by_one_while_nothing_can_be_written() {
        let mut flood = Flood::default();
        for _ in 0..10 {
            assert!(!flood.admit(key([10, 0, 0, 1], "audit-unavailable"), 1, true));
        }
        assert!(flood.is_due(2) && !flood.is_due(1));
        assert_eq!(flood.drain(), [(key([10, 0, 0, 1], "audit-unavailable"), 10)]);
    }

    #[test]
    fn a_second_begins_with_its_first_refusal() {
        let mut flood = Flood::default();
        assert!(!flood.is_due(1));
        assert!(flood.admit(key([10, 0, 0, 1], "no-rule"), 1, false));
        assert!(flood.is_due(2));
        assert!(flood.drain().is_empty());
        assert!(flood.admit(key([10, 0, 0, 1], "no-rule"), 2, false));
        assert!(!flood.is_due(2));
    }
}
