//! Decodes a path, once, and refuses what could be decoded otherwise.
//!
//! Azure DevOps trims spaces and dots at the ends of segments and takes a backslash for a slash;
//! other servers on the way decode twice, or drop what follows a `;`. Nothing is repaired here: a
//! path that two of them could read differently is refused.

use super::characters::{is_unambiguous, lower};
use crate::refusal::Refusal;

/// Where one decoded segment stands in [`Segments::text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: u16,
    end: u16,
}

/// The segments of a path, decoded and in lower case.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    text: String,
    pub(super) spans: Vec<Span>,
}

/// A route below which Azure DevOps' own clients encode separators, `*` being any segment.
struct Tail {
    route: &'static [&'static str],
    npm: bool,
}

/// The only places for `%2F` and `%5C`. They separate segments there like a plain slash, and are
/// judged as such: `@scope%2fname` reads as `@scope/name`.
const TAILS: &[Tail] = &[
    // npm asks for `@scope%2fname`.
    Tail { route: &["_packaging", "*", "npm", "registry"], npm: true },
    // Areas and iterations: `%5CRoot%5CChild`.
    Tail { route: &["_apis", "wit", "classificationnodes"], npm: false },
    // Keys of settings: `GlobalMessageBanners%2Fbanner-id`.
    Tail { route: &["_apis", "settings", "entries"], npm: false },
    Tail { route: &["_apis", "settings", "*", "*", "entries"], npm: false },
    // Stored queries: `Shared%20Queries%2FOpen`.
    Tail { route: &["_apis", "wit", "queries"], npm: false },
    // Folders of pipelines: `%5CNightly`.
    Tail { route: &["_apis", "build", "folders"], npm: false },
    Tail { route: &["_apis", "release", "folders"], npm: false },
];

impl Segments {
    /// Reads the path of a request, which begins with a slash and may end with one.
    ///
    /// # Errors
    /// `path-ambiguous`
    pub(super) fn read(path: &str) -> Result<Self, Refusal> {
        let mut segments = Self { text: String::with_capacity(path.len()), spans: Vec::with_capacity(16) };
        let rest = path.strip_prefix('/').ok_or(Refusal::PathAmbiguous)?;
        if rest.is_empty() {
            return Ok(segments);
        }
        for raw in rest.strip_suffix('/').unwrap_or(rest).split('/') {
            segments.push(raw)?;
        }
        Ok(segments)
    }

    /// The text of a span of this path.
    pub(super) fn get(&self, span: Span) -> &str {
        self.text.get(usize::from(span.start)..usize::from(span.end)).unwrap_or_default()
    }

    /// The text of the `n`th segment, counted from zero.
    pub(super) fn nth(&self, n: usize) -> Option<&str> {
        self.spans.get(n).map(|span| self.get(*span))
    }

    /// Where the route begins: the first segment that begins with an underscore (names can't).
    pub(super) fn marker(&self) -> Option<usize> {
        self.spans.iter().position(|span| self.get(*span).starts_with('_'))
    }

    /// Shortens a segment's text by a suffix.
    pub(super) fn without_suffix(&self, span: Span, suffix: &str) -> Span {
        let kept = self.get(span).strip_suffix(suffix).map_or(usize::MAX, str::len);
        u16::try_from(kept).map_or(span, |kept| Span { start: span.start, end: span.start + kept })
    }

    fn push(&mut self, raw: &str) -> Result<(), Refusal> {
        let decoded;
        let plain = if raw.contains('%') {
            decoded = decode(raw)?;
            decoded.as_str()
        } else if raw.bytes().all(is_plain) {
            raw
        } else {
            return Err(Refusal::PathAmbiguous);
        };
        if !plain.contains(['/', '\\']) {
            return self.push_piece(plain);
        }
        self.check_tail(plain)?;
        // A path of folders begins with its root, which alone is one.
        let folders = plain.strip_prefix(['/', '\\']).unwrap_or(plain);
        if folders.is_empty() {
            return Ok(());
        }
        folders.split(['/', '\\']).try_for_each(|piece| self.push_piece(piece))
    }

    /// Whether the next segment may hold separators.
    fn check_tail(&self, plain: &str) -> Result<(), Refusal> {
        let route = self.marker().and_then(|marker| self.spans.get(marker..)).unwrap_or_default();
        let is_npm = plain.starts_with('@') && !plain.contains('\\') && plain.matches('/').count() == 1;
        let known = TAILS.iter().any(|tail| {
            route.len() >= tail.route.len()
                && tail.route.iter().zip(route).all(|(want, span)| *want == "*" || *want == self.get(*span))
                && (is_npm || !tail.npm)
        });
        if known { Ok(()) } else { Err(Refusal::PathAmbiguous) }
    }

    fn push_piece(&mut self, piece: &str) -> Result<(), Refusal> {
        if !is_unambiguous(piece) {
            return Err(Refusal::PathAmbiguous);
        }
        let start = self.text.len();
        if piece.is_ascii() {
            self.text.push_str(piece);
            self.text.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
        } else {
            self.text.extend(piece.chars().map(lower));
        }
        let span = |at: usize| u16::try_from(at).map_err(|_| Refusal::PathAmbiguous);
        self.spans.push(Span { start: span(start)?, end: span(self.text.len())? });
        Ok(())
    }
}

/// Bytes that stand for themselves: RFC 3986's `pchar` without `:` (which Azure DevOps refuses) and
/// `;` (which some servers take for the end of the segment), and `^`, which names may hold.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=@^".contains(&byte)
}

fn decode(raw: &str) -> Result<String, Refusal> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            if !is_plain(byte) {
                return Err(Refusal::PathAmbiguous);
            }
            decoded.push(byte);
            continue;
        }
        let value = hex(rest).ok_or(Refusal::PathAmbiguous)?;
        // No client encodes a dot but to hide it.
        if value == b'.' {
            return Err(Refusal::PathAmbiguous);
        }
        decoded.push(value);
        rest = rest.get(2..).unwrap_or_default();
    }
    String::from_utf8(decoded).map_err(|_| Refusal::PathAmbiguous)
}

/// The value of the two hexadecimal digits that follow a `%`.
pub(super) fn hex(digits: &[u8]) -> Option<u8> {
    let [high, low, ..] = digits else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn read(path: &str) -> Option<Vec<String>> {
        let segments = Segments::read(path).ok()?;
        Some(segments.spans.iter().map(|span| segments.get(*span).to_owned()).collect())
    }

    #[test]
    fn what_can_be_read_two_ways_is_refused() {
        for path in [
            "",
            "x",
            "*",
            "//",
            "///",
            "//evil/a",
            "/a//b",
            "/a//",
            "/a/../b",
            "/a/./b",
            "/..",
            "/a/..",
            "/a/...",
            "/a/.git",
            "/a/b.",
            "/a/.",
            "/a/%2e%2e/b",
            "/a/%2E./b",
            "/a/.%2e/b",
            "/a/b%2ec",
            "/a/%2e",
            "/a/..%20/b",
            "/a/%20../b",
            "/a/.%20/b",
            "/a/..%09/b",
            "/a%20/b",
            "/%20a/b",
            "/a%09/b",
            "/a/b%c2%a0",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%5Cb",
            r"/a\b",
            r"/a/wit\..\hooks",
            "/%5cother/x",
            "/a%252fb",
            "/a/%252e%252e/b",
            "/a%25b",
            "/a%2520b",
            "/a%255cb",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%2g",
            "/a%+1",
            "/a%u002e",
            "/a;x=1/b",
            "/a%3bx",
            "/a:b",
            "/a%3ab",
            "/a/b%3fc",
            "/a%00b",
            "/a%0d%0ab",
            "/a%0ab",
            "/a%7fb",
            "/a%1fb",
            "/a%c2%85b",
            "/\u{e9}",
            "/a/b\u{7f}c",
            "/a b",
            "/a\"b",
            "/a<b",
            "/a|b",
            "/a{b",
            "/a[b",
            "/a`b",
            "/%c0%ae%c0%ae/a",
            "/%ff",
            "/%e9",
            "/%ed%a0%80",
            "/e%cc%81",
            "/%e2%84%aaelvin",
            "/a%ef%bc%8fb",
            "/a%ef%bc%bcb",
            "/%e2%80%a6",
            "/%ef%bc%8e%ef%bc%8e/a",
            "/%ef%bc%bfapis",
            "/a%ef%bc%9bb",
            "/a%e2%80%8bb",
            "/a%ef%bb%bfb",
            "/a%e2%80%aeb",
            "/a%e2%80%a8b",
            "/a%c2%adb",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
    }

    #[test]
    fn one_reading_is_decoded_once_and_lowered() {
        for (path, segments) in [
            ("/", &[] as &[&str]),
            ("/Contoso/Web/", &["contoso", "web"]),
            ("/contoso/%5Fapis/X", &["contoso", "_apis", "x"]),
            ("/contoso/My%20Project/a+b", &["contoso", "my project", "a+b"]),
            ("/contoso/%C3%89t%C3%A9", &["contoso", "été"]),
            ("/contoso/%C4%B0x", &["contoso", "İx"]),
            ("/contoso/_apis/wit/%24batch", &["contoso", "_apis", "wit", "$batch"]),
            ("/contoso/a.b/f(1)!^", &["contoso", "a.b", "f(1)!^"]),
            ("/contoso/_packaging/f%40Local/x", &["contoso", "_packaging", "f@local", "x"]),
        ] {
            assert_eq!(read(path).unwrap_or_else(|| panic!("{path}")), segments, "{path}");
        }
    }

    #[test]
    fn encoded_separators_pass_in_the_places_of_the_table_and_separate() {
        for (path, tail) in [
            ("/c/p/_packaging/feed/npm/registry/@s%2fname", &["@s", "name"] as &[&str]),
            ("/c/_packaging/feed/npm/registry/@S%2FName/-/x.tgz", &["@s", "name", "-", "x.tgz"]),
            ("/c/_packaging/feed/npm/registry/-/package/@s%2fname/dist-tags", &["@s", "name", "dist-tags"]),
            (
                "/c/p/_apis/wit/classificationNodes/iterations/%5CRoot%5CChild",
                &["iterations", "root", "child"],
            ),
            ("/c/p/_apis/wit/classificationnodes/areas/a%2fb", &["areas", "a", "b"]),
            (
                "/c/_apis/Settings/Entries/host/GlobalMessageBanners%2Fbanner-1",
                &["globalmessagebanners", "banner-1"],
            ),
            ("/c/_apis/settings/project/1/entries/host/a%2Fb", &["host", "a", "b"]),
            ("/c/p/_apis/build/folders/%5C", &["build", "folders"]),
        ] {
            let segments = read(path).unwrap_or_else(|| panic!("{path}"));
            assert!(
                segments.ends_with(&tail.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()),
                "{path}: {segments:?}"
            );
        }
        for path in [
            "/c/p/_packaging/feed/npm/registry/s%2fname",
            "/c/p/_packaging/feed/npm/registry/@s%2fa%2fb",
            "/c/p/_packaging/feed/npm/registry/@s%5cname",
            "/c/p/_packaging/feed/npm/registry/@s%2f..",
            "/c/p/_packaging/feed/npm/registry/@s%2f",
            "/c/p/_packaging/feed/npm/@s%2fname",
            "/c/p/_packaging/@s%2fname/npm/registry/x",
            "/c/p/x/_packaging2/feed/npm/registry/@s%2fname",
            "/c/p/_apis/wit/classificationnodes%2fx",
            "/c/p/_apis/wit/workitems%5cclassificationnodes/1",
            "/c/p/_apis/wit/classificationnodes/a%5C..%5C..%5Chooks",
            "/c/p/_apis/wit/classificationnodes/a%5C%5Cb",
            "/c/p/_apis/wit/classificationnodes/a%5Cb%20",
            "/c/p/_apis/wit/classificationnodes/a%5C",
            "/c/p/_apis/wit/classificationnodes/a%255Cb",
            "/c/p/_git/_apis/wit/classificationnodes/a%5Cb",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_path_means_the_same_after_three_more_decodings(
            path in "/[a-z_.%@]{0,6}(/(_apis/wit/classificationnodes/|_packaging/f/npm/registry/)?([a-zA-Z0-9_.%;@ ]|%[0-9a-fA-F]{2}){0,8}){0,4}",
        ) {
            let Some(segments) = read(&path) else { return Ok(()) };
            let mut decoded = path;
            for _ in 0..3 {
                decoded = percent_decode_str(&decoded).decode_utf8().unwrap().into_owned();
                let again: Vec<String> = decoded
                    .split(['/', '\\', '?', ';'])
                    .filter(|piece| !piece.is_empty())
                    .map(|piece| piece.chars().map(lower).collect())
                    .collect();
                prop_assert_eq!(&again, &segments);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(path in "\\PC{0,64}", bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&path);
            let encoded: Vec<_> = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            let _ = read(&format!("/{}", encoded.concat()));
        }
    }
}
