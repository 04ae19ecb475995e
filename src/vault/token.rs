//! A token, in the only form in which it can be used.
//!
//! What comes in: what a vault gave. What goes out: a header, a fingerprint, and the answer to
//! "is it in these bytes?". It must never be printed, and nothing else may look into a secret.

use std::{
    fmt::{self, Write as _},
    ops::Range,
    sync::Arc,
};

use aws_lc_rs::{constant_time, hmac, rand::SystemRandom};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::locked::Writing;

/// The longest PAT, in bytes. Azure DevOps' own have 52, 84 or 88.
pub const LONGEST: usize = 1024;

/// The longest token of Entra, in bytes. They hold the groups of their owner, and have 2 to 4 KiB.
pub const LONGEST_BEARER: usize = 16 * 1024;

/// Shorter needles would be found everywhere.
const SHORTEST_NEEDLE: usize = 4;

/// Looks into a secret.
#[expect(clippy::disallowed_methods, reason = "the one place where a secret leaves its wrapper")]
pub(super) fn exposed(secret: &SecretString) -> &str {
    secret.expose_secret()
}

/// What fingerprints are keyed with, so that they tell nothing to whom has them alone.
#[derive(Clone)]
pub struct FingerprintKey(hmac::Key);

impl FingerprintKey {
    /// A key that dies with the process.
    ///
    /// # Errors
    /// Where the system gives no randomness, as a sentence.
    pub fn random() -> Result<Self, String> {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map(Self)
            .map_err(|_| "the system gives no random bytes".to_owned())
    }

    /// A key that is given, so that fingerprints can be compared between runs. 32 bytes are meant.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey")
    }
}

/// Why something is no token. It never says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// More than [`LONGEST`], or [`LONGEST_BEARER`].
    #[error("it is longer than any token; one of Azure DevOps has 84 characters, older ones 52")]
    Long,
    /// `{`…
    #[error("it is a JSON object; what is wanted is the token alone")]
    Json,
    /// A space, a tab, a line's end.
    #[error("it holds white space or a line's end; what is wanted is the token alone")]
    WhiteSpace,
    /// NUL and its like.
    #[error("it holds a control character")]
    Control,
    /// Bytes above 0x7f.
    #[error("it holds characters outside ASCII")]
    NotAscii,
}

/// How a token looks, without saying what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 84 characters, `AZDO` at its place.
    New,
    /// 52 characters of base32.
    Old,
    /// A JSON Web Token.
    Entra,
    /// Anything else.
    Other,
}

impl Format {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "Azure DevOps PAT, 84 characters",
            Self::Old => "Azure DevOps PAT, older form, 52 characters",
            Self::Entra => "token of Entra",
            Self::Other => "not in the form of an Azure DevOps PAT",
        }
    }
}

/// How a token is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// A PAT: the password of nobody.
    Basic,
    /// A token of Entra.
    Bearer,
}

impl Scheme {
    fn word(self) -> &'static str {
        match self {
            Self::Basic => "Basic ",
            Self::Bearer => "Bearer ",
        }
    }

    fn longest(self) -> usize {
        match self {
            Self::Basic => LONGEST,
            Self::Bearer => LONGEST_BEARER,
        }
    }
}

/// A token, ready to be sent. No `Display`, no `Serialize`, zeroised on drop.
pub struct Token {
    /// What is looked for in bytes that come back: itself first. All of it lies in the same locked pages.
    needles: Vec<Bytes>,
    header: HeaderValue,
    mark: [u8; 32],
    fingerprint: Arc<str>,
}

impl Token {
    /// Takes a secret for a token.
    ///
    /// # Errors
    /// See [`NoToken`].
    pub fn new(secret: SecretString, scheme: Scheme, key: &FingerprintKey) -> Result<Self, NoToken> {
        let raw = exposed(&secret);
        judge(raw, scheme)?;
        let (header, needles) = laid_out(raw, scheme).ok_or(NoToken::Long)?;
        let tag = hmac::sign(&key.0, raw.as_bytes());
        let mut mark = [0; 32];
        mark.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        let mut fingerprint = String::with_capacity(16);
        for byte in mark.iter().take(8) {
            let _ = write!(fingerprint, "{byte:02x}");
        }
        // It stands in locked pages now, and nowhere else.
        drop(secret);
        Ok(Self { header, needles, mark, fingerprint: fingerprint.into() })
    }

    /// Strips any `Authorization` and sets ours: `Basic base64(":" + token)`, canonical, for Azure
    /// DevOps refuses any other padding; or `Bearer token`.
    pub fn authorize(&self, headers: &mut HeaderMap) {
        headers.remove(AUTHORIZATION);
        headers.insert(AUTHORIZATION, self.header.clone());
    }

    /// Whether these bytes hold the token: raw, or in base64 behind whatever user name.
    #[must_use]
    pub fn occurs_in(&self, bytes: &[u8]) -> bool {
        // Most of what is looked through is too short, and to prepare a search costs more than the search.
        let mut needles = self.needles.iter().filter(|needle| needle.len() <= bytes.len());
        needles.any(|needle| memchr::memmem::find(bytes, needle).is_some())
    }

    /// Eight bytes of a keyed hash, in hex: the same for the same token and key.
    #[must_use]
    pub fn fingerprint(&self) -> &Arc<str> {
        &self.fingerprint
    }

    /// Whether this is the same token, compared in constant time and by keyed hash.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.has_mark(&other.mark)
    }

    /// How it looks.
    #[must_use]
    pub fn format(&self) -> Format {
        let raw = self.needles.first().map(Bytes::as_ref).unwrap_or_default();
        let alphanumeric = raw.iter().all(u8::is_ascii_alphanumeric);
        match raw.len() {
            84 if alphanumeric && raw.get(76..80) == Some(b"AZDO") => Format::New,
            52 if raw.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')) => Format::Old,
            _ if raw.starts_with(b"eyJ") && raw.split(|byte| *byte == b'.').count() == 3 => Format::Entra,
            _ => Format::Other,
        }
    }

    /// The whole keyed hash: what is left to recognise a token by when it is gone.
    pub(super) fn mark(&self) -> [u8; 32] {
        self.mark
    }

    /// Whether a mark is this token's.
    pub(super) fn has_mark(&self, mark: &[u8; 32]) -> bool {
        constant_time::verify_slices_are_equal(&self.mark, mark).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Whether a secret could be a token, for those who keep one without using it.
///
/// # Errors
/// See [`NoToken`].
pub(super) fn judge(raw: &str, scheme: Scheme) -> Result<(), NoToken> {
    if raw.is_empty() {
        return Err(NoToken::Empty);
    }
    if raw.trim_start().starts_with('{') {
        return Err(NoToken::Json);
    }
    if raw.len() > scheme.longest() {
        return Err(NoToken::Long);
    }
    if raw.chars().any(char::is_whitespace) {
        return Err(NoToken::WhiteSpace);
    }
    if !raw.is_ascii() {
        return Err(NoToken::NotAscii);
    }
    if raw.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(NoToken::Control);
    }
    Ok(())
}

/// The header, the token itself, and the part of its base64 that depends on nothing before or after it, at each of
/// the three places it can have in a group. All in locked memory, where every clone ends as well.
fn laid_out(raw: &str, scheme: Scheme) -> Option<(HeaderValue, Vec<Bytes>)> {
    let encoded = |length: usize| length.div_ceil(3) * 4;
    let room = "Bearer ".len() + raw.len() + encoded(raw.len() + 1) + 3 * encoded(raw.len() + 2);
    let mut memory = Writing::of(room);
    let plain = memory.copy(raw.as_bytes())?;
    let begun = memory.copy(scheme.word().as_bytes())?;
    let ended = match scheme {
        Scheme::Basic => encode(&mut memory, b":", raw)?,
        Scheme::Bearer => memory.copy(raw.as_bytes())?,
    };
    let header = begun.start..ended.end;
    let mut needles = vec![plain];
    for before in [&b""[..], b"\0", b"\0\0"] {
        let whole = encode(&mut memory, before, raw)?;
        // What stands before spoils the first 0, 2 or 3 characters; an incomplete group its last one.
        let start = whole.start + [0, 2, 3].get(before.len()).copied().unwrap_or_default();
        let end = whole.start + (before.len() + raw.len()) * 8 / 6;
        if end.saturating_sub(start) >= SHORTEST_NEEDLE {
            needles.push(start..end);
        }
    }
    let memory = memory.finish();
    let mut header = HeaderValue::from_maybe_shared(memory.slice(header)).ok()?;
    header.set_sensitive(true);
    Some((header, needles.into_iter().map(|needle| memory.slice(needle)).collect()))
}

/// Base64, straight to where it is to stand.
fn encode(memory: &mut Writing, before: &[u8], raw: &str) -> Option<Range<usize>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(before.len() + raw.len()));
    plain.extend_from_slice(before);
    plain.extend_from_slice(raw.as_bytes());
    memory.put(|room| STANDARD.encode_slice(plain.as_slice(), room).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "0123456789012345678901234567890123456789012345678901JQQJ99BAC123456789012AAAAZDO1a2b";

    fn pat(value: &str) -> Result<Token, NoToken> {
        Token::new(value.to_owned().into(), Scheme::Basic, &FingerprintKey::new(&[7; 32]))
    }

    #[test]
    fn what_is_no_token_is_refused_and_the_reason_does_not_hold_it() {
        let long = "a".repeat(LONGEST + 1);
        for (value, why) in [
            ("", NoToken::Empty),
            ("two words", NoToken::WhiteSpace),
            ("tab\there", NoToken::WhiteSpace),
            ("line\nline", NoToken::WhiteSpace),
            ("trailing\r\n", NoToken::WhiteSpace),
            ("with\0nul", NoToken::Control),
            ("naïve", NoToken::NotAscii),
            (r#"{"pat":"x"}"#, NoToken::Json),
            (" {\n}", NoToken::Json),
            (long.as_str(), NoToken::Long),
        ] {
            let refused = pat(value).unwrap_err();
            assert_eq!(refused, why, "{value:?}");
            assert!(value.is_empty() || !refused.to_string().contains(value));
        }
        assert!(pat(&"a".repeat(LONGEST)).is_ok());
    }

    #[test]
    fn the_header_is_basic_with_no_user_and_replaces_every_other() {
        for (token, expected) in
            [("a", "Basic OmE="), ("ab", "Basic OmFi"), ("abc", "Basic OmFiYw=="), ("~?>", "Basic On4/Pg==")]
        {
            let mut headers = HeaderMap::new();
            headers.append(AUTHORIZATION, HeaderValue::from_static("Basic theirs"));
            headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer theirs"));
            pat(token).unwrap().authorize(&mut headers);
            let all: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
            assert_eq!(all, [expected]);
            assert!(all[0].is_sensitive());
        }
    }

    #[test]
    fn a_token_of_entra_is_sent_as_bearer_and_may_be_longer() {
        let key = FingerprintKey::new(&[7; 32]);
        let bearer = |length| Token::new("e".repeat(length).into(), Scheme::Bearer, &key);
        let mut headers = HeaderMap::new();
        bearer(3000).unwrap().authorize(&mut headers);
        assert_eq!(headers[AUTHORIZATION], format!("Bearer {}", "e".repeat(3000)));
        assert!(headers[AUTHORIZATION].is_sensitive());
        assert!(bearer(LONGEST_BEARER).is_ok());
        assert_eq!(bearer(LONGEST_BEARER + 1).unwrap_err(), NoToken::Long);
    }

    #[test]
    fn it_is_found_raw_and_encoded_behind_any_user() {
        let token = pat(NEW).unwrap();
        for user in ["", "u", "me", "kiro", "someone@example.com"] {
            let sent = STANDARD.encode(format!("{user}:{NEW}"));
            assert!(token.occurs_in(format!("x{sent}y").as_bytes()), "{user}");
            let trailed = STANDARD.encode(format!("{user}:{NEW}\n"));
            assert!(token.occurs_in(trailed.as_bytes()), "{user}");
        }
        assert!(token.occurs_in(format!("<b>{NEW}</b>").as_bytes()));
        assert!(!token.occurs_in(&NEW.as_bytes()[1..]));
        assert!(!token.occurs_in(STANDARD.encode(":other").as_bytes()));
        assert!(!token.occurs_in(b""));
    }

    #[test]
    fn a_fingerprint_is_the_same_for_the_same_token_and_key_alone() {
        let (one, two, three) = (pat("token-1").unwrap(), pat("token-1").unwrap(), pat("token-2").unwrap());
        let keyed =
            Token::new("token-1".to_owned().into(), Scheme::Basic, &FingerprintKey::new(&[8; 32])).unwrap();
        assert_eq!(one.fingerprint(), two.fingerprint());
        assert_eq!(one.fingerprint().len(), 16);
        assert!(one.is(&two) && !one.is(&three) && !one.is(&keyed));
        assert_ne!(one.fingerprint(), three.fingerprint());
        assert_ne!(one.fingerprint(), keyed.fingerprint());
    }

    #[test]
    fn debug_shows_the_fingerprint_alone() {
        let token = pat("canary-token").unwrap();
        let shown = format!("{token:?} {:?}", token.header);
        assert!(shown.contains(&**token.fingerprint()), "{shown}");
        assert!(!shown.contains("canary") && !token.occurs_in(shown.as_bytes()), "{shown}");
    }

    #[test]
    fn a_token_is_known_by_its_form() {
        let old = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst";
        for (token, format) in [
            (NEW, Format::New),
            (old, Format::Old),
            (&old.to_uppercase(), Format::Other),
            (&NEW.replace("AZDO", "AZDP"), Format::Other),
            ("short", Format::Other),
            ("eyJhbGciOiJSUzI1NiJ9.e30.c2ln", Format::Entra),
        ] {
            assert_eq!(pat(token).unwrap().format(), format, "{token}");
        }
    }
}
