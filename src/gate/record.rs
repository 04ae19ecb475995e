//! What the record says of a request's head: first as it was received, then as it was read.

use std::fmt::Write as _;

use http::request::Parts;

use super::{Target, headers, query};
use crate::audit::Facts;

/// The longest path that is recorded, in bytes.
const MAX_PATH: usize = 2 * 1024;

/// Notes what is known before anything is read strictly. The authority of an absolute target is left out: it
/// may hold a password.
pub(super) fn received(head: &Parts, facts: &mut Facts) {
    facts.method = Some(head.method.clone());
    facts.path = Some(printable(head.uri.path()));
    facts.query = head.uri.query().map(query::recorded);
    if headers::hold_credential(&head.headers) {
        facts.detail = Some("the client sent a credential of its own; it was dropped".into());
    }
}

/// Notes the target as it was read.
pub(super) fn target(target: &Target, facts: &mut Facts) {
    facts.host = Some(target.host().authority());
    facts.path = Some(printable(target.path()));
    facts.query = target.audit_query();
}

/// Cut to what fits a record, with all that is not visible ASCII escaped.
fn printable(path: &str) -> Box<str> {
    let mut text = String::with_capacity(path.len().min(MAX_PATH));
    for c in path.chars() {
        if text.len() >= MAX_PATH {
            text.push('…');
            break;
        }
        if c.is_ascii_graphic() || c == ' ' {
            text.push(c);
        } else {
            // Writing to a string can't fail.
            let _ = write!(text, "{}", c.escape_unicode());
        }
    }
    text.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(request: http::request::Builder) -> Facts {
        let mut facts = Facts::default();
        received(&request.body(()).unwrap().into_parts().0, &mut facts);
        facts
    }

    #[test]
    fn a_refused_request_is_on_record_without_what_may_be_secret() {
        let request = http::Request::builder()
            .method("DELETE")
            .uri("http://me:secret@evil/contoso/../x?token=secret&api-version=7.1")
            .header("authorization", "Basic secret");
        let facts = facts(request);
        assert_eq!(facts.method, Some(http::Method::DELETE));
        assert_eq!(facts.path.as_deref(), Some("/contoso/../x"));
        assert_eq!(facts.query.as_deref(), Some("token=*&api-version=7.1"));
        assert_eq!(facts.detail.as_deref(), Some("the client sent a credential of its own; it was dropped"));
        assert!(!format!("{facts:?}").contains("secret"));
    }

    #[test]
    fn a_path_is_cut_and_escaped() {
        assert_eq!(&*printable("/a\u{7f}b\u{202e}\n"), "/a\\u{7f}b\\u{202e}\\u{a}");
        let long = printable(&"é".repeat(8 * 1024));
        assert!(long.len() < MAX_PATH + 16 && long.ends_with('…'), "{}", long.len());
    }

    #[test]
    fn what_is_forwarded_replaces_what_was_received() {
        let mut facts = Facts::default();
        let received = "/pkgs.dev.azure.com/Contoso/_packaging/f?path=x&$top=1".parse().unwrap();
        target(&Target::parse(&received).unwrap(), &mut facts);
        assert_eq!(facts.host, Some("pkgs.dev.azure.com"));
        assert_eq!(facts.path.as_deref(), Some("/Contoso/_packaging/f"));
        assert_eq!(facts.query.as_deref(), Some("path=*&$top=1"));
    }
}
