//! One rule, and whether it is about a request.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    config::{self, Credentials, Place, RuleClients, RuleVerdict},
    gate::{Action, ActionPattern},
    policy::{object::Object, pattern::Pattern},
};

/// What is asked of the rules.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) client: &'a str,
    pub(crate) object: Object<'a>,
    pub(crate) action: &'a Action,
    pub(crate) now: Timestamp,
}

/// The first thing by which a rule is not about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    Client,
    Expired,
    Path,
    Action,
}

/// A rule, compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    /// `None`: any client.
    pub(crate) clients: Option<Box<[Arc<str>]>>,
    /// Empty: everything.
    pub(crate) paths: Box<[Pattern]>,
    pub(crate) actions: Box<[ActionPattern]>,
    /// `None`: a denial.
    pub(crate) credentials: Option<Arc<Credentials>>,
    pub(crate) help: Option<Arc<str>>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) place: Place,
}

impl Rule {
    pub(crate) fn new(rule: &config::Rule) -> Self {
        let clients = match &rule.clients {
            RuleClients::Any => None,
            RuleClients::Named(names) => Some(names.as_slice().into()),
        };
        let (actions, credentials) = match &rule.verdict {
            RuleVerdict::Allow(actions, credentials) => (actions, Some(Arc::clone(credentials))),
            RuleVerdict::Deny(actions) => (actions, None),
        };
        Self {
            name: Arc::clone(&rule.name),
            clients,
            paths: rule.paths.as_slice().into(),
            actions: actions.as_slice().into(),
            credentials,
            help: rule.help.clone(),
            until: rule.until,
            place: rule.place.clone(),
        }
    }

    /// Why it is not about this request; `None` if it is, and so decides.
    pub(crate) fn miss(&self, asked: &Asked<'_>) -> Option<Miss> {
        if !self.is_about(asked.client) {
            return Some(Miss::Client);
        }
        if self.until.is_some_and(|until| until <= asked.now) {
            return Some(Miss::Expired);
        }
        if self.credentials.is_some() && asked.object.is_discovery {
            // Any rule of the client in this organisation opens it.
            return (!self.reaches(asked.object.organization())).then_some(Miss::Path);
        }
        if !self.has_path(asked) {
            return Some(Miss::Path);
        }
        let has_action = self.actions.iter().any(|action| action.matches(asked.action));
        (!has_action).then_some(Miss::Action)
    }

    pub(crate) fn is_about(&self, client: &str) -> bool {
        self.clients.as_ref().is_none_or(|names| names.iter().any(|name| **name == *client))
    }

    /// Whether it is a denial that is about this request only because the request leaves open what it is about.
    pub(crate) fn is_in_doubt(&self, asked: &Asked<'_>) -> bool {
        let is_certain = self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.is(&asked.object));
        self.credentials.is_none() && !is_certain
    }

    fn reaches(&self, organization: &str) -> bool {
        self.paths.iter().any(|pattern| pattern.reaches(organization))
    }

    fn has_path(&self, asked: &Asked<'_>) -> bool {
        let object = &asked.object;
        if self.credentials.is_some() {
            return self.paths.iter().any(|pattern| pattern.matches(object));
        }
        // Discovery shows no project's content, so that a denial must mean it in so many words.
        let may_be = |pattern: &Pattern| {
            if object.is_discovery { pattern.is(object) } else { pattern.may_match(object) }
        };
        self.paths.is_empty() || self.paths.iter().any(may_be)
    }
}
