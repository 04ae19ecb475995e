//! The API by which a user's own tokens are made, listed, extended and revoked.
//!
//! As documented for `https://vssps.dev.azure.com/{organization}/_apis/tokens/pats`, versions 7.1-preview.1
//! and 7.2-preview.1: for Entra tokens of users alone, never for a personal access token; errors of what was asked stand in
//! `patTokenError` of an answer that is otherwise 200.

use aws_lc_rs::rand;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer::{self, Stream},
    identity::{self, Digest, hex},
    issued::{Issued, Mishap, Register, Standing, now},
    on_request::parameter,
    server::Garbled,
    site::Received,
};

/// The host that has this API.
pub(super) const HOST: &str = "vssps.dev.azure.com";
/// The most tokens of one page, and how many there are where the request does not say.
const PAGE: (usize, usize) = (100, 20);
/// The longest request, in bytes.
const LONGEST: usize = 64 * 1024;
/// The longest name, in characters.
const LONGEST_NAME: usize = 255;
/// An organisation's id, as `targetAccounts` shows it.
const ACCOUNT: &str = "6f1c2d3e-4b5a-4697-8a9b-0c1d2e3f4a5b";

/// What a request to make or to change a token says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Asked {
    authorization_id: Option<String>,
    display_name: Option<String>,
    scope: Option<String>,
    valid_to: Option<String>,
    all_orgs: Option<bool>,
}

/// Whether a request is for this API's host.
pub(super) fn is_for(head: &Parts) -> bool {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    host.split(':').next().is_some_and(|host| host.eq_ignore_ascii_case(HOST))
}

/// Answers one request, and says whether it was a member's.
pub(super) async fn answer(
    register: &Register,
    organization: &str,
    head: &Parts,
    body: Received,
) -> (Response<Stream>, bool) {
    let entra = identity::bearer(&head.headers).is_some_and(|digest| register.is_user(digest));
    if !entra {
        return (answer::unknown(&head.method, &head.headers, organization, false), false);
    }
    let mishap = register.mishap(&head.method);
    let answer = match mishap {
        Some(Mishap::Throttled(seconds)) => throttled(seconds),
        Some(Mishap::Failing) => answer::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "TeamFoundationServerException",
            "TF400898: An Internal Error Occurred.",
        ),
        Some(Mishap::Unanswered) => {
            let mut answer = done(register, organization, head, body).await;
            answer.extensions_mut().insert(Garbled);
            answer
        }
        None => done(register, organization, head, body).await,
    };
    (answer, true)
}

async fn done(register: &Register, organization: &str, head: &Parts, body: Received) -> Response<Stream> {
    let query = head.uri.query().unwrap_or_default();
    if let Some(refused) = version(parameter(query, "api-version").as_deref()) {
        return refused;
    }
    let id = parameter(query, "authorizationId");
    match (&head.method, id) {
        (&Method::GET, Some(id)) => one(register, &id),
        (&Method::GET, None) => list(register, query),
        (&Method::DELETE, Some(id)) => revoke(register, &id),
        (&Method::DELETE, None) => bad("The authorizationId of the token to revoke is missing."),
        (&Method::POST | &Method::PUT, _) => {
            let Some(asked) = asked(body).await else { return bad("The request's body can't be read.") };
            if head.method == Method::POST {
                create(register, organization, &asked)
            } else {
                update(register, &asked)
            }
        }
        _ => answer::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "VssRequestMethodNotAllowedException",
            "The requested resource does not support this method.",
        ),
    }
}

async fn asked(body: Received) -> Option<Asked> {
    let bytes = Limited::new(body, LONGEST).collect().await.ok()?.to_bytes();
    serde_json::from_slice(&bytes).ok()
}

fn version(version: Option<&str>) -> Option<Response<Stream>> {
    let bad = |key, words: String| Some(answer::error(StatusCode::BAD_REQUEST, key, &words));
    match version {
        Some("7.1-preview.1" | "7.2-preview.1" | "7.1-preview" | "7.2-preview") => None,
        Some(version @ ("7.1" | "7.2")) => bad(
            "VssInvalidPreviewVersionException",
            format!(
                "The requested version \"{version}\" of the resource is under preview. The -preview flag must be \
                 supplied in the api-version for such requests. For example: \"{version}-preview\""
            ),
        ),
        _ => bad("VssVersionNotSpecifiedException", "No api-version was supplied for the request.".into()),
    }
}

fn bad(words: &str) -> Response<Stream> {
    answer::error(StatusCode::BAD_REQUEST, "VssPropertyValidationException", words)
}

fn throttled(seconds: u64) -> Response<Stream> {
    let words = "TF400733: The request has been canceled: Request was blocked due to exceeding usage of resource 'Concurrency' in namespace 'User'.";
    let mut answer = answer::error(StatusCode::TOO_MANY_REQUESTS, "RequestBlockedException", words);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

/// A token as it is shown; with itself at its making alone.
fn shown(token: &Issued, itself: Option<&str>) -> Value {
    let mut shown = json!({
        "displayName": token.display_name, "scope": token.scope, "authorizationId": token.authorization_id,
        "targetAccounts": token.organization.as_ref().map(|_| [ACCOUNT]),
        "validFrom": token.valid_from.to_string(), "validTo": token.valid_to.to_string(),
    });
    if let Some(object) = shown.as_object_mut() {
        object.insert("token".into(), itself.into());
    }
    shown
}

fn result(token: &Issued, itself: Option<&str>) -> Response<Stream> {
    answer::document(StatusCode::OK, &json!({ "patToken": shown(token, itself), "patTokenError": "none" }))
}

fn failed(error: &str) -> Response<Stream> {
    answer::document(StatusCode::OK, &json!({ "patToken": null, "patTokenError": error }))
}

fn one(register: &Register, id: &str) -> Response<Stream> {
    match register.all().iter().find(|token| token.authorization_id == id) {
        Some(token) => result(token, None),
        None => failed("tokenNotFound"),
    }
}

fn list(register: &Register, query: &str) -> Response<Stream> {
    let wanted = parameter(query, "displayFilterOption").unwrap_or_else(|| "active".into());
    let (most, usual) = PAGE;
    let page = parameter(query, "$top").and_then(|top| top.parse().ok()).unwrap_or(usual).clamp(1, most);
    let from = parameter(query, "continuationToken").and_then(|token| token.parse().ok()).unwrap_or(0_usize);
    let all: Vec<_> = register
        .all()
        .into_iter()
        .filter(|token| match wanted.to_ascii_lowercase().as_str() {
            "all" => true,
            "revoked" => token.standing() == Standing::Revoked,
            "expired" => token.standing() == Standing::Expired,
            _ => token.standing() == Standing::Active,
        })
        .collect();
    let shown: Vec<_> = all.iter().skip(from).take(page).map(|token| shown(token, None)).collect();
    let next = from.saturating_add(page);
    let next = if next < all.len() { next.to_string() } else { String::new() };
    answer::document(StatusCode::OK, &json!({ "continuationToken": next, "patTokens": shown }))
}

fn create(register: &Register, organization: &str, asked: &Asked) -> Response<Stream> {
    let governance = register.governance();
    let name = asked.display_name.as_deref().unwrap_or_default().trim();
    let scope = asked.scope.as_deref().unwrap_or_default().trim();
    let everywhere = asked.all_orgs == Some(true);
    let from = now();
    let until = match &asked.valid_to {
        None => from.checked_add(jiff::SignedDuration::from_hours(30 * 24)).ok(),
        Some(text) => text.parse::<Timestamp>().ok().filter(|until| *until > from),
    };
    let refusal = if governance.no_creation {
        Some("disablePatCreationPolicyViolation")
    } else if name.is_empty() {
        Some("displayNameRequired")
    } else if name.chars().count() > LONGEST_NAME {
        Some("invalidDisplayName")
    } else if !is_scope(scope) {
        Some("invalidScope")
    } else if governance.no_full_scope && scope == "app_token" {
        Some("fullScopePatPolicyViolation")
    } else if governance.no_global && everywhere {
        Some("globalPatPolicyViolation")
    } else {
        None
    };
    let (until, secret) = match (refusal, until, secret()) {
        (Some(refusal), ..) => return failed(refusal),
        (None, None, _) => return failed("invalidValidTo"),
        (None, _, None) => return failed("failedToIssueAccessToken"),
        (None, Some(until), Some(secret)) => (shortened(register, from, until), secret),
    };
    let token = Issued {
        authorization_id: uuid(),
        display_name: name.to_owned(),
        scope: scope.to_owned(),
        valid_from: from,
        valid_to: until,
        revoked: false,
        organization: (!everywhere).then(|| organization.to_ascii_lowercase()),
        digest: Digest::of(secret.as_bytes()).to_hex(),
    };
    if !register.change(|tokens| tokens.push(token.clone())) {
        return failed("failedToIssueAccessToken");
    }
    result(&token, Some(&secret))
}

/// An end no later than the administrators' longest lifespan.
fn shortened(register: &Register, from: Timestamp, until: Timestamp) -> Timestamp {
    let longest = register.governance().lifespan.and_then(|lifespan| from.checked_add(lifespan).ok());
    longest.map_or(until, |longest| until.min(longest))
}

fn update(register: &Register, asked: &Asked) -> Response<Stream> {
    let id = asked.authorization_id.as_deref().unwrap_or_default();
    let Some(mut token) = register.all().into_iter().find(|token| token.authorization_id == id) else {
        return failed("invalidAuthorizationId");
    };
    if token.revoked {
        return failed("tokenNotFound");
    }
    if let Some(text) = &asked.valid_to {
        let Some(until) = text.parse::<Timestamp>().ok().filter(|until| *until > now()) else {
            return failed("invalidValidTo");
        };
        token.valid_to = shortened(register, token.valid_from, until);
    }
    if let Some(scope) = &asked.scope {
        if !is_scope(scope) {
            return failed("invalidScope");
        }
        token.scope.clone_from(scope);
    }
    if let Some(name) = &asked.display_name {
        token.display_name.clone_from(name);
    }
    let replaced = register.change(|tokens| {
        for known in tokens.iter_mut().filter(|known| known.authorization_id == id) {
            *known = token.clone();
        }
    });
    if replaced { result(&token, None) } else { failed("failedToUpdateAccessToken") }
}

fn revoke(register: &Register, id: &str) -> Response<Stream> {
    let mut found = false;
    let written = register.change(|tokens| {
        for token in tokens.iter_mut().filter(|token| token.authorization_id == id) {
            (token.revoked, found) = (true, true);
        }
    });
    if found && written {
        let mut answer = Response::new(Stream::whole(""));
        *answer.status_mut() = StatusCode::NO_CONTENT;
        return answer;
    }
    let words = format!("The authorization {id} was not found.");
    answer::error(StatusCode::NOT_FOUND, "SessionTokenNotFoundException", &words)
}

/// `vso.code vso.build`, or `app_token`, which is everything.
fn is_scope(scope: &str) -> bool {
    let known = |one: &str| {
        one.strip_prefix("vso.").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphabetic() || b"._".contains(&byte))
        })
    };
    scope == "app_token" || (!scope.is_empty() && scope.split(' ').all(known))
}

/// A token in Azure DevOps' form: 84 characters, most of them by chance.
fn secret() -> Option<String> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = [0; 84];
    rand::fill(&mut random).ok()?;
    let mut letters = random
        .iter()
        .map(|byte| LETTERS.get(usize::from(*byte) % 62).map_or('A', |&letter| char::from(letter)));
    let mut some = |count| letters.by_ref().take(count).collect::<String>();
    Some(format!("{}JQQJ99{}K{}AAAAAZDO{}", some(52), some(1), some(12), some(4)))
}

fn uuid() -> String {
    let mut bytes = [0; 16];
    // Without randomness they are all the same, and the first is found.
    let _ = rand::fill(&mut bytes);
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    let text = hex(&bytes);
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default().to_owned();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}
