//! One rotation, from a token that is due to the last one revoked, step by step.
//!
//! | step | on disk before | then |
//! |---|---|---|
//! | ask for a token | `creating`, with the rotation's id, which stands in the token's name | `created` |
//! | try it, write it to the vault | `created`, with a mark of the value | `written` |
//! | read it back, try it again | `written` | in use; the one before is `retiring` |
//! | after its grace: revoke the one before | `retiring` | gone |
//!
//! Whoever is killed anywhere finds here what to do next. A token that was asked for and whose value nobody has is found by
//! its name and revoked; one that may or may not have reached the vault is compared with what the vault has. The one in
//! use is revoked only when another one was read from the vault and Azure DevOps took it.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::time::sleep;

use super::{
    azure::{AzureDevOps, Listed, Trouble, Whose},
    ledger::Keep,
    plan::{Plan, mark, rotation_id},
    state::{Made, State, Step, later},
};
use crate::{
    audit::Event,
    vault::{SecretSource, Token, VaultError, backoff::Backoff, trial::Record},
};

mod finish;
mod others;
mod vault;

/// The end of a read of the vault.
pub(super) type Refreshed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Everything that one rotation works with.
pub(super) struct Machine {
    pub(super) plan: Arc<Plan>,
    pub(super) azure: AzureDevOps,
    /// Where the token lives.
    pub(super) vault: Arc<dyn SecretSource>,
    /// What gives the user's Entra token.
    pub(super) entra: Arc<dyn SecretSource>,
    pub(super) record: Arc<dyn Record>,
    pub(super) keep: Arc<dyn Keep>,
    /// Has the new value read from the vault at once.
    pub(super) refresh: Box<dyn Fn() -> Refreshed + Send + Sync>,
    pub(super) now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Whether an operator took the credential out of use.
    pub(super) disabled: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Between two looks at whether a disabled credential may be used again.
const DISABLED: Duration = Duration::from_mins(1);

impl Machine {
    /// Does what is due, and gives the state after it. `forced`: a new token is due, and after a failure still is.
    ///
    /// # Errors
    /// The state can't be read: nothing was done. Any other failure stands in the state.
    pub(super) async fn turn(&self, forced: bool) -> Result<State, Trouble> {
        let kept = self.keep.load().await.map_err(Trouble::State)?;
        let mut state = kept.unwrap_or_else(|| State::new(&self.plan.credential));
        let too_early = state.not_before.is_some_and(|not_before| not_before > (self.now)());
        if too_early && !forced {
            return Ok(state);
        }
        state.asked |= forced;
        if (self.disabled)() {
            // Nothing is tried, made or revoked meanwhile.
            state.not_before = Some(later((self.now)(), DISABLED));
            if forced {
                self.save(&state).await?;
            }
            return Ok(state);
        }
        state.not_before = None;
        let failures = state.failures;
        match self.advance(&mut state).await {
            Ok(()) => {
                (state.failures, state.trouble) = (0, None);
                if failures > 0 {
                    self.save(&state).await.unwrap_or_else(|trouble| self.warn(&state, &trouble));
                }
            }
            Err(trouble) => self.failed(&mut state, &trouble).await,
        }
        Ok(state)
    }

    async fn advance(&self, state: &mut State) -> Result<(), Trouble> {
        self.recover(state).await?;
        let retired = self.retire(state).await;
        if state.due(&self.plan).is_none_or(|due| due <= (self.now)()) {
            self.rotate(state).await?;
        }
        retired
    }

    /// Ends what was under way when patgate was killed, or gave up.
    async fn recover(&self, state: &mut State) -> Result<(), Trouble> {
        match state.step.clone() {
            Step::Idle => {}
            Step::Creating { rotation } => {
                state.lose(&rotation, (self.now)());
                state.step = Step::Idle;
                self.save(state).await?;
                self.tell(
                    &rotation,
                    "lost",
                    None,
                    Some("nobody has the value of its token, if there is one"),
                )
                .await;
            }
            Step::Created(made) => {
                // A write that was under way may still arrive.
                sleep(self.plan.patience.settle).await;
                if self.holds(state, &made).await?.is_some() {
                    state.step = Step::Written(made.clone());
                    self.save(state).await?;
                    self.finish(state, made).await?;
                } else {
                    let entra = self.entra().await?;
                    self.abandon(state, &entra, &made, "it never reached the vault").await?;
                }
            }
            Step::Written(made) => self.finish(state, made).await?,
        }
        if !state.lost.is_empty() {
            let entra = self.entra().await?;
            let listed = self.azure.list(&self.plan, &entra).await?;
            self.sweep(state, &entra, &listed).await?;
        }
        Ok(())
    }

    /// Revokes tokens that nobody has the value of.
    async fn sweep(&self, state: &mut State, entra: &Token, listed: &[Listed]) -> Result<(), Trouble> {
        for token in listed {
            let Some(rotation) = self.plan.rotation_of(&token.display_name) else { continue };
            if !state.lost.iter().any(|lost| lost.rotation == rotation) || state.knows(&token.authorization) {
                continue;
            }
            self.azure.revoke(&self.plan, entra, &token.authorization).await?;
            state.lost.retain(|lost| lost.rotation != rotation);
            self.save(state).await?;
            self.tell(rotation, "abandoned", Some(&token.authorization), Some("nobody has its value")).await;
        }
        let (now, before) = ((self.now)(), state.lost.len());
        state.lost.retain(|lost| lost.until > now);
        if state.lost.len() == before { Ok(()) } else { self.save(state).await }
    }

    /// From no new token to one in use.
    async fn rotate(&self, state: &mut State) -> Result<(), Trouble> {
        let entra = self.entra().await?;
        let listed = self.azure.list(&self.plan, &entra).await?;
        self.sweep(state, &entra, &listed).await?;
        if !state.asked && self.is_left_to_others(state, &listed).await? {
            return Ok(());
        }
        self.know_the_user(state).await?;
        let (made, value) = self.create(state, &entra).await?;

        let again = self.azure.list(&self.plan, &entra).await?;
        if self.was_beaten(&made, &listed, &again) {
            self.abandon(state, &entra, &made, "another patgate rotates").await?;
            return self.wait(state, self.plan.patience.lease).await;
        }
        if let Err(trouble) = self.prove(state, &value).await {
            self.abandon(state, &entra, &made, "it was not taken as it should have been").await?;
            return Err(trouble);
        }
        if let Err(trouble) = self.write(&value).await {
            sleep(self.plan.patience.settle).await;
            if self.holds(state, &made).await?.is_none() {
                self.abandon(state, &entra, &made, "the vault did not take it").await?;
                return Err(trouble);
            }
        }
        drop(value);
        state.step = Step::Written(made.clone());
        self.save(state).await?;
        self.tell(&made.rotation, "written", Some(&made.authorization), None).await;
        self.finish(state, made).await
    }

    /// Whose the token in the vault is: the next one has to be the same user's.
    async fn know_the_user(&self, state: &mut State) -> Result<(), Trouble> {
        let value = match self.read().await {
            Ok(value) => value,
            // There may be none yet.
            Err(VaultError::Denied(_) | VaultError::Unusable(_)) if state.current.is_none() => return Ok(()),
            Err(error) => return Err(self.vault_trouble(&error)),
        };
        self.may_be_used()?;
        if let Whose::User(id) = self.azure.whose(&self.plan, &value).await? {
            state.identity = Some(id);
        }
        Ok(())
    }

    /// Asks for a token. Where it ends, the state says so.
    async fn create(&self, state: &mut State, entra: &Token) -> Result<(Made, SecretString), Trouble> {
        let rotation = rotation_id().map_err(Trouble::Found)?;
        state.step = Step::Creating { rotation: rotation.clone() };
        self.save(state).await?;
        self.tell(&rotation, "creating", None, None).await;

        let since = (self.now)();
        let until = later(since, self.plan.valid_for);
        let created = self.azure.create(&self.plan, entra, &rotation, until).await;
        let (listed, value) = match created {
            Ok(created) => created,
            Err(trouble) => {
                if matches!(trouble, Trouble::Unanswered { .. }) {
                    state.lose(&rotation, since);
                }
                state.step = Step::Idle;
                self.save(state).await?;
                return Err(trouble);
            }
        };
        let mark = mark(&rotation, &value).map_err(|error| self.vault_trouble(&error))?;
        let (authorization, mark) = (listed.authorization, Some(mark));
        let made = Made { rotation, authorization, mark, since, until: listed.until };
        state.step = Step::Created(made.clone());
        if let Err(trouble) = self.save(state).await {
            // What is not on disk must not be in the vault.
            self.azure.revoke(&self.plan, entra, &made.authorization).await?;
            return Err(trouble);
        }
        let detail = format!("valid until {}", made.until);
        self.tell(&made.rotation, "created", Some(&made.authorization), Some(&detail)).await;
        if later(since, self.plan.every) > made.until {
            tracing::warn!(
                credential = %self.plan.credential, until = %made.until,
                "Azure DevOps made the token shorter than it was asked for, as a policy on lifespans does; it is replaced \
                 before it ends"
            );
        }
        Ok((made, value))
    }

    /// Revokes a token that is not to be used, and which the vault does not have.
    async fn abandon(&self, state: &mut State, entra: &Token, made: &Made, why: &str) -> Result<(), Trouble> {
        self.azure.revoke(&self.plan, entra, &made.authorization).await?;
        state.step = Step::Idle;
        self.save(state).await?;
        self.tell(&made.rotation, "abandoned", Some(&made.authorization), Some(why)).await;
        Ok(())
    }

    /// Whether a value works, and for the same user as before. Tried again for a while: a new token may take a moment.
    async fn prove(&self, state: &State, value: &SecretString) -> Result<String, Trouble> {
        let mut tries = 1;
        loop {
            self.may_be_used()?;
            let trouble = match self.azure.whose(&self.plan, value).await {
                Ok(Whose::User(id)) if state.identity.as_ref().is_none_or(|known| *known == id) => {
                    return Ok(id);
                }
                Ok(Whose::User(_)) => {
                    let text = "the new token is another user's than the one in the vault; the Entra token has to be of \
                                the user whose tokens these are";
                    return Err(Trouble::Found(text.into()));
                }
                Ok(Whose::Nobody) => Trouble::Found("Azure DevOps does not take the new token".into()),
                Err(trouble @ (Trouble::Unanswered { .. } | Trouble::Throttled(_))) => trouble,
                Err(trouble) => return Err(trouble),
            };
            if tries >= self.plan.patience.tries {
                return Err(trouble);
            }
            sleep(self.plan.patience.pause * tries).await;
            tries += 1;
        }
    }

    fn may_be_used(&self) -> Result<(), Trouble> {
        if (self.disabled)() { Err(Trouble::Vault("the credential is disabled".into())) } else { Ok(()) }
    }

    /// Nothing is to be done for so long.
    async fn wait(&self, state: &mut State, pause: Duration) -> Result<(), Trouble> {
        state.not_before = Some(later((self.now)(), pause));
        self.save(state).await
    }

    async fn save(&self, state: &State) -> Result<(), Trouble> {
        self.keep.save(state).await.map_err(Trouble::State)
    }

    /// Puts a transition on record. It has happened: what can't be written now is written when the disk answers again.
    async fn tell(
        &self,
        rotation: &str,
        step: &'static str,
        authorization: Option<&str>,
        detail: Option<&str>,
    ) {
        let credential = &self.plan.credential;
        tracing::info!(%credential, rotation, step, authorization, detail, "rotation");
        let event = Event::Rotation {
            credential: Arc::clone(credential),
            rotation: rotation.into(),
            step,
            authorization: authorization.map(Into::into),
            detail: detail.map(Into::into),
        };
        if let Err(why) = self.record.record(event).await {
            tracing::warn!(%credential, why, "a step of a rotation is not on record yet");
        }
    }

    async fn failed(&self, state: &mut State, trouble: &Trouble) {
        let (first, last) = self.plan.patience.after_failure;
        let mut pause = Backoff { first, last }.wait(state.failures);
        if let Trouble::Throttled(Some(asked)) = trouble {
            pause = pause.max(*asked).min(last.max(pause));
        }
        state.failures = state.failures.saturating_add(1);
        state.not_before = Some(later((self.now)(), pause));
        state.trouble = Some(trouble.to_string());
        self.warn(state, trouble);
        if let Err(unkept) = self.save(state).await {
            tracing::warn!(credential = %self.plan.credential, %unkept, "the state of a rotation is not kept");
        }
        let rotation = match &state.step {
            Step::Idle => "",
            Step::Creating { rotation } => rotation.as_str(),
            Step::Created(made) | Step::Written(made) => &made.rotation,
        };
        self.tell(rotation, "failed", None, Some(&trouble.to_string())).await;
    }

    /// Says that something failed: louder when the token in use has little time left.
    fn warn(&self, state: &State, trouble: &Trouble) {
        let (credential, failures) = (&self.plan.credential, state.failures);
        let ends = state.current.as_ref().map(|current| current.until);
        let soon = ends.is_some_and(|ends| later((self.now)(), self.plan.valid_for / 4) >= ends);
        let expires = ends.map(tracing::field::display);
        if soon {
            tracing::error!(%credential, expires, failures, %trouble, "the token is not rotated, and ends soon");
        } else {
            tracing::warn!(%credential, expires, failures, %trouble, "the token is not rotated");
        }
    }
}
