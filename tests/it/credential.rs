//! Operators: credentials that are disabled, enabled and read again, through the admin socket.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    load::Kept,
    support::{PAT, Setup, TestProxy, USUAL_RULES, patgate, secrets, setup, text, write_private},
};

const PROJECTS: &str = "/contoso/_apis/projects";
const OTHER: &str = "OTHEROTHEROTHEROTHEROTHEROTHEROTHEROTHEROTHEROTHEROTJQQJ99BKACAAAAAAAAAAAAASAZDOtest";

pub fn operated() -> Setup {
    setup().admin("socket = \"admin.sock\"\n").with("[state]\nfolder = \"state\"\n")
}

pub fn credential(proxy: &TestProxy, arguments: &[&str]) -> Output {
    patgate().arg("credential").args(arguments).arg("--config").arg(proxy.config()).output().unwrap()
}

/// As [`credential`], and it must succeed.
pub fn done(proxy: &TestProxy, arguments: &[&str]) -> String {
    let output = credential(proxy, arguments);
    assert!(output.status.success(), "{arguments:?}: {}\n{}", text(&output), proxy.log());
    text(&output)
}

pub fn listed(proxy: &TestProxy) -> Value {
    serde_json::from_str(&done(proxy, &["list", "--json"])).unwrap()
}

pub fn code(proxy: &TestProxy) -> (u16, String) {
    let (status, body) = proxy.get(PROJECTS, &[]);
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    (status, body["patgate"]["code"].as_str().unwrap_or_default().to_owned())
}

pub fn refused() -> (u16, String) {
    (424, "credential-disabled".to_owned())
}

#[test]
fn a_disabled_credential_is_refused_on_every_worker_until_it_is_enabled_and_over_a_restart() {
    let mut proxy = operated().start();
    let mut kept: Vec<_> = (0..16).map(|_| Kept::connect(proxy.address).unwrap()).collect();
    assert!(kept.iter_mut().all(|one| one.get(PROJECTS) == Ok(200)));
    let before = proxy.organization().requests();
    let said = done(&proxy, &["disable", "contoso", "--reason", "it stands in a build log"]);
    assert_eq!(said, "contoso is disabled from the next request on\n");
    for one in &mut kept {
        assert_eq!(one.get(PROJECTS), Ok(424));
    }
    assert_eq!(code(&proxy), refused());
    assert_eq!(proxy.organization().requests(), before, "something went up");
    let folder = proxy.path("work");
    fs::create_dir(&folder).unwrap();
    let clone = proxy.git(&folder, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "web"]);
    assert!(!clone.status.success());
    assert!(
        text(&clone).contains("patgate: the credential for this request is disabled"),
        "{}",
        text(&clone)
    );

    let record = proxy.record("the operation", |record| record["kind"] == "operation");
    assert_eq!(record["operation"], "disable");
    assert_eq!(record["credential"], "contoso");
    assert_eq!(record["reason"], "it stands in a build log");
    assert_eq!(record["uid"], rustix::process::geteuid().as_raw());
    assert!(record["operator"].is_string() && record["outcome"] == "asked", "{record}");
    // A flood of them is gathered, but not the first.
    let refusal = proxy.record("the refusal", |record| {
        record["refusal"] == "credential-disabled" && record["credential"] == "contoso"
    });
    assert_eq!(refusal["kind"], "refusal");
    assert!(refusal["detail"].as_str().unwrap().ends_with(": it stands in a build log"), "{refusal}");

    let list = listed(&proxy);
    assert_eq!(list["kept"], true);
    assert_eq!(list["state-version"], 1);
    assert_eq!(list["credentials"][0]["state"], "disabled");
    assert_eq!(list["credentials"][0]["disabled"]["reason"], "it stands in a build log");
    let table = done(&proxy, &["list"]);
    assert!(
        table.contains("contoso     disabled") && table.contains(": it stands in a build log"),
        "{table}"
    );
    let admin = |path: &str| {
        let url = format!("http://{}{path}", proxy.admin);
        text(&Command::new("curl").args(["-sS", "--noproxy", "*", &url]).output().unwrap())
    };
    assert!(
        admin("/readyz").contains(r#"{"credential":"contoso","state":"disabled","#),
        "{}",
        admin("/readyz")
    );
    let metrics = admin("/metrics");
    for line in [
        "patgate_credential_state{credential=\"contoso\",state=\"disabled\"} 1",
        "patgate_credential_state{credential=\"contoso\",state=\"valid\"} 0",
        "patgate_state_version 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }

    // Another configuration is no reason to forget, and neither is another process.
    let config = fs::read_to_string(proxy.config()).unwrap();
    fs::write(proxy.config(), config.replace("name       = \"git\"", "name = \"other\"")).unwrap();
    proxy.signal("-HUP");
    proxy.record("the reload", |record| record["kind"] == "configured");
    assert_eq!(code(&proxy), refused());
    assert_eq!(proxy.stop(), Some(0));
    assert!(!proxy.path("admin.sock").exists());
    proxy.launch();
    assert_eq!(code(&proxy), refused());
    proxy.kill();
    proxy.launch();
    assert_eq!(code(&proxy), refused(), "with the socket that a killed process left");

    let twice = done(&proxy, &["disable", "contoso", "--reason", "still"]);
    assert!(twice.contains("is disabled"), "{twice}");
    assert_eq!(done(&proxy, &["enable", "contoso", "--reason", "rotated"]), "contoso may be used again\n");
    assert_eq!(code(&proxy).0, 200);
    let again = credential(&proxy, &["enable", "contoso", "--reason", "rotated"]);
    assert_eq!((again.status.code(), &*text(&again)), (Some(1), "patgate: contoso is not disabled\n"));
    proxy.stop();
    proxy.launch();
    assert_eq!(code(&proxy).0, 200);
}

#[test]
fn a_disabled_credential_that_the_configuration_lost_is_listed_as_such() {
    let spare =
        "[credential.spare]\nvault = \"files\"\nsecret = \"contoso.pat\"\norganizations = [\"fabrikam\"]\n";
    let proxy = operated().with(spare).start();
    done(&proxy, &["disable", "spare", "--reason", "not needed"]);
    let config = fs::read_to_string(proxy.config()).unwrap();
    fs::write(proxy.config(), config.replace(spare, "")).unwrap();
    proxy.signal("-HUP");
    proxy.record("the reload", |record| record["kind"] == "configured");
    let list = listed(&proxy);
    let spare = &list["credentials"][1];
    assert_eq!(
        (&spare["credential"], &spare["configured"], &spare["state"]),
        (&"spare".into(), &false.into(), &"disabled".into())
    );
    assert!(done(&proxy, &["list"]).contains("(not in the configuration)"));
    done(&proxy, &["enable", "spare", "--reason", "it is gone"]);
    assert_eq!(listed(&proxy)["credentials"].as_array().unwrap().len(), 1);
    for operation in ["disable", "enable"] {
        let output = credential(&proxy, &[operation, "spare", "--reason", "x"]);
        let said = "patgate: there is no credential spare; there are contoso\n";
        assert_eq!((output.status.code(), &*text(&output)), (Some(1), said));
    }
    let output = credential(&proxy, &["disable", "contoso", "--reason", " "]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("the reason is empty"), "{}", text(&output));
    assert_eq!(code(&proxy).0, 200);
}

#[test]
fn where_a_rule_has_another_credential_that_one_serves() {
    let spare =
        "[credential.spare]\nvault = \"files\"\nsecret = \"spare.pat\"\norganizations = [\"contoso\"]\n";
    let rules = USUAL_RULES.replace("= \"contoso\"", "= [\"contoso\", \"spare\"]");
    let proxy = operated().rules(&rules).with(spare).start();
    proxy.organization().accept(&[PAT, OTHER]);
    write_private(&proxy.path("spare.pat"), OTHER);
    done(&proxy, &["refresh", "spare"]);
    done(&proxy, &["disable", "contoso", "--reason", "it leaked"]);
    assert_eq!(code(&proxy).0, 200);
    proxy.record("by the other", |record| record["kind"] == "outcome" && record["credential"] == "spare");
    done(&proxy, &["disable", "spare", "--reason", "it leaked too"]);
    assert_eq!(code(&proxy), refused());
    secrets::assert_absent(&[OTHER], &[&proxy.path("patgate.log"), &proxy.audit]);
}

#[test]
fn what_a_vault_has_now_is_used_once_somebody_asks_for_it() {
    let proxy = operated().start();
    assert_eq!(code(&proxy).0, 200);
    proxy.organization().accept(&[PAT, OTHER]);
    let sent = |proxy: &TestProxy| {
        assert_eq!(code(proxy).0, 200);
        proxy.organization().seen().last().unwrap().authorization.clone()
    };
    let first = sent(&proxy);
    write_private(&proxy.path("contoso.pat"), OTHER);
    assert_eq!(sent(&proxy), first, "a file is not read for each request");
    assert_eq!(done(&proxy, &["refresh", "contoso"]), "contoso: read, valid\n");
    let second = sent(&proxy);
    assert_ne!(second, first);
    let read = |record: &Value| record["kind"] == "vault-read" && record["purpose"] == "asked";
    proxy.record("the read", read);

    write_private(&proxy.path("contoso.pat"), PAT);
    proxy.signal("-USR1");
    proxy.record("the operation", |record| record["kind"] == "operation" && record["operator"] == "SIGUSR1");
    let deadline = Instant::now() + Duration::from_secs(10);
    while sent(&proxy) != first {
        assert!(Instant::now() < deadline, "{}", proxy.log());
    }

    fs::remove_file(proxy.path("contoso.pat")).unwrap();
    let output = credential(&proxy, &["refresh", "--all"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).starts_with("contoso: FAILED: the vault refused: "), "{}", text(&output));
    write_private(&proxy.path("contoso.pat"), PAT);
    // However often it failed a moment ago.
    assert_eq!(done(&proxy, &["refresh", "--all"]), "contoso: read, valid\n");
    assert_eq!(sent(&proxy), first);
    secrets::assert_absent(&[OTHER], &[&proxy.path("patgate.log"), &proxy.audit]);
}

#[test]
fn a_state_that_cannot_be_read_stops_the_start() {
    let mut proxy = operated().start();
    done(&proxy, &["disable", "contoso", "--reason", "it leaked"]);
    proxy.stop();
    let path = proxy.path("state/state.json");
    let good = fs::read_to_string(&path).unwrap();
    for bad in ["", "nonsense", &good[..good.len() / 2], "{}"] {
        fs::write(&path, bad).unwrap();
        let output = patgate().args(["serve", "--config"]).arg(proxy.config()).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{bad:?}: {}", text(&output));
        let said = text(&output);
        assert!(said.contains("state.json: ") && said.contains("does not start without knowing"), "{said}");
    }
    fs::write(&path, good).unwrap();
    proxy.launch();
    assert_eq!(code(&proxy), refused());
}

#[test]
fn without_a_record_nothing_is_changed() {
    let mut proxy = operated().start();
    assert_eq!(code(&proxy).0, 200);
    proxy.record("its end", |record| record["kind"] == "outcome");
    fs::remove_dir_all(&proxy.audit).unwrap();
    let output = credential(&proxy, &["disable", "contoso", "--reason", "it leaked"]);
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    assert!(text(&output).contains("nothing was changed, for it can't be on record"), "{}", text(&output));
    let deadline = Instant::now() + Duration::from_secs(20);
    while code(&proxy).0 != 200 {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(listed(&proxy)["state-version"], 0);
    proxy.unverified = true;
}

#[test]
fn without_a_state_folder_a_change_ends_with_the_process_and_says_so() {
    let mut proxy = setup().admin("socket = \"admin.sock\"\n").start();
    let said = done(&proxy, &["disable", "contoso", "--reason", "it leaked"]);
    assert!(said.contains("warning: only until that process ends"), "{said}");
    assert_eq!(code(&proxy), refused());
    proxy.stop();
    proxy.launch();
    assert_eq!(code(&proxy).0, 200);
}

#[test]
fn who_is_not_there_or_has_no_socket_is_told_apart() {
    let mut proxy = operated().start();
    proxy.stop();
    let output = credential(&proxy, &["list"]);
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    assert!(text(&output).contains("no patgate answers at"), "{}", text(&output));
    proxy.launch();
    let socket = proxy.path("admin.sock");
    let output = patgate().args(["credential", "list", "--socket"]).arg(&socket).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let second = patgate().args(["credential", "list"]).output().unwrap();
    assert_eq!(second.status.code(), Some(64), "{}", text(&second));

    // Somebody is in the middle of an edit.
    let good = fs::read_to_string(proxy.config()).unwrap();
    fs::write(proxy.config(), good.replace("[[rule]]", "[[rulle]]")).unwrap();
    done(&proxy, &["list"]);
    fs::write(proxy.config(), good.replace("[[rule]]", "[[rule")).unwrap();
    let output = credential(&proxy, &["list"]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert!(text(&output).contains("name the socket itself with --socket"), "{}", text(&output));

    let other = setup().start();
    let output = credential(&other, &["list"]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert!(text(&output).contains("has no [admin] socket"), "{}", text(&output));
}

/// The binary where any user may run it; `None` where this user can't become another.
fn for_others(proxy: &TestProxy) -> Option<std::path::PathBuf> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can become another user");
        return None;
    }
    let binary = proxy.path("patgate-for-others");
    fs::copy(env!("CARGO_BIN_EXE_patgate"), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(proxy.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Some(binary)
}

fn as_another(binary: &Path, uid: u32, socket: &Path) -> Output {
    let mut setpriv = Command::new("setpriv");
    setpriv.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()]);
    setpriv.arg(binary).args(["credential", "disable", "contoso", "--reason", "mischief", "--socket"]);
    setpriv.arg(socket).output().unwrap()
}

#[test]
fn who_is_no_admin_is_refused_by_the_file_and_by_the_kernels_word() {
    let proxy = operated().start();
    let Some(binary) = for_others(&proxy) else { return };
    let socket = proxy.path("admin.sock");
    let output = as_another(&binary, 65534, &socket);
    assert_eq!(output.status.code(), Some(77), "{}", text(&output));
    assert!(text(&output).contains("this user may not use"), "{}", text(&output));

    let shared = setup().admin("socket = \"admin.sock\"\nadmins = [\"root\", 4001]\n").start();
    let Some(binary) = for_others(&shared) else { return };
    let socket = shared.path("admin.sock");
    let output = as_another(&binary, 65534, &socket);
    assert_eq!(output.status.code(), Some(77), "{}", text(&output));
    assert!(text(&output).contains("none of [admin] admins"), "{}", text(&output));
    assert_eq!(code(&shared).0, 200);
    assert!(!shared.records().iter().any(|record| record["kind"] == "operation"));

    let output = as_another(&binary, 4001, &socket);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(code(&shared), refused());
    let record = shared.record("the operation", |record| record["kind"] == "operation");
    assert_eq!((&record["uid"], &record["operator"]), (&4001.into(), &"4001".into()), "{record}");
}
