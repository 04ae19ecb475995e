//! The document and its form on disk: JSON, with a number that counts its versions.

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The form that this version of patgate reads and writes.
const FORMAT: u32 = 1;

/// What operators changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Counts changes, from 0.
    pub version: u64,
    /// Credentials that may not be used, by name; also such as the configuration does not have at present.
    pub disabled: BTreeMap<Arc<str>, Disabled>,
}

/// Why a credential may not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// Since when.
    pub since: Timestamp,
    /// The operator's user name, or uid.
    pub by: Arc<str>,
    /// What the operator gave as the reason.
    pub reason: Arc<str>,
    /// Whether requests under way were cut.
    pub cut: bool,
}

impl fmt::Display for Disabled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disabled by {} since {}: {}", self.by, self.since, self.reason)
    }
}

/// The document as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    version: u64,
    entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Entry {
    DisabledCredential { credential: Arc<str>, since: String, by: Arc<str>, reason: Arc<str>, cut: bool },
}

impl Document {
    /// Reads what [`Self::text`] wrote.
    ///
    /// # Errors
    /// What is wrong with it, as a clause.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let broken = |error: serde_json::Error| format!("this is no state of patgate's: {error}");
        let Format { format } = serde_json::from_slice(text).map_err(broken)?;
        if format != FORMAT {
            return Err(format!(
                "another version of patgate wrote this (format {format}; this one reads {FORMAT})"
            ));
        }
        let Written { version, entries, .. } = serde_json::from_slice(text).map_err(broken)?;
        let mut document = Self { version, ..Self::default() };
        for entry in entries {
            let Entry::DisabledCredential { credential, since, by, reason, cut } = entry;
            let since = since.parse().map_err(|_| format!("\"since\" of {credential} is no moment"))?;
            document.disabled.insert(credential, Disabled { since, by, reason, cut });
        }
        Ok(document)
    }

    /// The document as JSON, for people too.
    ///
    /// # Errors
    /// None that is known of.
    pub(super) fn text(&self) -> io::Result<String> {
        let entries = self.disabled.iter().map(|(credential, disabled)| Entry::DisabledCredential {
            credential: Arc::clone(credential),
            since: disabled.since.to_string(),
            by: Arc::clone(&disabled.by),
            reason: Arc::clone(&disabled.reason),
            cut: disabled.cut,
        });
        let written = Written { format: FORMAT, version: self.version, entries: entries.collect() };
        let mut text = serde_json::to_string_pretty(&written).map_err(io::Error::other)?;
        text.push('\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let since = "2026-11-24T06:00:00.5Z".parse().unwrap();
        let one = Disabled { since, by: "root".into(), reason: "„\"\\\u{1}".into(), cut: true };
        let disabled = BTreeMap::from([("agents' web/é".into(), one)]);
        for document in [Document::default(), Document { version: 7, disabled }] {
            let text = document.text().unwrap();
            assert_eq!(Document::parse(text.as_bytes()), Ok(document), "{text}");
        }
    }

    #[test]
    fn another_format_is_named() {
        let why = Document::parse(br#"{"format":9,"anything":[]}"#).unwrap_err();
        assert!(why.contains("format 9"), "{why}");
    }
}
