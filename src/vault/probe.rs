//! One probe of a value at a time, and one a minute.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};

use crate::clock;

/// For how long an answer holds.
const MEMORY: Duration = Duration::from_mins(1);

/// For how long another's probe is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Running,
    Done {
        mark: [u8; 32],
        good: bool,
        at: Instant,
    },
}

enum Turn {
    Mine,
    Theirs,
    Answered(bool),
}

/// What the last probe of a credential said.
#[derive(Debug, Default)]
pub(super) struct Probe(watch::Sender<State>);

impl Probe {
    /// Runs `probe`, or takes the answer of one that runs or ran within a minute for the same value. A probe
    /// that goes on too long proves nothing against the value.
    pub(super) async fn once<F: Future<Output = bool>>(&self, mark: [u8; 32], probe: F) -> bool {
        let mut changes = self.0.subscribe();
        loop {
            match self.turn(&mark) {
                Turn::Mine => break,
                Turn::Answered(good) => return good,
                Turn::Theirs => {
                    let ended = changes.wait_for(|state| !matches!(state, State::Running));
                    if timeout(PATIENCE, ended).await.is_err() {
                        return true;
                    }
                }
            }
        }
        let turn = Running(self);
        let good = probe.await;
        turn.end(mark, good);
        good
    }

    fn turn(&self, mark: &[u8; 32]) -> Turn {
        let now = clock::now();
        let mut turn = Turn::Mine;
        self.0.send_if_modified(|state| {
            match state {
                State::Running => turn = Turn::Theirs,
                State::Done { mark: of, good, at }
                    if of == mark && now.saturating_duration_since(*at) < MEMORY =>
                {
                    turn = Turn::Answered(*good);
                }
                State::Idle | State::Done { .. } => *state = State::Running,
            }
            false
        });
        turn
    }
}

/// Gives the turn to the next when its request is gone.
struct Running<'a>(&'a Probe);

impl Running<'_> {
    fn end(self, mark: [u8; 32], good: bool) {
        self.0.0.send_replace(State::Done { mark, good, at: clock::now() });
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.0.send_if_modified(|state| {
            let given_up = matches!(state, State::Running);
            if given_up {
                *state = State::Idle;
            }
            given_up
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    const ONE: [u8; 32] = [1; 32];
    const TWO: [u8; 32] = [2; 32];

    #[tokio::test(start_paused = true)]
    async fn a_hundred_callers_share_one_probe_for_a_minute() {
        let (probe, runs) = (Probe::default(), Cell::new(0));
        let run = |answer: bool| {
            let runs = &runs;
            async move {
                runs.set(runs.get() + 1);
                sleep(Duration::from_secs(1)).await;
                answer
            }
        };
        let answers = join_all((0..100).map(|_| probe.once(ONE, run(false)))).await;
        assert!(answers.iter().all(|good| !good));
        assert_eq!(runs.get(), 1);
        sleep(Duration::from_secs(58)).await;
        assert!(!probe.once(ONE, run(true)).await);
        assert!(probe.once(TWO, run(true)).await, "another value has a probe of its own");
        assert_eq!(runs.get(), 2);
        assert!(probe.once(ONE, run(true)).await);
        sleep(Duration::from_secs(61)).await;
        assert!(!probe.once(ONE, run(false)).await, "a minute later it is asked again");
        assert_eq!(runs.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_vanished_caller_gives_the_turn_to_the_next() {
        let probe = Probe::default();
        let gone = timeout(Duration::from_secs(1), probe.once(ONE, pending()));
        let (gone, good) = tokio::join!(gone, probe.once(ONE, async { false }));
        assert!(gone.is_err() && !good);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_proves_nothing() {
        let probe = Probe::default();
        tokio::select! {
            biased;
            _ = probe.once(ONE, pending()) => unreachable!("it hangs"),
            good = probe.once(ONE, pending()) => assert!(good),
        }
    }
}
