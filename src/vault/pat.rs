//! A token, in the only form in which it can be used.
//!
//! What comes in: what a vault gave. What goes out: a header, a fingerprint, and the answer to
//! "is it in these bytes?". It must never be printed, and nothing else may look into a secret.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use aws_lc_rs::{constant_time, hmac, rand::SystemRandom};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// The longest token, in bytes. Azure DevOps' own have 52, 84 or 88.
pub const LONGEST: usize = 1024;

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
pub enum NoPat {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// More than [`LONGEST`].
    #[error("it is longer than {LONGEST} bytes; a token of Azure DevOps has 84 characters, older ones 52")]
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
            Self::Other => "not in the form of an Azure DevOps PAT",
        }
    }
}

/// A token, ready to be sent. No `Display`, no `Serialize`, zeroised on drop.
pub struct Pat {
    secret: SecretString,
    header: HeaderValue,
    needles: Vec<Zeroizing<Vec<u8>>>,
    mark: [u8; 32],
    fingerprint: Arc<str>,
}

impl Pat {
    /// Takes a secret for a token.
    ///
    /// # Errors
    /// See [`NoPat`].
    pub fn new(secret: SecretString, key: &FingerprintKey) -> Result<Self, NoPat> {
        let raw = exposed(&secret);
        judge(raw)?;
        let header = header(raw)?;
        let tag = hmac::sign(&key.0, raw.as_bytes());
        let mut mark = [0; 32];
        mark.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        let mut fingerprint = String::with_capacity(16);
        for byte in mark.iter().take(8) {
            let _ = write!(fingerprint, "{byte:02x}");
        }
        let needles = needles(raw.as_bytes());
        Ok(Self { header, needles, mark, fingerprint: fingerprint.into(), secret })
    }

    /// Strips any `Authorization` and sets ours: `Basic base64(":" + token)`, canonical, for Azure
    /// DevOps refuses any other padding.
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
        let raw = exposed(&self.secret).as_bytes();
        let alphanumeric = raw.iter().all(u8::is_ascii_alphanumeric);
        match raw.len() {
            84 if alphanumeric && raw.get(76..80) == Some(b"AZDO") => Format::New,
            52 if raw.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')) => Format::Old,
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

impl fmt::Debug for Pat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pat").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Whether a secret could be a token, for those who keep one without using it.
///
/// # Errors
/// See [`NoPat`].
pub(super) fn judge(raw: &str) -> Result<(), NoPat> {
    if raw.is_empty() {
        return Err(NoPat::Empty);
    }
    if raw.trim_start().starts_with('{') {
        return Err(NoPat::Json);
    }
    if raw.len() > LONGEST {
        return Err(NoPat::Long);
    }
    if raw.chars().any(char::is_whitespace) {
        return Err(NoPat::WhiteSpace);
    }
    if !raw.is_ascii() {
        return Err(NoPat::NotAscii);
    }
    if raw.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(NoPat::Control);
    }
    Ok(())
}

/// The bytes belong to an owner that zeroises them, so every clone of the header ends with that.
fn header(raw: &str) -> Result<HeaderValue, NoPat> {
    let mut plain = Zeroizing::new(Vec::with_capacity(raw.len() + 1));
    plain.push(b':');
    plain.extend_from_slice(raw.as_bytes());
    // Room for all of it: a buffer that grows leaves a copy behind.
    let mut value = Zeroizing::new(String::with_capacity("Basic ".len() + plain.len().div_ceil(3) * 4));
    value.push_str("Basic ");
    STANDARD.encode_string(plain.as_slice(), &mut value);
    let owned = Zeroizing::new(std::mem::take(&mut *value).into_bytes());
    let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(owned)).map_err(|_| NoPat::Control)?;
    header.set_sensitive(true);
    Ok(header)
}

/// The token itself, and the part of its base64 that depends on nothing before or after it, at each
/// of the three places it can have in a group.
fn needles(raw: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let encoded = (0..3_usize).map(|before| {
        let mut padded = Zeroizing::new(vec![0; before]);
        padded.reserve_exact(raw.len());
        padded.extend_from_slice(raw);
        let whole = Zeroizing::new(STANDARD.encode(padded.as_slice()));
        // `before` bytes spoil the first 0, 2 or 3 characters; an incomplete group its last one.
        let start = [0, 2, 3].get(before).copied().unwrap_or_default();
        let end = padded.len() * 8 / 6;
        Zeroizing::new(whole.as_bytes().get(start..end).unwrap_or_default().to_vec())
    });
    let mut needles = vec![Zeroizing::new(raw.to_vec())];
    needles.extend(encoded.filter(|needle| needle.len() >= SHORTEST_NEEDLE));
    needles
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "0123456789012345678901234567890123456789012345678901JQQJ99BAC123456789012AAAAZDO1a2b";

    fn pat(value: &str) -> Result<Pat, NoPat> {
        Pat::new(value.to_owned().into(), &FingerprintKey::new(&[7; 32]))
    }

    #[test]
    fn what_is_no_token_is_refused_and_the_reason_does_not_hold_it() {
        let long = "a".repeat(LONGEST + 1);
        for (value, why) in [
            ("", NoPat::Empty),
            ("two words", NoPat::WhiteSpace),
            ("tab\there", NoPat::WhiteSpace),
            ("line\nline", NoPat::WhiteSpace),
            ("trailing\r\n", NoPat::WhiteSpace),
            ("with\0nul", NoPat::Control),
            ("naïve", NoPat::NotAscii),
            (r#"{"pat":"x"}"#, NoPat::Json),
            (" {\n}", NoPat::Json),
            (long.as_str(), NoPat::Long),
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
        let keyed = Pat::new("token-1".to_owned().into(), &FingerprintKey::new(&[8; 32])).unwrap();
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
        ] {
            assert_eq!(pat(token).unwrap().format(), format, "{token}");
        }
    }
}
