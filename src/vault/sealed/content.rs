//! What is inside a sealed vault, and how it is written.
//!
//! The plain text is a line `patgate-vault 2` and a JSON object: for whom it is sealed, a counter, and for each name
//! the present and the previous value. What the first version wrote, a JSON object from names to values without such
//! a line, is still read; the next change writes it anew.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
};

use aws_lc_rs::constant_time;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::Zeroizing;

use crate::vault::token::exposed;

/// Begins the first line.
const MARK: &[u8] = b"patgate-vault ";

/// What is written.
const FORMAT: u32 = 2;

/// Why plain text is no content. It never says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoContent {
    /// Something else.
    Broken,
    /// Of a later patgate.
    Newer(u32),
}

/// All of it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    /// Whose keys open it. Empty: a passphrase, or a file of the first format.
    pub(super) recipients: Vec<Recipient>,
    /// Counts what was ever sealed here, so that no version of any name is called like another.
    #[serde(rename = "sealed")]
    counter: u64,
    pub(super) secrets: BTreeMap<String, Entry>,
}

/// A public key that the vault is sealed for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// `age1…`
    pub key: String,
    /// Whose it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What stands under a name.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) present: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<Version>,
}

/// A value, and what is known of it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Version {
    pub(super) value: Secret,
    /// `None`: it was sealed before versions were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<u64>,
    /// As [`Self::number`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sealed: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<Moment>,
}

/// RFC 3339, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) Timestamp);

/// A secret inside the JSON.
pub(super) struct Secret(pub(super) SecretString);

impl Content {
    /// Reads plain text.
    pub(super) fn parse(plain: &[u8]) -> Result<Self, NoContent> {
        let Some(rest) = plain.strip_prefix(MARK) else { return first_format(plain) };
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(NoContent::Broken)?;
        let (line, json) = rest.split_at_checked(end).ok_or(NoContent::Broken)?;
        let format = str::from_utf8(line).ok().and_then(|line| line.parse::<u32>().ok());
        match format {
            Some(FORMAT) => serde_json::from_slice(json).map_err(|_| NoContent::Broken),
            Some(newer) if newer > FORMAT => Err(NoContent::Newer(newer)),
            _ => Err(NoContent::Broken),
        }
    }

    /// Plain text. A buffer that grows would leave copies behind, so it is measured before it is written.
    pub(super) fn write(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut length = Length(0);
        self.write_to(&mut length)?;
        let mut plain = Zeroizing::new(Vec::with_capacity(length.0));
        self.write_to(&mut *plain)?;
        Ok(plain)
    }

    fn write_to(&self, mut to: impl Write) -> io::Result<()> {
        to.write_all(MARK)?;
        writeln!(to, "{FORMAT}")?;
        serde_json::to_writer(to, self).map_err(io::Error::from)
    }

    /// Seals a value under a name; what stood there becomes the previous one. The same value again is no new version:
    /// a writer that was interrupted and begins anew keeps the previous one. Gives the version's number.
    pub(super) fn put(
        &mut self,
        name: &str,
        value: &SecretString,
        now: Timestamp,
        expires: Option<Timestamp>,
    ) -> u64 {
        let next = self.counter.saturating_add(1);
        let expires = expires.map(Moment);
        let present =
            Version { value: Secret(value.clone()), number: Some(next), sealed: Some(Moment(now)), expires };
        let before = self.secrets.remove(name);
        let entry = match before {
            Some(Entry { present: same, previous }) if same.value.is(value) => {
                let number = same.number.unwrap_or(next);
                Entry { present: Version { number: Some(number), ..present }, previous }
            }
            before => Entry { present, previous: before.map(|entry| entry.present) },
        };
        let number = entry.present.number.unwrap_or(next);
        self.counter = self.counter.max(number);
        self.secrets.insert(name.to_owned(), entry);
        number
    }
}

impl Secret {
    fn is(&self, other: &SecretString) -> bool {
        let (own, other) = (exposed(&self.0).as_bytes(), exposed(other).as_bytes());
        constant_time::verify_slices_are_equal(own, other).is_ok()
    }
}

/// The first format kept nothing but values.
fn first_format(plain: &[u8]) -> Result<Content, NoContent> {
    let values: BTreeMap<String, Secret> = serde_json::from_slice(plain).map_err(|_| NoContent::Broken)?;
    let entry = |value| Entry {
        present: Version { value, number: None, sealed: None, expires: None },
        previous: None,
    };
    let secrets = values.into_iter().map(|(name, value)| (name, entry(value))).collect();
    Ok(Content { secrets, ..Content::default() })
}

/// Only measures.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(exposed(&self.0))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|secret| Self(secret.into()))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| D::Error::custom("no moment"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn values(content: &Content, name: &str) -> (String, Option<String>) {
        let entry = &content.secrets[name];
        let text = |version: &Version| exposed(&version.value.0).to_owned();
        (text(&entry.present), entry.previous.as_ref().map(text))
    }

    #[test]
    fn the_previous_value_is_kept_and_the_same_value_again_is_no_new_version() {
        let mut content = Content::default();
        for (value, number, previous) in
            [("one", 1, None), ("two", 2, Some("one")), ("two", 2, Some("one")), ("three", 3, Some("two"))]
        {
            assert_eq!(
                content.put("web", &value.to_owned().into(), at(number), None),
                number.cast_unsigned()
            );
            assert_eq!(values(&content, "web"), (value.to_owned(), previous.map(str::to_owned)));
        }
        assert_eq!(content.put("api", &"x".to_owned().into(), at(9), Some(at(99))), 4, "a counter for all");
        content.secrets.remove("api");
        assert_eq!(content.put("api", &"x".to_owned().into(), at(9), None), 5, "no version comes back");
    }

    #[test]
    fn what_is_written_is_read_in_a_buffer_that_never_grew() {
        let mut content = Content {
            recipients: vec![Recipient { key: "age1x".into(), note: Some("recovery".into()) }],
            ..Content::default()
        };
        content.put("web", &"\"\u{1}\\".repeat(50).into(), at(1), Some(at(2)));
        content.put("web", &"two".to_owned().into(), at(3), None);
        let plain = content.write().unwrap();
        assert_eq!(plain.len(), plain.capacity());
        let read = Content::parse(&plain).unwrap();
        assert_eq!((read.recipients.len(), read.counter), (1, 2));
        assert_eq!(values(&read, "web"), values(&content, "web"));
        assert_eq!(read.secrets["web"].previous.as_ref().unwrap().expires, Some(Moment(at(2))));
    }

    #[test]
    fn a_file_of_the_first_format_is_read() {
        let mut content = Content::parse(br#"{"web":"one","patgate-vault 2":"two"}"#).unwrap();
        assert_eq!(values(&content, "patgate-vault 2"), ("two".into(), None));
        assert_eq!(content.put("web", &"new".to_owned().into(), at(1), None), 1);
        let content = Content::parse(&content.write().unwrap()).unwrap();
        assert_eq!(values(&content, "web"), ("new".into(), Some("one".into())));
    }

    #[test]
    fn what_is_no_content_is_told_from_what_is_newer() {
        for (plain, why) in [
            ("", NoContent::Broken),
            ("[]", NoContent::Broken),
            (r#"{"web":1}"#, NoContent::Broken),
            ("patgate-vault 2", NoContent::Broken),
            ("patgate-vault 2\n{}", NoContent::Broken),
            ("patgate-vault two\n{}", NoContent::Broken),
            ("patgate-vault 1\n{}", NoContent::Broken),
            ("patgate-vault 3\nanything", NoContent::Newer(3)),
            (
                r#"patgate-vault 2
{"recipients":[],"sealed":0,"secrets":{},"more":1}"#,
                NoContent::Broken,
            ),
        ] {
            assert_eq!(Content::parse(plain.as_bytes()).unwrap_err(), why, "{plain}");
        }
    }
}
