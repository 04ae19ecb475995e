//! What went wrong on the way to Azure DevOps: a code for the caller, a sentence for the operator.

use std::borrow::Cow;

use http::StatusCode;

use crate::refusal::Refusal;

/// Why an attempt came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What the caller is told.
    pub(crate) why: Refusal,
    /// What the operator is told, in log and audit. Never holds a header of the request or a whole URL.
    pub(crate) detail: Cow<'static, str>,
}

impl Fault {
    /// Both together.
    pub(crate) fn new(why: Refusal, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { why, detail: detail.into() }
    }

    /// The way to Azure DevOps, or to the proxy before it, is cut.
    pub(crate) fn unreachable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Refusal::UpstreamUnreachable, detail)
    }

    /// The answer shows the secret that was sent.
    pub(crate) fn echo() -> Self {
        Self::new(Refusal::UpstreamWithheld, "the head of the answer holds the credential itself")
    }

    /// An operator took the credential away while the request used it.
    pub(crate) fn cut() -> Self {
        Self::new(Refusal::CredentialDisabled, "cut by an operator, before an answer began")
    }

    /// A probe of the credential that neither clears nor condemns it.
    pub(crate) fn probe(status: StatusCode, what: &str) -> Self {
        let detail = format!("the probe of the credential was answered with {status}: {what}");
        Self::new(Refusal::UpstreamGarbled, detail)
    }
}
