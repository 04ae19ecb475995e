//! What is said of a policy before it serves a request: failed expectations, warnings.

use super::*;
use crate::config::Expect;

#[test]
fn an_expectation_that_fails_says_what_came() {
    let expect = |from: &str, request: &str, allowed, rule: Option<&str>| {
        let (method, target) = request.split_once(' ').unwrap();
        Expect {
            from: from.parse().unwrap(),
            method: method.parse().unwrap(),
            target: target.into(),
            allowed,
            rule: rule.map(Arc::from),
            place: place(40),
        }
    };
    let run = |one: Expect| {
        let problems = expect::run(&[one], &policy(), &clients());
        problems.first().map(ToString::to_string).unwrap_or_default()
    };
    let read = "GET /contoso/web/_apis/x";
    for (one, problem) in [
        (expect("10.20.1.4", read, true, None), ""),
        (expect("10.20.1.4", read, true, Some("agents read web")), ""),
        (expect("10.30.1.4", "GET /contoso/secret/_apis/x", false, Some("no secrets")), ""),
        (
            expect("10.20.1.4", read, false, None),
            "patgate.toml:40:1: expect: GET /contoso/web/_apis/x from 10.20.1.4 is to be refused, and is allowed by \
             \"agents read web\"; change the rules or what is expected",
        ),
        (
            expect("10.20.1.4", read, true, Some("agents roam")),
            "patgate.toml:40:1: expect: GET /contoso/web/_apis/x from 10.20.1.4 is to be allowed by \"agents roam\", \
             and is allowed by \"agents read web\"; change the rules or what is expected",
        ),
        (
            expect("10.40.1.4", read, true, None),
            "patgate.toml:40:1: expect: GET /contoso/web/_apis/x from 10.40.1.4 is to be allowed, and is refused \
             (client-unknown, as no client); change the rules or what is expected",
        ),
    ] {
        assert_eq!(run(one), problem);
    }
}

#[test]
fn rules_that_are_probably_not_meant_are_named() {
    for (rules, expected) in [
        (
            vec![allow("a", "*", "/contoso/**", "GET"), allow("b", "x", "/contoso/web/**", "GET")],
            "\"b\" never decides",
        ),
        (vec![deny("a", "*", "", "GET POST"), allow("b", "x", "/contoso/**", "POST")], "\"b\" never decides"),
        (vec![allow("a", "x", "/contoso/**", "GET"), allow("b", "*", "/contoso/web/**", "GET")], ""),
        (vec![allow("a", "x", "/contoso/**", "GET"), allow("b", "x", "/contoso/web/**", "GET POST")], ""),
        (
            vec![until(allow("a", "x", "/contoso/**", "GET"), 60), allow("b", "x", "/contoso/web/**", "GET")],
            "",
        ),
        (
            vec![
                allow("a", "x", "/contoso/**", "POST"),
                allow("b", "x", "/contoso/_apis/wit/$batch", "POST"),
            ],
            "",
        ),
        (vec![until(allow("a", "x", "/contoso/**", "GET"), -60)], "\"a\" ended at"),
        (vec![allow("a", "x", "/fabrikam/**", "GET")], "may not go"),
        (vec![allow("a", "x", "/contoso/_apis/tokens/**", "GET")], "opens nothing"),
        (vec![deny("a", "x", "/contoso/6ce954b1-ce1f-45d1-b94d-e6bf2464ba2c/**", "GET")], "names an id"),
        (vec![deny("a", "x", "/contoso/secret/**", "GET")], ""),
    ] {
        let doubts: Vec<String> =
            Policy::of(&rules).doubts().iter().map(|doubt| doubt.text.clone()).collect();
        let is_right = if expected.is_empty() {
            doubts.is_empty()
        } else {
            doubts.len() == 1 && doubts[0].contains(expected)
        };
        assert!(is_right, "{expected:?}: {doubts:?}");
    }
}
