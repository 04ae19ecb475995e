//! What a request would do, and how a rule says so.

use http::Method;

use super::Target;
use crate::refusal::Refusal;

/// The methods that Azure DevOps' interface uses, written as they must be sent.
const METHODS: &[(Method, &str)] = &[
    (Method::GET, "GET"),
    (Method::HEAD, "HEAD"),
    (Method::POST, "POST"),
    (Method::PUT, "PUT"),
    (Method::PATCH, "PATCH"),
    (Method::DELETE, "DELETE"),
    (Method::OPTIONS, "OPTIONS"),
];

const FETCH: &str = "git:fetch";
const PUSH: &str = "git:push";
const LFS: &str = "git:lfs";
const UPLOAD_PACK: &str = "git-upload-pack";
const RECEIVE_PACK: &str = "git-receive-pack";

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

impl Action {
    /// Reads what a request would do. Every path of smart HTTP and LFS is a git action or refused: such a
    /// request is never a plain method.
    ///
    /// # Errors
    /// `method-unknown` (also for a method that such a path does not have), `query-ambiguous` (a `service`
    /// that is neither of the two, or none), `path-ambiguous` (such a path in an unusual place)
    pub fn read(method: &Method, target: &Target) -> Result<Self, Refusal> {
        check_method(method)?;
        let mut route = target.route();
        if route.next() != Some("_git") {
            let is_pack = matches!(route.next_back(), Some(UPLOAD_PACK | RECEIVE_PACK));
            return if is_pack && route.any(|segment| segment == "_git") {
                Err(Refusal::PathAmbiguous)
            } else {
                Ok(Self::Method(method.clone()))
            };
        }
        let below_repository = route.clone().skip(1);
        let mut first = below_repository.clone();
        match (first.next(), first.next(), first.next()) {
            (Some("info"), Some("refs"), None) if method == Method::GET => Self::advertised(target),
            (Some(UPLOAD_PACK), None, None) if method == Method::POST => Ok(Self::GitFetch),
            (Some(RECEIVE_PACK), None, None) if method == Method::POST => Ok(Self::GitPush),
            (Some("info"), Some("lfs"), _) if [Method::GET, Method::POST, Method::PUT].contains(method) => {
                Ok(Self::GitLfs)
            }
            (Some("info"), Some("refs"), None)
            | (Some(UPLOAD_PACK | RECEIVE_PACK), None, None)
            | (Some("info"), Some("lfs"), _) => Err(Refusal::MethodUnknown),
            _ if looks_like_git(route) => Err(Refusal::PathAmbiguous),
            _ => Ok(Self::Method(method.clone())),
        }
    }

    /// `info/refs?service=…`
    fn advertised(target: &Target) -> Result<Self, Refusal> {
        match target.query_value("service").as_deref() {
            Some(UPLOAD_PACK) => Ok(Self::GitFetch),
            Some(RECEIVE_PACK) => Ok(Self::GitPush),
            _ => Err(Refusal::QueryAmbiguous),
        }
    }

    /// The name that rules, logs and audit use.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Method(method) => name(method).unwrap_or("?"),
            Self::GitFetch => FETCH,
            Self::GitPush => PUSH,
            Self::GitLfs => LFS,
        }
    }
}

/// Whether a path below `_git` that is none of the known ones holds what git would send.
fn looks_like_git<'a>(below: impl Iterator<Item = &'a str> + Clone) -> bool {
    below.clone().any(|segment| segment == UPLOAD_PACK || segment == RECEIVE_PACK)
        || below
            .clone()
            .zip(below.skip(1))
            .any(|(one, next)| one == "info" && (next == "refs" || next == "lfs"))
}

fn name(method: &Method) -> Option<&'static str> {
    METHODS.iter().find(|(known, _)| known == method).map(|(_, name)| *name)
}

/// Refuses a method that is not on the list, in exactly that spelling.
pub(super) fn check_method(method: &Method) -> Result<(), Refusal> {
    name(method).map(|_| ()).ok_or(Refusal::MethodUnknown)
}

/// Whether a method never has a body here.
pub(super) fn has_no_body(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
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
    /// Reads an action as a rule spells it.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right, for the problem's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some((method, _)) = METHODS.iter().find(|(_, name)| *name == text) {
            return Ok(Self::Method(method.clone()));
        }
        match text {
            FETCH => return Ok(Self::GitFetch),
            PUSH => return Ok(Self::GitPush),
            LFS => return Ok(Self::GitLfs),
            _ => {}
        }
        let known = || METHODS.iter().map(|(_, name)| *name).chain([FETCH, PUSH, LFS]);
        if let Some(meant) = known().find(|name| name.eq_ignore_ascii_case(text)) {
            return Err(format!("`{text}` is not an action; write `{meant}`"));
        }
        let is_later = ["read", "write", "discovery"].contains(&text)
            || ["vso.", "pr:", "ref:", "mint:"].iter().any(|prefix| text.starts_with(prefix));
        let known = known().collect::<Vec<_>>().join(", ");
        Err(if is_later {
            format!(
                "`{text}` is not in this version; use HTTP methods, git:fetch, git:push, git:lfs ({known})"
            )
        } else {
            format!("`{text}` is not an action; use one of {known}")
        })
    }

    /// Whether the rule means this action.
    #[must_use]
    pub fn matches(&self, action: &Action) -> bool {
        match (self, action) {
            (Self::Method(pattern), Action::Method(method)) => pattern == method,
            (Self::GitFetch, Action::GitFetch)
            | (Self::GitPush, Action::GitPush)
            | (Self::GitLfs, Action::GitLfs) => true,
            _ => false,
        }
    }

    /// The action as a rule spells it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Method(method) => name(method).unwrap_or("?"),
            Self::GitFetch => FETCH,
            Self::GitPush => PUSH,
            Self::GitLfs => LFS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::read_line,
        Refusal::{MethodUnknown, PathAmbiguous, QueryAmbiguous},
        *,
    };

    fn read(line: &str) -> Result<&'static str, Refusal> {
        let (method, target) = line.split_once(' ').unwrap();
        read_line(method, target).map(|(_, action)| action.as_str())
    }

    #[test]
    fn git_is_told_from_methods_in_every_spelling() {
        for (line, action) in [
            ("GET /c/p/_git/r/info/refs?service=git-upload-pack", FETCH),
            ("GET /c/p/_git/r/info/refs?service=git-receive-pack", PUSH),
            ("GET /c/p/_git/r/info/refs?a=b&SERVICE=git%2Dreceive-pack", PUSH),
            ("GET /c/_git/r/info/refs?service=git-receive-pack", PUSH),
            ("GET /c/p/t/_git/_full/r/INFO/refs/?service=git-receive-pack", PUSH),
            ("POST /c/p/_git/r/git-upload-pack", FETCH),
            ("POST /c/p/_git/r/git-receive-pack", PUSH),
            ("POST /c/p/_git/_optimized/r/git-receive-pack/", PUSH),
            ("POST /c.visualstudio.com/p/_git/r/Git-Receive-Pack", PUSH),
            ("POST /_ssh/v3/c/p/r/git-receive-pack", PUSH),
            ("POST /c/p/_git/r/git%2Dreceive-pack", PUSH),
            ("POST /c/p/_git/r/info/lfs/objects/batch", LFS),
            ("POST /c/p/_git/r.git/info/lfs/objects/batch", LFS),
            ("PUT /c/p/_git/r/info/lfs/objects/abc", LFS),
            ("GET /c/p/_git/r", "GET"),
            ("GET /c/p/_git/r/vsts/info", "GET"),
            ("GET /c/p/_git/r/gvfs/config", "GET"),
            ("POST /c/p/_apis/git/repositories/r/pushes", "POST"),
            ("OPTIONS /c/_apis", "OPTIONS"),
            ("HEAD /c", "HEAD"),
            ("PATCH /c/_apis/x", "PATCH"),
            ("DELETE /c/_apis/x", "DELETE"),
        ] {
            assert_eq!(read(line), Ok(action), "{line}");
        }
    }

    #[test]
    fn what_is_nearly_git_is_refused() {
        for (line, why) in [
            ("GET /c/p/_git/r/info/refs", QueryAmbiguous),
            ("GET /c/p/_git/r/info/refs?service=", QueryAmbiguous),
            ("GET /c/p/_git/r/info/refs?service=git-upload-archive", QueryAmbiguous),
            ("GET /c/p/_git/r/info/refs?service=git-receive-pack%20", QueryAmbiguous),
            ("GET /c/p/_git/r/info/refs?service=GIT-receive-pack", QueryAmbiguous),
            ("GET /c/p/_git/r/info/refs?service=git-upload-pack&service=git-receive-pack", QueryAmbiguous),
            ("HEAD /c/p/_git/r/info/refs?service=git-upload-pack", MethodUnknown),
            ("POST /c/p/_git/r/info/refs?service=git-upload-pack", MethodUnknown),
            ("GET /c/p/_git/r/git-upload-pack", MethodUnknown),
            ("PUT /c/p/_git/r/git-receive-pack", MethodUnknown),
            ("DELETE /c/p/_git/r/info/lfs/objects/x", MethodUnknown),
            ("PATCH /c/p/_git/r/info/lfs/objects/x", MethodUnknown),
            ("POST /c/p/_git/r/x/git-receive-pack", PathAmbiguous),
            ("POST /c/p/_git/r/git-receive-pack/x", PathAmbiguous),
            ("POST /c/p/_git/git-receive-pack", PathAmbiguous),
            ("GET /c/p/_git/info/refs?service=git-receive-pack", PathAmbiguous),
            ("GET /c/p/_git/r/info/refs/x?service=git-receive-pack", PathAmbiguous),
            ("POST /c/p/_git/r/x/info/lfs/objects/batch", PathAmbiguous),
            ("POST /c/p/_x/_git/r/git-receive-pack", PathAmbiguous),
        ] {
            assert_eq!(read(line), Err(why), "{line}");
        }
    }

    #[test]
    fn a_method_that_is_not_on_the_list_is_refused() {
        for method in ["get", "Get", "G!T", "TRACE", "CONNECT", "PROPFIND", "QUERY", "", "GET ", "GET\u{e9}"]
        {
            let read = read_line(method, "/contoso/web").map(|(_, action)| action);
            assert_eq!(read, Err(MethodUnknown), "{method:?}");
        }
    }

    #[test]
    fn a_method_in_a_rule_never_opens_a_push() {
        for pattern in ["GET", "POST", "PUT"].map(|text| ActionPattern::parse(text).unwrap()) {
            for action in [Action::GitFetch, Action::GitPush, Action::GitLfs] {
                assert!(!pattern.matches(&action), "{pattern:?} {action:?}");
            }
        }
        assert!(!ActionPattern::GitFetch.matches(&Action::GitPush));
        assert!(!ActionPattern::GitFetch.matches(&Action::Method(Method::GET)));
        assert!(!ActionPattern::Method(Method::GET).matches(&Action::Method(Method::HEAD)));
    }

    #[test]
    fn an_action_is_spelled_in_one_way() {
        for text in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", FETCH, PUSH, LFS] {
            assert_eq!(ActionPattern::parse(text).map(|pattern| pattern.as_str()), Ok(text));
        }
        for (text, says) in [
            ("get", "write `GET`"),
            ("Git:Fetch", "write `git:fetch`"),
            ("read", "not in this version; use HTTP methods, git:fetch, git:push, git:lfs"),
            ("vso.work", "not in this version"),
            ("pr:open", "not in this version"),
            ("mint:pat", "not in this version"),
            ("TRACE", "`TRACE` is not an action; use one of GET, HEAD"),
            ("git:clone", "is not an action"),
            ("*", "is not an action"),
            ("", "`` is not an action"),
        ] {
            let wrong = ActionPattern::parse(text).unwrap_err();
            assert!(wrong.contains(says), "{wrong}");
        }
    }
}
