//! What is not wrong in the rules, but probably not meant.

use crate::{
    config::{Config, Problem},
    policy::{Policy, goes_to, mint, now, pattern::Pattern, rule::Rule},
};

impl Policy {
    /// What is not wrong in the rules of this configuration, but probably not meant: rules that an
    /// earlier one leaves nothing to, that have ended, whose paths open nothing, whose credential may
    /// not go where they lead; denials that can be got round.
    #[must_use]
    pub fn warnings(config: &Config) -> Vec<Problem> {
        Self::new(config).doubts()
    }

    pub(super) fn doubts(&self) -> Vec<Problem> {
        let mut warnings = Vec::new();
        for (n, rule) in self.rules.iter().enumerate() {
            let mut warn = |key: &str, text: String| {
                warnings.push(Problem { place: rule.place.clone(), key: format!("rule.{key}"), text });
            };
            if let Some(until) = rule.until.filter(|until| *until <= now()) {
                warn(
                    "until",
                    format!("{:?} ended at {until}; remove the rule or set another end", rule.name),
                );
            }
            let earlier = self.rules.get(..n).unwrap_or_default();
            if let Some(earlier) = earlier.iter().find(|earlier| earlier.shadows(rule)) {
                warn(
                    "paths",
                    format!(
                        "{:?} never decides: {:?} ({}) stands above it and covers all of it; move it up or remove it",
                        rule.name, earlier.name, earlier.place
                    ),
                );
            }
            for pattern in &rule.paths {
                if let Some(text) = rule.doubt(pattern) {
                    warn("paths", text);
                }
            }
        }
        warnings
    }
}

impl Rule {
    /// Whether this rule, standing above, leaves `other` nothing to decide.
    fn shadows(&self, other: &Self) -> bool {
        let has_clients = match (&self.clients, &other.clients) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => others.iter().all(|client| own.contains(client)),
        };
        let covers =
            |pattern: &Pattern| !is_opaque(pattern) && self.paths.iter().any(|own| own.covers(pattern));
        let has_paths = if self.paths.is_empty() {
            true
        } else {
            !other.paths.is_empty() && other.paths.iter().all(covers)
        };
        self.until.is_none()
            && has_clients
            && has_paths
            && other.actions.iter().all(|action| self.actions.contains(action))
    }

    /// What is doubtful about one of its patterns.
    fn doubt(&self, pattern: &Pattern) -> Option<String> {
        let Some(credentials) = &self.credentials else {
            return pattern.names_id().then(|| {
                format!("{pattern} names an id: a request that has the name in its place is not denied; write the name")
            });
        };
        if let Some(operation) = mint::operation(&pattern.route()) {
            return Some(format!(
                "{pattern} opens nothing: this operation can give a credential away ({operation}); remove it"
            ));
        }
        let mut organizations = pattern.organizations()?;
        let stray = organizations.find(|organization| !goes_to(credentials, organization))?;
        Some(format!(
            "{pattern} leads to {stray:?}, where the credential {:?} may not go; add it to the credential's \
             organizations or take another credential",
            credentials.first.name
        ))
    }
}

/// Whether a broader pattern would not open what this one does.
fn is_opaque(pattern: &Pattern) -> bool {
    mint::opaque(&pattern.route()).is_some()
}
