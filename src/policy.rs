//! Decides, by the rules alone.
//!
//! What comes in: [`Known`], a request of a named client. What goes out: [`Permitted`], with the
//! credential of the rule that decided. Rules are read from top to bottom, the first that matches
//! decides, and where none does the request is refused. It must never look at anything but the
//! client, the target and the action that the gate has read; and what explains a decision
//! ([`explain`]) must come to it by the same code.
//!
//! # Adding a condition to rules
//! A field of [`crate::config::Rule`]; a check in `rule.rs`, with a `Miss` of its own; its sentence in
//! `explain.rs`.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;

use crate::{
    client::Known,
    clock,
    config::{self, Config, Credentials},
    gate::{Action, Target, Vetted},
    refusal::{Refusal, Refused},
};

mod discovery;
pub mod expect;
pub mod explain;
mod mint;
mod object;
pub mod pattern;
mod rule;
mod warning;

pub use explain::{Explanation, explain};
pub use pattern::Pattern;

use object::Object;
use rule::{Asked, Miss, Rule};

/// A request that a rule allows, with the credentials that the rule names.
#[derive(Debug)]
pub struct Permitted {
    known: Known,
    rule: Arc<str>,
    credentials: Arc<Credentials>,
}

impl Permitted {
    /// Takes it apart, for the step below.
    pub(crate) fn into_parts(self) -> (Known, Arc<str>, Arc<Credentials>) {
        (self.known, self.rule, self.credentials)
    }
}

/// The rules, compiled.
#[derive(Debug, Default)]
pub struct Policy {
    /// In order.
    rules: Vec<Rule>,
    /// For each client that a rule names: the rules that are about it, in order.
    by_client: HashMap<Arc<str>, Box<[usize]>>,
    /// The rules that are about every client, in order.
    of_all: Box<[usize]>,
    /// The first 8 bytes of the configuration's hash.
    hash: [u8; 8],
    /// What the audit calls this policy.
    name: OnceLock<Arc<str>>,
}

/// What the rules say of a request.
#[derive(Debug)]
enum Decision<'a> {
    Allowed {
        rule: &'a Rule,
        credentials: &'a Arc<Credentials>,
    },
    Denied {
        rule: &'a Rule,
    },
    /// A rule allows it with a credential that may not go to this organisation.
    Elsewhere {
        rule: &'a Rule,
    },
    /// An operation that no rule opens.
    Mints(&'static str),
    /// No rule decided. `near`: the first that is about the client and the path, and not this action.
    Nothing {
        near: Option<&'a Rule>,
    },
}

impl<'a> Decision<'a> {
    fn verdict(&self) -> Result<(&'a Rule, &'a Arc<Credentials>), Refusal> {
        match self {
            Self::Allowed { rule, credentials } => Ok((rule, credentials)),
            Self::Denied { .. } => Err(Refusal::DeniedByRule),
            Self::Elsewhere { .. } => Err(Refusal::CredentialElsewhere),
            Self::Mints(_) | Self::Nothing { .. } => Err(Refusal::NoRule),
        }
    }

    /// The rule that decided.
    fn rule(&self) -> Option<&'a Rule> {
        match self {
            Self::Allowed { rule, .. } | Self::Denied { rule } | Self::Elsewhere { rule } => Some(rule),
            Self::Mints(_) | Self::Nothing { .. } => None,
        }
    }

    /// What the operator wants a refused user to know.
    fn help(&self) -> Option<&'a Arc<str>> {
        match self {
            Self::Denied { rule } | Self::Elsewhere { rule } => rule.help.as_ref(),
            Self::Nothing { near } => near.and_then(|rule| rule.help.as_ref()),
            Self::Allowed { .. } | Self::Mints(_) => None,
        }
    }
}

impl Policy {
    /// Compiles the rules of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let hash = config.hash.first_chunk().copied().unwrap_or_default();
        Self { hash, ..Self::of(&config.rules) }
    }

    fn of(rules: &[config::Rule]) -> Self {
        let rules: Vec<Rule> = rules.iter().map(Rule::new).collect();
        let about = |is_about: &dyn Fn(&Rule) -> bool| -> Box<[usize]> {
            rules.iter().enumerate().filter(|(_, rule)| is_about(rule)).map(|(n, _)| n).collect()
        };
        let named = rules.iter().filter_map(|rule| rule.clients.as_deref()).flatten();
        let mut by_client: HashMap<Arc<str>, Box<[usize]>> = HashMap::new();
        for client in named {
            if !by_client.contains_key(client) {
                by_client.insert(Arc::clone(client), about(&|rule| rule.is_about(client)));
            }
        }
        let of_all = about(&|rule| rule.clients.is_none());
        Self { rules, by_client, of_all, ..Self::default() }
    }

    /// What the audit calls this policy: the first 8 bytes of the configuration's hash in hex, a dash,
    /// and its generation. One policy has one generation: the first that is given stays.
    #[must_use]
    pub fn name(&self, generation: u64) -> &Arc<str> {
        self.name.get_or_init(|| format!("{:016x}-{generation}", u64::from_be_bytes(self.hash)).into())
    }

    fn decide(&self, asked: &Asked<'_>) -> Decision<'_> {
        if let Some(operation) = asked.object.mints
            && !asked.object.is_discovery
        {
            return Decision::Mints(operation);
        }
        let (mut near, mut elsewhere) = (None, None);
        for rule in self.rules_of(asked.client) {
            match (rule.miss(asked), &rule.credentials) {
                (Some(Miss::Action), Some(_)) => near = near.or(Some(rule)),
                (Some(_), _) => {}
                (None, None) => return Decision::Denied { rule },
                (None, Some(credentials)) => {
                    if goes_to(credentials, asked.object.organization()) {
                        return Decision::Allowed { rule, credentials };
                    }
                    if !asked.object.is_discovery {
                        return Decision::Elsewhere { rule };
                    }
                    // Discovery is no rule's own: another may have a credential for it.
                    elsewhere = elsewhere.or(Some(rule));
                }
            }
        }
        elsewhere.map_or(Decision::Nothing { near }, |rule| Decision::Elsewhere { rule })
    }

    /// The rules that are about a client, in order.
    fn rules_of(&self, client: &str) -> impl Iterator<Item = &Rule> {
        let indices = self.by_client.get(client).unwrap_or(&self.of_all);
        indices.iter().filter_map(|n| self.rules.get(*n))
    }

    /// As [`Self::decide`], of a target and now.
    fn ask(&self, client: &str, target: &Target, action: &Action) -> Decision<'_> {
        self.decide(&Asked { client, object: Object::new(target, action), action, now: now() })
    }
}

/// Where the clock shows what no timestamp can, whatever has an end has ended.
fn now() -> Timestamp {
    Timestamp::try_from(clock::wall()).unwrap_or(Timestamp::MAX)
}

/// Whether a rule's credentials may go to an organisation, which is in lower case. All of them go to the same.
fn goes_to(credentials: &Credentials, organization: &str) -> bool {
    credentials.first.organizations.iter().any(|own| **own == *organization)
}

/// Asks the rules.
///
/// # Errors
/// `no-rule`, `denied-by-rule`, `credential-elsewhere`
pub async fn permit((): (), mut known: Known) -> Result<Permitted, Box<Refused>> {
    let snapshot = Arc::clone(&known.vetted.passage.snapshot);
    let policy = &snapshot.policy;
    let vetted = &mut *known.vetted;
    let decision = policy.ask(&known.client.name, &vetted.outgoing.target, &vetted.action);
    let facts = vetted.passage.entry.facts_mut();
    facts.policy = Some(Arc::clone(policy.name(snapshot.generation)));
    facts.rule = decision.rule().map(|rule| Arc::clone(&rule.name));
    let why = match decision.verdict() {
        Ok((rule, credentials)) => {
            facts.credential = Some(Arc::clone(&credentials.first.name));
            let (rule, credentials) = (Arc::clone(&rule.name), Arc::clone(credentials));
            return Ok(Permitted { known, rule, credentials });
        }
        Err(why) => why,
    };
    if let Decision::Mints(operation) = decision {
        facts.detail = Some(explain::mints(operation).into());
    }
    let help = decision.help().cloned();
    let Vetted { outgoing, wire, passage, .. } = *known.vetted;
    let mut refused = Refused::new(why, wire, outgoing.body, passage.entry);
    refused.help = help;
    Err(refused)
}

#[cfg(test)]
mod tests;
