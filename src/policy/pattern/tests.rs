use http::Method;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use proptest::prelude::*;
use unicode_normalization::UnicodeNormalization;

use super::*;
use crate::gate::{Action, read_line};

fn object<T>(target: &str, look: impl Fn(&Object<'_>) -> T) -> T {
    let (target, action) = read_line("GET", target).unwrap();
    look(&Object::new(&target, &action))
}

fn allows(pattern: &str, target: &str) -> bool {
    object(target, |object| Pattern::parse(pattern).unwrap().matches(object))
}

fn denies(pattern: &str, target: &str) -> bool {
    object(target, |object| Pattern::parse(pattern).unwrap().may_match(object))
}

#[test]
fn an_allow_matches_the_object_in_every_spelling_and_nothing_else() {
    for (pattern, target, expected) in [
        ("/contoso/web/**", "/contoso/web/_git/web/info/refs?service=git-upload-pack", true),
        ("/contoso/web/**", "/contoso/_git/web/info/refs?service=git-upload-pack", true),
        (
            "/contoso/web/**",
            "/contoso/DefaultCollection/web/_git/web/info/refs?service=git-upload-pack",
            true,
        ),
        ("/contoso/web/**", "/Contoso/WEB/_Git/web", true),
        ("/Contoso/WEB/**", "/contoso/web/_apis/wit/workitems", true),
        ("/contoso/web/**", "/contoso/website/_git/web", false),
        ("/contoso/web/**", "/contoso/_apis/projects", false),
        ("/contoso/web/**", "/contoso/web", true),
        ("/contoso/web/**", "/fabrikam/web/_git/web", false),
        ("/contoso/web/**", "/pkgs.dev.azure.com/contoso/web/_packaging/npm", false),
        ("/pkgs.dev.azure.com/contoso/web/**", "/pkgs.dev.azure.com/contoso/web/_packaging/npm", true),
        ("/pkgs.dev.azure.com/contoso/web/**", "/contoso/web/_packaging/npm", false),
        ("/dev.azure.com/contoso/web/**", "/contoso/web/_git/web", true),
        ("/contoso.visualstudio.com/web/**", "/contoso/web/_git/web", true),
        ("/contoso/_git/web/**", "/contoso/web/_git/web/info/refs?service=git-upload-pack", true),
        ("/contoso/_git/web/**", "/contoso/web/_git/api/info/refs?service=git-upload-pack", false),
        ("/contoso/web/_git/web/**", "/contoso/_git/web/info/refs?service=git-upload-pack", true),
        ("/contoso/web/_git/_optimized/web/**", "/contoso/_git/web/info/refs?service=git-upload-pack", true),
        ("/contoso/_git/*/**", "/contoso/web/_git/web", true),
        ("/contoso/_git/**", "/contoso/web/_git/api", false),
        ("/contoso/_git/{web,api}", "/contoso/api/_git/api", true),
        ("/contoso/_git/{web,api}", "/contoso/api/_git/web", false),
        ("/contoso/DefaultCollection/web/_git/*", "/contoso/web/_git/api", true),
        ("/contoso/*/_git/**", "/contoso/web/_git/api/info/refs?service=git-upload-pack", true),
        ("/contoso/*/_git/**", "/contoso/_git/api/info/refs?service=git-upload-pack", true),
        ("/contoso/*/_apis/git/**", "/contoso/_apis/git/repositories/api", false),
        ("/contoso/*/**", "/contoso/_apis/projects", false),
        ("/contoso/*/**", "/contoso/web/_apis/build/builds", true),
        ("/contoso/*/**", "/contoso", false),
        ("/contoso/**", "/contoso/_apis/projects", true),
        ("/contoso/**", "/contoso", true),
        ("/contoso", "/contoso/_apis/projects", false),
        ("/**", "/fabrikam/web/_git/api", true),
        ("/**", "/pkgs.dev.azure.com/fabrikam/_packaging/x", false),
        ("/*/**", "/fabrikam/web/_git/api", true),
        ("/contoso/web/_git/{api,web}/**", "/contoso/web/_git/api/info/refs?service=git-upload-pack", true),
        ("/contoso/web/_git/{api,web}/**", "/contoso/web/_git/ap/info/refs?service=git-upload-pack", false),
        (
            "/contoso/web/_git/release-*/**",
            "/contoso/web/_git/Release-2/info/refs?service=git-upload-pack",
            true,
        ),
        (
            "/contoso/web/_git/release-*/**",
            "/contoso/web/_git/release-/info/refs?service=git-upload-pack",
            true,
        ),
        ("/contoso/web/_git/release-*/**", "/contoso/web/_git/rel/info/refs?service=git-upload-pack", false),
        ("/contoso/web/_git/{a,b}-{x,y*}", "/contoso/web/_git/b-yes", true),
        ("/contoso/web/_git/{a,b}-{x,y*}", "/contoso/web/_git/b-xes", false),
        ("/contoso/web/_apis/git/repositories/*", "/contoso/web/_apis/git/repositories/a/items", false),
        ("/contoso/web/_apis/wit/*", "/contoso/web/_apis/wit/_x", false),
        ("/contoso/web/_apis", "/contoso/web/_apis", true),
        ("/contoso/_apis/git/web/repositories/**", "/contoso/web/_apis/git/repositories/api", true),
        (
            "/contoso/_apis/git/recyclebin/repositories/**",
            "/contoso/_apis/git/recyclebin/repositories/x",
            true,
        ),
        ("/contoso.pkgs.visualstudio.com/**", "/pkgs.dev.azure.com/contoso/_packaging/x", true),
        // What a body decides must be spelled out.
        ("/contoso/**", "/contoso/_apis/wit/$batch", false),
        ("/contoso/_apis/wit/*", "/contoso/_apis/wit/$batch", false),
        ("/contoso/_apis/wit/**", "/contoso/_apis/wit/$batch", false),
        ("/contoso/_apis/wit/$b*", "/contoso/_apis/wit/$batch", false),
        ("/contoso/_apis/wit/$batch", "/contoso/_apis/wit/$batch", true),
        ("/contoso/_apis/wit/$batch/**", "/contoso/_apis/wit/$batch", true),
        ("/*/_apis/wit/$batch", "/contoso/_apis/wit/$batch", true),
    ] {
        assert_eq!(allows(pattern, target), expected, "{pattern} on {target}");
    }
}

#[test]
fn a_denial_is_not_got_round_by_what_a_request_leaves_open() {
    const ID: &str = "6ce954b1-ce1f-45d1-b94d-e6bf2464ba2c";
    for (pattern, target, expected) in [
        ("/*/*/_apis/git/repositories/**", "/contoso/web/_apis/git/repositories/api", true),
        ("/*/*/_apis/git/repositories/**", &format!("/contoso/_apis/git/repositories/{ID}"), true),
        ("/*/*/_apis/git/repositories/**", &format!("/contoso/_apis/git/web/repositories/{ID}"), true),
        ("/*/*/_apis/git/repositories/**", "/contoso/_apis/git/pullrequests", false),
        ("/contoso/_apis/git/**", "/contoso/web/_apis/git/repositories/api", true),
        ("/contoso/_apis/git/**", "/contoso/web/_apis/git/pullrequests", false),
        ("/contoso/web/_apis/git/repositories/**", "/contoso/_apis/git/api/repositories/x", false),
        ("/contoso/web/**", "/contoso/_apis/projects", true),
        ("/contoso/web/**", "/contoso/api/_git/api", false),
        ("/contoso/web/**", &format!("/contoso/{ID}/_git/api"), true),
        (
            "/contoso/web/_git/secret/**",
            &format!("/contoso/web/_git/{ID}/info/refs?service=git-upload-pack"),
            true,
        ),
        ("/contoso/web/_git/secret/**", "/contoso/web/_git/api/info/refs?service=git-upload-pack", false),
        ("/contoso/_git/web/**", &format!("/contoso/web/_git/{ID}"), true),
        ("/contoso/_git/web/**", &format!("/contoso/{ID}/_git/web"), true),
        ("/contoso/_git/web/**", "/contoso/web/_git/api", false),
        ("/contoso/web/_apis/wit/**", "/fabrikam/_apis/wit/workitems", false),
        ("/contoso/**", "/contoso/_apis/wit/$batch", true),
        ("/contoso/web/_apis/wit/*", "/contoso/web/_apis/wit/_x", true),
        ("/pkgs.dev.azure.com/contoso/**", "/contoso/_apis/projects", false),
    ] {
        assert_eq!(denies(pattern, target), expected, "{pattern} on {target}");
    }
}

#[test]
fn whatever_an_allow_matches_a_denial_matches_too() {
    let patterns =
        ["/**", "/contoso/*/_git/**", "/contoso/_git/web", "/contoso/web/_apis/a*/{b,c}", "/contoso/*"];
    let targets =
        ["/contoso", "/contoso/web/_git/web", "/contoso/web/_apis/ab/c", "/contoso/x", "/contoso/_git/web"];
    let mut matched = 0;
    for pattern in patterns {
        for target in targets {
            if allows(pattern, target) {
                matched += 1;
                assert!(denies(pattern, target), "{pattern} on {target}");
            }
        }
    }
    assert!(matched > 8, "{matched}");
}

#[test]
fn a_wrong_pattern_is_refused_with_what_would_be_right() {
    for (pattern, expected) in [
        ("", "is empty"),
        ("contoso/**", "write /contoso/**"),
        ("/", "ends with a slash"),
        ("/contoso/", "ends with a slash"),
        ("/contoso//web", "empty segment"),
        ("/contoso/**/web", "** before its end"),
        ("/contoso/web**", "* before its end"),
        ("/contoso/*-x", "* before its end"),
        ("/contoso/a*b", "* before its end"),
        ("/contoso/my%20web/**", "percent sign"),
        ("/contoso/../web", "segment \"..\""),
        ("/contoso/./web", "segment \".\""),
        ("/contoso\\web", "backslash"),
        ("/contoso/web?x=1", "question mark"),
        ("/contoso/web#x", "number sign"),
        ("/contoso/a\tb", "control character"),
        ("/contoso/web./**", "can never match"),
        ("/contoso/ web/**", "can never match"),
        ("/contoso/web /**", "can never match"),
        ("/contoso/.web/**", "can never match"),
        ("/contoso/web:8/**", "colon"),
        ("/contoso/web;x/**", "semicolon"),
        ("/cont_oso/**", "no organization"),
        ("/contoso/{web,api/**", "braces"),
        ("/contoso/web}/**", "braces"),
        ("/contoso/{a,{b,c}}/**", "braces"),
        ("/contoso/{a,}/**", "empty alternative"),
        ("/contoso/{a,*}/**", "write * alone"),
        ("/contoso/{a,**}/**", "* before its end"),
        ("/contoso/{web,_apis}/**", "one pattern for each"),
        ("/contoso/web/{_git,_apis}/**", "one pattern for each"),
        ("/contoso/web/_gi*/**", "write it out"),
        ("/contoso/web/team/_apis/**", "a team is no part"),
        ("/contoso/*/*/**", "a team is no part"),
        ("/_apis/projects", "the first segment is the organization"),
        ("/contoso/_git", "names no repository"),
        ("/evil.example/contoso/**", "no host of Azure DevOps"),
        ("/*.azure.com/contoso/**", "one pattern for each host"),
        ("/dev.azure.com", "no organization"),
        ("/contoso/{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", "more than 64"),
    ] {
        let error = Pattern::parse(pattern).expect_err(pattern);
        assert!(error.contains(expected), "{pattern:?}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_target_that_is_written_down_decoded_is_a_pattern_of_itself(
        names in prop::collection::vec("[a-zA-Z0-9äÖßΣςİıK][a-zA-Z0-9 äÖßΣςİıK.!()^-]{0,6}[a-zA-Z0-9äÖßΣςİıK]", 2),
        tail in prop::sample::select(vec!["_git/Web", "_apis/Build/builds/7", "_packaging/Feed-1/npm"]),
    ) {
        let path = format!("/Contoso/{}/{tail}/{}", names[0].nfc(), names[1].nfc());
        let encoded = utf8_percent_encode(&path, &NOT_PLAIN).to_string();
        let (target, action) = read_line("GET", &encoded).unwrap();
        let object = Object::new(&target, &action);
        let pattern = Pattern::parse(&path).unwrap();
        prop_assert!(pattern.is(&object) && pattern.may_match(&object), "{} on {}", path, encoded);
    }
}

/// What a client encodes in a path.
const NOT_PLAIN: AsciiSet = CONTROLS.add(b' ').add(b'^');

#[test]
fn text_is_compared_composed_and_without_case() {
    let pattern = Pattern::parse("/contoso/Mu\u{308}LLER ΣΑΣ/_git/**").unwrap();
    let action = Action::Method(Method::GET);
    let segments = vec!["contoso", "m\u{fc}ller σασ", "_git", "x"];
    assert!(pattern.matches(&Object::read(Host::DevAzure, segments, true, &action)));
}

#[test]
fn a_pattern_covers_what_is_within_it_alone() {
    for (broad, narrow, expected) in [
        ("/**", "/contoso/web/**", true),
        ("/contoso/**", "/contoso/web/_git/api", true),
        ("/contoso/*/**", "/contoso/_apis/projects", false),
        ("/contoso/{a,b}/**", "/contoso/a/**", true),
        ("/contoso/a/**", "/contoso/{a,b}/**", false),
        ("/contoso/a*/**", "/contoso/ab*/**", true),
        ("/contoso/ab*/**", "/contoso/a*/**", false),
        ("/contoso/a*/**", "/contoso/ab/**", true),
        ("/contoso/web", "/contoso/web/**", false),
        ("/contoso/web/_git/*", "/contoso/_git/web", true),
        ("/contoso/_git/web", "/contoso/web/_git/*", false),
        ("/**", "/pkgs.dev.azure.com/contoso/**", false),
    ] {
        let (broad_pattern, narrow_pattern) =
            (Pattern::parse(broad).unwrap(), Pattern::parse(narrow).unwrap());
        assert_eq!(broad_pattern.covers(&narrow_pattern), expected, "{broad} over {narrow}");
    }
}
