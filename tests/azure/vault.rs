//! Key Vault's secrets: get, set, list versions, attributes and errors
//! (learn.microsoft.com/rest/api/keyvault/secrets, learn.microsoft.com/azure/key-vault/general/rest-error-codes).

use std::collections::BTreeMap;

use http::{Method, Response, header, request::Parts};
use serde_json::{Value, json};

use super::{AUTHORITY, Behaviour, Body, State, TENANT, VAULT, documented, now, query, text};

/// How many versions a page of a list holds. Key Vault's own have 25.
const PAGE: usize = 2;

/// A version of a secret. Moments are in seconds since the epoch.
#[derive(Clone, Debug)]
pub struct Version {
    pub id: String,
    pub value: String,
    pub enabled: bool,
    pub not_before: Option<i64>,
    pub expires: Option<i64>,
    pub created: i64,
}

pub(super) fn add<'a>(
    secrets: &'a mut BTreeMap<String, Vec<Version>>,
    name: &str,
    value: &str,
) -> &'a mut Version {
    let versions = secrets.entry(name.into()).or_default();
    let number = i64::try_from(versions.len()).unwrap();
    versions.push(Version {
        id: format!("{:032x}", 0x5eed_0000 + number),
        value: value.into(),
        enabled: true,
        not_before: None,
        expires: None,
        created: now() - 1000 + number,
    });
    versions.last_mut().unwrap()
}

pub(super) fn answer(state: &mut State, head: &Parts, body: &[u8]) -> Response<Body> {
    let bearer = text(&head.headers, "authorization").strip_prefix("Bearer ").unwrap_or_default();
    let known = state.issued.iter().any(|(token, resource)| {
        !token.is_empty() && token == bearer && resource == "https://vault.azure.net"
    });
    if !known || state.vault == Behaviour::NoTokenIsGood {
        return challenge(state.vault);
    }
    if !query(head).contains_key("api-version") {
        return error(400, "BadParameter", "api-version must be specified", None);
    }
    if !state.granted {
        let words = "Caller is not authorized to perform action on resource.";
        return error(403, "Forbidden", words, Some("ForbiddenByRbac"));
    }
    let segments: Vec<_> = head.uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    match (&head.method, segments.as_slice()) {
        (&Method::GET, ["secrets", name, "versions"]) => list(state, head, name),
        (&Method::GET, ["secrets", name]) => get(state, name, None),
        (&Method::GET, ["secrets", name, version]) => get(state, name, Some(version)),
        (&Method::PUT, ["secrets", name]) => set(state, name, body),
        _ => error(404, "NotFound", "there is nothing here", None),
    }
}

fn challenge(behaviour: Behaviour) -> Response<Body> {
    let resource = match behaviour {
        Behaviour::OtherResource => "https://management.azure.com",
        _ => "https://vault.azure.net",
    };
    let words = "AKV10000: Request is missing a Bearer or PoP token.";
    let mut answer = error(401, "Unauthorized", words, None);
    let challenge = format!("Bearer authorization=\"https://{AUTHORITY}/{TENANT}\", resource=\"{resource}\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
    answer
}

fn get(state: &State, name: &str, version: Option<&str>) -> Response<Body> {
    let versions = state.secrets.get(name).map(Vec::as_slice).unwrap_or_default();
    let found = match version {
        Some(id) => versions.iter().find(|version| version.id == id),
        None => versions.last(),
    };
    match found {
        None => {
            error(404, "SecretNotFound", "A secret with (name/id) was not found in this key vault.", None)
        }
        Some(found) if !found.enabled => error(
            403,
            "Forbidden",
            "Operation get is not allowed on a disabled secret.",
            Some("SecretDisabled"),
        ),
        // What is expired or not valid yet is handed out all the same: that is for the client to judge.
        Some(found) => documented(200, &described(name, found, true)),
    }
}

fn set(state: &mut State, name: &str, body: &[u8]) -> Response<Body> {
    let Ok(Value::Object(sent)) = serde_json::from_slice::<Value>(body) else {
        return error(400, "BadParameter", "The request body is not JSON", None);
    };
    let Some(value) = sent.get("value").and_then(Value::as_str) else {
        return error(400, "BadParameter", "value is not specified", None);
    };
    let version = add(&mut state.secrets, name, value);
    let attributes = sent.get("attributes");
    let moment = |key| attributes.and_then(|attributes| attributes.get(key)).and_then(Value::as_i64);
    (version.not_before, version.expires) = (moment("nbf"), moment("exp"));
    let version = version.clone();
    documented(200, &described(name, &version, true))
}

fn list(state: &State, head: &Parts, name: &str) -> Response<Body> {
    let versions = state.secrets.get(name).map(Vec::as_slice).unwrap_or_default();
    let from: usize = query(head).get("$skiptoken").and_then(|from| from.parse().ok()).unwrap_or(0);
    // In an order of their own: ids, not times.
    let mut sorted: Vec<_> = versions.iter().collect();
    sorted.sort_by_key(|version| version.id.bytes().rev().collect::<Vec<_>>());
    let page: Vec<_> =
        sorted.iter().skip(from).take(PAGE).map(|version| described(name, version, false)).collect();
    let next = (from + PAGE < versions.len()).then(|| {
        format!("https://{VAULT}/secrets/{name}/versions?api-version=2025-07-01&$skiptoken={}", from + PAGE)
    });
    documented(200, &json!({ "value": page, "nextLink": next }))
}

fn described(name: &str, version: &Version, whole: bool) -> Value {
    let mut attributes = json!({
        "enabled": version.enabled, "created": version.created, "updated": version.created,
        "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90,
    });
    for (key, moment) in [("nbf", version.not_before), ("exp", version.expires)] {
        if let Some(moment) = moment {
            attributes[key] = moment.into();
        }
    }
    let id = format!("https://{VAULT}/secrets/{name}/{}", version.id);
    let mut described = json!({ "id": id, "attributes": attributes, "tags": {} });
    if whole {
        described["value"] = version.value.clone().into();
    }
    described
}

fn error(status: u16, code: &str, message: &str, inner: Option<&str>) -> Response<Body> {
    let mut error = json!({ "code": code, "message": message });
    if let Some(inner) = inner {
        error["innererror"] = json!({ "code": inner });
    }
    documented(status, &json!({ "error": error }))
}
