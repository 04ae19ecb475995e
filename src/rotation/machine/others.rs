//! Other patgates with the same vault: one rotates, the others see from the list of tokens that it did.

use super::{
    super::{
        azure::{Listed, Trouble},
        state::{Made, State, later},
    },
    Machine,
};

impl Machine {
    /// Whether another patgate has made the token that is due, or is at it.
    pub(super) async fn is_left_to_others(
        &self,
        state: &mut State,
        listed: &[Listed],
    ) -> Result<bool, Trouble> {
        let now = (self.now)();
        let theirs =
            listed.iter().filter(|token| self.is_theirs(state, token)).max_by_key(|token| token.since);
        let Some(theirs) = theirs.filter(|token| later(token.since, self.plan.every) > now) else {
            return Ok(false);
        };
        if let Some(current) = &state.current {
            let own = listed.iter().find(|token| token.authorization == current.authorization);
            if theirs.since <= own.map_or(current.since, |own| own.since) {
                return Ok(false);
            }
            if current.mark.is_some() && self.holds(state, current).await?.is_some() {
                let given_up = later(theirs.since, self.plan.patience.lease);
                if given_up > now {
                    state.not_before = Some(given_up);
                    self.save(state).await?;
                }
                return Ok(given_up > now);
            }
        }
        self.adopt(state, theirs).await?;
        Ok(true)
    }

    fn is_theirs(&self, state: &State, token: &Listed) -> bool {
        let rotation = self.plan.rotation_of(&token.display_name);
        !state.knows(&token.authorization)
            && rotation.is_some_and(|rotation| !state.lost.iter().any(|lost| lost.rotation == rotation))
    }

    /// Another patgate's token is the one in use.
    async fn adopt(&self, state: &mut State, theirs: &Listed) -> Result<(), Trouble> {
        let rotation = self.plan.rotation_of(&theirs.display_name).unwrap_or_default().to_owned();
        let before = state.current.replace(Made {
            rotation: rotation.clone(),
            authorization: theirs.authorization.clone(),
            mark: None,
            since: theirs.since,
            until: theirs.until,
        });
        // Whoever made one revokes it.
        state.retire(before.filter(|before| before.mark.is_some()), &self.plan, (self.now)());
        self.save(state).await?;
        (self.refresh)().await;
        self.tell(&rotation, "adopted", Some(&theirs.authorization), Some("another patgate made it")).await;
        Ok(())
    }

    /// Whether another patgate asked for a token at the same time, and was first.
    pub(super) fn was_beaten(&self, made: &Made, before: &[Listed], after: &[Listed]) -> bool {
        let Some(own) = after.iter().find(|token| token.authorization == made.authorization) else {
            return false;
        };
        let is_new = |token: &&Listed| !before.iter().any(|known| known.authorization == token.authorization);
        let order = |token: &Listed| (token.since, token.authorization.clone());
        after
            .iter()
            .filter(is_new)
            .filter(|token| self.plan.rotation_of(&token.display_name).is_some())
            .any(|token| order(token) < order(own))
    }
}
