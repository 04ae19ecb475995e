//! Says how a decision comes about, by the code that comes to it.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::Serialize;

use crate::{
    client::Table,
    gate::{self, Action, Target},
    policy::{
        Decision, Policy, now,
        object::Object,
        rule::{Asked, Miss, Rule},
    },
    refusal::Refusal,
};

/// How patgate would decide about a request, and why. `Display` is for people, `Serialize` for machines.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    /// The caller's address.
    pub from: IpAddr,
    /// The client of that address; `null` if there is none.
    pub client: Option<Caller>,
    /// The request's method and target, as they were given.
    pub request: String,
    /// How these are read; `null` if they can't be read in one way.
    pub reading: Option<Reading>,
    /// The rules that were asked, in order, the one that decided last.
    pub rules: Vec<Step>,
    /// The verdict.
    pub allowed: bool,
    /// The rule that decided.
    pub rule: Option<Arc<str>>,
    /// The credential that would be used.
    pub credential: Option<Arc<str>>,
    /// Those that would take its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_credentials: Vec<Arc<str>>,
    /// The code of the refusal.
    pub refusal: Option<&'static str>,
    /// What is special about this request.
    pub note: Option<String>,
    /// What the refused caller is told besides.
    pub help: Option<Arc<str>>,
}

/// Who calls.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Caller {
    /// The client's name.
    pub name: Arc<str>,
    /// Its network that the address is in.
    pub network: String,
}

/// How a request is read.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reading {
    /// The host of Azure DevOps it would go to.
    pub host: &'static str,
    /// The organisation.
    pub organization: String,
    /// The project, if the path names one.
    pub project: Option<String>,
    /// What it would do: a method, or a git action.
    pub action: &'static str,
    /// The path that patterns are compared with.
    pub path: String,
}

/// What one rule says of the request.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// The rule's name.
    pub rule: Arc<str>,
    /// Where it stands in the configuration.
    pub place: String,
    /// What comes of it.
    pub outcome: Outcome,
    /// The same as a sentence.
    pub because: String,
}

/// What comes of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is not about this client.
    OtherClient,
    /// Its `until` is past.
    Expired,
    /// It is not about this path.
    OtherPath,
    /// It is not about this action.
    OtherAction,
    /// It allows the request.
    Allows,
    /// It denies the request.
    Denies,
    /// It allows the request, but its credential may not go to the organisation.
    CredentialElsewhere,
}

/// Explains what `policy` and `clients` make of a request: `method` and `target` as they would stand in
/// its first line.
#[must_use]
pub fn explain(policy: &Policy, clients: &Table, from: IpAddr, method: &str, target: &str) -> Explanation {
    let from = from.to_canonical();
    let caller = clients.look_up(from);
    let mut explanation = Explanation {
        from,
        client: caller
            .as_ref()
            .map(|(network, client)| Caller { name: Arc::clone(&client.name), network: network.to_string() }),
        request: format!("{method} {target}"),
        reading: None,
        rules: Vec::new(),
        allowed: false,
        rule: None,
        credential: None,
        other_credentials: Vec::new(),
        refusal: None,
        note: None,
        help: None,
    };
    let (target, action) = match gate::read_line(method, target) {
        Ok(read) => read,
        Err(refusal) => {
            explanation.refusal = Some(refusal.code());
            explanation.note = Some(plain(refusal));
            return explanation;
        }
    };
    explanation.reading = Some(Reading::new(&target, &action));
    let Some((_, client)) = caller else {
        explanation.refusal = Some(Refusal::ClientUnknown.code());
        explanation.note = Some("no client has this address".into());
        return explanation;
    };
    let asked =
        Asked { client: &client.name, object: Object::new(&target, &action), action: &action, now: now() };
    explanation.decided(policy, &asked);
    explanation
}

impl Explanation {
    fn decided(&mut self, policy: &Policy, asked: &Asked<'_>) {
        let decision = policy.decide(asked);
        self.note = note(&decision, asked);
        self.help = decision.help().cloned();
        self.rule = decision.rule().map(|rule| Arc::clone(&rule.name));
        match decision.verdict() {
            Ok((_, credentials)) => {
                self.allowed = true;
                self.credential = Some(Arc::clone(&credentials.first.name));
                self.other_credentials =
                    credentials.others.iter().map(|other| Arc::clone(&other.name)).collect();
            }
            Err(refusal) => self.refusal = Some(refusal.code()),
        }
        if matches!(decision, Decision::Mints(_)) {
            return;
        }
        let deciding = decision.rule();
        for rule in &policy.rules {
            self.rules.push(Step::new(rule, asked));
            let ends = match decision {
                // Discovery goes on from a rule whose credential is for elsewhere.
                Decision::Elsewhere { .. } if asked.object.is_discovery => false,
                _ => deciding.is_some_and(|deciding| std::ptr::eq(deciding, rule)),
            };
            if ends {
                break;
            }
        }
    }
}

impl Reading {
    fn new(target: &Target, action: &Action) -> Self {
        let path = target.canonical().fold(String::new(), |path, segment| path + "/" + segment);
        Self {
            host: target.host().authority(),
            organization: target.organization().to_owned(),
            project: target.project().map(str::to_owned),
            action: action.as_str(),
            path,
        }
    }
}

impl Step {
    fn new(rule: &Rule, asked: &Asked<'_>) -> Self {
        let outcome = match (rule.miss(asked), &rule.credentials) {
            (Some(Miss::Client), _) => Outcome::OtherClient,
            (Some(Miss::Expired), _) => Outcome::Expired,
            (Some(Miss::Path), _) => Outcome::OtherPath,
            (Some(Miss::Action), _) => Outcome::OtherAction,
            (None, None) => Outcome::Denies,
            (None, Some(credentials)) if super::goes_to(credentials, asked.object.organization()) => {
                Outcome::Allows
            }
            (None, Some(_)) => Outcome::CredentialElsewhere,
        };
        let because = match outcome {
            Outcome::OtherClient => format!("it is not about the client {}", asked.client),
            Outcome::Expired => match rule.until {
                Some(until) => format!("it ended at {until}"),
                None => "it ended".into(),
            },
            Outcome::OtherPath => match &*rule.paths {
                [only] => format!("the path is not of {only}"),
                paths => format!("the path is of none of its {} patterns", paths.len()),
            },
            Outcome::OtherAction => format!("{} is not among its actions", asked.action.as_str()),
            Outcome::Allows => "it allows the request".into(),
            Outcome::Denies if rule.is_in_doubt(asked) => {
                "it denies what it is about, and the path leaves open (by an id, or without a project) whether \
                 it is that"
                    .into()
            }
            Outcome::Denies => "it denies the request".into(),
            Outcome::CredentialElsewhere => format!(
                "it allows the request, but its credential is not for the organization {}",
                asked.object.organization()
            ),
        };
        Self { rule: Arc::clone(&rule.name), place: rule.place.to_string(), outcome, because }
    }
}

/// Why an operation that mints or reveals credentials is refused.
pub(super) fn mints(operation: &str) -> String {
    format!("this operation can give a credential away ({operation}); no method and no pattern opens it")
}

fn note(decision: &Decision<'_>, asked: &Asked<'_>) -> Option<String> {
    match decision {
        Decision::Mints(operation) => Some(mints(operation)),
        Decision::Allowed { .. } | Decision::Elsewhere { .. } if asked.object.is_discovery => {
            Some("every SDK starts with this call; any rule of the client in this organization opens it".into())
        }
        Decision::Nothing { .. } if asked.object.spelled_through.is_some() => Some(
            "what this operation does stands in its body; only a pattern that spells it out, without * and **, \
             opens it"
                .into(),
        ),
        _ => None,
    }
}

/// A refusal's sentence without the name in front.
fn plain(refusal: Refusal) -> String {
    let text = refusal.public();
    text.strip_prefix("patgate: ").unwrap_or(text).to_owned()
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.client {
            Some(client) => {
                writeln!(f, "client   {} ({} is in {})", client.name, self.from, client.network)?;
            }
            None => writeln!(f, "client   none ({} is in no client's networks)", self.from)?,
        }
        writeln!(f, "request  {}", self.request)?;
        if let Some(reading) = &self.reading {
            let project = reading.project.as_deref().unwrap_or("not known");
            writeln!(f, "read as  {} of {} on {}", reading.action, reading.path, reading.host)?;
            writeln!(f, "         organization {}, project {project}", reading.organization)?;
        }
        for (n, step) in self.rules.iter().enumerate() {
            let label = if n == 0 { "rules" } else { "" };
            writeln!(f, "{label:8} {:?} ({}): {}", step.rule, step.place, step.because)?;
        }
        if let Some(note) = &self.note {
            writeln!(f, "note     {note}")?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "help     {help}")?;
        }
        f.write_str("verdict  ")?;
        match (&self.rule, &self.credential, self.refusal) {
            (Some(rule), Some(credential), None) => {
                write!(f, "allowed by {rule:?} with the credential {credential:?}")?;
                self.other_credentials.iter().try_for_each(|other| write!(f, " or {other:?}"))
            }
            (Some(rule), _, refusal) => write!(f, "refused by {rule:?}: {}", refusal.unwrap_or("no-rule")),
            (None, _, refusal) => write!(f, "refused: {}", refusal.unwrap_or("no-rule")),
        }
    }
}
