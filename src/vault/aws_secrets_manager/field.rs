//! `NAME` or `NAME#FIELD`: which secret, and which part of it.

use std::{fmt, sync::Arc};

use aws_lc_rs::constant_time;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::vault::{Facts, Fetched, VaultError, without_line_end};

/// One version of a secret, whole.
pub(super) struct Value {
    /// `None`: it is binary.
    pub(super) text: Option<Zeroizing<String>>,
    pub(super) version: Option<Arc<str>>,
}

/// What `[credential.x] secret` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    /// The secret's name or ARN.
    pub(super) name: &'a str,
    /// A field of the JSON object that it holds.
    pub(super) field: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(secret: &'a str) -> Result<Self, VaultError> {
        let (name, field) = match secret.split_once('#') {
            Some((name, field)) => (name, Some(field)),
            None => (secret, None),
        };
        if name.is_empty() {
            return Err(VaultError::Denied("a secret without a name is not there".into()));
        }
        Ok(Self { name, field })
    }

    /// The token in a secret.
    pub(super) fn pick(&self, value: &Value) -> Result<Fetched, VaultError> {
        let text = value.text.as_ref().ok_or_else(|| {
            VaultError::Unusable("it is binary; store the token as text (SecretString)".into())
        })?;
        let value_of_secret = match self.field {
            None => without_line_end(text.as_str().to_owned()),
            Some(field) => without_line_end(Fields::of(text, field)?.text(field)?),
        };
        Ok(Fetched { value: value_of_secret, version: value.version.clone(), facts: Facts::default() })
    }

    /// Whether a secret holds this very token already.
    pub(super) fn is_in(&self, value: &Value, token: &str) -> bool {
        let Some(text) = &value.text else { return false };
        let held = match self.field {
            None => text.clone(),
            Some(field) => match Fields::of(text, field).and_then(|fields| fields.text(field)) {
                Ok(held) => Zeroizing::new(held),
                Err(_) => return false,
            },
        };
        constant_time::verify_slices_are_equal(held.as_bytes(), token.as_bytes()).is_ok()
    }

    /// The secret with another token in it; other fields stay as they are, to the byte.
    pub(super) fn replaced(
        &self,
        value: Option<&Value>,
        token: &str,
    ) -> Result<Zeroizing<String>, VaultError> {
        let Some(field) = self.field else { return Ok(Zeroizing::new(token.to_owned())) };
        let text = value.and_then(|value| value.text.as_ref()).ok_or_else(|| {
            VaultError::Unusable(format!("it is no JSON object, so it has no field \"{field}\"").into())
        })?;
        Ok(Fields::of(text, field)?.with(field, token, text.len()))
    }
}

/// The fields of a JSON object, in their order, their values as they stand there.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The parser's own words are left out: they may quote.
    fn of(text: &'a str, field: &str) -> Result<Self, VaultError> {
        serde_json::from_str(text).map_err(|_| {
            VaultError::Unusable(format!("it is no JSON object, so it has no field \"{field}\"").into())
        })
    }

    fn text(&self, field: &str) -> Result<String, VaultError> {
        // Of a name that stands there twice, the last counts, as in most parsers.
        let Some((_, raw)) = self.0.iter().rev().find(|(name, _)| name == field) else {
            return Err(VaultError::Denied(
                format!("it has no field \"{field}\"; there are: {}", self.names()).into(),
            ));
        };
        serde_json::from_str(raw.get())
            .map_err(|_| VaultError::Unusable(format!("its field \"{field}\" is not text").into()))
    }

    /// A few names, never a value.
    fn names(&self) -> String {
        const MOST: usize = 20;
        const LONGEST: usize = 64;
        let name = |(name, _): &(String, _)| -> String {
            name.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
        };
        let mut names: Vec<_> = self.0.iter().take(MOST).map(name).collect();
        if self.0.len() > MOST {
            names.push(format!("and {} more", self.0.len() - MOST));
        }
        if names.is_empty() { "none".into() } else { names.join(", ") }
    }

    fn with(&self, field: &str, token: &str, length: usize) -> Zeroizing<String> {
        let quoted = |text: &str| Zeroizing::new(serde_json::Value::from(text).to_string());
        let token = quoted(token);
        // Nothing grows beyond this, so that no copy of a secret is left behind.
        let capacity = length * 2 + token.len() + field.len() * 6 + 16;
        let mut whole = Zeroizing::new(String::with_capacity(capacity));
        let mut separator = '{';
        let mut add = |name: &str, value: &str| {
            whole.push(separator);
            separator = ',';
            whole.push_str(&quoted(name));
            whole.push(':');
            whole.push_str(value);
        };
        let mut there = false;
        for (name, raw) in &self.0 {
            let own = name == field;
            there |= own;
            add(name, if own { &token } else { raw.get() });
        }
        if !there {
            add(field, &token);
        }
        whole.push('}');
        whole
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Object<'a> {
            type Value = Fields<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'a>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::token::exposed;

    fn value(text: &str) -> Value {
        Value { text: Some(Zeroizing::new(text.into())), version: Some("v1".into()) }
    }

    fn picked(secret: &str, text: &str) -> Result<String, VaultError> {
        let fetched = Wanted::of(secret)?.pick(&value(text))?;
        Ok(exposed(&fetched.value).to_owned())
    }

    #[test]
    fn a_secret_is_taken_whole_or_by_a_field() {
        let json = r#"{"user":"patgate","web":"to\u006ben","n":1,"deep":{"web":"x"}}"#;
        for (secret, text, expected) in [
            ("web", "token", "token"),
            ("web", "token\n", "token"),
            ("web", json, json),
            ("all#web", json, "token"),
            ("all#web", r#"{"web":"a","web":"b"}"#, "b"),
            ("all#a#b", r#"{"a#b":"token"}"#, "token"),
        ] {
            assert_eq!(picked(secret, text).unwrap(), expected, "{secret} {text}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_names_those_that_are_and_no_value() {
        let json = r#"{"user":"canary-1","web":"canary-2"}"#;
        let Err(VaultError::Denied(why)) = picked("all#wbe", json) else { panic!() };
        assert_eq!(&*why, "it has no field \"wbe\"; there are: user, web");
        for (secret, text) in [
            ("all#web", "canary"),
            ("all#web", "[\"canary\"]"),
            ("all#web", "{\"web\":[\"canary\"]}"),
            ("all#web", ""),
        ] {
            let Err(VaultError::Unusable(why)) = picked(secret, text) else { panic!("{text}") };
            assert!(!why.contains("canary"), "{why}");
        }
        assert!(matches!(picked("", "x"), Err(VaultError::Denied(_))));
        assert!(matches!(picked("#web", "x"), Err(VaultError::Denied(_))));
        let binary = Value { text: None, version: None };
        assert!(matches!(Wanted::of("web").unwrap().pick(&binary), Err(VaultError::Unusable(_))));
    }

    #[test]
    fn a_new_token_leaves_the_other_fields_as_they_were() {
        for (secret, before, after) in [
            ("web", "old", "new\"token"),
            (
                "all#web",
                r#"{"z":1.00,"web":"old","a":{"k": [1]}}"#,
                r#"{"z":1.00,"web":"new\"token","a":{"k": [1]}}"#,
            ),
            (
                "all#web",
                r#"{ "z" : 12345678901234567890123 }"#,
                r#"{"z":12345678901234567890123,"web":"new\"token"}"#,
            ),
            ("all#web", "{}", r#"{"web":"new\"token"}"#),
        ] {
            let wanted = Wanted::of(secret).unwrap();
            let whole = wanted.replaced(Some(&value(before)), "new\"token").unwrap();
            assert_eq!(*whole, after);
            assert!(
                wanted.is_in(&value(&whole), "new\"token") && !wanted.is_in(&value(before), "new\"token")
            );
        }
        let wanted = Wanted::of("all#web").unwrap();
        assert!(
            wanted.replaced(None, "new").is_err() && wanted.replaced(Some(&value("old")), "new").is_err()
        );
    }
}
