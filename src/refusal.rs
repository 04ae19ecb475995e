//! Every reason to say no.
//!
//! [`Refusal`] is one closed enum: each variant has a stable code, a status, a sentence for the
//! caller and somebody to blame, each by an exhaustive match. What went wrong in detail is for the
//! log and the audit, never for the caller.

use http::StatusCode;
use hyper::body::Incoming;

use crate::{audit::Entry, gate::Wire};

/// A request that ends here, with what is needed to say so.
#[derive(Debug)]
pub struct Refused {
    /// The reason.
    pub why: Refusal,
    /// The form in which the caller reads it.
    pub wire: Wire,
    /// The request's body where it has not been read: [`crate::answer`] drains it up to a cap.
    pub rest: Option<Incoming>,
    /// The record that is still to be ended.
    pub entry: Entry,
    /// What the operator wants said besides (the `help` of a rule).
    pub help: Option<std::sync::Arc<str>>,
}

impl Refused {
    /// A refusal of a request whose body is of no more use.
    #[must_use]
    pub fn new(why: Refusal, wire: Wire, rest: Option<Incoming>, entry: Entry) -> Box<Self> {
        Box::new(Self { why, wire, rest, entry, help: None })
    }
}

/// Who has to act when a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The caller: another request would have been served.
    Client,
    /// Whoever runs patgate.
    Patgate,
    /// The vault, or the way to it.
    Vault,
    /// Azure DevOps, or the way to it.
    AzureDevops,
}

impl Blame {
    /// The word used in the audit and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Patgate => "patgate",
            Self::Vault => "vault",
            Self::AzureDevops => "azure-devops",
        }
    }
}

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $status:ident, $blame:ident, $public:literal;)+) => {
        /// Why a request was not served.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Refusal {
            /// Every reason there is, in the order of `docs/refusals.md`.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable, kebab-case name.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The status of the answer, where the caller reads one.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),+ }
            }

            /// The sentence for the caller. It says nothing of the configuration.
            #[must_use]
            pub fn public(self) -> &'static str {
                match self { $(Self::$variant => concat!("patgate: ", $public)),+ }
            }

            /// Who has to act.
            #[must_use]
            pub fn blame(self) -> Blame {
                match self { $(Self::$variant => Blame::$blame),+ }
            }

            /// What it means, for `docs/refusals.md`.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii_start()),+ }
            }
        }
    };
}

refusals! {
    /// The head of the request is not HTTP, or is larger than patgate reads (32 KiB, 64 fields, a target of 8 KiB).
    HeadMalformed = "head-malformed", BAD_REQUEST, Client, "the request's head can't be read";
    /// The TLS handshake failed, or took longer than `[limits] handshake`. There is no answer; the connection is closed.
    TlsFailed = "tls-failed", BAD_REQUEST, Client, "the TLS handshake failed";
    /// The head did not arrive within `[limits] head`.
    HeadTimeout = "head-timeout", REQUEST_TIMEOUT, Client, "the request's head did not arrive in time";
    /// The method is not one that Azure DevOps' interface uses.
    MethodUnknown = "method-unknown", METHOD_NOT_ALLOWED, Client, "this method is not known here";
    /// The body's length can't be told in one way only (`Transfer-Encoding` other than `chunked`, a body on a method that has none).
    Framing = "framing", BAD_REQUEST, Client, "the length of the request's body is ambiguous";
    /// A header that can be read in two ways, or that nobody may send (an underscore in its name, bytes outside ASCII, an override of the method).
    HeaderAmbiguous = "header-ambiguous", BAD_REQUEST, Client, "a header of the request is ambiguous";
    /// An `Expect` other than `100-continue`.
    ExpectationUnknown = "expectation-unknown", EXPECTATION_FAILED, Client, "this expectation can't be met";
    /// The path can be read in more than one way (dot segments, encoded slashes, doubled encodings, spaces at the ends of a segment).
    PathAmbiguous = "path-ambiguous", BAD_REQUEST, Client, "the path can be read in more than one way";
    /// A query parameter that decides is given twice.
    QueryAmbiguous = "query-ambiguous", BAD_REQUEST, Client, "a parameter of the query is given twice";
    /// The request names a host that patgate does not answer for, or none, or two.
    HostUnknown = "host-unknown", MISDIRECTED_REQUEST, Client, "this host is not served here";
    /// The path names a host that is not Azure DevOps', or an address of patgate's own that does not exist.
    TargetUnknown = "target-unknown", NOT_FOUND, Client, "there is nothing at this address";
    /// The path names no organisation.
    OrganizationMissing = "organization-missing", FORBIDDEN, Client, "the path names no organization";
    /// No client of the configuration has this address.
    ClientUnknown = "client-unknown", FORBIDDEN, Client, "this address is not known here";
    /// No rule allows this.
    NoRule = "no-rule", FORBIDDEN, Client, "no rule allows this request";
    /// A rule denies this.
    DeniedByRule = "denied-by-rule", FORBIDDEN, Client, "a rule denies this request";
    /// A rule allows this, but its credential is not for this organisation.
    CredentialElsewhere = "credential-elsewhere", FORBIDDEN, Patgate, "the rule's credential is not for this organization";
    /// Too many requests at once, from this client or in all.
    TooManyRequests = "too-many-requests", TOO_MANY_REQUESTS, Client, "too many requests at once; try again";
    /// The use could not be recorded durably, so it did not happen.
    AuditUnavailable = "audit-unavailable", SERVICE_UNAVAILABLE, Patgate, "uses can't be recorded at the moment; try again";
    /// The vault gave no secret in time, and none is kept.
    VaultUnavailable = "vault-unavailable", SERVICE_UNAVAILABLE, Vault, "the vault can't be reached at the moment; try again";
    /// The vault answered that there is no such secret, or that patgate may not read it, or what it gave is no token.
    CredentialMissing = "credential-missing", FAILED_DEPENDENCY, Vault, "there is no usable credential for this request";
    /// An operator took the credential out of use (`patgate credential disable`), perhaps while this request waited for its answer.
    CredentialDisabled = "credential-disabled", FAILED_DEPENDENCY, Patgate, "the credential for this request is disabled; ask whoever runs patgate";
    /// Azure DevOps refuses the credential: expired, revoked, or its owner is gone.
    CredentialRejected = "credential-rejected", FAILED_DEPENDENCY, Patgate, "Azure DevOps rejects the credential for this request";
    /// Azure DevOps knows the credential and refuses this operation: a scope or a permission is missing.
    ScopeMissing = "scope-missing", FORBIDDEN, AzureDevops, "the credential for this request may not do this in Azure DevOps";
    /// The request's body did not come to its end.
    BodyIncomplete = "body-incomplete", BAD_REQUEST, Client, "the request's body did not arrive whole";
    /// Azure DevOps could not be reached.
    UpstreamUnreachable = "upstream-unreachable", BAD_GATEWAY, AzureDevops, "Azure DevOps can't be reached";
    /// The other end could not prove that it is Azure DevOps. Nothing was sent to it.
    UpstreamTls = "upstream-tls", BAD_GATEWAY, AzureDevops, "the way to Azure DevOps is not safe";
    /// The name leads to an address that patgate does not send credentials to (loopback, link-local, private).
    UpstreamForbidden = "upstream-forbidden", BAD_GATEWAY, Patgate, "Azure DevOps' name leads to an address that is not allowed";
    /// Azure DevOps did not answer in time.
    UpstreamTimeout = "upstream-timeout", GATEWAY_TIMEOUT, AzureDevops, "Azure DevOps did not answer in time";
    /// Azure DevOps' answer is not HTTP, or broke off before its head was whole.
    UpstreamGarbled = "upstream-garbled", BAD_GATEWAY, AzureDevops, "Azure DevOps' answer can't be read";
    /// Azure DevOps answered with a page for signing in, or held up the credential itself.
    UpstreamWithheld = "upstream-withheld", BAD_GATEWAY, AzureDevops, "Azure DevOps' answer was withheld";
    /// A fault of patgate's own.
    Internal = "internal", INTERNAL_SERVER_ERROR, Patgate, "an internal fault";
}
