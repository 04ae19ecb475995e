//! The main job: git without a credential.

use std::fs;

use crate::support::{PAT, setup, text};
use base64::{Engine, engine::general_purpose::STANDARD};

#[test]
fn git_clones_fetches_and_pushes_without_a_credential() {
    let proxy = setup().tls().start();
    let folder = proxy.path("work");
    fs::create_dir(&folder).unwrap();
    proxy.git_ok(&folder, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "whole"]);
    proxy.git_ok(&folder, &["clone", "-q", "--depth", "1", &proxy.url("/contoso/_git/web"), "shallow"]);

    let whole = folder.join("whole");
    fs::write(whole.join("new.txt"), "new\n").unwrap();
    proxy.git_ok(&whole, &["checkout", "-qb", "topic"]);
    proxy.git_ok(&whole, &["add", "."]);
    proxy.git_ok(&whole, &["commit", "-qm", "new"]);
    proxy.git_ok(&whole, &["push", "-q", "origin", "topic"]);
    proxy.git_ok(&folder.join("shallow"), &["fetch", "-q", "origin", "topic"]);
    let fetched = proxy.git_ok(&folder.join("shallow"), &["show", "FETCH_HEAD:new.txt"]);
    assert_eq!(fetched, "new\n");

    let expected = format!("Basic {}", STANDARD.encode(format!(":{PAT}")));
    for seen in proxy.organization().seen() {
        assert_eq!(seen.authorization, [expected.as_str()], "{} {}", seen.method, seen.target);
        assert_eq!(seen.header("x-tfs-fedauthredirect").collect::<Vec<_>>(), ["Suppress"]);
    }
    let push = proxy.record("the push", |record| {
        record["kind"] == "outcome" && record["path"] == "/contoso/web/_git/web/git-receive-pack"
    });
    assert_eq!(push["client"], "here");
    assert_eq!(push["rule"], "git");
    assert_eq!(push["action"], "git:push");
    assert_eq!(push["credential"], "contoso");
    assert_eq!(push["status"], 200);
    assert_eq!(push["ending"], "complete");
    assert!(push["bytes-in"].as_u64().unwrap() > 100, "{push}");
    assert!(push["bytes-out"].as_u64().unwrap() > 10, "{push}");
}

#[test]
fn a_large_push_and_many_refs_pass() {
    let proxy = setup().tls().start();
    let folder = proxy.path("work");
    fs::create_dir(&folder).unwrap();
    proxy.git_ok(&folder, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "web"]);
    let web = folder.join("web");
    // What does not compress, so that the pack is as large as the file.
    let mut noise = vec![0_u8; 200 << 20];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in noise.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    fs::write(web.join("noise.bin"), &noise).unwrap();
    // Nobody compresses it, or syncs each of the references: that would be most of this test's time.
    let served = proxy.organization().folder().join("repositories/web/web.git");
    for repository in [&web, &served] {
        proxy.git_ok(repository, &["config", "core.compression", "0"]);
        proxy.git_ok(repository, &["config", "core.fsync", "none"]);
    }
    proxy.git_ok(&web, &["checkout", "-qb", "large"]);
    proxy.git_ok(&web, &["add", "."]);
    proxy.git_ok(&web, &["commit", "-qm", "large"]);
    proxy.git_ok(&web, &["push", "-q", "origin", "large"]);
    let push = proxy.record("the push", |record| {
        record["kind"] == "outcome" && record["bytes-in"].as_u64().is_some_and(|bytes| bytes > 200 << 20)
    });
    assert_eq!(push["ending"], "complete");

    let head = proxy.git_ok(&web, &["rev-parse", "HEAD~"]);
    let refs: String = (0..10_000).map(|n| format!("create refs/heads/many/{n} {}\n", head.trim())).collect();
    // Made where they are served: git needs half a minute of its own to push so many.
    fs::write(folder.join("refs.txt"), refs).unwrap();
    let update = std::process::Command::new("git")
        .current_dir(&served)
        .args(["update-ref", "--stdin"])
        .stdin(fs::File::open(folder.join("refs.txt")).unwrap())
        .status()
        .unwrap();
    assert!(update.success());
    proxy.git_ok(&folder, &["init", "-q", "again"]);
    let again = folder.join("again");
    let many = "refs/heads/many/*:refs/remotes/origin/many/*";
    proxy.git_ok(&again, &["fetch", "-q", &proxy.url("/contoso/web/_git/web"), many]);
    let listed = proxy.git_ok(&again, &["branch", "-r"]);
    assert!(listed.lines().count() >= 10_000);
}

#[test]
fn a_refused_clone_and_a_refused_push_print_the_sentence() {
    let proxy = setup()
        .rules(
            r#"
[[rule]]
name       = "read only"
clients    = ["here"]
paths      = ["/contoso/web/**"]
allow      = ["git:fetch"]
credential = "contoso"
"#,
        )
        .start();
    let folder = proxy.path("work");
    fs::create_dir(&folder).unwrap();
    let refused = proxy.git(&folder, &["clone", &proxy.url("/contoso/other/_git/other"), "other"]);
    assert_eq!(refused.status.code(), Some(128));
    let said = text(&refused);
    assert!(said.contains("remote: patgate: no rule allows this request"), "{said}");

    proxy.git_ok(&folder, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "web"]);
    let web = folder.join("web");
    proxy.git_ok(&web, &["checkout", "-qb", "topic"]);
    let refused = proxy.git(&web, &["push", "origin", "topic"]);
    assert!(!refused.status.success());
    let said = text(&refused);
    assert!(said.contains("remote: patgate: no rule allows this request"), "{said}");
    assert!(!said.contains("Username"), "git asked for a password: {said}");
}

#[test]
fn a_credential_that_the_client_sends_never_goes_up() {
    let proxy = setup().start();
    let (status, body) =
        proxy.get("/contoso/_apis/projects", &["-u", "me:my-own-token", "-H", "Cookie: VstsSession=mine"]);
    assert_eq!(status, 200, "{body}");
    let seen = proxy.organization().seen().into_iter().next_back().unwrap();
    let all = format!("{seen:?}");
    assert!(!all.contains(&STANDARD.encode("me:my-own-token")) && !all.contains("VstsSession"), "{all}");
    assert_eq!(seen.authorization, [format!("Basic {}", STANDARD.encode(format!(":{PAT}")))]);
}

#[test]
fn what_azure_devops_says_of_the_token_stays_inside() {
    let proxy = setup().start();
    let output = proxy.curl("/contoso/_apis/projects", &["-i"]);
    let answer = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    for name in ["set-cookie", "www-authenticate", "x-vss-userdata", "strict-transport-security", "p3p"] {
        assert!(!answer.contains(&format!("\n{name}:")), "{name} came through: {answer}");
    }
    assert!(answer.contains("\nx-patgate-request-id:"), "{answer}");
}
