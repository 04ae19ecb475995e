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

impl ActionPattern {
    /// Reads an action.
    ///
    /// # Errors
    /// What is wrong; what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "git:fetch" => Ok(Self::GitFetch),
            "git:push" => Ok(Self::GitPush),
            "git:lfs" => Ok(Self::GitLfs),
            "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => {
                Method::from_bytes(text.as_bytes()).map(Self::Method).map_err(|error| error.to_string())
            }
            _ => Err("is no action; known: methods such as GET, git:fetch, git:push, git:lfs".into()),
        }
    }
}
