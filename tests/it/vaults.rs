//! Vaults on the command line and behind a running proxy: what is no token is refused by the name of its credential,
//! wherever it shows, and never sent.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{PAT, TestProxy, patgate, setup, text, write_private};

/// What no vault may hand on, each with a word of what is said of it.
fn no_tokens() -> Vec<(String, &'static str)> {
    vec![
        (String::new(), "empty"),
        (format!("{PAT} {PAT}"), "white space"),
        (format!("{PAT}\n{PAT}"), "white space"),
        (format!("{{\"pat\":\"{PAT}\"}}"), "JSON object"),
        (PAT.repeat(120), "larger than"),
        (format!("{PAT}é"), "outside ASCII"),
    ]
}

fn check(config: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = patgate().args(["check", "--config"]).arg(config).args(more).output().unwrap();
    (output.status.code(), text(&output))
}

#[test]
fn an_online_check_reads_each_credential_and_reaches_each_host() {
    let proxy = setup().start();
    let requests = proxy.organization().requests();
    let (code, said) = check(&proxy.config(), &["--online"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("credential contoso: ok, from vault files: "), "{said}");
    assert!(said.contains("host dev.azure.com: ok"), "{said}");
    assert!(!said.contains(PAT));
    assert_eq!(proxy.organization().requests(), requests, "no request is made");
    proxy.record("the read", |record| record["kind"] == "vault-read" && record["purpose"] == "test");

    let (code, said) = check(&proxy.config(), &["--online", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["online"][0]["usable"], true, "{said}");
    assert_eq!(said["online"][1]["reached"], true, "{said}");
}

#[test]
fn an_online_check_says_what_can_not_be_used_or_reached() {
    let proxy = setup().start();
    let own = fs::read_to_string(proxy.config()).unwrap();
    let other = proxy.path("other.toml");
    let elsewhere = crate::support::free_address().to_string();
    let upstream = proxy.organization().address().to_string();
    for (from, to, code, part) in [
        ("contoso.pat", "absent.pat", 69, "credential contoso: FAILED, vault files: the vault refused"),
        (upstream.as_str(), elsewhere.as_str(), 69, "host dev.azure.com: FAILED: "),
        ("type = \"file\"", "type = \"fil\"", 78, "no type of vault"),
    ] {
        assert!(own.contains(from), "{own}");
        fs::write(&other, own.replace(from, to)).unwrap();
        let (found, said) = check(&other, &["--online"]);
        assert_eq!(found, Some(code), "{said}");
        assert!(said.contains(part), "{said}");
    }
    let unused = format!("{own}\n[vault.unused]\ntype = \"environment\"\n");
    fs::write(&other, unused).unwrap();
    let (found, said) = check(&other, &["--online"]);
    assert_eq!(found, Some(0), "{said}");
    assert!(said.contains("vault unused: not read, for no credential is in it"), "{said}");
    fs::write(&other, &own).unwrap();
    let mut command = patgate();
    command.args(["check", "--online", "--config"]).arg(&other).env("AWS_ENDPOINT_URL", "http://elsewhere");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
}

#[test]
fn what_is_no_token_is_named_by_its_credential_and_never_sent() {
    let proxy = setup().start();
    let secret = proxy.path("contoso.pat");
    for (value, why) in no_tokens() {
        write_private(&secret, &value);
        for arguments in [&["vault", "test"][..], &["check", "--online"]] {
            let output = patgate().args(arguments).arg("--config").arg(proxy.config()).output().unwrap();
            let said = text(&output);
            assert_eq!(output.status.code(), Some(69), "{said}");
            let told = said.contains("contoso: FAILED, vault files: the secret is not usable: ");
            assert!(told && said.contains(why), "{arguments:?}: {said}");
            assert!(!said.contains(PAT), "{arguments:?} shows it");
        }
    }
}

#[test]
fn a_token_that_becomes_none_is_not_used_for_long_nor_sent_as_it_is() {
    let vault = "[vault.quick]\ntype = \"file\"\nrefresh = \"100ms\"\nstale-for = \"0s\"\n\
                 [credential.quick]\nvault = \"quick\"\nsecret = \"quick.pat\"\norganizations = [\"contoso\"]\n";
    let rules = "[[rule]]\nname = \"quick\"\nclients = [\"here\"]\npaths = [\"/contoso/**\"]\nallow = [\"GET\"]\n\
                 credential = \"quick\"\n";
    let proxy = setup().rules(rules).with(vault).start();
    let secret = proxy.path("quick.pat");
    write_private(&secret, PAT);
    until(&proxy, 200, "");
    for (value, _) in no_tokens() {
        write_private(&secret, &value);
        until(&proxy, 424, "credential-missing");
    }
    write_private(&secret, PAT);
    until(&proxy, 200, "");
}

fn until(proxy: &TestProxy, status: u16, part: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (found, body) = proxy.get("/contoso/_apis/projects", &[]);
        if found == status && body.contains(part) {
            return;
        }
        assert!(Instant::now() < deadline, "{found}, not {status}: {body}\n{}", proxy.log());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_program_gives_the_token_for_a_real_clone() {
    let helper = "#!/bin/sh\n[ \"$1\" = contoso ] || exit 44\ncat \"$STORE/contoso.pat\"\n";
    let proxy = setup().rules("").start();
    let path = proxy.path("helper.sh");
    fs::write(&path, helper).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let more = format!(
        "[vault.helper]\ntype = \"command\"\ncommand = [\"./helper.sh\"]\ndenied-exit-codes = [44]\n\
         environment = {{ STORE = \"{}\" }}\n\
         [credential.helped]\nvault = \"helper\"\nsecret = \"contoso\"\norganizations = [\"contoso\"]\n\
         [[rule]]\nname = \"git\"\nclients = [\"here\"]\npaths = [\"/contoso/**\"]\nallow = [\"git:fetch\", \"GET\"]\n\
         credential = \"helped\"\n",
        proxy.folder.path().display()
    );
    let own = fs::read_to_string(proxy.config()).unwrap();
    fs::write(proxy.config(), own + &more).unwrap();
    until(&proxy, 200, "");
    let clone = proxy.path("clone");
    let url = proxy.url("/contoso/web/_git/web");
    proxy.git_ok(proxy.folder.path(), &["clone", "--quiet", &url, clone.to_str().unwrap()]);
    assert!(clone.join(".git").exists());
}

/// Runs `patgate vault …` with something on standard input.
fn vault(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = patgate();
    command.arg("vault").args(arguments).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses before it reads closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_secret_comes_from_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let seal = ["seal", "--vault", "v.sealed", "--new-key", "--from-stdin", "web"];
    assert_eq!(vault(folder.path(), &seal, PAT).status.code(), Some(0));
    for (value, why) in no_tokens() {
        let output = vault(folder.path(), &seal, &value);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        let why = if why == "larger than" { "longer than" } else { why };
        assert!(said.contains(why) && !said.contains(PAT), "{said}");
    }
    let list = text(&vault(folder.path(), &["list", "--vault", "v.sealed"], ""));
    assert!(list.starts_with("web  version 1, sealed 20"), "{list}");
}

#[test]
fn a_key_from_systemd_opens_a_vault_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let seal = ["seal", "--vault", "v.sealed", "--new-key", "--from-stdin", "web"];
    assert!(vault(folder.path(), &seal, PAT).status.success());
    // As systemd lays a credential down, encrypted or not: one file below a folder that it names, mode 440 or 400.
    let credentials = folder.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::rename(folder.path().join("v.key"), credentials.join("patgate-vault-key")).unwrap();
    for mode in [0o440, 0o400] {
        let key = credentials.join("patgate-vault-key");
        fs::set_permissions(key, fs::Permissions::from_mode(mode)).unwrap();
        let mut list = patgate();
        list.args(["vault", "list", "--vault", "v.sealed", "--key-credential", "patgate-vault-key"]);
        let output =
            list.env("CREDENTIALS_DIRECTORY", &credentials).current_dir(folder.path()).output().unwrap();
        assert!(text(&output).starts_with("web  version 1"), "{mode:o}: {}", text(&output));
    }
}
