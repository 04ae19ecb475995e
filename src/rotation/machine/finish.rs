//! The end of a rotation: the new token in use, the old one revoked.

use secrecy::SecretString;

use super::{
    super::{
        azure::Trouble,
        plan::mark,
        state::{Made, Retiring, State, Step, later},
    },
    Machine,
};

/// So many turns a value that was taken before it was written may be refused after it, before it counts as lost.
const REFUSALS: u32 = 5;

impl Machine {
    /// Reads the new token back, tries it, and has it used. Only then the one before begins to retire.
    pub(super) async fn finish(&self, state: &mut State, made: Made) -> Result<(), Trouble> {
        let Some(value) = self.holds(state, &made).await? else {
            return self.superseded(state, made).await;
        };
        let identity = match self.prove(state, &value).await {
            Ok(identity) => identity,
            Err(Trouble::Found(why)) if state.failures >= REFUSALS => {
                return self.spoilt(state, made, &why).await;
            }
            Err(trouble) => return Err(trouble),
        };
        drop(value);
        let before = state.current.replace(made.clone());
        state.retire(before, &self.plan, (self.now)());
        state.identity = Some(identity);
        state.asked = false;
        state.step = Step::Idle;
        self.save(state).await?;
        (self.refresh)().await;
        self.tell(&made.rotation, "in-use", Some(&made.authorization), None).await;
        Ok(())
    }

    /// Somebody wrote over it. Others may have read it meanwhile, so it has its grace, as the one before.
    async fn superseded(&self, state: &mut State, made: Made) -> Result<(), Trouble> {
        let now = (self.now)();
        let (rotation, authorization) = (made.rotation.clone(), made.authorization.clone());
        let before = state.current.take();
        state.retire(before, &self.plan, now);
        state.retire(Some(made), &self.plan, now);
        state.step = Step::Idle;
        state.not_before = Some(later(now, self.plan.patience.lease));
        self.save(state).await?;
        (self.refresh)().await;
        let why = "the vault holds another value than was written";
        self.tell(&rotation, "superseded", Some(&authorization), Some(why)).await;
        tracing::warn!(credential = %self.plan.credential, "{why}: somebody else writes there too");
        Ok(())
    }

    /// The vault holds it and Azure DevOps does not take it, again and again: another one is needed.
    async fn spoilt(&self, state: &mut State, made: Made, why: &str) -> Result<(), Trouble> {
        let (rotation, authorization) = (made.rotation.clone(), made.authorization.clone());
        state.retire(Some(made), &self.plan, (self.now)());
        state.step = Step::Idle;
        self.save(state).await?;
        self.tell(&rotation, "spoilt", Some(&authorization), Some(why)).await;
        Ok(())
    }

    /// Revokes what is over its grace, after a look that what the vault has instead does work.
    pub(super) async fn retire(&self, state: &mut State) -> Result<(), Trouble> {
        let now = (self.now)();
        let ready: Vec<Retiring> =
            state.retiring.iter().filter(|retiring| retiring.after <= now).cloned().collect();
        if ready.is_empty() {
            return Ok(());
        }
        let mut present = None;
        for Retiring { made, .. } in ready {
            let step = if made.until <= now {
                "expired"
            } else {
                if present.is_none() {
                    let value = self.read().await.map_err(|error| self.vault_trouble(&error))?;
                    self.prove(state, &value).await?;
                    present = Some(value);
                }
                match present.as_ref().map(|value| present_is(state, &made, value)) {
                    Some(Present::This) => {
                        self.put_back(state, made).await?;
                        continue;
                    }
                    Some(Present::Unknown) => {
                        self.postpone(state, &made).await?;
                        continue;
                    }
                    Some(Present::Another) | None => {}
                }
                let entra = self.entra().await?;
                self.azure.revoke(&self.plan, &entra, &made.authorization).await?;
                "revoked"
            };
            state.retiring.retain(|retiring| retiring.made.authorization != made.authorization);
            self.save(state).await?;
            self.tell(&made.rotation, step, Some(&made.authorization), None).await;
        }
        Ok(())
    }

    /// The vault's is the one in use, whoever wrote it there: it goes by its own time again.
    async fn put_back(&self, state: &mut State, made: Made) -> Result<(), Trouble> {
        let (rotation, authorization) = (made.rotation.clone(), made.authorization.clone());
        state.retiring.retain(|retiring| retiring.made.authorization != authorization);
        let before = state.current.replace(made);
        state.retire(before, &self.plan, (self.now)());
        self.save(state).await?;
        let why = "somebody put it back into the vault";
        tracing::warn!(credential = %self.plan.credential, token = authorization, "not revoked: {why}");
        self.tell(&rotation, "put-back", Some(&authorization), Some(why)).await;
        Ok(())
    }

    async fn postpone(&self, state: &mut State, made: &Made) -> Result<(), Trouble> {
        let after = later((self.now)(), self.plan.grace);
        for retiring in state.retiring.iter_mut().filter(|one| one.made.authorization == made.authorization) {
            retiring.after = after;
        }
        self.save(state).await?;
        let why = "the vault may hold it";
        tracing::warn!(credential = %self.plan.credential, token = made.authorization, "not revoked: {why}");
        self.tell(&made.rotation, "postponed", Some(&made.authorization), Some(why)).await;
        Ok(())
    }
}

/// What the vault holds, as seen from a token that is to be revoked.
enum Present {
    This,
    Another,
    /// Another patgate made it, so it is not known by its value.
    Unknown,
}

fn present_is(state: &State, made: &Made, present: &SecretString) -> Present {
    let is = |made: &Made| made.mark.is_some() && made.mark == mark(&made.rotation, present).ok();
    if is(made) {
        Present::This
    } else if made.mark.is_some() || state.current.as_ref().is_some_and(is) {
        Present::Another
    } else {
        Present::Unknown
    }
}
