//! Hostile requests over raw sockets: refused before any rule or vault, with one record and not one
//! byte upstream.

use crate::support::{setup, text};

/// A request, and the code of its refusal (`None`: hyper itself refuses the head).
fn cases() -> Vec<(&'static str, String, &'static str)> {
    let host = "Host: localhost\r\n";
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    let with = |header: &str| {
        format!("GET /contoso/_apis/projects HTTP/1.1\r\n{host}{header}\r\nConnection: close\r\n\r\n")
    };
    vec![
        ("authority in the target", get("@evil.example/contoso"), "head-malformed"),
        ("two slashes", get("//evil.example/a"), "path-ambiguous"),
        ("absolute form", get("http://evil.example/contoso/_apis/projects"), "path-ambiguous"),
        ("dot segments", get("/contoso/_apis/../projects"), "path-ambiguous"),
        ("encoded dot segments", get("/contoso/%2e%2e/fabrikam/_apis/projects"), "path-ambiguous"),
        ("encoded slash", get("/contoso%2ffabrikam/_apis/projects"), "path-ambiguous"),
        ("encoded backslash", get("/contoso/web%5c..%5cother/_apis/x"), "path-ambiguous"),
        ("doubled encoding", get("/contoso/%252e%252e/_apis/x"), "path-ambiguous"),
        ("overlong encoding", get("/contoso/%c0%ae%c0%ae/_apis/x"), "path-ambiguous"),
        ("bad percent", get("/contoso/%zz/_apis/x"), "path-ambiguous"),
        ("nul", get("/contoso/a%00b/_apis/x"), "path-ambiguous"),
        ("line feed", get("/contoso/a%0d%0ab/_apis/x"), "path-ambiguous"),
        ("path parameters", get("/contoso/web;x=1/_apis/x"), "path-ambiguous"),
        ("trailing dot", get("/contoso/web./_apis/x"), "path-ambiguous"),
        ("trailing space", get("/contoso/web%20/_apis/x"), "path-ambiguous"),
        (
            "doubled service",
            get("/contoso/web/_git/web/info/refs?service=git-upload-pack&service=git-receive-pack"),
            "query-ambiguous",
        ),
        ("no organisation", get("/_apis/projects"), "organization-missing"),
        ("strange host", get("/evil.example/contoso/_apis/projects"), "target-unknown"),
        ("unknown own address", get("/_patgate/secrets"), "target-unknown"),
        (
            "foreign name",
            "GET /contoso/_apis/projects HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".into(),
            "host-unknown",
        ),
        (
            "no host",
            "GET /contoso/_apis/projects HTTP/1.1\r\nConnection: close\r\n\r\n".into(),
            "host-unknown",
        ),
        (
            "two hosts",
            format!("GET /contoso/_apis/projects HTTP/1.1\r\n{host}{host}Connection: close\r\n\r\n"),
            "host-unknown",
        ),
        (
            "lower-case method",
            format!("get /contoso/_apis/projects HTTP/1.1\r\n{host}Connection: close\r\n\r\n"),
            "method-unknown",
        ),
        (
            "connect",
            format!("CONNECT dev.azure.com:443 HTTP/1.1\r\n{host}Connection: close\r\n\r\n"),
            "method-unknown",
        ),
        ("trace", format!("TRACE /contoso HTTP/1.1\r\n{host}Connection: close\r\n\r\n"), "method-unknown"),
        ("underscore header", with("Content_Length: 3"), "header-ambiguous"),
        ("method override", with("X-HTTP-Method-Override: DELETE"), "header-ambiguous"),
        ("unknown expectation", with("Expect: the-unexpected"), "expectation-unknown"),
        (
            "body on a GET",
            format!(
                "GET /contoso/_apis/projects HTTP/1.1\r\n{host}Content-Length: 3\r\nConnection: close\r\n\r\nabc"
            ),
            "framing",
        ),
        (
            "gzip, chunked",
            format!(
                "POST /contoso/_apis/x HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"
            ),
            "framing",
        ),
        (
            "chunked, chunked",
            format!(
                "POST /contoso/_apis/x HTTP/1.1\r\n{host}Transfer-Encoding: chunked, chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"
            ),
            "framing",
        ),
        (
            "two encodings",
            format!(
                "POST /contoso/_apis/x HTTP/1.1\r\n{host}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"
            ),
            "framing",
        ),
        (
            "differing lengths",
            format!(
                "POST /contoso/_apis/x HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"
            ),
            "head-malformed",
        ),
        (
            "a length with a sign",
            format!("POST /contoso/_apis/x HTTP/1.1\r\n{host}Content-Length: +3\r\n\r\nabc"),
            "head-malformed",
        ),
        ("no HTTP at all", "EHLO mail\r\n\r\n".into(), "head-malformed"),
        (
            "a space before the colon",
            format!("GET /contoso/_apis/x HTTP/1.1\r\n{host}X-A : b\r\n\r\n"),
            "head-malformed",
        ),
        (
            "a hundred fields",
            format!(
                "GET /contoso/_apis/x HTTP/1.1\r\n{host}{}\r\n",
                (0..100).map(|n| format!("X-{n}: 1\r\n")).collect::<String>()
            ),
            "head-malformed",
        ),
        (
            "a head of 64 KiB",
            format!("GET /contoso/_apis/x HTTP/1.1\r\n{host}X-A: {}\r\n\r\n", "a".repeat(65_536)),
            "head-malformed",
        ),
    ]
}

#[test]
fn every_ambiguous_request_is_refused_with_a_record_and_nothing_goes_up() {
    let proxy = setup().start();
    let before = proxy.organization().requests();
    for (name, request, code) in cases() {
        let answer = proxy.raw(request.as_bytes());
        assert!(!answer.starts_with("HTTP/1.1 2"), "{name}: {answer}");
        proxy.record(name, |record| record["refusal"] == code);
    }
    assert_eq!(proxy.organization().requests(), before, "something went up");
    let count = || {
        let mut counted = std::collections::BTreeMap::<String, u64>::new();
        for record in proxy.records().iter().filter(|record| record["refusal"].is_string()) {
            *counted.entry(record["refusal"].as_str().unwrap().into()).or_default() +=
                record["count"].as_u64().unwrap_or(1);
        }
        counted
    };
    let mut expected = std::collections::BTreeMap::<String, u64>::new();
    for (_, _, code) in cases() {
        *expected.entry(code.into()).or_default() += 1;
    }
    // Those of one kind and second are one record, which is written when the second is over.
    let settled = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        count() == expected
    });
    assert!(settled, "each request has exactly one ending: {:?}, not {expected:?}", count());
    assert!(proxy.records().iter().all(|record| record["kind"] != "intent"));
}

#[test]
fn a_smuggled_second_request_is_judged_by_itself() {
    let proxy = setup().start();
    let before = proxy.organization().requests();
    let answer = proxy.raw(
        b"POST /contoso/_apis/sample/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /fabrikam/_apis/projects HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "the smuggled request was answered: {answer}");
    let seen = proxy.organization().seen();
    assert!(seen.iter().all(|seen| !seen.target.contains("fabrikam")));
    assert!(proxy.organization().requests() - before <= 1);
}

#[test]
fn nominated_headers_do_not_survive() {
    let proxy = setup().start();
    let answer = proxy.raw(
        b"GET /contoso/_apis/projects HTTP/1.1\r\nHost: localhost\r\nConnection: close, Authorization, X-TFS-FedAuthRedirect\r\n\
          X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nX-TFS-Impersonate: root\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = proxy.organization().seen().into_iter().next_back().unwrap();
    assert_eq!(seen.authorization.len(), 1, "our credential was stripped as nominated: {seen:?}");
    for name in ["x-forwarded-for", "forwarded", "x-tfs-impersonate", "connection"] {
        assert_eq!(seen.header(name).count(), 0, "{name} went up");
    }
}

#[test]
fn an_unknown_address_and_an_unruled_path_are_refused_in_the_form_of_the_api() {
    let proxy = setup()
        .rules(
            r#"
[[rule]]
name       = "projects"
clients    = ["here"]
paths      = ["/contoso/_apis/projects"]
allow      = ["GET"]
credential = "contoso"
help       = "Ask #build-infra"
"#,
        )
        .start();
    let (status, body) = proxy.get("/contoso/_apis/build/builds", &[]);
    assert_eq!(status, 403);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["patgate"]["code"], "no-rule");
    assert!(body["message"].as_str().unwrap().starts_with("patgate: no rule allows this request"));
    assert!(body["patgate"]["requestId"].is_string());
    let (status, body) = proxy.get("/contoso/_apis/projects", &["--interface", "127.0.0.2"]);
    assert_eq!(status, 403);
    assert!(body.contains("client-unknown"), "{body}");
    let (status, _) = proxy.get("/contoso/_apis/projects", &[]);
    assert_eq!(status, 200);
    let explained = crate::support::patgate()
        .args(["explain", "--from", "127.0.0.1", "GET", "/contoso/_apis/build/builds", "--config"])
        .arg(proxy.config())
        .output()
        .unwrap();
    assert_eq!(explained.status.code(), Some(1), "{}", text(&explained));
}

#[test]
fn http2_is_judged_like_http1() {
    let proxy = setup().tls().start();
    let output = proxy.curl(
        "/contoso/_apis/projects",
        &["--http2", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"],
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 200");
    let output = proxy.curl(
        "/contoso/%2e%2e/_apis/x",
        &["--http2", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"],
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "400");
}

#[test]
fn an_expected_continue_comes_only_after_the_rules() {
    let proxy = setup().rules("").start();
    let answer = proxy.raw(
        b"POST /contoso/_apis/sample/echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
          Content-Length: 5\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
}
