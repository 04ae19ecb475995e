//! Ways round a rule that others have found, each with the spelling it used.

use super::*;
use crate::gate::Host;

const EVERYTHING: &str = "GET HEAD POST PUT PATCH DELETE OPTIONS git:fetch git:push git:lfs";
const ID: &str = "b7c1e9d3-2a4f-4b6c-8d0e-1f2a3b4c5d6e";

/// What comes of requests under these rules: `None` for allowed, else the refusal's code.
fn verdict(rules: &[config::Rule], request: &str) -> Option<&'static str> {
    let (method, target) = request.split_once(' ').unwrap();
    let came = explain(&Policy::of(rules), &clients(), "10.20.1.4".parse().unwrap(), method, target);
    assert_eq!(came.allowed, came.refusal.is_none(), "{request}");
    came.refusal
}

/// Everything in the project `web` of `contoso`, and nothing else.
fn of_web() -> [config::Rule; 1] {
    [allow("web", "*", "/contoso/web/**", EVERYTHING)]
}

/// Everything in the organisation but what is denied.
fn all_but(denied: &str) -> [config::Rule; 2] {
    [deny("not this", "*", denied, EVERYTHING), allow("all", "*", "/contoso/**", EVERYTHING)]
}

fn assert_all(rules: &[config::Rule], expected: &[Option<&str>], requests: &[String]) {
    for request in requests {
        let came = verdict(rules, request);
        assert!(expected.contains(&came), "{request}: {came:?}");
    }
}

const REFUSED: &[Option<&str>] =
    &[Some("no-rule"), Some("denied-by-rule"), Some("path-ambiguous"), Some("query-ambiguous")];

fn lines(requests: &[&str]) -> Vec<String> {
    requests.iter().map(|request| request.replace("{ID}", ID)).collect()
}

#[test]
fn an_id_at_the_level_of_the_organization_opens_no_project() {
    assert_all(
        &of_web(),
        &[Some("no-rule")],
        &lines(&[
            "POST /contoso/_apis/git/repositories/{ID}/pushes?api-version=7.1",
            "GET /contoso/_apis/git/repositories/{ID}/items?path=/secret",
            "GET /contoso/_apis/git/repositories/web/items?path=/secret",
            "GET /contoso/_apis/git/pullRequests/7",
            "PATCH /contoso/_apis/wit/workitems/7",
            "GET /contoso/_apis/projects/web",
            "POST /contoso/_apis/wit/wiql",
            "GET /contoso/{ID}/_apis/git/repositories/x/items",
            "GET /contoso/{ID}/_git/web/info/refs?service=git-upload-pack",
        ]),
    );
    assert_eq!(verdict(&of_web(), "GET /contoso/web/_apis/git/repositories/x/items"), None);
}

#[test]
fn an_id_does_not_go_round_a_denial_by_name() {
    assert_all(
        &all_but("/contoso/secret/**"),
        &[Some("denied-by-rule")],
        &lines(&[
            "GET /contoso/secret/_apis/git/repositories",
            "GET /contoso/{ID}/_apis/git/repositories",
            "GET /contoso/{ID}/_git/secret/info/refs?service=git-upload-pack",
            "GET /contoso/_apis/git/repositories/{ID}/items",
            "GET /contoso/_apis/git/secret/repositories/x/items",
            "GET /contoso/_apis/git/{ID}/repositories/x/items",
            "GET /contoso/_apis/projects/secret",
            "GET /contoso/_git/secret/info/refs?service=git-upload-pack",
            "GET /contoso/_git/{ID}/info/refs?service=git-upload-pack",
        ]),
    );
    assert_all(
        &all_but("/contoso/*/_git/secret/** /contoso/*/_apis/git/repositories/secret/**"),
        &[Some("denied-by-rule")],
        &lines(&[
            "GET /contoso/web/_git/{ID}/info/refs?service=git-upload-pack",
            "POST /contoso/web/_git/secret/git-receive-pack",
            "GET /contoso/web/_apis/git/repositories/{ID}/items",
            "GET /contoso/_apis/git/repositories/secret/items",
            "GET /contoso/_apis/git/web/repositories/secret/items",
        ]),
    );
}

#[test]
fn the_older_order_of_git_is_in_the_project_it_names() {
    assert_all(
        &of_web(),
        REFUSED,
        &lines(&[
            "GET /contoso/_apis/git/payroll/repositories/x/items",
            "GET /contoso/_apis/git/{ID}/repositories/x/items",
            "POST /contoso/_apis/git/payroll/repositories/x/pushes",
            "GET /contoso/web/_apis/git/payroll/repositories/x/items",
            "GET /contoso/web/team/_apis/git/payroll/repositories/x/items",
            "GET /contoso/_APIS/Git/Payroll/Repositories/x/items",
        ]),
    );
    assert_eq!(verdict(&of_web(), "GET /contoso/_apis/git/Web/repositories/x/items"), None);
}

#[test]
fn a_team_and_a_collection_do_not_move_the_project() {
    for (request, came) in [
        ("GET /contoso/web/team/_git/x/info/refs?service=git-upload-pack", None),
        ("GET /contoso/payroll/web/_git/x/info/refs?service=git-upload-pack", Some("no-rule")),
        ("GET /contoso/payroll/web/_apis/work/boards", Some("no-rule")),
        ("GET /contoso/web/team/more/_apis/work/boards", Some("path-ambiguous")),
        ("GET /contoso/DefaultCollection/web/_apis/x", None),
        ("GET /contoso/defaultcollection/payroll/_apis/x", Some("no-rule")),
        ("GET /contoso/DefaultCollection/DefaultCollection/web/_apis/x", Some("path-ambiguous")),
        ("GET /contoso/web/DefaultCollection/_apis/x", Some("path-ambiguous")),
        ("GET /contoso.visualstudio.com/DefaultCollection/web/_apis/x", None),
        ("GET /contoso.visualstudio.com/DefaultCollection/payroll/_apis/x", Some("no-rule")),
        ("GET /fabrikam.visualstudio.com/web/_apis/x", Some("no-rule")),
        ("GET /fabrikam.visualstudio.com/contoso/web/_apis/x", Some("no-rule")),
        ("GET /_ssh/v3/contoso/payroll/web/info/refs?service=git-upload-pack", Some("no-rule")),
        ("GET /_ssh/v3/fabrikam/web/web/info/refs?service=git-upload-pack", Some("no-rule")),
    ] {
        assert_eq!(verdict(&of_web(), request), came, "{request}");
    }
}

#[test]
fn another_spelling_of_a_denied_object_is_denied_or_refused() {
    let spellings = lines(&[
        "GET /contoso/secret/_apis/x",
        "GET /contoso/SECRET/_APIS/x",
        "GET /CONTOSO/Secret/%5Fapis/x",
        "GET /contoso/%73ecret/_apis/x",
        "GET /contoso/secret%20/_apis/x",
        "GET /contoso/secret./_apis/x",
        "GET /contoso/secret%2e/_apis/x",
        "GET /contoso/%20secret/_apis/x",
        "GET /contoso/secret%09/_apis/x",
        "GET /contoso/secret%c2%a0/_apis/x",
        "GET /contoso/secret%e2%80%8b/_apis/x",
        "GET /contoso/%ef%bd%93ecret/../secret/_apis/x",
        "GET /contoso/web%5c..%5csecret/_apis/x",
        "GET /contoso/web\\..\\secret/_apis/x",
        "GET /contoso/web/../secret/_apis/x",
        "GET /contoso/web/%2e%2e/secret/_apis/x",
        "GET /contoso/web/..%20/secret/_apis/x",
        "GET /contoso/web/%20../secret/_apis/x",
        "GET /contoso/web/.../secret/_apis/x",
        "GET /contoso/web/%252e%252e/secret/_apis/x",
        "GET /contoso/.%2fsecret/_apis/x",
        "GET /contoso//secret/_apis/x",
        "GET //contoso/secret/_apis/x",
        "GET /contoso/secret;a=b/_apis/x",
        "GET /contoso/secret%3ba/_apis/x",
        "GET /contoso/secret%00/_apis/x",
        "GET /contoso/secret%23/_apis/x",
        "GET /contoso/%25secret/_apis/x",
        "GET /contoso/se%cc%81cret/_apis/x",
        "GET /contoso/secret/_git/secret",
        "GET /contoso/_git/secret",
        "GET /contoso/_git/_full/secret",
        "GET /contoso/_git/_optimized/Secret/",
        "GET /contoso/DefaultCollection/_git/secret",
        "GET /contoso.visualstudio.com/_git/secret",
        "GET /contoso/_git/secret.git",
        "POST /contoso/_git/secret.git/git-receive-pack",
        "POST /contoso/_git/secret.git/info/lfs/objects/batch",
    ]);
    assert_all(&all_but("/contoso/secret/**"), REFUSED, &spellings);
}

#[test]
fn a_denied_repository_stays_denied_with_git_behind_its_name() {
    let denied = all_but("/contoso/web/_git/secret/**");
    assert_all(
        &denied,
        &[Some("denied-by-rule")],
        &lines(&[
            "GET /contoso/web/_git/secret/info/refs?service=git-upload-pack",
            "GET /contoso/web/_git/secret.git/info/refs?service=git-upload-pack",
            "POST /contoso/web/_git/Secret.GIT/git-upload-pack",
            "POST /contoso/web/_git/_full/secret/git-receive-pack",
            "POST /contoso/web/_git/_optimized/secret.git/git-receive-pack",
            "GET /contoso/web/team/_git/secret/info/refs?service=git-receive-pack",
            "POST /contoso/web/_git/secret.git/info/lfs/objects/batch",
        ]),
    );
    assert_eq!(verdict(&denied, "GET /contoso/web/_git/secrets.git/info/refs?service=git-upload-pack"), None);
    // And the other way round: an allow means no other name than the one it has.
    let allowed = [allow("one", "*", "/contoso/web/_git/web/**", "git:fetch")];
    let other = "GET /contoso/web/_git/web.git/info/refs?service=git-upload-pack";
    assert_eq!(verdict(&allowed, other), Some("no-rule"));
}

#[test]
fn a_denied_name_stays_denied_in_wider_letters() {
    let wide = "%EF%BD%93ecret";
    let denied = all_but("/contoso/secret/** /contoso/web/_git/{secret,hidden-*}/** /contoso/_git/shy/**");
    assert_all(
        &denied,
        &[Some("denied-by-rule")],
        &lines(&[
            &format!("GET /contoso/{wide}/_apis/x"),
            &format!("GET /contoso/{wide}/_git/x/info/refs?service=git-upload-pack"),
            &format!("GET /contoso/_git/{wide}/info/refs?service=git-upload-pack"),
            &format!("GET /contoso/web/_git/{wide}/info/refs?service=git-upload-pack"),
            "GET /contoso/%EF%BC%B3%EF%BC%A5CRET/_apis/x",
            "GET /contoso/%C5%BFecret/_apis/x",
            "GET /contoso/web/_git/hidden-%EF%BD%81/info/refs?service=git-upload-pack",
            "GET /contoso/web/_git/hidde%EF%BD%8E-a/info/refs?service=git-upload-pack",
            "GET /contoso/shy/_git/%C5%BFhy/info/refs?service=git-upload-pack",
        ]),
    );
    // Another name is another name, and an allow takes no wide one for its own.
    assert_eq!(verdict(&denied, "GET /contoso/caf%C3%A9/_apis/x"), None);
    assert_eq!(verdict(&of_web(), "GET /contoso/%EF%BD%97eb/_apis/x"), Some("no-rule"));
}

#[test]
fn what_hides_its_operation_in_its_body_is_opened_by_its_own_name_alone() {
    let hidden = lines(&[
        "PATCH /contoso/_apis/wit/$batch",
        "POST /contoso/_apis/wit/%24batch",
        "POST /contoso/_apis/wit/%24BATCH/",
        "POST /contoso/web/_apis/wit/$batch",
        "POST /contoso/web/team/_apis/wit/$batch",
        "POST /contoso/_apis/git/$batch",
        "POST /contoso/_apis/public/wit/$batch",
        "POST /contoso/%5Fapis/wit/%24%62atch",
        "POST /contoso/_apis/Contribution/HierarchyQuery",
        "POST /contoso/_apis/contribution/hierarchyQuery/project/{ID}",
        "GET /contoso/_apis/Contribution/Hierarchy/ms.vss-code-web.file-diff-data-provider",
        "POST /contoso/_apis/Contribution/nodes/query",
        "POST /contoso/_apis/Contribution/dataProviders/query",
        "POST /contoso/_api/_versioncontrol/items",
        "GET /contoso/web/_API/_build/x",
    ]);
    let everything = [allow("all", "*", "/contoso/**", EVERYTHING)];
    assert_all(&everything, &[Some("no-rule")], &hidden);
    let starred =
        [allow("all", "*", "/contoso/_apis/*/* /contoso/_apis/*/** /contoso/*/_apis/**", EVERYTHING)];
    assert_all(&starred, &[Some("no-rule")], &hidden);
    let spelled = [allow("batch", "*", "/contoso/_apis/wit/$batch", "POST")];
    assert_eq!(verdict(&spelled, "POST /contoso/_apis/wit/%24batch"), None);
}

#[test]
fn no_spelling_and_no_host_opens_what_gives_credentials_away() {
    let hosts: Vec<&str> = Host::ALL.iter().map(|host| host.authority()).collect();
    let patterns = hosts.iter().map(|host| format!("/{host}/contoso/**")).collect::<Vec<_>>().join(" ");
    let rules = [
        allow("all", "*", &patterns, EVERYTHING),
        allow("all here", "*", "/contoso/** /contoso/*/** /**", EVERYTHING),
        allow("tokens, by name", "*", "/contoso/_apis/tokens/pats /contoso/_apis/tokens/**", EVERYTHING),
    ];
    let mut prefixes: Vec<String> = hosts.iter().map(|host| format!("/{host}/contoso")).collect();
    let labels = hosts.iter().filter_map(|host| host.strip_suffix(".dev.azure.com"));
    prefixes.extend(labels.map(|label| format!("/contoso.{label}.visualstudio.com")));
    let more = ["/contoso", "/Contoso", "/contoso/DefaultCollection", "/contoso.visualstudio.com"];
    prefixes.extend(more.map(str::to_owned));
    let operations = [
        "_apis/tokens/pats",
        "_APIS/Tokens/Pats/",
        "%5Fapis/%74okens/pats",
        "web/_apis/tokens/pats",
        "web/team/_apis/tokens/pats",
        "_apis/public/tokens/pats",
        "_apis/token/sessiontokens",
        "_apis/TokenAdmin/personalAccessTokens/x",
        "_apis/tokenadministration/tokenrevocations",
        "_apis/DelegatedAuth/RegistrationSecret/x",
        "_apis/oauth2/token",
        "_apis/WebPlatformAuth/SessionToken",
        "_oauth/x",
        "web/_apis/serviceendpoint/endpoints",
        "_apis/serviceendpoint/endpointproxy",
        "web/_apis/distributedtask/securefiles/1?download=true",
        "web/_apis/build/builds/7/oauthtoken",
        "web/_apis/distributedtask/hubs/build/plans/p/jobs/j/oidctoken",
        "_apis/distributedtask/pools/3/sessions",
        "web/_apis/pipelines/environments/environmentaccesstoken/4",
        "_apis/migration/sastokenrequest",
        "_usersSettings/tokens",
        "_details/security/tokens",
    ];
    let opened: Vec<_> = prefixes
        .iter()
        .flat_map(|prefix| operations.iter().map(move |operation| format!("{prefix}/{operation}")))
        .flat_map(|target| {
            ["GET", "POST", "PUT", "PATCH", "DELETE"].map(|method| format!("{method} {target}"))
        })
        .filter(|request| verdict(&rules, request) != Some("no-rule"))
        .collect();
    assert!(opened.is_empty(), "{opened:#?}");
}

#[test]
fn a_request_that_two_servers_would_read_as_two_is_none() {
    for (request, came) in [
        ("GET /contoso/web/_apis/x?api-version=7.1&Api-Version=1.0", "query-ambiguous"),
        ("GET /contoso/web/_apis/x?path=/a&%70ath=/b", "query-ambiguous"),
        ("GET /contoso/web/_apis/x?a=b;path=/b&path=/a", "query-ambiguous"),
        ("POST /contoso/web/_apis/x?_method=DELETE", "query-ambiguous"),
        ("POST /contoso/web/_apis/x?X-HTTP-Method-Override=DELETE", "query-ambiguous"),
        ("GET /contoso/web/_git/web/info/refs?service=git-upload-pack,git-receive-pack", "query-ambiguous"),
        ("POST /contoso/web/_git/web/x/git-receive-pack", "path-ambiguous"),
        ("GET /contoso/web/_api%C5%BF/x", "path-ambiguous"),
        ("GET /contoso/web/_%EF%BD%81pis/x", "path-ambiguous"),
        ("post /contoso/web/_apis/x", "method-unknown"),
        ("CONNECT /contoso/web/_apis/x", "method-unknown"),
    ] {
        assert_eq!(verdict(&of_web(), request), Some(came), "{request}");
    }
}
