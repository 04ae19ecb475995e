//! A PAT in Azure Key Vault, and tokens of Entra in its place: before a stand-in for both, with real git.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    load::{Kind, Load},
    rotation,
    support::{PAT, TestProxy, patgate, secrets, setup, text},
};

#[path = "../azure/stand_in.rs"]
mod stand_in;

use stand_in::{Azure, Behaviour, CLIENT, Certificate, IDENTITY_HEADER, SECRET, TENANT};

const ROTATED: &str = "ROTATEDROTATEDROTATEDROTATEDROTATEDROTATEDROTATEDROTJQQJ99BKACAAAAAAAAAAAAASAZDOtest";

const RULES: &str = r#"
[[rule]]
name       = "git"
clients    = ["here"]
paths      = ["/contoso/**"]
allow      = ["git:fetch", "git:push", "GET", "POST"]
credential = "azure"
"#;

/// The stand-in, and the files that an identity needs.
struct Cloud {
    azure: Azure,
    folder: TempDir,
}

impl Cloud {
    fn start(certificate: Certificate) -> Self {
        let azure = Azure::start_with(certificate);
        let folder = tempfile::Builder::new().prefix("patgate-azure-").tempdir().unwrap();
        azure.write(folder.path());
        azure.put("ado", PAT);
        Self { azure, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn secret(&self) -> String {
        let file = self.path("client-secret");
        format!(
            "{{ method = \"client-secret\", tenant-id = \"{TENANT}\", client-id = \"{CLIENT}\", secret-file = \"{file}\" }}"
        )
    }

    fn lab(&self) -> String {
        format!("addresses = {}\nca = \"{}\"\n", self.azure.addresses(), self.path("azure-ca.pem"))
    }

    /// A key vault, and a credential in it.
    fn vault(&self, auth: &str) -> String {
        format!(
            "[vault.azure]\ntype = \"azure-key-vault\"\naddress = \"https://corp.vault.azure.net\"\n\
             auth = {auth}\nrefresh = \"1s\"\n{}[credential.azure]\nvault = \"azure\"\nsecret = \"ado\"\n\
             organizations = [\"contoso\"]\n",
            self.lab()
        )
    }

    /// A credential that makes its own tokens.
    fn entra(&self, auth: &str) -> String {
        format!(
            "[credential.azure]\ntype = \"entra\"\nauth = {auth}\norganizations = [\"contoso\"]\n{}",
            self.lab()
        )
    }

    /// No secret stands in anything that patgate leaves behind.
    fn assert_kept(&self, proxy: &TestProxy) {
        let log = proxy.path("patgate.log");
        let places: [&Path; 2] = [&log, &proxy.audit];
        let mut kept = vec![SECRET.to_owned(), IDENTITY_HEADER.into(), ROTATED.into(), "CANARYWORDS".into()];
        kept.extend((0..self.azure.tokens()).map(Azure::token));
        secrets::assert_absent(&kept.iter().map(String::as_str).collect::<Vec<_>>(), &places);
    }
}

fn proxy(toml: &str) -> TestProxy {
    setup().rules(RULES).with(toml).start()
}

fn tokens(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(Azure::token).collect()
}

fn accept(proxy: &TestProxy, tokens: &[String]) {
    proxy.organization().accept_entra(&tokens.iter().map(String::as_str).collect::<Vec<_>>());
}

fn clones(proxy: &TestProxy, name: &str) {
    proxy.git_ok(proxy.folder.path(), &["clone", "-q", &proxy.url("/contoso/web/_git/web"), name]);
    assert!(proxy.path(name).join(".git").is_dir());
}

const PROJECTS: &str = "/contoso/_apis/projects";

/// Waits until requests are answered with this status, and gives the record's detail of the last one.
fn until(proxy: &TestProxy, status: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (got, body) = proxy.get(PROJECTS, &[]);
        if got == status {
            return;
        }
        assert!(Instant::now() < deadline, "{got} {body}\n{}", proxy.log());
        thread::sleep(Duration::from_millis(100));
    }
}

/// A refusal with these words for operators.
fn refused(proxy: &TestProxy, status: u16, words: &str) {
    until(proxy, status);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !proxy.log().contains(words) {
        assert!(Instant::now() < deadline, "{words} stands nowhere:\n{}", proxy.log());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn git_clones_with_a_pat_from_key_vault_and_a_rotation_is_not_seen() {
    let cloud = Cloud::start(Certificate::Good);
    let proxy = proxy(&cloud.vault(&cloud.secret()));
    clones(&proxy, "first");
    cloud.azure.put("ado", ROTATED);
    proxy.organization().accept(&[ROTATED]);
    clones(&proxy, "second");
    let versions: Vec<_> = proxy
        .records()
        .iter()
        .filter_map(|record| Some(record.get("credential-version")?.as_str()?.to_owned()))
        .collect();
    for version in [0x5eed_0000, 0x5eed_0001] {
        assert!(versions.contains(&format!("{version:032x}")), "{versions:?}");
    }
    cloud.assert_kept(&proxy);
}

#[test]
fn git_clones_with_tokens_of_entra_and_a_refused_one_is_renewed() {
    let cloud = Cloud::start(Certificate::Good);
    let proxy = proxy(&cloud.entra(&cloud.secret()));
    accept(&proxy, &tokens(0..1));
    clones(&proxy, "first");
    accept(&proxy, &tokens(1..2));
    clones(&proxy, "second");
    assert_eq!(cloud.azure.tokens(), 2);
    let sent: Vec<_> =
        proxy.organization().seen().iter().flat_map(|seen| seen.authorization.clone()).collect();
    assert!(sent.iter().all(|sent| sent.starts_with("Bearer ")), "{sent:?}");
    cloud.assert_kept(&proxy);
}

#[test]
fn a_rotation_in_key_vault_costs_no_client_an_error() {
    let cloud = Cloud::start(Certificate::Good);
    let section = format!(
        "type = \"azure-key-vault\"\naddress = \"https://corp.vault.azure.net\"\nauth = {}\n{}",
        cloud.secret(),
        cloud.lab()
    );
    rotation::survives(&section, "ado", 10, |value| drop(cloud.azure.put("ado", value)));
}

#[test]
fn ten_tokens_of_entra_that_end_under_load_cost_no_client_an_error() {
    let cloud = Cloud::start(Certificate::Good);
    let proxy = proxy(&cloud.entra(&cloud.secret()));
    accept(&proxy, &tokens(0..1));
    until(&proxy, 200);
    let load = Load::of(proxy.address, 4, &Kind::Kept);
    for _ in 1..=10 {
        // A request that is tried again must not meet the next rotation as well: what is new lasts for a while.
        load.wait_for(50);
        // Whatever was given so far is good no more.
        let next = cloud.azure.tokens();
        accept(&proxy, &tokens(next..next + 3));
        let deadline = Instant::now() + Duration::from_secs(30);
        while cloud.azure.tokens() == next {
            assert!(Instant::now() < deadline, "no token was made anew\n{}", proxy.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
    load.wait_for(50);
    let (done, lost) = load.end();
    assert!(done > 500 && lost.is_empty(), "{} of {done} lost: {lost:?}\n{}", lost.len(), proxy.log());
    cloud.assert_kept(&proxy);
}

#[test]
fn what_is_configured_can_be_tried_without_showing_it() {
    let cloud = Cloud::start(Certificate::Good);
    for (toml, words) in [
        (cloud.vault(&cloud.secret()), "azure: ok, from vault azure: "),
        (cloud.entra(&cloud.secret()), "azure: ok, from vault entra: token of Entra"),
    ] {
        let mut proxy = proxy(&toml);
        assert_eq!(proxy.stop(), Some(0));
        let tried =
            patgate().args(["vault", "test", "--config"]).arg(proxy.config()).arg("azure").output().unwrap();
        let text = text(&tried);
        assert!(tried.status.success() && text.contains(words), "{text}");
        assert!(!text.contains("CANARY"), "{text}");
    }
}

#[test]
fn a_token_that_ends_is_renewed_before_that() {
    let cloud = Cloud::start(Certificate::Good);
    cloud.azure.tokens_last(4);
    let proxy = proxy(&cloud.entra(&cloud.secret()));
    accept(&proxy, &tokens(0..100));
    let deadline = Instant::now() + Duration::from_mins(1);
    while cloud.azure.tokens() < 4 {
        assert_eq!(proxy.get(PROJECTS, &[]).0, 200, "{}", proxy.log());
        assert!(Instant::now() < deadline, "{} tokens", cloud.azure.tokens());
        thread::sleep(Duration::from_millis(50));
    }
    // One that has come to its end is not used, whatever `stale-for` says.
    cloud.azure.authority_behaves(Behaviour::Status(503, "x"));
    until(&proxy, 503);
    cloud.azure.authority_behaves(Behaviour::Sound);
    until(&proxy, 200);
    cloud.assert_kept(&proxy);
}

#[test]
fn a_header_that_echoes_the_token_does_not_reach_the_client() {
    let cloud = Cloud::start(Certificate::Good);
    let proxy = proxy(&cloud.entra(&cloud.secret()));
    accept(&proxy, &tokens(0..1));
    let output = proxy.curl("/contoso/_apis/sample/echo?credential=header", &["-i"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.is_empty() && !text.contains("CANARYTOKEN"), "{text}");
}

#[test]
fn every_identity_of_a_platform_brings_a_clone() {
    let cloud = Cloud::start(Certificate::Good);
    let (certificate, key) = cloud.azure.register_certificate();
    fs::write(cloud.path("app.pem"), certificate).unwrap();
    stand_in::private(Path::new(&cloud.path("app.key")), &key);
    fs::write(cloud.path("token"), cloud.azure.federate()).unwrap();
    let certified = format!(
        "{{ method = \"client-certificate\", tenant-id = \"{TENANT}\", client-id = \"{CLIENT}\", certificate = \
         \"{}\", key = \"{}\" }}",
        cloud.path("app.pem"),
        cloud.path("app.key")
    );
    let app_service = format!("http://127.0.0.1:{}/msi/token", cloud.azure.metadata.port());
    let aks = [
        ("AZURE_TENANT_ID", TENANT.to_owned()),
        ("AZURE_CLIENT_ID", CLIENT.to_owned()),
        ("AZURE_FEDERATED_TOKEN_FILE", cloud.path("token")),
    ];
    let platform = [("IDENTITY_ENDPOINT", app_service), ("IDENTITY_HEADER", IDENTITY_HEADER.to_owned())];
    let az = script(&cloud);
    for (auth, environment) in [
        ("{ method = \"managed-identity\" }", &[][..]),
        ("{ method = \"managed-identity\" }", &platform[..]),
        ("{ method = \"workload-identity\" }", &aks[..]),
        (&certified, &[]),
        ("{ method = \"azure-cli\" }", &[("PATH", az), ("STRAY", "stray".to_owned())]),
    ] {
        let mut proxy = proxy(&cloud.vault(&cloud.secret()));
        assert_eq!(proxy.stop(), Some(0));
        let config = fs::read_to_string(proxy.config()).unwrap();
        fs::write(proxy.config(), config.replace(&cloud.secret(), auth)).unwrap();
        proxy.launch_with(|command| {
            command.envs(environment.iter().map(|(name, value)| (name, value)));
        });
        clones(&proxy, "clone");
        cloud.assert_kept(&proxy);
    }
}

/// A folder with an `az` that prints a token as the real one does, and the rest of the path behind it.
fn script(cloud: &Cloud) -> String {
    let folder = cloud.folder.path().join("bin");
    fs::create_dir(&folder).unwrap();
    let az = folder.join("az");
    // The vault takes tokens that its authority gave; so this one asks for one.
    let text = format!(
        "#!/bin/sh\n\
         test \"$*\" = \"account get-access-token -o json --scope https://vault.azure.net/.default\" || exit 9\n\
         test -z \"$STRAY\" || exit 8\n\
         exec curl -s -H Metadata:true 'http://{}/metadata/identity/oauth2/token?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net' \
         | sed 's/\"access_token\":/\"accessToken\":/; s/\"expires_on\":\"\\([0-9]*\\)\"/\"expires_on\":\\1/; s/\"token_type\":/\"tokenType\":/'\n",
        cloud.azure.metadata
    );
    fs::write(&az, text).unwrap();
    fs::set_permissions(&az, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_secret_that_may_not_be_used_is_refused_with_the_reason() {
    let cloud = Cloud::start(Certificate::Good);
    let now = jiff::Timestamp::now().as_second();
    let proxy = proxy(&cloud.vault(&cloud.secret()));
    until(&proxy, 200);
    for (change, words) in [
        ((false, None, None), "the secret is disabled"),
        ((true, Some(now + 3600), None), "the secret is not valid before 2"),
        ((true, None, Some(now - 60)), "the secret expired on 2"),
    ] {
        cloud.azure.change("ado", |version| (version.enabled, version.not_before, version.expires) = change);
        refused(&proxy, 424, words);
        cloud.azure.change("ado", |version| {
            (version.enabled, version.not_before, version.expires) = (true, None, None);
        });
        until(&proxy, 200);
    }
    cloud.azure.grant(false);
    refused(&proxy, 424, "403 ForbiddenByRbac");
    cloud.azure.grant(true);
    until(&proxy, 200);
    clones(&proxy, "recovered");
    cloud.assert_kept(&proxy);
}

#[test]
fn a_vault_in_trouble_is_bridged_and_recovers() {
    let cloud = Cloud::start(Certificate::Good);
    let proxy = proxy(&cloud.vault(&cloud.secret()));
    until(&proxy, 200);
    for behaviour in [
        Behaviour::Hang,
        Behaviour::Status(500, "x"),
        Behaviour::HalfABody,
        Behaviour::WrongJson,
        Behaviour::TenMegabytes,
        Behaviour::Redirect,
        Behaviour::Throttle(1),
    ] {
        for behaviour in [behaviour, Behaviour::Sound] {
            cloud.azure.vault_behaves(behaviour);
            let asked = cloud.azure.seen().len();
            let deadline = Instant::now() + Duration::from_secs(30);
            while cloud.azure.seen().len() == asked {
                assert_eq!(proxy.get(PROJECTS, &[]).0, 200, "{behaviour:?}");
                assert!(Instant::now() < deadline, "{behaviour:?}: it is not asked");
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
    clones(&proxy, "after");
    cloud.assert_kept(&proxy);
}

#[test]
fn what_is_not_the_vault_gets_no_token_and_gives_no_credential() {
    for (certificate, behaviour, words) in [
        (Certificate::Expired, Behaviour::Sound, "no connection"),
        (Certificate::OfAnotherName, Behaviour::Sound, "no connection"),
        (Certificate::Good, Behaviour::OtherResource, "its challenge asks for a token for another service"),
    ] {
        let cloud = Cloud::start(certificate);
        cloud.azure.vault_behaves(behaviour);
        let proxy = proxy(&cloud.vault(&cloud.secret()));
        refused(&proxy, 503, words);
        assert_eq!(cloud.azure.tokens(), 0, "{certificate:?}");
        cloud.assert_kept(&proxy);
    }
}

#[test]
fn an_identity_that_entra_refuses_is_named_by_its_code() {
    let cloud = Cloud::start(Certificate::Good);
    cloud.azure.rotate_secret("another");
    let proxy = proxy(&cloud.entra(&cloud.secret()));
    refused(&proxy, 424, "the secret of the application is wrong (AADSTS7000215)");
    cloud.azure.rotate_secret(SECRET);
    accept(&proxy, &tokens(0..9));
    until(&proxy, 200);
    cloud.assert_kept(&proxy);
}
