//! One field of a JSON object, without keeping the others.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::vault::VaultError;

/// More names than this are not told.
const MOST_NAMES: usize = 20;

/// A field, and what stands beside it.
pub(super) struct Found {
    pub(super) value: SecretString,
    /// `expires_on`: seconds since 1970, or a moment.
    pub(super) expires: Option<Timestamp>,
}

/// Finds a field through objects. Where it is not there, the error names those that are, never their values.
pub(super) fn find(text: &str, path: &[Arc<str>]) -> Result<Found, VaultError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // A syntax error behind the field is one, too.
    let found =
        Object(path).deserialize(&mut deserializer).and_then(|found| deserializer.end().map(|()| found));
    match found {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(why)) => Err(VaultError::Unusable(why)),
        // What serde_json says of it may hold a part of it.
        Err(_) => {
            let path = path.join(".");
            let why = format!("what the program printed is no JSON object with a string in the field {path}");
            Err(VaultError::Unusable(why.into()))
        }
    }
}

/// The object that the rest of a path leads into.
struct Object<'a>(&'a [Arc<str>]);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Result<Found, Arc<str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Result<Found, Arc<str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let Some((wanted, rest)) = self.0.split_first() else { return Ok(Err("no field is named".into())) };
        let (mut names, mut found, mut expires) = (Vec::new(), None, None);
        while let Some(name) = map.next_key::<String>()? {
            if *name == **wanted && rest.is_empty() {
                found = Some(map.next_value_seed(Text)?.map(|value| Found { value, expires: None }));
            } else if *name == **wanted {
                found = Some(map.next_value_seed(Object(rest))?);
            } else if rest.is_empty() && name == "expires_on" {
                expires = map.next_value_seed(Moment)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            names.push(name);
        }
        Ok(match found {
            Some(Ok(found)) => Ok(Found { expires: expires.or(found.expires), ..found }),
            Some(Err(why)) => Err(why),
            None => Err(absent(wanted, &names)),
        })
    }
}

fn absent(wanted: &str, names: &[String]) -> Arc<str> {
    if names.is_empty() {
        return format!("there is no field {wanted}: the object is empty").into();
    }
    let shown = names.iter().take(MOST_NAMES).map(|name| name.escape_debug().take(64).collect::<String>());
    let more = if names.len() > MOST_NAMES { ", …" } else { "" };
    format!("there is no field {wanted}; there are {}{more}", shown.collect::<Vec<_>>().join(", ")).into()
}

/// A string, into a secret.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Result<SecretString, Arc<str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Text {
    type Value = Result<SecretString, Arc<str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Ok(text.into()))
    }
}

/// Seconds or RFC 3339; anything else says nothing.
struct Moment;

impl<'de> DeserializeSeed<'de> for Moment {
    type Value = Option<Timestamp>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Moment {
    type Value = Option<Timestamp>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a moment")
    }

    fn visit_u64<E>(self, seconds: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(match text.parse::<i64>() {
            Ok(seconds) => Timestamp::from_second(seconds).ok(),
            Err(_) => text.parse().ok(),
        })
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::token::exposed;

    fn look(text: &str, path: &str) -> Result<(String, Option<i64>), String> {
        let path: Vec<Arc<str>> = path.split('.').map(Arc::from).collect();
        match find(text, &path) {
            Ok(found) => Ok((exposed(&found.value).to_owned(), found.expires.map(Timestamp::as_second))),
            Err(VaultError::Unusable(why)) => Err((*why).to_owned()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_field_is_found_with_its_end() {
        for (text, path, value, expires) in [
            (r#"{"token":"canary"}"#, "token", "canary", None),
            (
                r#"{"accessToken":"canary","expiresOn":"2026-11-24 09:00:00.000000","expires_on":1764000000}"#,
                "accessToken",
                "canary",
                Some(1_764_000_000),
            ),
            (r#"{"expires_on":"1764000000","t":"canary"}"#, "t", "canary", Some(1_764_000_000)),
            (r#"{"expires_on":"2026-11-24T09:00:00Z","t":"canary"}"#, "t", "canary", Some(1_795_510_800)),
            (r#"{"expires_on":"soon","t":"canary"}"#, "t", "canary", None),
            (r#"{"expires_on":null,"t":"canary"}"#, "t", "canary", None),
            (
                r#"{"id":1,"login":{"user":"u","password":"canary"},"x":[{}]}"#,
                "login.password",
                "canary",
                None,
            ),
            (r#"{"t":"\u0063anary"}"#, "t", "canary", None),
        ] {
            assert_eq!(look(text, path), Ok((value.to_owned(), expires)), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_a_value() {
        for (text, path, why) in [
            ("", "t", "no JSON object"),
            ("canary", "t", "no JSON object"),
            (r#""canary""#, "t", "no JSON object"),
            (r#"["canary"]"#, "t", "no JSON object"),
            (r#"{"t":"canary"} canary"#, "t", "no JSON object"),
            (r#"{"t":7}"#, "t", "no JSON object"),
            (r#"{"login":"canary"}"#, "login.password", "no JSON object"),
            ("{}", "t", "no field t: the object is empty"),
            (r#"{"a":"canary","b":1}"#, "t", "no field t; there are a, b"),
            (r#"{"login":{"user":"canary"}}"#, "login.password", "no field password; there are user"),
        ] {
            let said = look(text, path).unwrap_err();
            assert!(said.contains(why) && !said.contains("canary"), "{text}: {said}");
        }
    }
}
