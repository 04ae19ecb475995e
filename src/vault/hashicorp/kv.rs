//! The KV engine, versions 1 and 2: which one stands where, reads, and writes that keep the other fields.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    super::{Facts, Fetched, VaultError, token::exposed},
    session::Pass,
    wire::{Answer, Ask, Wire},
};
use crate::config::{Kv, path_and_field};

/// As many places of mounts are remembered; there are as many credentials as a configuration has, and few.
const REMEMBERED: usize = 1024;

/// Why something was not done.
pub(super) struct Refused {
    /// The vault forbade it: another token may do.
    pub(super) forbidden: bool,
    pub(super) error: VaultError,
}

impl From<VaultError> for Refused {
    fn from(error: VaultError) -> Self {
        Self { forbidden: false, error }
    }
}

/// A secret by its name in the configuration.
pub(super) struct Reference {
    path: Arc<str>,
    field: Arc<str>,
}

impl Reference {
    /// # Errors
    /// It is no `mount/path#field`. What it is, is not shown.
    pub(super) fn parse(text: &str) -> Result<Self, VaultError> {
        let (path, field) = path_and_field(text)
            .ok_or_else(|| VaultError::Denied("the secret's name is no mount/path#field".into()))?;
        Ok(Self { path: path.into(), field: field.into() })
    }
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spot {
    mount: Arc<str>,
    rest: Arc<str>,
    version: Kv,
}

impl Spot {
    /// `None`: the path leads not below the mount.
    fn below(mount: &str, path: &str, version: Kv) -> Option<Self> {
        let mount = mount.trim_end_matches('/');
        let rest = path.strip_prefix(mount)?.strip_prefix('/')?;
        (!mount.is_empty() && !rest.is_empty()).then(|| Self {
            mount: mount.into(),
            rest: rest.into(),
            version,
        })
    }

    /// The path in the API.
    fn path(&self) -> String {
        match self.version {
            Kv::V1 => format!("{}/{}", self.mount, self.rest),
            Kv::V2 => format!("{}/data/{}", self.mount, self.rest),
        }
    }
}

#[derive(Deserialize)]
struct Mounted {
    data: Mount,
}

#[derive(Deserialize)]
struct Mount {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    options: Option<BTreeMap<String, String>>,
}

/// The fields of a secret, still in the bytes of the answer.
#[derive(Deserialize)]
#[serde(transparent)]
struct Fields<'a>(#[serde(borrow)] BTreeMap<String, &'a RawValue>);

#[derive(Deserialize)]
struct Plain<'a> {
    #[serde(borrow)]
    data: Option<Fields<'a>>,
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
struct Change<'a> {
    options: CheckAndSet,
    data: BTreeMap<&'a str, Piece<'a>>,
}

#[derive(Serialize)]
struct CheckAndSet {
    cas: u64,
}

/// A field that stays as it is, to the byte, or the one that is written.
#[derive(Serialize)]
#[serde(untagged)]
enum Piece<'a> {
    Kept(&'a RawValue),
    New(&'a str),
}

/// The secrets of one vault.
pub(super) struct Store {
    wire: Arc<Wire>,
    kv: Option<Kv>,
    spots: Mutex<BTreeMap<Arc<str>, Spot>>,
}

impl Store {
    pub(super) fn new(wire: Arc<Wire>, kv: Option<Kv>) -> Self {
        Self { wire, kv, spots: Mutex::default() }
    }

    /// Reads the present value.
    pub(super) async fn read(&self, pass: Arc<Pass>, at: &Reference) -> Result<Fetched, Refused> {
        let mut first = None;
        for spot in self.spots(&pass, at).await? {
            let answer = self.wire.ask(Ask::get(&spot.path()).with(&pass.token)).await?;
            match fetched(&answer, &spot, at) {
                Ok(fetched) => {
                    self.remember(at, &spot);
                    return Ok(fetched);
                }
                Err(refused) if matches!(refused.error, VaultError::Denied(_)) => {
                    self.forget(at);
                    first.get_or_insert(refused);
                }
                Err(refused) => return Err(refused),
            }
        }
        Err(first.unwrap_or_else(|| nowhere(at).into()))
    }

    /// Reads the version before the present one.
    pub(super) async fn read_previous(&self, pass: Arc<Pass>, at: &Reference) -> Result<Fetched, Refused> {
        let spot = self.spot(&pass, at).await?;
        if spot.version == Kv::V1 {
            let text = format!("{} is a KV engine of version 1, which keeps no earlier versions", spot.mount);
            return Err(VaultError::Denied(text.into()).into());
        }
        let answer = self.wire.ask(Ask::get(&spot.path()).with(&pass.token)).await?;
        let (_, version) = present(&answer, at)?;
        let Some(previous) = version.checked_sub(1).filter(|version| *version > 0) else {
            return Err(VaultError::Denied(format!("{} has no earlier version", at.path).into()).into());
        };
        let answer = self.wire.ask(Ask::get(&spot.path()).version(previous).with(&pass.token)).await?;
        fetched(&answer, &spot, at)
    }

    /// Writes the field, and keeps the others.
    pub(super) async fn write(
        &self,
        pass: Arc<Pass>,
        at: &Reference,
        value: &SecretString,
    ) -> Result<Option<Arc<str>>, Refused> {
        let spot = self.spot(&pass, at).await?;
        let answer = self.wire.ask(Ask::get(&spot.path()).with(&pass.token)).await?;
        match spot.version {
            Kv::V1 => self.write_plain(&pass, at, &spot, &answer, value).await.map(|()| None),
            Kv::V2 => {
                let version = self.write_version(&pass, at, &spot, &answer, value).await?;
                Ok(Some(version.to_string().into()))
            }
        }
    }

    async fn write_plain(
        &self,
        pass: &Pass,
        at: &Reference,
        spot: &Spot,
        present: &Answer,
        value: &SecretString,
    ) -> Result<(), Refused> {
        let known = if present.status.is_success() {
            present.json::<Plain<'_>>()?.data
        } else if present.status == http::StatusCode::NOT_FOUND {
            None
        } else {
            return Err(refused(present, &at.path));
        };
        let room = room(known.as_ref(), value);
        let fields = merged(known.as_ref(), at, value);
        let answer = self.wire.ask(Ask::post(&spot.path(), &fields, room).with(&pass.token)).await?;
        if answer.status.is_success() {
            Ok(())
        } else {
            Err(refused(&answer, &format!("a write to {}", at.path)))
        }
    }

    async fn write_version(
        &self,
        pass: &Pass,
        at: &Reference,
        spot: &Spot,
        answer: &Answer,
        value: &SecretString,
    ) -> Result<u64, Refused> {
        let (known, cas) = present(answer, at)?;
        let path = spot.path();
        // A change needs `patch`; without it, all of the secret is written, which needs `update`.
        if known.is_some() {
            let body = Change { options: CheckAndSet { cas }, data: merged(None, at, value) };
            let answer = self.wire.ask(Ask::patch(&path, &body, room(None, value)).with(&pass.token)).await?;
            if answer.status != http::StatusCode::FORBIDDEN
                && answer.status != http::StatusCode::METHOD_NOT_ALLOWED
            {
                return written(&answer, at);
            }
        }
        let room = room(known.as_ref(), value);
        let body = Change { options: CheckAndSet { cas }, data: merged(known.as_ref(), at, value) };
        let answer = self.wire.ask(Ask::post(&path, &body, room).with(&pass.token)).await?;
        written(&answer, at)
    }

    /// Where a secret may be: known, or the vault's word, or, where it gives none, two guesses.
    async fn spots(&self, pass: &Pass, at: &Reference) -> Result<Vec<Spot>, Refused> {
        if let Some(known) = self.known(at) {
            return Ok(vec![known]);
        }
        let first = at.path.split('/').next().unwrap_or_default();
        if let Some(version) = self.kv {
            return Ok(Spot::below(first, &at.path, version).into_iter().collect());
        }
        let question = format!("sys/internal/ui/mounts/{}", at.path);
        let answer = self.wire.ask(Ask::get(&question).with(&pass.token)).await?;
        if answer.status.is_success() {
            return Ok(vec![mounted(answer.json::<Mounted>()?.data, at)?]);
        }
        match answer.failure("a question about the mount") {
            // A policy may forbid the question and allow the read.
            VaultError::Denied(_) => {
                Ok([Kv::V2, Kv::V1].into_iter().filter_map(|kv| Spot::below(first, &at.path, kv)).collect())
            }
            error => Err(error.into()),
        }
    }

    /// The one place where a secret is, for what needs more than a read.
    async fn spot(&self, pass: &Arc<Pass>, at: &Reference) -> Result<Spot, Refused> {
        let mut spots = self.spots(pass, at).await?;
        if spots.len() > 1 {
            self.read(Arc::clone(pass), at).await?;
            spots = self.known(at).into_iter().collect();
        }
        spots.pop().ok_or_else(|| nowhere(at).into())
    }

    fn known(&self, at: &Reference) -> Option<Spot> {
        self.spots.lock().unwrap_or_else(PoisonError::into_inner).get(&at.path).cloned()
    }

    fn remember(&self, at: &Reference, spot: &Spot) {
        let mut spots = self.spots.lock().unwrap_or_else(PoisonError::into_inner);
        if spots.len() >= REMEMBERED {
            spots.clear();
        }
        spots.insert(Arc::clone(&at.path), spot.clone());
    }

    /// An engine may have been moved, or upgraded to version 2.
    fn forget(&self, at: &Reference) {
        self.spots.lock().unwrap_or_else(PoisonError::into_inner).remove(&at.path);
    }
}

fn nowhere(at: &Reference) -> VaultError {
    VaultError::Denied(format!("{} names a mount, and no secret in it", at.path).into())
}

/// The vault's word on a mount, which is believed only about what was asked.
fn mounted(mount: Mount, at: &Reference) -> Result<Spot, VaultError> {
    if !matches!(mount.kind.as_str(), "kv" | "generic") {
        let text = format!("{} is in an engine of another type than kv", at.path);
        return Err(VaultError::Denied(text.into()));
    }
    let second = mount.options.is_some_and(|options| options.get("version").is_some_and(|it| it == "2"));
    let version = if second { Kv::V2 } else { Kv::V1 };
    Spot::below(&mount.path, &at.path, version).ok_or_else(|| nowhere(at))
}

fn refused(answer: &Answer, what: &str) -> Refused {
    let forbidden = answer.status == http::StatusCode::FORBIDDEN;
    Refused { forbidden, error: answer.failure(what) }
}

/// The value in an answer to a read.
fn fetched(answer: &Answer, spot: &Spot, at: &Reference) -> Result<Fetched, Refused> {
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
fn present<'a>(answer: &'a Answer, at: &Reference) -> Result<(Option<Fields<'a>>, u64), Refused> {
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
fn merged<'a>(
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
fn room(known: Option<&Fields<'_>>, value: &SecretString) -> usize {
    let known =
        known.into_iter().flat_map(|fields| &fields.0).map(|(name, raw)| name.len() + raw.get().len() + 8);
    known.sum::<usize>() + exposed(value).len()
}

/// The number of the version that was written.
fn written(answer: &Answer, at: &Reference) -> Result<u64, Refused> {
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
