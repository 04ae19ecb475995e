//! What the KV engine answers, and what is written to it.

use std::{collections::BTreeMap, sync::Arc};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::{
    super::{Facts, Fetched, VaultError, token::exposed},
    wire::Answer,
};
use crate::config::{Kv, path_and_field};

/// Why something was not done.
pub(in super::super) struct Refused {
    /// The vault forbade it: another token may do.
    pub(in super::super) forbidden: bool,
    pub(in super::super) error: VaultError,
}

impl From<VaultError> for Refused {
    fn from(error: VaultError) -> Self {
        Self { forbidden: false, error }
    }
}

/// A secret by its name in the configuration.
pub(in super::super) struct Reference {
    pub(super) path: Arc<str>,
    field: Arc<str>,
}

impl Reference {
    /// # Errors
    /// It is no `mount/path#field`. What it is, is not shown.
    pub(in super::super) fn parse(text: &str) -> Result<Self, VaultError> {
        let (path, field) = path_and_field(text)
            .ok_or_else(|| VaultError::Denied("the secret's name is no mount/path#field".into()))?;
        Ok(Self { path: path.into(), field: field.into() })
    }
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) mount: Arc<str>,
    rest: Arc<str>,
    pub(super) version: Kv,
}

impl Spot {
    /// `None`: the path leads not below the mount.
    pub(super) fn below(mount: &str, path: &str, version: Kv) -> Option<Self> {
        let mount = mount.trim_end_matches('/');
        let rest = path.strip_prefix(mount)?.strip_prefix('/')?;
        (!mount.is_empty() && !rest.is_empty()).then(|| Self {
            mount: mount.into(),
            rest: rest.into(),
            version,
        })
    }

    /// The path in the API.
    pub(super) fn path(&self) -> String {
        match self.version {
            Kv::V1 => format!("{}/{}", self.mount, self.rest),
            Kv::V2 => format!("{}/data/{}", self.mount, self.rest),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Mounted {
    pub(super) data: Mount,
}

#[derive(Deserialize)]
pub(super) struct Mount {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    options: Option<BTreeMap<String, String>>,
}

/// The fields of a secret, still in the bytes of the answer.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Fields<'a>(#[serde(borrow)] BTreeMap<String, &'a RawValue>);

#[derive(Deserialize)]
pub(super) struct Plain<'a> {
    #[serde(borrow)]
    pub(super) data: Option<Fields<'a>>,
}

#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow)]
    data: Option<Content<'a>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    data: Option<Fields<'a>>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
    #[serde(rename = "custom_metadata")]
    custom: Option<BTreeMap<String, String>>,
}

impl Metadata {
    /// Known ends: what somebody wrote as `expires`, and when the engine itself deletes the version.
    fn facts(&self) -> Facts {
        let written = self.custom.as_ref().and_then(|all| moment(all.get("expires")?));
        let expires = [written, moment(&self.deletion_time)].into_iter().flatten().min();
        Facts { expires, ..Facts::default() }
    }
}

/// A moment, or a date, which begins in UTC.
fn moment(text: &str) -> Option<jiff::Timestamp> {
    let date = || {
        let date: jiff::civil::Date = text.parse().ok()?;
        jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()
    };
    text.parse().ok().or_else(date)
}

#[derive(Deserialize)]
struct Written {
    data: Numbered,
}

#[derive(Deserialize)]
struct Numbered {
    version: u64,
}

#[derive(Serialize)]
pub(super) struct Change<'a> {
    pub(super) options: CheckAndSet,
    pub(super) data: BTreeMap<&'a str, Piece<'a>>,
}

#[derive(Serialize)]
pub(super) struct CheckAndSet {
    pub(super) cas: u64,
}

/// A field that stays as it is, to the byte, or the one that is written.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Piece<'a> {
    Kept(&'a RawValue),
    New(&'a str),
}

pub(super) fn nowhere(at: &Reference) -> VaultError {
    VaultError::Denied(format!("{} names a mount, and no secret in it", at.path).into())
}

/// The vault's word on a mount, which is believed only about what was asked.
pub(super) fn mounted(mount: Mount, at: &Reference) -> Result<Spot, VaultError> {
    if !matches!(mount.kind.as_str(), "kv" | "generic") {
        let text = format!("{} is in an engine of another type than kv", at.path);
        return Err(VaultError::Denied(text.into()));
    }
    let second = mount.options.is_some_and(|options| options.get("version").is_some_and(|it| it == "2"));
    let version = if second { Kv::V2 } else { Kv::V1 };
    Spot::below(&mount.path, &at.path, version).ok_or_else(|| nowhere(at))
}

pub(super) fn refused(answer: &Answer, what: &str) -> Refused {
    let forbidden = answer.status == http::StatusCode::FORBIDDEN;
    Refused { forbidden, error: answer.failure(what) }
}

/// The value in an answer to a read.
pub(super) fn fetched(answer: &Answer, spot: &Spot, at: &Reference) -> Result<Fetched, Refused> {
    let absent = |what: &str| Refused::from(VaultError::Denied(format!("{} {what}", at.path).into()));
    match spot.version {
        Kv::V1 => {
            if !answer.status.is_success() {
                return Err(refused(answer, &at.path));
            }
            let fields = answer.json::<Plain<'_>>()?.data.ok_or_else(|| absent("has no fields"))?;
            Ok(Fetched { value: field(&fields, at)?, version: None, facts: Facts::default() })
        }
        Kv::V2 => {
            let content = content(answer, at)?.ok_or_else(|| refused(answer, &at.path))?;
            let Content { data, metadata } = content;
            let Some(fields) = data else {
                let how = if metadata.destroyed { "destroyed" } else { "deleted" };
                return Err(absent(&format!("is {how} in its version {}", metadata.version)));
            };
            Ok(Fetched {
                value: field(&fields, at)?,
                version: Some(metadata.version.to_string().into()),
                facts: metadata.facts(),
            })
        }
    }
}

/// What an answer of version 2 holds: a deleted secret answers 404, with what it was. `None`: there never was one.
fn content<'a>(answer: &'a Answer, at: &Reference) -> Result<Option<Content<'a>>, Refused> {
    if answer.status.is_success() {
        return Ok(answer.json::<Versioned<'_>>()?.data);
    }
    if answer.status != http::StatusCode::NOT_FOUND {
        return Err(refused(answer, &at.path));
    }
    Ok(answer.json::<Versioned<'_>>().ok().and_then(|answer| answer.data))
}

/// The fields and the number of the present version; 0 where there is none.
pub(super) fn present<'a>(answer: &'a Answer, at: &Reference) -> Result<(Option<Fields<'a>>, u64), Refused> {
    Ok(content(answer, at)?.map_or((None, 0), |content| (content.data, content.metadata.version)))
}

/// The text of the field.
fn field(fields: &Fields<'_>, at: &Reference) -> Result<SecretString, VaultError> {
    let Some(raw) = fields.0.get(&*at.field) else {
        let names: Vec<_> = fields.0.keys().map(|name| format!("\"{}\"", name.escape_debug())).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let field = at.field.escape_debug();
        let text = format!("{} has no field \"{field}\"; its fields: {names}", at.path);
        return Err(VaultError::Denied(text.into()));
    };
    serde_json::from_str::<String>(raw.get()).map(SecretString::from).map_err(|_| {
        let field = at.field.escape_debug();
        VaultError::Unusable(format!("the field \"{field}\" of {} is not text", at.path).into())
    })
}

/// The fields with the new one.
pub(super) fn merged<'a>(
    known: Option<&'a Fields<'a>>,
    at: &'a Reference,
    value: &'a SecretString,
) -> BTreeMap<&'a str, Piece<'a>> {
    let known =
        known.into_iter().flat_map(|fields| &fields.0).map(|(name, raw)| (name.as_str(), Piece::Kept(raw)));
    let mut fields: BTreeMap<_, _> = known.collect();
    fields.insert(&at.field, Piece::New(exposed(value)));
    fields
}

/// How many bytes the fields are.
pub(super) fn room(known: Option<&Fields<'_>>, value: &SecretString) -> usize {
    let known =
        known.into_iter().flat_map(|fields| &fields.0).map(|(name, raw)| name.len() + raw.get().len() + 8);
    known.sum::<usize>() + exposed(value).len()
}

/// The number of the version that was written.
pub(super) fn written(answer: &Answer, at: &Reference) -> Result<u64, Refused> {
    if answer.status.is_success() {
        return Ok(answer.json::<Written>()?.data.version);
    }
    if answer.status == http::StatusCode::BAD_REQUEST && answer.says("check-and-set") {
        let text = format!("{} was changed by somebody else meanwhile", at.path);
        return Err(VaultError::Unavailable(text.into()).into());
    }
    Err(refused(answer, &format!("a write to {}", at.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Reference {
        Reference::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_mount_is_believed_only_about_what_was_asked() {
        let spot = |path: &str, kind: &str, version: Option<&str>| {
            let options = version.map(|version| BTreeMap::from([("version".into(), version.into())]));
            let mount = Mount { path: path.into(), kind: kind.into(), options };
            mounted(mount, &at("team/kv/ado/web#pat")).ok().map(|spot| spot.path())
        };
        for (path, kind, version, api) in [
            ("team/kv/", "kv", Some("2"), Some("team/kv/data/ado/web")),
            ("team/", "kv", Some("2"), Some("team/data/kv/ado/web")),
            ("team/kv/", "kv", Some("1"), Some("team/kv/ado/web")),
            ("team/kv/", "kv", None, Some("team/kv/ado/web")),
            ("team/kv/", "generic", None, Some("team/kv/ado/web")),
            ("team/kv/", "transit", None, None),
            ("team/k", "kv", Some("2"), None),
            ("other/", "kv", Some("2"), None),
            ("sys/", "kv", Some("2"), None),
            ("", "kv", Some("2"), None),
            ("/", "kv", Some("2"), None),
            ("team/kv/ado/web/", "kv", Some("2"), None),
        ] {
            assert_eq!(spot(path, kind, version).as_deref(), api, "{path} {kind} {version:?}");
        }
    }

    #[test]
    fn a_wrong_field_lists_the_names_and_no_value() {
        let text = r#"{"a":"canary","b \"":{"c":"canary"},"n":1}"#;
        let fields: Fields<'_> = serde_json::from_str(text).unwrap();
        let error = field(&fields, &at("kv/x#pat")).unwrap_err().to_string();
        assert!(error.contains(r#"no field "pat"; its fields: "a", "b \"", "n""#), "{error}");
        assert!(!error.contains("canary"));
        for name in ["n", "b \""] {
            let error = field(&fields, &at(&format!("kv/x#{name}"))).unwrap_err();
            assert!(matches!(error, VaultError::Unusable(_)) && !error.to_string().contains("canary"));
        }
        assert_eq!(exposed(&field(&fields, &at("kv/x#a")).unwrap()), "canary");
    }

    #[test]
    fn fields_that_are_kept_are_kept_to_the_byte() {
        let text = r#"{"big":12345678901234567890123.50,"deep":{"b":1,"a":[null]},"pat":"old"}"#;
        let fields: Fields<'_> = serde_json::from_str(text).unwrap();
        let value = SecretString::from("new");
        let reference = at("kv/x#pat");
        let written = serde_json::to_string(&merged(Some(&fields), &reference, &value)).unwrap();
        assert_eq!(written, text.replace("old", "new"));
        assert!(written.len() <= room(Some(&fields), &value) + 64);
    }

    #[test]
    fn ends_are_read_from_what_the_engine_and_people_write() {
        for (expires, deleted, end) in [
            (None, "", None),
            (Some("2027-01-31"), "", Some("2027-01-31T00:00:00Z")),
            (Some("2027-01-31T12:00:00+02:00"), "", Some("2027-01-31T10:00:00Z")),
            (Some("soon"), "", None),
            (None, "2026-12-24T07:55:10.083441677Z", Some("2026-12-24T07:55:10.083441677Z")),
            (Some("2027-01-31"), "2026-12-24T00:00:00Z", Some("2026-12-24T00:00:00Z")),
            (Some("2026-11-30"), "2026-12-24T00:00:00Z", Some("2026-11-30T00:00:00Z")),
        ] {
            let custom = expires.map(|text| BTreeMap::from([("expires".to_owned(), text.to_owned())]));
            let deletion_time = deleted.to_owned();
            let metadata = Metadata { version: 1, deletion_time, destroyed: false, custom };
            assert_eq!(metadata.facts().expires.map(|end| end.to_string()).as_deref(), end, "{expires:?}");
        }
    }
}
