//! What a request would do.
use http::Method;

/// What a request would do, read from its method and target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Any request that is not one of the below.
    Method(Method),
    /// Reading a repository over smart HTTP.
    GitFetch,
    /// Writing to a repository over smart HTTP.
    GitPush,
    /// Git LFS.
    GitLfs,
}

/// An action as a rule names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionPattern {
    /// `GET`, `POST`, …: never matches a git action.
    Method(Method),
    /// `git:fetch`
    GitFetch,
    /// `git:push`
    GitPush,
    /// `git:lfs`
    GitLfs,
}

impl Action {
    /// As the audit says it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Method(m) => match m.as_str() {
                "GET" => "GET",
                "POST" => "POST",
                "DELETE" => "DELETE",
                "OPTIONS" => "OPTIONS",
                _ => "PATCH",
            },
            Self::GitFetch => "git:fetch",
            Self::GitPush => "git:push",
            Self::GitLfs => "git:lfs",
        }
    }
}

impl ActionPattern {
    /// Whether it is about `action`.
    #[must_use]
    pub fn matches(&self, action: &Action) -> bool {
        match (self, action) {
            (Self::Method(a), Action::Method(b)) => a == b,
            (Self::GitFetch, Action::GitFetch)
            | (Self::GitPush, Action::GitPush)
            | (Self::GitLfs, Action::GitLfs) => true,
            _ => false,
        }
    }
}
