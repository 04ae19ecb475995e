use std::path::PathBuf;

use http::Method;
use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::{
    client::Table,
    config::{Client, Credential, CredentialSource, Credentials, Place, RuleClients, RuleVerdict},
    gate::{ActionPattern, read_line},
};

mod before_serving;
mod bypass;

fn place(line: usize) -> Place {
    Place { file: Arc::new(PathBuf::from("patgate.toml")), line, column: 1 }
}

fn credential(name: &str, organizations: &[&str]) -> Arc<Credential> {
    Arc::new(Credential {
        name: name.into(),
        source: CredentialSource::Vault { vault: "corp".into(), secret: "secret".into() },
        organizations: organizations.iter().map(|name| Arc::from(*name)).collect(),
        owner: None,
        expires: None,
        previous_grace: std::time::Duration::ZERO,
    })
}

fn actions(names: &str) -> Vec<ActionPattern> {
    let read = |name: &str| match name {
        "git:fetch" => ActionPattern::GitFetch,
        "git:push" => ActionPattern::GitPush,
        "git:lfs" => ActionPattern::GitLfs,
        method => ActionPattern::Method(method.parse().unwrap()),
    };
    names.split(' ').map(read).collect()
}

fn rule(name: &str, clients: &str, paths: &str, verdict: RuleVerdict) -> config::Rule {
    let clients = match clients {
        "*" => RuleClients::Any,
        names => RuleClients::Named(names.split(' ').map(Arc::from).collect()),
    };
    let paths = paths.split_whitespace().map(|text| Pattern::parse(text).unwrap()).collect();
    config::Rule { name: name.into(), clients, paths, verdict, help: None, until: None, place: place(9) }
}

fn allow(name: &str, clients: &str, paths: &str, names: &str) -> config::Rule {
    rule(
        name,
        clients,
        paths,
        RuleVerdict::Allow(actions(names), Arc::new(Credentials::one(credential("web-read", &["contoso"])))),
    )
}

fn deny(name: &str, clients: &str, paths: &str, names: &str) -> config::Rule {
    rule(name, clients, paths, RuleVerdict::Deny(actions(names)))
}

fn with_help(mut rule: config::Rule, help: &str) -> config::Rule {
    rule.help = Some(help.into());
    rule
}

fn until(mut rule: config::Rule, seconds_from_now: i64) -> config::Rule {
    rule.until = Some(now() + jiff::SignedDuration::from_secs(seconds_from_now));
    rule
}

fn clients() -> Table {
    let clients = [("agents", "10.20.0.0/16"), ("laptops", "10.30.0.0/16"), ("six", "2001:db8::/32")];
    Table::new(
        &clients
            .into_iter()
            .map(|(name, network)| {
                let addresses = vec![network.parse::<IpNet>().unwrap()];
                let name: Arc<str> = name.into();
                (Arc::clone(&name), Arc::new(Client { name, addresses, owner: None, place: place(1) }))
            })
            .collect(),
    )
}

fn policy() -> Policy {
    Policy::of(&[
        deny("nobody deletes repositories", "*", "/*/*/_apis/git/repositories/**", "DELETE"),
        until(allow("last year", "agents", "/contoso/**", "DELETE"), -60),
        until(deny("moratorium", "agents", "", "PUT"), 3600),
        with_help(
            deny("no secrets", "agents laptops", "/contoso/secret/**", "GET git:fetch"),
            "Ask #security",
        ),
        with_help(
            allow("agents read web", "agents", "/contoso/web/**", "git:fetch GET DELETE PUT"),
            "Ask #build",
        ),
        rule(
            "agents roam",
            "agents",
            "/*/roam/**",
            RuleVerdict::Allow(
                actions("GET"),
                Arc::new(Credentials::one(credential("web-read", &["contoso"]))),
            ),
        ),
        allow("laptops read the organization", "laptops", "/contoso/**", "GET POST"),
        rule(
            "laptops in fabrikam",
            "laptops",
            "/fabrikam/web/**",
            RuleVerdict::Allow(
                actions("GET"),
                Arc::new(Credentials::one(credential("fab-read", &["fabrikam"]))),
            ),
        ),
    ])
}

fn asked_from(from: &str, request: &str) -> Explanation {
    let (method, target) = request.split_once(' ').unwrap();
    explain(&policy(), &clients(), from.parse().unwrap(), method, target)
}

#[test]
fn the_first_rule_that_matches_decides() {
    const ID: &str = "6ce954b1-ce1f-45d1-b94d-e6bf2464ba2c";
    let (agent, laptop, six, stranger) = ("10.20.1.4", "::ffff:10.30.0.1", "2001:db8::1", "10.40.0.1");
    for (from, request, rule, verdict) in [
        (agent, "GET /contoso/web/_git/web/info/refs?service=git-upload-pack", "agents read web", "web-read"),
        (agent, "POST /contoso/_git/web/git-upload-pack", "agents read web", "web-read"),
        (agent, "POST /contoso/_git/web/git-receive-pack", "", "no-rule"),
        (agent, "GET /contoso/web/_apis/build/builds", "agents read web", "web-read"),
        (agent, "POST /contoso/web/_apis/build/builds", "", "no-rule"),
        (agent, "DELETE /contoso/web/_apis/build/builds/1", "agents read web", "web-read"),
        (
            agent,
            "DELETE /contoso/web/_apis/git/repositories/web",
            "nobody deletes repositories",
            "denied-by-rule",
        ),
        (
            agent,
            &format!("DELETE /contoso/_apis/git/repositories/{ID}"),
            "nobody deletes repositories",
            "denied-by-rule",
        ),
        (
            agent,
            &format!("DELETE /contoso/_apis/git/web/repositories/{ID}"),
            "nobody deletes repositories",
            "denied-by-rule",
        ),
        (agent, "DELETE /contoso/api/_apis/build/builds/1", "", "no-rule"),
        (agent, "PUT /contoso/web/_apis/x/1", "moratorium", "denied-by-rule"),
        (agent, "GET /contoso/_apis/projects", "no secrets", "denied-by-rule"),
        (agent, "GET /contoso/api/_apis/build/builds", "", "no-rule"),
        (agent, "GET /contoso/roam/_apis/x", "agents roam", "web-read"),
        (agent, "GET /fabrikam/roam/_apis/x", "agents roam", "credential-elsewhere"),
        (agent, "GET /contoso/web/../x", "", "path-ambiguous"),
        (laptop, "GET /contoso/api/_apis/build/builds", "laptops read the organization", "web-read"),
        (laptop, "GET /contoso/api/_git/api/info/refs?service=git-upload-pack", "", "no-rule"),
        (laptop, "GET /contoso/secret/_apis/build/builds", "no secrets", "denied-by-rule"),
        (laptop, "POST /contoso/_apis/wit/wiql", "laptops read the organization", "web-read"),
        (laptop, "POST /contoso/_apis/wit/$batch", "", "no-rule"),
        (laptop, "GET /fabrikam/web/_apis/x", "laptops in fabrikam", "fab-read"),
        (six, "GET /contoso/web/_apis/x", "", "no-rule"),
        (stranger, "GET /contoso/web/_apis/x", "", "client-unknown"),
    ] {
        let came = asked_from(from, request);
        let verdict_came = came.refusal.or(came.credential.as_deref()).unwrap();
        assert_eq!(
            (came.rule.as_deref().unwrap_or(""), verdict_came),
            (rule, verdict),
            "{request} from {from}"
        );
        assert_eq!(came.allowed, came.refusal.is_none(), "{request} from {from}");
    }
}

#[test]
fn no_rule_opens_what_gives_credentials_away() {
    let all = "GET POST PUT PATCH DELETE HEAD OPTIONS git:fetch git:push git:lfs";
    let policy = Policy::of(&[allow(
        "all",
        "*",
        "/** /contoso/_apis/tokens/pats /contoso/web/_apis/build/builds/7/oauthtoken /pkgs.dev.azure.com/**",
        all,
    )]);
    for (request, allowed) in [
        ("GET /contoso/_apis/tokens/pats", false),
        ("POST /contoso/_apis/Tokens/Pats", false),
        ("POST /contoso/DefaultCollection/_apis/tokens/pats", false),
        ("POST /contoso/web/_apis/tokens/pats", false),
        ("POST /pkgs.dev.azure.com/contoso/_apis/token/sessiontokens", false),
        ("POST /contoso/web/_apis/build/builds/7/oauthtoken", false),
        ("GET /contoso/_apis/build/builds/7/oauthtoken", false),
        ("GET /contoso/web/_apis/serviceendpoint/endpoints", false),
        ("OPTIONS /contoso/_apis/tokens", true),
        ("OPTIONS /contoso/_apis/tokens/pats", false),
        ("GET /contoso/web/_apis/build/builds/7", true),
        ("GET /contoso/web/_git/tokens/info/refs?service=git-upload-pack", true),
    ] {
        let (method, target) = request.split_once(' ').unwrap();
        let came = explain(&policy, &clients(), "10.20.0.1".parse().unwrap(), method, target);
        assert_eq!(came.allowed, allowed, "{request}");
        if !allowed {
            assert_eq!(came.refusal, Some("no-rule"), "{request}");
            assert!(came.note.unwrap().contains("credential"), "{request}");
        }
    }
}

#[test]
fn discovery_is_open_wherever_the_client_has_a_rule() {
    for (from, request, verdict) in [
        ("10.20.1.4", "OPTIONS /contoso/_apis", "web-read"),
        ("10.20.1.4", "OPTIONS /contoso/_apis/core", "web-read"),
        ("10.20.1.4", "GET /contoso/_apis/ResourceAreas", "web-read"),
        ("10.20.1.4", "GET /contoso/_apis/connectionData?connectOptions=1", "web-read"),
        ("10.20.1.4", "GET /contoso/_apis/projects", "denied-by-rule"),
        // A rule for all organisations reaches this one; its credential does not.
        ("10.20.1.4", "GET /fabrikam/_apis/connectionData", "credential-elsewhere"),
        ("10.30.1.4", "GET /fabrikam/_apis/connectionData", "fab-read"),
        ("10.30.1.4", "GET /adatum/_apis/connectionData", "no-rule"),
        ("2001:db8::1", "GET /contoso/_apis/connectionData", "no-rule"),
    ] {
        let came = asked_from(from, request);
        assert_eq!(came.refusal.or(came.credential.as_deref()), Some(verdict), "{request} from {from}");
    }
    let closed = Policy::of(&[
        deny("no discovery", "*", "/contoso/_apis/**", "OPTIONS GET"),
        allow("web", "*", "/contoso/web/**", "GET"),
    ]);
    let came = explain(&closed, &clients(), "10.20.0.1".parse().unwrap(), "OPTIONS", "/contoso/_apis");
    assert_eq!(came.refusal, Some("denied-by-rule"));
    let mixed = Policy::of(&[
        rule(
            "all",
            "*",
            "/*/x/**",
            RuleVerdict::Allow(
                actions("GET"),
                Arc::new(Credentials::one(credential("contoso", &["contoso"]))),
            ),
        ),
        rule(
            "fab",
            "*",
            "/fabrikam/x/**",
            RuleVerdict::Allow(actions("GET"), Arc::new(Credentials::one(credential("fab", &["fabrikam"])))),
        ),
    ]);
    let came = explain(&mixed, &clients(), "10.20.0.1".parse().unwrap(), "OPTIONS", "/fabrikam/_apis");
    assert_eq!(came.credential.as_deref(), Some("fab"));
    let (last, first) = (came.rules.last().unwrap(), came.rules.first().unwrap());
    assert_eq!(
        (first.outcome, last.outcome),
        (explain::Outcome::CredentialElsewhere, explain::Outcome::Allows)
    );
}

#[test]
fn a_refused_user_is_told_whom_to_ask() {
    for (request, help) in [
        ("GET /contoso/secret/_apis/x", Some("Ask #security")),
        ("POST /contoso/web/_apis/x", Some("Ask #build")),
        ("POST /contoso/_git/web/git-receive-pack", Some("Ask #build")),
        ("GET /contoso/web/_apis/x", None),
        ("GET /contoso/api/_apis/x", None),
        ("DELETE /contoso/web/_apis/git/repositories/x", None),
    ] {
        assert_eq!(asked_from("10.20.1.4", request).help.as_deref(), help, "{request}");
    }
}

#[test]
fn an_explanation_says_why_each_rule_did_not_match() {
    let came = asked_from("10.20.1.4", "GET /contoso/_git/web/info/refs?service=git-upload-pack");
    assert_eq!(
        came.to_string(),
        "client   agents (10.20.1.4 is in 10.20.0.0/16)\n\
         request  GET /contoso/_git/web/info/refs?service=git-upload-pack\n\
         read as  git:fetch of /contoso/web/_git/web/info/refs on dev.azure.com\n         \
                  organization contoso, project web\n\
         rules    \"nobody deletes repositories\" (patgate.toml:9:1): the path is not of /*/*/_apis/git/repositories/**\n         \
                  \"last year\" (patgate.toml:9:1): it ended at "
            .to_owned()
            + &came.rules[1].because["it ended at ".len()..]
            + "\n         \
                  \"moratorium\" (patgate.toml:9:1): git:fetch is not among its actions\n         \
                  \"no secrets\" (patgate.toml:9:1): the path is not of /contoso/secret/**\n         \
                  \"agents read web\" (patgate.toml:9:1): it allows the request\n\
         verdict  allowed by \"agents read web\" with the credential \"web-read\""
    );
    let open = asked_from("10.20.1.4", "GET /contoso/_apis/projects");
    assert!(open.rules.last().unwrap().because.contains("leaves open"), "{open}");
    let named = asked_from("10.20.1.4", "GET /contoso/secret/_apis/x");
    assert_eq!(named.rules.last().unwrap().because, "it denies the request");

    let json = serde_json::to_value(&came).unwrap();
    assert_eq!(json["rules"][0]["outcome"], "other-path");
    assert_eq!(json["reading"]["path"], "/contoso/web/_git/web/info/refs");
    assert_eq!(json["client"]["network"], "10.20.0.0/16");
    assert_eq!(json["allowed"], true);

    let stranger = asked_from("10.40.0.1", "GET /contoso/web/_apis/x").to_string();
    assert!(stranger.contains("client   none") && stranger.ends_with("verdict  refused: client-unknown"));
}

#[test]
fn a_policy_is_named_by_its_hash_and_its_generation() {
    let policy = Policy { hash: [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef], ..Policy::default() };
    assert_eq!(&**policy.name(3), "0123456789abcdef-3");
}

/// The rules read from top to bottom, and nothing else.
fn naive<'a>(rules: &'a [Rule], asked: &Asked<'_>) -> Option<&'a Rule> {
    rules.iter().find(|rule| rule.miss(asked).is_none())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_and_a_naive_reading_agree(
        rules in prop::collection::vec(
            (
                prop::sample::subsequence(vec!["a", "b", "c"], 0..3),
                prop::sample::select(vec!["/**", "/contoso/**", "/contoso/web/**", "/contoso/*/_git/**", "/*/api/_apis/*"]),
                prop::sample::select(vec!["GET", "POST git:fetch", "git:push"]),
                any::<bool>(),
            ),
            0..12,
        ),
        client in prop::sample::select(vec!["a", "b", "c", "d"]),
        request in prop::sample::select(vec![
            "GET /contoso/_git/web/info/refs?service=git-upload-pack",
            "POST /contoso/_git/web/git-receive-pack",
            "GET /contoso/_apis/projects",
            "POST /contoso/web/_apis/x",
            "GET /contoso/api/_apis/x",
        ]),
    ) {
        let rules: Vec<config::Rule> = rules
            .iter()
            .enumerate()
            .map(|(n, (clients, path, names, allows))| {
                let clients = if clients.is_empty() { "*".to_owned() } else { clients.join(" ") };
                let name = n.to_string();
                if *allows { allow(&name, &clients, path, names) } else { deny(&name, &clients, path, names) }
            })
            .collect();
        let policy = Policy::of(&rules);
        let (method, target) = request.split_once(' ').unwrap();
        let (target, action) = read_line(method, target).unwrap();
        let asked = Asked { client, object: Object::new(&target, &action), action: &action, now: now() };
        let ours = policy.decide(&asked).rule().map(|rule| rule.name.clone());
        let theirs = naive(&policy.rules, &asked).map(|rule| rule.name.clone());
        prop_assert_eq!(ours, theirs);
    }
}

#[test]
fn a_method_of_a_rule_never_opens_a_push() {
    let policy = Policy::of(&[allow("all methods", "*", "/**", "GET POST PUT PATCH DELETE")]);
    let action = Action::GitPush;
    let (target, _) = read_line(Method::POST.as_str(), "/contoso/_git/web/git-receive-pack").unwrap();
    let asked =
        Asked { client: "agents", object: Object::new(&target, &action), action: &action, now: now() };
    assert!(matches!(policy.decide(&asked), Decision::Nothing { near: Some(_) }));
}
