//! What the record says of a request's head: first as it was received, then as it was read.

use std::{borrow::Cow, fmt::Write as _};

use http::request::Parts;

use super::{Target, headers, query};
use crate::audit::Facts;

/// The longest path that is recorded, in bytes.
const MAX_PATH: usize = 2 * 1024;

/// What stands in place of a token.
const WITHHELD: &str = "*";

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

/// Whether a run of letters, digits, `-`, `.` and `_` has the form of a token: 52 characters of base32, 84 with
/// `AZDO` in them, or a JWT. No name, id or hash has.
fn is_token(run: &str) -> bool {
    let alphanumeric = || run.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match run.len() {
        52 => run.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')),
        80.. if alphanumeric() => run.contains("AZDO"),
        48.. => run.starts_with("eyJ"),
        _ => false,
    }
}

/// The path with every token in it withheld: a client that puts its own there does not put it on record.
fn without_tokens(path: &str) -> Cow<'_, str> {
    let ends_run = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_');
    if !path.split(ends_run).any(is_token) {
        return Cow::Borrowed(path);
    }
    let withheld = |piece: &str| {
        let run = piece.trim_end_matches(ends_run);
        if is_token(run) { piece.replacen(run, WITHHELD, 1) } else { piece.to_owned() }
    };
    path.split_inclusive(ends_run).map(withheld).collect::<String>().into()
}

/// Cut to what fits a record, with all that is not visible ASCII escaped.
fn printable(path: &str) -> Box<str> {
    let mut text = String::with_capacity(path.len().min(MAX_PATH));
    for c in without_tokens(path).chars() {
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
    fn a_token_in_the_path_stays_off_the_record() {
        let (old, new) = ("a2".repeat(26), format!("{}JQQJ99BKACAAAAAAAAAAAAAAAZDO1234", "aB3".repeat(18)));
        let jwt = format!("eyJ{}.eyJ{}.sig-_", "a".repeat(30), "b".repeat(30));
        for token in [&old, &new, &jwt] {
            for (path, expected) in [
                (format!("/contoso/{token}"), "/contoso/*"),
                (format!("/{token}/_apis/x"), "/*/_apis/x"),
                (format!("/contoso/_apis/me={token}@b/{token}"), "/contoso/_apis/me=*@b/*"),
            ] {
                assert_eq!(&*printable(&path), expected, "{path}");
            }
        }
        for kept in [
            format!("/contoso/web/_git/web/info/lfs/objects/{}", "0123456789abcdef".repeat(4)),
            format!("/contoso/_apis/git/repositories/{}", "a1b2".repeat(10)),
            "/contoso/web/_apis/build/definitions/01234567-89ab-cdef-0123-456789abcdef".to_owned(),
            format!("/contoso/{}", "Long-name-of-a-project.".repeat(4)),
        ] {
            assert_eq!(*printable(&kept), kept);
        }
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
