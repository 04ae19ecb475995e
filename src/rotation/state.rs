//! What has to be known of a rotation after patgate was killed. No secret is in it, and no way to one.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// The form that this version of patgate reads and writes.
pub(super) const FORMAT: u32 = 1;

/// How long a token whose making was not answered is looked for in the list.
const LOST: SignedDuration = SignedDuration::from_hours(1);

/// One credential's rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct State {
    pub(super) format: u32,
    /// The credential's name.
    pub(super) credential: Arc<str>,
    /// What is under way.
    pub(super) step: Step,
    /// Azure DevOps' id of the user whose tokens they are.
    pub(super) identity: Option<String>,
    /// The token in use, where patgate made it.
    pub(super) current: Option<Made>,
    /// Tokens that were in use, until their grace is over.
    pub(super) retiring: Vec<Retiring>,
    /// Rotations whose token, if there is one, nobody has the value of.
    pub(super) lost: Vec<Lost>,
    /// Somebody asks for a new token before its time.
    pub(super) asked: bool,
    /// Failures in a row.
    pub(super) failures: u32,
    /// No attempt before.
    pub(super) not_before: Option<Timestamp>,
    /// Why the last attempt failed.
    pub(super) trouble: Option<String>,
}

/// What is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Step {
    /// Nothing.
    Idle,
    /// A token of this rotation is asked for: it may or may not be there, and nobody has its value.
    Creating {
        /// The rotation's id.
        rotation: String,
    },
    /// A token is there. Whether the vault has it, the vault must say.
    Created(Made),
    /// The vault has it. It is not in use before it was read back and tried.
    Written(Made),
}

/// A token that was made for this credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Made {
    /// The rotation's id, which stands in the token's name.
    pub(super) rotation: String,
    /// Azure DevOps' id of the token.
    pub(super) authorization: String,
    /// By what its value is known again; `None` where another patgate made it.
    pub(super) mark: Option<String>,
    /// When it was made.
    pub(super) since: Timestamp,
    /// When it ends.
    pub(super) until: Timestamp,
}

/// A token that was in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Retiring {
    pub(super) made: Made,
    /// From when on it may be revoked.
    pub(super) after: Timestamp,
}

/// A rotation whose token, if there is one, nobody has the value of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Lost {
    pub(super) rotation: String,
    /// Looked for until then.
    pub(super) until: Timestamp,
}

impl State {
    /// Nothing was done yet.
    pub(super) fn new(credential: &Arc<str>) -> Self {
        Self {
            format: FORMAT,
            credential: Arc::clone(credential),
            step: Step::Idle,
            identity: None,
            current: None,
            retiring: Vec::new(),
            lost: Vec::new(),
            asked: false,
            failures: 0,
            not_before: None,
            trouble: None,
        }
    }

    /// When the next token is due; `None`: at once, for there is none, or somebody asks. A token that was made shorter than it was asked for is replaced in
    /// time all the same.
    pub(super) fn due(&self, plan: &Plan) -> Option<Timestamp> {
        let current = self.current.as_ref().filter(|_| !self.asked)?;
        // Whoever made the one in use makes the next one too, if he is still there.
        let turn = if current.mark.is_some() { Duration::ZERO } else { plan.patience.lease };
        let regular = later(current.since, plan.every.saturating_add(turn));
        let reserve = plan.valid_for.saturating_sub(plan.every);
        let latest = earlier(current.until, reserve.min(span(current.since, current.until) / 2));
        Some(regular.min(latest))
    }

    /// When there is something to do.
    pub(super) fn next(&self, plan: &Plan, now: Timestamp) -> Timestamp {
        let retiring = self.retiring.iter().map(|retiring| retiring.after).min();
        let due = if self.step == Step::Idle { self.due(plan).unwrap_or(now) } else { now };
        let next = retiring.map_or(due, |retiring| retiring.min(due));
        self.not_before.map_or(next, |not_before| next.max(not_before))
    }

    /// A token that nobody has the value of, or may have it.
    pub(super) fn lose(&mut self, rotation: &str, now: Timestamp) {
        let until = now.checked_add(LOST).unwrap_or(Timestamp::MAX);
        self.lost.push(Lost { rotation: rotation.to_owned(), until });
    }

    /// What was in use is so no longer, and ends after its grace.
    pub(super) fn retire(&mut self, made: Option<Made>, plan: &Plan, now: Timestamp) {
        if let Some(made) = made {
            self.retiring.push(Retiring { made, after: later(now, plan.grace) });
        }
    }

    /// Whether this state knows of a token.
    pub(super) fn knows(&self, authorization: &str) -> bool {
        let under_way = match &self.step {
            Step::Created(made) | Step::Written(made) => Some(made),
            Step::Idle | Step::Creating { .. } => None,
        };
        let retiring = self.retiring.iter().map(|retiring| &retiring.made);
        under_way
            .into_iter()
            .chain(&self.current)
            .chain(retiring)
            .any(|made| made.authorization == authorization)
    }
}

/// A moment, so much later.
pub(super) fn later(moment: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| moment.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

/// A moment, so much earlier.
pub(super) fn earlier(moment: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| moment.checked_sub(by).ok()).unwrap_or(Timestamp::MIN)
}

/// From one moment to another; nothing where they are the other way round.
pub(super) fn span(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::plan::tests::plan;

    const DAY: Duration = Duration::from_hours(24);

    fn at(day: u32) -> Timestamp {
        later("2026-01-01T00:00:00Z".parse().unwrap(), DAY * day)
    }

    fn made(since: u32, until: u32) -> Made {
        Made {
            rotation: "r".into(),
            authorization: "a".into(),
            mark: Some("m".into()),
            since: at(since),
            until: at(until),
        }
    }

    #[test]
    fn the_next_token_is_due_before_the_present_one_is_short_of_time() {
        // Every 7 days, valid for 14.
        let plan = plan();
        for (until, due) in [
            (14, 7), // as asked for
            (30, 7), // longer
            (10, 5), // shortened by a policy: at half its life
            (4, 2),
        ] {
            let state = State { current: Some(made(0, until)), ..State::new(&"web".into()) };
            assert_eq!(state.due(&plan), Some(at(due)), "{until}");
        }
        assert_eq!(State::new(&"web".into()).due(&plan), None);
    }

    #[test]
    fn what_comes_first_is_next_and_a_failure_puts_it_off() {
        let plan = plan();
        let mut state = State { current: Some(made(0, 14)), ..State::new(&"web".into()) };
        assert_eq!(state.next(&plan, at(1)), at(7));
        state.retire(Some(made(0, 14)), &plan, at(2));
        assert_eq!(state.next(&plan, at(1)), at(3));
        state.not_before = Some(at(5));
        assert_eq!(state.next(&plan, at(1)), at(5));
        state.step = Step::Creating { rotation: "x".into() };
        state.not_before = None;
        assert_eq!(state.next(&plan, at(1)), at(1));
    }

    #[test]
    fn a_state_is_read_as_it_was_written_and_nothing_else_is() {
        let mut state = State::new(&"web".into());
        state.step = Step::Created(made(1, 2));
        state.current = Some(made(0, 14));
        state.retire(Some(made(0, 14)), &plan(), at(2));
        state.lose("gone", at(1));
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        assert!(serde_json::from_str::<State>(&text.replace("\"step\"", "\"stage\"")).is_err());
    }
}
