//! What is on record besides the uses themselves.

use std::sync::Arc;

use super::{Ending, Facts};

/// What is on record besides requests. Texts are cut to what fits a record.
#[derive(Clone, Debug)]
pub enum Event {
    /// patgate started.
    Start {
        /// patgate's version.
        version: &'static str,
        /// The configuration, as in [`Facts::policy`].
        policy: Arc<str>,
        /// The addresses it listens on.
        listeners: Vec<String>,
    },
    /// patgate stops.
    Stop {
        /// Why, in a word or two.
        reason: &'static str,
    },
    /// A new configuration is in force.
    Configured {
        /// The configuration, as in [`Facts::policy`].
        policy: Arc<str>,
        /// Counts reloads, from 1.
        generation: u64,
    },
    /// A new configuration was refused; the old one stays.
    ConfigurationRefused {
        /// How many problems it has.
        problems: usize,
        /// The first of them, with its place.
        first: String,
    },
    /// A vault was read for no single request.
    VaultRead {
        /// The vault's name.
        vault: Arc<str>,
        /// The credential's name.
        credential: Arc<str>,
        /// The version that was read, as the vault calls it.
        version: Option<Arc<str>>,
        /// What for: `start`, `refresh`, …
        purpose: &'static str,
        /// What came of it.
        outcome: &'static str,
    },
    /// A vault was, or is about to be, written to.
    VaultWrite {
        /// The vault's name.
        vault: Arc<str>,
        /// The credential's name.
        credential: Arc<str>,
        /// The version that was written, as the vault calls it.
        version: Option<Arc<str>>,
        /// What for: `rotate`.
        purpose: &'static str,
        /// `intended`, and then what came of it.
        outcome: &'static str,
    },
    /// patgate is about to call Azure DevOps for no single request.
    Intent {
        /// Of this call: [`request_id`].
        id: Box<str>,
        /// What for: `rotate`.
        purpose: &'static str,
        /// What is known of the call.
        facts: Box<Facts>,
    },
    /// Such a call has ended.
    Outcome {
        /// As its intent's.
        id: Box<str>,
        /// What is known of the call.
        facts: Box<Facts>,
        /// How it ended.
        ending: Ending,
        /// How long it took.
        micros: u64,
    },
    /// The rotation of a credential came a step further.
    Rotation {
        /// The credential's name.
        credential: Arc<str>,
        /// The rotation's id.
        rotation: Box<str>,
        /// What happened.
        step: &'static str,
        /// Azure DevOps' id of the token it is about.
        authorization: Option<Box<str>>,
        /// Detail for the operator.
        detail: Option<Box<str>>,
    },
    /// Azure DevOps refused a credential.
    CredentialRejected {
        /// The credential's name.
        credential: Arc<str>,
        /// The version that was sent, as the vault calls it.
        version: Option<Arc<str>>,
        /// How that is known.
        reason: Box<str>,
    },
    /// A refused credential goes back to the version before, within its `previous-grace`.
    CredentialPrevious {
        /// The credential's name.
        credential: Arc<str>,
        /// The version that is used again, as the vault calls it.
        version: Arc<str>,
        /// Until when, at the longest.
        until: jiff::Timestamp,
    },
    /// An operator asks for a change. On record before it takes effect, and again where it came to nothing.
    Operation {
        /// The user's name, or uid; or the signal.
        operator: Arc<str>,
        /// The user's uid, as the kernel says.
        uid: Option<u32>,
        /// `disable`, `enable`, `refresh`.
        operation: &'static str,
        /// The credential's name; none for all of them.
        credential: Option<Arc<str>>,
        /// Why, in the operator's words.
        reason: Option<Arc<str>>,
        /// Whether requests under way are to be cut.
        cut: bool,
        /// `asked`; `failed`: it was not done; `unkept`: it was, but ends with the process.
        outcome: &'static str,
        /// Why it came to nothing.
        detail: Option<Box<str>>,
    },
}

impl Event {
    /// The kind of its record.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Configured { .. } => "configured",
            Self::ConfigurationRefused { .. } => "configuration-refused",
            Self::VaultRead { .. } => "vault-read",
            Self::VaultWrite { .. } => "vault-write",
            Self::Intent { .. } => "intent",
            Self::Outcome { .. } => "outcome",
            Self::Rotation { .. } => "rotation",
            Self::CredentialRejected { .. } => "credential-rejected",
            Self::CredentialPrevious { .. } => "credential-previous",
            Self::Operation { .. } => "operation",
        }
    }
}
