//! patgate with its tokens in AWS Secrets Manager: a real `moto_server`, over TLS of its own authority, and every way
//! to credentials of AWS.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use crate::{
    moto::{Moto, REGION},
    support::{PAT, TestProxy, certificate, patgate, setup, text, write_private},
};

/// The keys of AWS that the tests use, and that must stand in no output.
pub const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "CANARYOFAWSKEYCANARYOFAWSKEY")];

/// An environment in which nothing of this machine's own leads to AWS.
fn clean(command: &mut Command, home: &Path) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command.env("HOME", home).env("AWS_EC2_METADATA_DISABLED", "true");
}

/// patgate whose credential is `web` of Secrets Manager at `moto`.
fn proxy(moto: &Moto, ca: Option<&Path>) -> TestProxy {
    let mut proxy = setup().start();
    proxy.stop();
    let ca = ca.map(|ca| format!("ca = \"{}\"\n", ca.display())).unwrap_or_default();
    let vault = format!(
        "[vault.files]\ntype = \"aws-secrets-manager\"\nregion = \"{REGION}\"\nendpoint = \"{}\"\n{ca}\
         refresh = \"200ms\"",
        moto.url()
    );
    let own = fs::read_to_string(proxy.config()).unwrap();
    let own = own.replace("[vault.files]\ntype = \"file\"", &vault);
    let secret = format!("secret = \"{}/contoso.pat\"", proxy.folder.path().display());
    assert!(own.contains(&secret) && own.contains(&vault), "{own}");
    fs::write(proxy.config(), own.replace(&secret, "secret = \"ado/web#pat\"")).unwrap();
    let home = proxy.folder.path().to_owned();
    proxy.launch_with(|command| {
        clean(command, &home);
        command.envs(KEYS);
    });
    proxy
}

fn put(moto: &Moto, pat: &str) -> String {
    moto.put("ado/web", &format!(r#"{{"owner":"team-web","pat":"{pat}"}}"#))
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs moto_server"]
fn git_clones_with_a_token_of_secrets_manager_and_goes_on_when_it_is_rotated_or_silent() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let moto = Moto::tls(folder.path());
    let first = put(&moto, PAT);
    let proxy = proxy(&moto, Some(&folder.path().join("ca.pem")));
    let work = proxy.path("work");
    fs::create_dir(&work).unwrap();
    proxy.git_ok(&work, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "one"]);
    assert!(
        proxy.records().iter().any(|record| record["credential-version"] == first.as_str()),
        "{:?}",
        proxy.records()
    );

    // The same token as another version: what AWS calls it is what the audit says.
    let second = put(&moto, PAT);
    until("the new version is used", || {
        assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
        proxy.records().iter().any(|record| record["credential-version"] == second.as_str())
    });
    moto.kill();
    for _ in 0..10 {
        assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200, "{}", proxy.log());
        thread::sleep(Duration::from_millis(50));
    }
    proxy.git_ok(&work, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "two"]);
    crate::support::secrets::assert_absent(&[KEYS[1].1], &[&proxy.path("patgate.log"), &proxy.audit]);
}

#[test]
#[ignore = "needs moto_server"]
fn a_secret_that_is_deleted_ends_and_one_that_is_restored_serves_again() {
    let moto = Moto::start();
    put(&moto, PAT);
    let proxy = proxy(&moto, None);
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    let web = serde_json::json!({ "SecretId": "ado/web" });
    moto.call("DeleteSecret", &web);
    until("it ends", || proxy.get("/contoso/_apis/projects", &[]).0 != 200);
    assert!(proxy.get("/contoso/_apis/projects", &[]).1.contains("credential-missing"));
    moto.call("RestoreSecret", &web);
    until("it serves again", || proxy.get("/contoso/_apis/projects", &[]).0 == 200);
}

/// A configuration for `vault test`.
struct Desk {
    folder: tempfile::TempDir,
    moto: Moto,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap(), moto: Moto::start() };
        desk.moto.put("web", PAT);
        desk
    }

    /// `vault test`, with lines more in the vault's section and variables more in the environment.
    fn test(&self, lines: &str, variables: &[(&str, &str)]) -> Output {
        let url = self.moto.url();
        let config = format!(
            r#"
public-url = "http://127.0.0.1:8080"
[[listen]]
address = "127.0.0.1:8080"
[audit]
folder = "audit"
reserve = "1MiB"
[vault.aws]
type = "aws-secrets-manager"
region = "{REGION}"
endpoint = "{url}"
sts-endpoint = "{url}"
deadline = "20s"
{lines}
[credential.web]
vault = "aws"
secret = "web"
organizations = ["contoso"]
[client.here]
addresses = ["127.0.0.1"]
[[rule]]
name = "all"
clients = ["here"]
paths = ["/contoso/**"]
allow = ["GET"]
credential = "web"
"#
        );
        let file = self.folder.path().join("patgate.toml");
        fs::write(&file, config).unwrap();
        let mut command = patgate();
        clean(&mut command, self.folder.path());
        command.args(["vault", "test", "--config"]).arg(&file).envs(variables.iter().copied());
        let output = command.output().unwrap();
        let said = text(&output);
        assert!(!said.contains(KEYS[1].1) && !said.contains(PAT), "{said}");
        output
    }

    fn succeeds(&self, lines: &str, variables: &[(&str, &str)]) {
        let output = self.test(lines, variables);
        assert!(output.status.success(), "{lines} {variables:?}: {}", text(&output));
    }

    fn fails(&self, lines: &str, variables: &[(&str, &str)]) -> String {
        let output = self.test(lines, variables);
        assert_eq!(output.status.code(), Some(69), "{lines} {variables:?}: {}", text(&output));
        text(&output)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_private(&path, content);
        path.to_str().unwrap().into()
    }
}

/// What a service account's token looks like.
const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6Y2k6cGF0Z2F0ZSIsImlzcyI6Imh0dHBzOi8vb2lkYyIsImF1ZCI6InN0cy5hbWF6b25hd3MuY29tIn0.c2ln";
const ROLE: &str = "arn:aws:iam::123456789012:role/patgate";

#[test]
#[ignore = "needs moto_server"]
fn credentials_of_aws_are_found_where_aws_puts_them() {
    let desk = Desk::new();
    desk.succeeds("", &KEYS);
    let role = format!("assume-role = \"{ROLE}\"\nexternal-id = \"contoso\"");
    desk.succeeds(&role, &KEYS);

    let jwt = desk.file("token", JWT);
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", jwt.as_str()), ("AWS_ROLE_ARN", ROLE)];
    desk.succeeds("", &web);
    desk.succeeds(&role, &web);

    let keys = format!("[build]\naws_access_key_id = test\naws_secret_access_key = {}\n", KEYS[1].1);
    desk.file(".aws/credentials", &keys);
    desk.succeeds("profile = \"build\"", &[]);
    desk.succeeds("", &[("AWS_PROFILE", "build")]);

    let metadata = metadata();
    let instance =
        [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.as_str())];
    desk.succeeds("", &instance);

    let pod = format!("{metadata}/v1/credentials");
    let token = desk.file("pod-token", "pod");
    desk.succeeds(
        "",
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &pod), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token)],
    );
}

/// As EKS Pod Identity's agent (`/v1/credentials`, for who shows the token `pod`), and as the metadata service of EC2
/// (for who fetched a token first).
fn metadata() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut head = [0; 4096];
            let read = socket.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..read]).to_ascii_lowercase();
            let keys = format!(
                r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"test","SecretAccessKey":"{}","Token":"t","Expiration":"2099-01-01T00:00:00Z"}}"#,
                KEYS[1].1
            );
            let is = |line: &str| head.contains(line);
            let body = match head.split(' ').nth(1).unwrap() {
                "/latest/api/token" if head.starts_with("put ") => Some("imds".into()),
                "/v1/credentials" if is("authorization: pod\r\n") => Some(keys),
                _ if !is("x-aws-ec2-metadata-token: imds\r\n") => None,
                path if path.trim_end_matches('/').ends_with("/patgate") => Some(keys),
                _ => Some("patgate".into()),
            };
            let status = if body.is_some() { "200 OK" } else { "401 Unauthorized" };
            let body = body.unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 {status}\r\nx-aws-ec2-metadata-token-ttl-seconds: 600\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = socket.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
#[ignore = "needs moto_server"]
fn neither_the_environment_nor_a_profile_leads_elsewhere() {
    let desk = Desk::new();
    // Nobody may ever connect here.
    let elsewhere = TcpListener::bind("127.0.0.2:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let there = elsewhere.local_addr().unwrap();
    desk.file(
        ".aws/config",
        &format!("[default]\nendpoint_url = http://{there}\nservices = s\n[services s]\nsecrets_manager =\n  endpoint_url = http://{there}\nsts =\n  endpoint_url = http://{there}\n"),
    );
    let file = desk.folder.path().join(".aws/config");
    desk.succeeds("", &[&KEYS[..], &[("AWS_CONFIG_FILE", file.to_str().unwrap())]].concat());
    desk.succeeds(&format!("assume-role = \"{ROLE}\""), &KEYS);

    // A role that a profile takes on, at the profile's own idea of where STS is.
    let role = format!(
        "[profile role]\nrole_arn = {ROLE}\ncredential_source = Environment\nendpoint_url = http://{there}\n"
    );
    let role = desk.file("role", &role);
    let said = desk.fails("profile = \"role\"", &[&KEYS[..], &[("AWS_CONFIG_FILE", &role)]].concat());
    assert!(said.contains("leads to 127.0.0.2"), "{said}");

    for variable in ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT"] {
        let said = desk.fails(
            "",
            &[(variable, "https://elsewhere.example/credentials"), ("AWS_EC2_METADATA_DISABLED", "false")],
        );
        assert!(said.contains("leads to elsewhere.example"), "{variable}: {said}");
    }
    assert!(elsewhere.accept().is_err(), "something was sent elsewhere");
}

#[test]
#[ignore = "needs moto_server"]
fn who_has_no_credentials_of_aws_is_told_where_they_were_looked_for() {
    let desk = Desk::new();
    let said = desk.fails("", &[]);
    for place in ["environment: ", "profile: ", "web identity: ", "container: ", "instance: "] {
        assert!(said.contains(place), "{place}: {said}");
    }
    assert!(said.contains("the vault did not answer"), "{said}");

    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/credentials", silent.local_addr().unwrap());
    let said = desk.fails("", &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]);
    assert!(said.contains("container: it took too long"), "{said}");

    let said = desk.fails("profile = \"absent\"", &KEYS);
    assert!(said.contains("profile: "), "{said}");
    let gone = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token"), ("AWS_ROLE_ARN", ROLE)];
    let said = desk.fails("", &gone);
    assert!(said.contains("/nowhere/token can't be read"), "{said}");
}

#[test]
#[ignore = "needs moto_server"]
fn a_vault_whose_certificate_is_not_believed_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let other = tempfile::tempdir().unwrap();
    certificate(other.path());
    let desk = Desk { folder: tempfile::tempdir().unwrap(), moto: Moto::tls(folder.path()) };
    desk.moto.put("web", PAT);
    desk.succeeds(&format!("ca = \"{}\"", folder.path().join("ca.pem").display()), &KEYS);
    for lines in [String::new(), format!("ca = \"{}\"", other.path().join("ca.pem").display())] {
        let said = desk.fails(&lines, &KEYS);
        assert!(said.contains("the vault did not answer") && said.contains("certificate"), "{said}");
    }
}
