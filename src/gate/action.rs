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
