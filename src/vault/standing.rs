//! Which credentials operators have disabled, as all workers see it.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::state::Disabled;

/// Looked at by every request, without a lock; changed by the control thread.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    disabled: ArcSwap<BTreeMap<Arc<str>, Disabled>>,
    /// How often the requests of a credential were to be cut.
    cuts: watch::Sender<BTreeMap<Arc<str>, u64>>,
}

impl Standing {
    /// Why a credential may not be used, if it may not.
    pub(crate) fn disabled(&self, name: &str) -> Option<Disabled> {
        let disabled = self.disabled.load();
        if disabled.is_empty() { None } else { disabled.get(name).cloned() }
    }

    /// All that may not be used, also such as the configuration does not have.
    pub(crate) fn all(&self) -> Arc<BTreeMap<Arc<str>, Disabled>> {
        self.disabled.load_full()
    }

    /// Takes over what operators want. The next use of every worker sees it; what is under way is cut where the
    /// credential is disabled so now and was not before.
    pub(crate) fn set(&self, new: &BTreeMap<Arc<str>, Disabled>) {
        let old = self.disabled.swap(Arc::new(new.clone()));
        let was_cut = |name: &Arc<str>| old.get(name).is_some_and(|before| before.cut);
        let cut = new.iter().filter(|(name, now)| now.cut && !was_cut(name)).map(|(name, _)| name);
        let cut: Vec<_> = cut.cloned().collect();
        if !cut.is_empty() {
            // After the swap: whoever took the credential before is told, and nobody takes it since.
            self.cuts.send_modify(|cuts| {
                for name in cut {
                    *cuts.entry(name).or_default() += 1;
                }
            });
        }
    }

    /// Tells when requests of some credential are to be cut: how often they were, by name.
    pub(crate) fn cuts(&self) -> watch::Receiver<BTreeMap<Arc<str>, u64>> {
        self.cuts.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disabled(cut: bool) -> Disabled {
        Disabled { since: jiff::Timestamp::UNIX_EPOCH, by: "root".into(), reason: "r".into(), cut }
    }

    #[test]
    fn what_is_under_way_is_cut_once_for_each_time_it_is_asked() {
        let standing = Standing::default();
        let cuts = standing.cuts();
        let count = || cuts.borrow().get("web").copied().unwrap_or_default();
        for (now, expected) in [
            (None, 0),
            (Some(false), 0),
            (Some(true), 1),
            (Some(true), 1),
            (Some(false), 1),
            (None, 1),
            (Some(true), 2),
        ] {
            let map: BTreeMap<Arc<str>, _> =
                now.map(|cut| ("web".into(), disabled(cut))).into_iter().collect();
            standing.set(&map);
            assert_eq!(standing.disabled("web").map(|one| one.cut), now);
            assert!(standing.disabled("docs").is_none());
            assert_eq!(count(), expected, "{now:?}");
        }
    }
}
