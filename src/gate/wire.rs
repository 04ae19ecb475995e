//! In which form the sender of a request reads a refusal.

use http::{Method, request::Parts};

use super::{Action, Target};

/// The form in which the caller of a request reads an answer that is not the expected one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// JSON in the shape of Azure DevOps' own errors.
    #[default]
    Api,
    /// `GET …/info/refs?service=…`: git shows a `text/plain` body after `remote:`.
    GitAdvertisement,
    /// `POST …/git-upload-pack`: an `ERR` packet.
    GitFetch,
    /// `POST …/git-receive-pack`: a report for each ref, in the side-band.
    GitPush,
    /// Git LFS: JSON with a `message`.
    Lfs,
    /// Somebody with a browser (`Accept: text/html`, and not the API): a small page.
    Browser,
}

impl Wire {
    /// The form that the sender of a head reads, whether or not its target can be read.
    #[must_use]
    pub fn guess(head: &Parts) -> Self {
        let path = head.uri.path().trim_end_matches('/');
        let ends = |end: &str| path.len().checked_sub(end.len()).is_some_and(|at| has_at(path, at, end));
        if head.method == Method::POST && ends("/git-upload-pack") {
            Self::GitFetch
        } else if head.method == Method::POST && ends("/git-receive-pack") {
            Self::GitPush
        } else if ends("/info/refs") {
            Self::GitAdvertisement
        } else if has(path, "/info/lfs/") || ends("/info/lfs") {
            Self::Lfs
        } else if is_browser(head) && !has(path, "/_apis/") && !ends("/_apis") {
            Self::Browser
        } else {
            Self::Api
        }
    }

    /// The form for a request that could be read: what it does decides, however it is spelled.
    pub(super) fn of(action: &Action, head: &Parts, target: &Target) -> Self {
        match (action, Self::guess(head)) {
            (Action::GitLfs, _) => Self::Lfs,
            (Action::GitFetch | Action::GitPush, _) if head.method == Method::GET => Self::GitAdvertisement,
            (Action::GitFetch, _) => Self::GitFetch,
            (Action::GitPush, _) => Self::GitPush,
            (Action::Method(_), Self::Browser) if target.route().next() != Some("_apis") => Self::Browser,
            (Action::Method(_), _) => Self::Api,
        }
    }
}

fn has(path: &str, part: &str) -> bool {
    (0..path.len()).any(|at| has_at(path, at, part))
}

fn has_at(path: &str, at: usize, part: &str) -> bool {
    path.as_bytes().get(at..at + part.len()).is_some_and(|bytes| bytes.eq_ignore_ascii_case(part.as_bytes()))
}

/// Whether the sender prefers a page to anything else: browsers name it first.
fn is_browser(head: &Parts) -> bool {
    let accept = head.headers.get(http::header::ACCEPT).map(|value| value.as_bytes().trim_ascii_start());
    [Method::GET, Method::HEAD].contains(&head.method)
        && accept
            .and_then(|accept| accept.get(.."text/html".len()))
            .is_some_and(|first| first.eq_ignore_ascii_case(b"text/html"))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{head, verdict},
        *,
    };

    #[test]
    fn a_refusal_is_written_as_its_reader_expects() {
        let browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";
        for (text, wire) in [
            ("GET /c/p/_git/r/info/refs?service=git-upload-pack", Wire::GitAdvertisement),
            ("GET /c/p/_git/r/info/refs?service=git-receive-pack", Wire::GitAdvertisement),
            ("GET /c/p/_git/r/INFO/%72efs/?service=git-receive-pack", Wire::GitAdvertisement),
            ("GET /c/../_git/r/info/refs?service=git-upload-pack", Wire::GitAdvertisement),
            ("POST /c/p/_git/r/git-upload-pack", Wire::GitFetch),
            ("POST /c/p/_git/r/git-receive-pack", Wire::GitPush),
            ("POST /c/p/_git/r/%67it-receive-pack", Wire::GitPush),
            ("POST //c/p/_git/r/git-receive-pack", Wire::GitPush),
            ("POST /c/p/_git/r.git/info/lfs/objects/batch", Wire::Lfs),
            ("DELETE /c/p/_git/r.git/info/lfs/locks", Wire::Lfs),
            ("GET /c/_apis/projects", Wire::Api),
            (&format!("GET /c/p/_git/r\n{browser}"), Wire::Browser),
            (&format!("GET /c/../p\n{browser}"), Wire::Browser),
            (&format!("GET /c/_apis/projects\n{browser}"), Wire::Api),
            (&format!("GET /c/%5Fapis/projects\n{browser}"), Wire::Api),
            (&format!("GET /_apis\n{browser}"), Wire::Api),
            (&format!("POST /c/p/x\n{browser}"), Wire::Api),
            ("GET /c/p/x\nAccept: application/json, text/html", Wire::Api),
        ] {
            let read = verdict(&head(text)).map_or_else(|(_, wire)| wire, |read| read.wire);
            assert_eq!(read, wire, "{text}");
        }
    }
}
