//! One vault, asked for many credentials: it is not asked by all of them while it is down.
//!
//! What comes in: a credential that wants to read. What goes out: a [`Pass`], or the moment before which asking
//! makes no sense. Once several credentials in a row got no answer the vault counts as down, and then one read at
//! a time tries it, with growing pauses; the first answer, whatever it says, opens the way for all.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{SecretSource, backoff::Backoff};

/// Reads of one vault at a time.
const AT_ONCE: usize = 8;

/// Reads without an answer, one after the other and for more than one credential, after which a vault is down. One
/// credential's own trouble (a file that can't be read) says nothing of the others.
const DOWN_AFTER: u32 = 3;

const PAUSES: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_mins(1) };

#[derive(Debug, Default)]
struct Condition {
    /// Reads without an answer since the last one, and the credentials they were for, as far as two tell.
    silent: u32,
    of: [Option<u64>; 2],
    down: Option<Down>,
}

#[derive(Debug)]
struct Down {
    /// How often it was tried since.
    tries: u32,
    until: Instant,
    trying: bool,
    why: Arc<str>,
}

/// A vault that is down is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shut {
    /// When somebody may try it again.
    pub(super) until: Instant,
    /// What it last failed with.
    pub(super) why: Arc<str>,
}

/// See the module. One for each vault.
#[derive(Debug)]
pub(super) struct Breaker {
    vault: Arc<str>,
    turns: Semaphore,
    condition: Mutex<Condition>,
}

impl Breaker {
    /// For the vault of this name.
    pub(super) fn new(vault: Arc<str>) -> Self {
        Self { vault, turns: Semaphore::new(AT_ONCE), condition: Mutex::default() }
    }

    /// A turn among the reads of this vault.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// Asks for a read. `forced`: somebody asks for it by hand, and it is tried at once.
    ///
    /// # Errors
    /// While the vault is down and it is not yet time to try it, or somebody is trying.
    pub(super) fn enter(&self, now: Instant, credential: u64, forced: bool) -> Result<Pass<'_>, Shut> {
        let mut trial = false;
        if let Some(down) = &mut self.condition().down {
            if !forced && (down.trying || now < down.until) {
                // Somebody who tries may take the vault's whole deadline; ask again soon.
                let until = down.until.max(now + PAUSES.first);
                return Err(Shut { until, why: Arc::clone(&down.why) });
            }
            trial = !down.trying;
            down.trying = true;
        }
        Ok(Pass { breaker: self, credential, trial, ended: false })
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read that may go on. Dropped without a word, it says nothing of the vault.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    credential: u64,
    trial: bool,
    ended: bool,
}

impl Pass<'_> {
    /// The vault answered: a value, or that there is none.
    pub(super) fn answered(mut self) {
        self.ended = true;
        let before = std::mem::take(&mut *self.breaker.condition());
        if before.down.is_some() {
            tracing::info!(vault = %self.breaker.vault, "the vault answers again");
        }
    }

    /// The vault did not answer.
    pub(super) fn silent(mut self, now: Instant, why: &Arc<str>) {
        self.ended = true;
        let mut condition = self.breaker.condition();
        condition.silent = condition.silent.saturating_add(1);
        condition.of = match condition.of {
            [None, other] => [Some(self.credential), other],
            [Some(one), None] if one != self.credential => [Some(one), Some(self.credential)],
            of => of,
        };
        let enough = condition.silent >= DOWN_AFTER && condition.of.iter().all(Option::is_some);
        match &mut condition.down {
            Some(down) if self.trial => {
                down.tries = down.tries.saturating_add(1);
                down.until = now + PAUSES.wait(down.tries);
                down.trying = false;
                down.why = Arc::clone(why);
            }
            None if enough => {
                let until = now + PAUSES.wait(0);
                condition.down = Some(Down { tries: 0, until, trying: false, why: Arc::clone(why) });
                let vault = &self.breaker.vault;
                tracing::warn!(%vault, error = %why, "the vault does not answer: one read at a time tries it");
            }
            // Too few, or it began before the vault was found to be down.
            _ => {}
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.ended
            && self.trial
            && let Some(down) = &mut self.breaker.condition().down
        {
            down.trying = false;
        }
    }
}

/// The breakers of all vaults, by what they stand before.
pub(super) struct Breakers(Vec<(Arc<dyn SecretSource>, Arc<Breaker>)>);

impl Breakers {
    /// Those that there are, for as long as something is read through them.
    pub(super) fn of<'a>(known: impl Iterator<Item = (&'a Arc<dyn SecretSource>, &'a Arc<Breaker>)>) -> Self {
        Self(known.map(|(source, breaker)| (Arc::clone(source), Arc::clone(breaker))).collect())
    }

    /// The one before a vault, for all its credentials.
    pub(super) fn before(
        &mut self,
        source: &Arc<dyn SecretSource>,
        name: impl FnOnce() -> Arc<str>,
    ) -> Arc<Breaker> {
        if let Some((_, known)) = self.0.iter().find(|(of, _)| Arc::ptr_eq(of, source)) {
            return Arc::clone(known);
        }
        let breaker = Arc::new(Breaker::new(name()));
        self.0.push((Arc::clone(source), Arc::clone(&breaker)));
        breaker
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn silent(breaker: &Breaker, now: Instant, credential: u64) {
        breaker.enter(now, credential, false).unwrap().silent(now, &"silence".into());
    }

    #[test]
    fn several_credentials_without_an_answer_make_a_vault_down_and_one_at_a_time_tries_it() {
        let (breaker, now) = (Breaker::new("corp".into()), clock::now());
        for credential in [1, 2, 1] {
            silent(&breaker, now, credential);
        }
        let shut = breaker.enter(now, 3, false).unwrap_err();
        assert!((now + SECOND..=now + 2 * SECOND).contains(&shut.until));
        let trial = breaker.enter(shut.until, 3, false).unwrap();
        assert!(breaker.enter(shut.until, 4, false).is_err(), "somebody is trying");
        trial.silent(shut.until, &"still".into());
        let later = breaker.enter(shut.until, 4, false).unwrap_err();
        assert!(
            later.until >= shut.until + 2 * SECOND && &*later.why == "still",
            "the pauses grow: {later:?}"
        );
        let vanished = breaker.enter(later.until, 4, false).unwrap();
        drop(vanished);
        let trial = breaker.enter(later.until, 5, false).unwrap();
        assert!(breaker.enter(now, 6, true).is_ok(), "who asks by hand is not held up");
        trial.answered();
        for credential in 0..100 {
            assert!(breaker.enter(later.until, credential, false).is_ok());
        }
    }

    #[test]
    fn one_credentials_own_trouble_says_nothing_of_the_others() {
        let (breaker, now) = (Breaker::new("corp".into()), clock::now());
        for _ in 0..100 {
            silent(&breaker, now, 1);
        }
        assert!(breaker.enter(now, 2, false).is_ok());
        breaker.enter(now, 2, false).unwrap().answered();
        silent(&breaker, now, 1);
        silent(&breaker, now, 2);
        assert!(breaker.enter(now, 3, false).is_ok(), "an answer in between counts");
    }

    #[test]
    fn reads_that_began_before_do_not_lengthen_the_pause() {
        let (breaker, now) = (Breaker::new("corp".into()), clock::now());
        let under_way: Vec<_> = (0..8).map(|n| breaker.enter(now, n, false).unwrap()).collect();
        for pass in under_way {
            pass.silent(now, &"silence".into());
        }
        assert!(breaker.enter(now, 9, false).unwrap_err().until <= now + 2 * SECOND);
    }
}
