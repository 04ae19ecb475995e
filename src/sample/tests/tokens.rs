//! A user's own tokens, made, listed, extended and revoked by the real curl.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::*;

const ENTRA: &str = "an-entra-token";
const HOUR: Duration = Duration::from_hours(1);

impl Lab {
    /// A request to the tokens' API: its status and its answer.
    fn pats(&self, method: &str, query: &str, authorization: &str, body: Option<&Value>) -> (String, Value) {
        self.pats_on(crate::sample::tokens::HOST, method, query, authorization, body)
    }

    fn pats_on(
        &self,
        host: &str,
        method: &str,
        query: &str,
        authorization: &str,
        body: Option<&Value>,
    ) -> (String, Value) {
        let port = self.organization.address().port();
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--resolve", &format!("{host}:{port}:127.0.0.1"), "-g"])
            .args(["-w", "\n%{http_code}", "--cacert", self.organization.ca().to_str().unwrap()])
            .args(["-X", method, "-H", &format!("Authorization: {authorization}")])
            .args(["-H", "X-TFS-FedAuthRedirect: Suppress", "-H", "Content-Type: application/json"]);
        if let Some(body) = body {
            curl.args(["-d", &body.to_string()]);
        }
        let url = format!("https://{host}:{port}/contoso/_apis/tokens/pats?api-version=7.1-preview.1{query}");
        let output = curl.arg(url).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", ""));
        (status.to_owned(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn as_user(&self, method: &str, query: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.pats(method, query, &format!("Bearer {ENTRA}"), body);
        assert!(["200", "204", "404"].contains(&&*status), "{status}: {answer}");
        answer
    }

    fn create(&self, more: &Value) -> Value {
        let mut asked = json!({
            "displayName": "a token", "scope": "vso.code vso.build", "allOrgs": false,
            "validTo": later(HOUR),
        });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.as_user("POST", "", Some(&asked))
    }

    /// What a request with a token is answered.
    fn with(&self, token: &str) -> String {
        let header = format!("Authorization: Basic {}", STANDARD.encode(format!(":{token}")));
        self.text(&["-H", &header, "-H", "X-TFS-FedAuthRedirect: Suppress"], "/contoso/_apis/projects")
    }
}

fn later(time: Duration) -> String {
    issued::now().checked_add(time).unwrap().to_string()
}

fn lab() -> Lab {
    let lab = Lab::start();
    lab.organization.accept_user(ENTRA);
    lab
}

#[test]
fn a_token_counts_from_its_making_to_its_revocation_and_beside_others() {
    let lab = lab();
    let (one, two) = (lab.create(&json!({})), lab.create(&json!({})));
    assert_eq!(one["patTokenError"], "none");
    let token = |made: &Value| made["patToken"]["token"].as_str().unwrap().to_owned();
    assert_eq!((token(&one).len(), &token(&one)[72..80]), (84, "AAAAAZDO"));
    for made in [&one, &two] {
        assert!(lab.with(&token(made)).contains("200 OK"), "{}", lab.with(&token(made)));
    }
    let id = one["patToken"]["authorizationId"].as_str().unwrap();
    let shown = lab.as_user("GET", &format!("&authorizationId={id}"), None);
    assert_eq!(shown["patToken"]["displayName"], "a token");
    assert_eq!(shown["patToken"]["token"], Value::Null, "it is shown once");
    lab.as_user("DELETE", &format!("&authorizationId={id}"), None);
    lab.as_user("DELETE", &format!("&authorizationId={id}"), None);
    let refused = lab.with(&token(&one));
    assert!(
        refused.contains("401 Unauthorized") && refused.contains("used%20has%20been%20revoked"),
        "{refused}"
    );
    assert!(lab.with(&token(&two)).contains("200 OK"));
    assert!(lab.with(PAT).contains("200 OK"), "the one it was started with still counts");

    let soon = lab.create(&json!({ "validTo": later(Duration::from_secs(3)) }));
    let end: jiff::Timestamp = soon["patToken"]["validTo"].as_str().unwrap().parse().unwrap();
    while !lab.with(&token(&soon)).contains("used%20has%20expired") {
        let patience = end.checked_add(Duration::from_secs(10)).unwrap();
        assert!(issued::now() < patience, "it does not expire");
    }
    let id = &soon["patToken"]["authorizationId"];
    let extended = lab.as_user("PUT", "", Some(&json!({ "authorizationId": id, "validTo": later(HOUR) })));
    assert_eq!(extended["patTokenError"], "none");
    assert!(lab.with(&token(&soon)).contains("200 OK"), "it was extended");
}

#[test]
fn tokens_and_their_ends_survive_a_restart() {
    let lab = lab();
    let made = lab.create(&json!({}));
    let token = made["patToken"]["token"].as_str().unwrap().to_owned();
    let gone = lab.create(&json!({}));
    let id = gone["patToken"]["authorizationId"].as_str().unwrap();
    lab.as_user("DELETE", &format!("&authorizationId={id}"), None);
    let Lab { folder, organization } = lab;
    organization.stop();
    let kept = std::fs::read_to_string(folder.path().join("sample/issued.json")).unwrap();
    assert!(!kept.contains(&token));
    let organization = Organization::start(options(folder.path(), None)).unwrap();
    let lab = Lab { folder, organization };
    assert!(lab.with(&token).contains("200 OK"));
    assert!(lab.with(gone["patToken"]["token"].as_str().unwrap()).contains("revoked"));
}

#[test]
fn the_list_is_paged_and_filtered() {
    let lab = lab();
    let ids: Vec<_> = (0..5)
        .map(|_| lab.create(&json!({}))["patToken"]["authorizationId"].as_str().unwrap().to_owned())
        .collect();
    lab.as_user("DELETE", &format!("&authorizationId={}", ids[4]), None);
    let (mut found, mut query) = (Vec::new(), "&$top=3".to_owned());
    loop {
        let page = lab.as_user("GET", &query, None);
        let tokens = page["patTokens"].as_array().unwrap();
        assert!(tokens.len() <= 3 && tokens.iter().all(|token| token["token"].is_null()));
        found.extend(tokens.iter().map(|token| token["authorizationId"].as_str().unwrap().to_owned()));
        match page["continuationToken"].as_str().unwrap() {
            "" => break,
            next => query = format!("&$top=3&continuationToken={next}"),
        }
    }
    assert_eq!(found, ids[..4]);
    for (option, count) in [("all", 5), ("revoked", 1), ("expired", 0), ("active", 4)] {
        let page = lab.as_user("GET", &format!("&displayFilterOption={option}"), None);
        assert_eq!(page["patTokens"].as_array().unwrap().len(), count, "{option}");
    }
}

#[test]
fn only_a_users_entra_token_opens_it_and_only_on_its_host() {
    let lab = lab();
    let pat = format!("Basic {}", STANDARD.encode(format!(":{PAT}")));
    let made = lab.create(&json!({}));
    let token = made["patToken"]["token"].as_str().unwrap();
    let made = format!("Basic {}", STANDARD.encode(format!(":{token}")));
    for authorization in [&*pat, &made, "Bearer another", &format!("Bearer {token}"), ""] {
        let (status, _) = lab.pats("GET", "", authorization, None);
        assert_eq!(status, "401", "{authorization}");
    }
    let entra = format!("Bearer {ENTRA}");
    assert_eq!(lab.pats("GET", "", &entra, None).0, "200");
    assert_eq!(lab.pats_on("dev.azure.com", "GET", "", &entra, None).0, "401");
    assert_eq!(lab.organization.issued().len(), 1);
}

#[test]
fn what_is_asked_wrongly_or_forbidden_makes_no_token() {
    let lab = lab();
    for (more, governance, error) in [
        (json!({ "displayName": "" }), Governance::default(), "displayNameRequired"),
        (json!({ "displayName": "x".repeat(300) }), Governance::default(), "invalidDisplayName"),
        (json!({ "scope": "code" }), Governance::default(), "invalidScope"),
        (json!({ "scope": "" }), Governance::default(), "invalidScope"),
        (json!({ "validTo": "2020-01-01T00:00:00Z" }), Governance::default(), "invalidValidTo"),
        (json!({ "validTo": "soon" }), Governance::default(), "invalidValidTo"),
        (
            json!({}),
            Governance { no_creation: true, ..Governance::default() },
            "disablePatCreationPolicyViolation",
        ),
        (
            json!({ "scope": "app_token" }),
            Governance { no_full_scope: true, ..Governance::default() },
            "fullScopePatPolicyViolation",
        ),
        (
            json!({ "allOrgs": true }),
            Governance { no_global: true, ..Governance::default() },
            "globalPatPolicyViolation",
        ),
    ] {
        lab.organization.govern(governance);
        let answer = lab.create(&more);
        assert_eq!((&answer["patTokenError"], &answer["patToken"]), (&json!(error), &Value::Null), "{more}");
    }
    assert!(lab.organization.issued().is_empty());
    lab.organization.govern(Governance { lifespan: Some(HOUR), ..Governance::default() });
    let made = lab.create(&json!({ "validTo": later(HOUR * 48) }));
    let until: jiff::Timestamp = made["patToken"]["validTo"].as_str().unwrap().parse().unwrap();
    assert!(until <= issued::now().checked_add(HOUR).unwrap(), "it is shortened");
}

#[test]
fn what_befalls_a_request_is_what_was_asked_for() {
    let lab = lab();
    let entra = format!("Bearer {ENTRA}");
    let asked = json!({ "displayName": "x", "scope": "vso.code", "validTo": later(HOUR) });
    for (mishap, status, made) in
        [(Mishap::Throttled(7), "429", 0), (Mishap::Failing, "500", 0), (Mishap::Unanswered, "000", 1)]
    {
        lab.organization.befall(Some((Method::POST, mishap)));
        let (got, _) = lab.pats("POST", "", &entra, Some(&asked));
        assert_eq!((&*got, lab.organization.issued().len()), (status, made), "{mishap:?}");
        assert_eq!(lab.pats("GET", "", &entra, None).0, "200", "another method");
    }
}
