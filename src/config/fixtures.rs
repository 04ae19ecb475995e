//! Whole configurations: the bad ones with their exact text, the shipped ones, and arbitrary ones.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::{
    Config, Durability, RuleClients, RuleVerdict, Sealed, SealedKey, VaultSource, file, unreloadable,
};

/// Where configurations of the tests live: a folder with the files that they name.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.certificate("certs/server", (2098, 1, 1));
        desk.certificate("certs/other", (2098, 1, 1));
        desk.certificate("certs/expired", (2020, 2, 1));
        desk.put("certs/ca.pem", &fs::read(desk.path("certs/server.pem")).unwrap(), 0o644);
        desk.put("certs/open.key", &fs::read(desk.path("certs/server.key")).unwrap(), 0o644);
        desk.put("certs/garbage.pem", b"no certificate", 0o600);
        desk.put("vault.sealed", b"sealed", 0o600);
        desk.put("vault.key", b"a key", 0o600);
        desk.put("open.key", b"a key", 0o644);
        fs::create_dir(desk.path("rules.d")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, content: &[u8], mode: u32) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// `NAME.pem` and `NAME.key`.
    fn certificate(&self, name: &str, (year, month, day): (i32, u8, u8)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        let certificate = params.self_signed(&key).unwrap();
        self.put(&format!("{name}.pem"), certificate.pem().as_bytes(), 0o644);
        self.put(&format!("{name}.key"), key.serialize_pem().as_bytes(), 0o600);
    }

    fn read(&self, text: &str) -> Result<Config, String> {
        self.put("patgate.toml", text.as_bytes(), 0o644);
        self.read_file("patgate.toml")
    }

    /// Problems as text, without the folder's own path.
    fn read_file(&self, name: &str) -> Result<Config, String> {
        let folder = format!("{}/", self.0.path().display());
        file::read(&self.path(name)).map_err(|problems| problems.to_string().replace(&folder, ""))
    }
}

#[test]
fn each_bad_configuration_gets_exactly_its_text() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config/bad");
    let bless = std::env::var_os("PATGATE_BLESS").is_some();
    let mut names: Vec<_> = fs::read_dir(&fixtures)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension() == Some(OsStr::new("toml")))
        .collect();
    names.sort();
    assert!(names.len() >= 25, "{} fixtures", names.len());
    let mut wrong = Vec::new();
    for path in names {
        let desk = Desk::new();
        let name = path.file_name().unwrap().to_str().unwrap();
        desk.put(name, &fs::read(&path).unwrap(), 0o644);
        for entry in fs::read_dir(path.with_extension("d")).into_iter().flatten() {
            let included = entry.unwrap().path();
            let file = included.file_name().unwrap().to_str().unwrap();
            desk.put(&format!("rules.d/{file}"), &fs::read(&included).unwrap(), 0o644);
        }
        let text = match desk.read_file(name) {
            Ok(_) => "nothing is wrong\n".into(),
            Err(text) => format!("{text}\n"),
        };
        let expected = path.with_extension("expected");
        if bless {
            fs::write(&expected, &text).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != text || text.starts_with("nothing") {
            wrong.push(format!("{name}:\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_shipped_configuration_is_read_without_a_warning() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for name in ["minimal.toml", "full.toml", "lab.toml"] {
        let desk = Desk::new();
        desk.put("rules.d/web.toml", b"[client.web]\naddresses = [\"10.30.0.0/16\"]\n", 0o644);
        let config = desk.read(&fs::read_to_string(shipped.join(name)).unwrap());
        let config = config.unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_eq!(config.warnings, [], "{name}");
    }
}

const SMALL: &str = r#"
public-url = "http://127.0.0.1:8080"
include    = ["rules.d/*.toml"]
[[listen]]
address = "127.0.0.1:8080"
[audit]
folder = "audit"
[vault.environment]
type = "environment"
[credential.web]
vault         = "environment"
secret        = "ADO_PAT"
organizations = ["Contoso"]
[client.agents]
addresses = ["10.20.0.0/16"]
[[rule]]
name       = "agents read web"
clients    = ["agents"]
paths      = ["/contoso/web/**"]
allow      = ["GET"]
credential = "web"
"#;

/// A configuration as `SMALL`, with one text in place of another.
fn small(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    SMALL.replacen(from, to, 1)
}

#[test]
fn what_is_left_out_has_its_documented_value() {
    let desk = Desk::new();
    let config = desk.read(&small("include    = [\"rules.d/*.toml\"]\n", "")).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.public_url.to_string(), "http://127.0.0.1:8080");
    assert_eq!(config.listeners[0].public_url, config.public_url);
    assert!(!config.listeners[0].http2 && config.listeners[0].tls.is_none() && config.admin.is_none());
    assert_eq!(config.audit.folder, desk.path("audit"));
    assert_eq!(config.audit.durability, Durability::Disk);
    assert_eq!(config.audit.segment_size, 256 << 20);
    assert_eq!(config.limits.in_flight, 4_096);
    assert_eq!(config.vaults["environment"].lifetime.refresh.as_secs(), 300);
    assert_eq!(*config.credentials["web"].organizations[0], *"contoso");
    assert_eq!(config.file, desk.path("patgate.toml"));
    assert_eq!(config.sources, [desk.path("patgate.toml")]);
}

#[test]
fn the_full_configuration_arrives_whole() {
    let desk = Desk::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/full.toml");
    let config = desk.read(&fs::read_to_string(shipped).unwrap()).unwrap();
    let tls = config.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.server.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert_eq!(config.listeners[1].public_url.to_string(), "http://127.0.0.1:8080");
    assert_eq!(config.outbound.proxy.as_ref().unwrap(), "proxy.corp.example:8080");
    assert!(matches!(
        &config.vaults["local"].source,
        VaultSource::Sealed(Sealed { path, key: SealedKey::File(key) })
            if *path == desk.path("vault.sealed") && *key == desk.path("vault.key")
    ));
    assert_eq!(
        *config.credentials["web-write"].source.secret(),
        *desk.path("secrets/web-write").to_str().unwrap()
    );
    assert!(matches!(config.rules[0].clients, RuleClients::Any));
    assert!(matches!(&config.rules[0].verdict, RuleVerdict::Deny(actions) if actions.len() == 1));
    assert!(matches!(&config.rules[2].verdict, RuleVerdict::Allow(_, it) if *it.first.name == *"web-write"));
    assert!(config.rules[2].until.is_some() && config.rules[0].help.is_some());
    assert!(config.expects[0].allowed && !config.expects[1].allowed);
    for name in ["patgate.toml", "certs/server.pem", "certs/server.key", "vault.key"] {
        assert!(config.sources.contains(&desk.path(name)), "{name}");
    }
}

#[test]
fn included_rules_follow_in_the_order_of_their_paths() {
    let desk = Desk::new();
    for name in ["b", "a", ".hidden"] {
        let text = format!("[[rule]]\nname = \"{name}\"\nclients = [\"*\"]\ndeny = [\"GET\"]\n");
        desk.put(&format!("rules.d/{name}.toml"), text.as_bytes(), 0o644);
    }
    let config = desk.read(SMALL).unwrap();
    let names: Vec<_> = config.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["agents read web", "a", "b"]);
}

#[test]
fn a_file_that_is_added_or_changed_shows_in_sources_and_hash() {
    let desk = Desk::new();
    let first = desk.read(SMALL).unwrap();
    desk.put("rules.d/a.toml", b"# nothing yet\n", 0o644);
    let second = desk.read(SMALL).unwrap();
    assert!(second.sources.contains(&desk.path("rules.d/a.toml")));
    assert_ne!(first.hash, second.hash);
    assert_eq!(second.hash, desk.read(SMALL).unwrap().hash);
    desk.put("patgate.toml", small("address = ", "adress = ").as_bytes(), 0o644);
    assert_eq!(file::sources(&desk.path("patgate.toml")), second.sources);
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let soon =
        jiff::Timestamp::try_from(crate::clock::wall()).unwrap() + jiff::SignedDuration::from_hours(120);
    let soon = jiff::tz::Offset::UTC.to_datetime(soon).date();
    let desk = Desk::new();
    let (month, day) = (soon.month().unsigned_abs(), soon.day().unsigned_abs());
    desk.certificate("certs/soon", (i32::from(soon.year()), month, day));
    let tls = "8080\"\ncertificate = \"certs/soon.pem\"\nkey = \"certs/soon.key\"\n[audit]";
    let without = small("include    = [\"rules.d/*.toml\"]\n", "");
    for (text, key, part) in [
        (SMALL.to_owned(), "include", "no file that is there"),
        (without.replacen("8080\"\n[audit]", tls, 1), "listen.certificate", "expires on"),
        (format!("{without}until = 2020-01-01\n"), "rule.until", "not in force"),
        (without.replacen("10.20.0.0/16", "::/0", 1), "client.agents.addresses", "every address"),
        (
            without.replacen("secret  ", "expires = 2020-01-01\nsecret  ", 1),
            "credential.web.expires",
            "expired",
        ),
        (
            without.replacen("[\"Contoso\"]", "[\"contoso\", \"fabrikam\"]", 1),
            "credential.web.organizations",
            "1 December 2026",
        ),
        (format!("{without}[client.idle]\naddresses = [\"::1\"]\n"), "client.idle", "no rule names"),
        (
            without.replacen("allow      = [\"GET\"]\ncredential = \"web\"", "deny = [\"GET\"]", 1),
            "credential.web",
            "no rule uses",
        ),
    ] {
        let warnings = desk.read(&text).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{key}: {warnings:?}");
        assert_eq!(warnings[0].key, key);
        assert!(warnings[0].text.contains(part), "{}", warnings[0]);
    }
}

#[test]
fn patterns_and_actions_are_blamed_where_they_stand() {
    let desk = Desk::new();
    let text = small("[\"/contoso/web/**\"]", "[\"contoso\"]").replacen("[\"GET\"]", "[\"fetch it\"]", 1);
    let problems = desk.read(&text).unwrap_err();
    let places: Vec<_> = problems.lines().filter_map(|line| line.get(..29)).collect();
    assert_eq!(places, ["patgate.toml:19:15: rule.path", "patgate.toml:20:15: rule.allo"], "{problems}");
}

#[test]
fn a_key_of_the_owner_alone_is_accepted_and_one_of_the_group_is_not() {
    for (mode, accepted) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
        let desk = Desk::new();
        desk.put("vault.key", b"a key", mode);
        let vault = "[vault.v]\ntype = \"sealed\"\npath = \"vault.sealed\"\nkey = \"vault.key\"\n";
        assert_eq!(desk.read(&format!("{SMALL}{vault}")).is_ok(), accepted, "{mode:o}");
    }
}

#[test]
fn only_what_a_reload_can_change_is_not_named() {
    let desk = Desk::new();
    let old = desk.read(SMALL).unwrap();
    for (from, to, expected) in [
        ("10.20.0.0/16", "10.21.0.0/16", None),
        ("allow      = [\"GET\"]", "allow      = [\"POST\"]", None),
        ("ADO_PAT", "OTHER_PAT", None),
        ("[audit]", "[limits]\nhead = \"1s\"\n[audit]", None),
        ("type = \"environment\"", "type = \"file\"", None),
        ("[audit]", "http2 = true\n[audit]", Some("listen.http2")),
        ("address = \"127.0.0.1:8080\"", "address = \"127.0.0.1:8081\"", Some("listen.address")),
        ("[audit]", "[[listen]]\naddress = \"[::1]:8080\"\n[audit]", Some("listen")),
        ("[audit]", "[admin]\naddress = \"127.0.0.1:9443\"\n[audit]", Some("admin.address")),
        ("[audit]", "[admin]\nsocket = \"admin.sock\"\n[audit]", Some("admin.socket")),
        ("[audit]", "[state]\nfolder = \"state\"\n[audit]", Some("state.folder")),
        ("[audit]", "[audit]\ndurability = \"os\"", Some("audit.durability")),
        ("include ", "workers = 1000\ninclude ", Some("workers")),
        ("[audit]", "[outbound]\nproxy = \"http://p:1\"\n[audit]", Some("outbound.proxy")),
        (
            "[audit]",
            "[upstream]\naddresses = { \"dev.azure.com\" = \"127.0.0.1:1\" }\n[audit]",
            Some("upstream.addresses"),
        ),
        ("[audit]", "public-url = \"http://other\"\n[audit]", Some("listen.public-url")),
    ] {
        let new = desk.read(&small(from, to)).unwrap();
        assert_eq!(unreloadable(&old, &new), expected.into_iter().collect::<Vec<_>>(), "{to}");
    }
}

#[test]
fn the_socket_is_for_root_and_the_own_user_unless_others_are_named() {
    let desk = Desk::new();
    let own = rustix::process::geteuid().as_raw();
    let mut usual = vec![0, own];
    usual.dedup();
    for (admins, expected) in
        [("", usual), ("admins = [\"root\"]", vec![0]), ("admins = [4001, \"root\"]", vec![4001, 0])]
    {
        let admin = format!("[admin]\nsocket = \"run/admin.sock\"\n{admins}\n[audit]");
        let socket = desk.read(&small("[audit]", &admin)).unwrap().admin.unwrap().socket.unwrap();
        assert_eq!(socket.admins, expected, "{admins}");
        assert_eq!(socket.is_shared(), expected.contains(&4001), "{admins}");
        assert_eq!(socket.path, desk.path("run/admin.sock"));
    }
}

#[test]
fn a_configuration_that_is_not_there_is_one_problem() {
    let desk = Desk::new();
    for (name, text) in [
        ("absent.toml", "absent.toml:1:1: file: can't be read (no such file or folder)"),
        ("certs", "certs:1:1: file: is not a regular file"),
    ] {
        let problems = desk.read_file(name).unwrap_err();
        assert_eq!(problems, format!("{text}; name a TOML file that patgate may read"));
    }
}

#[test]
fn a_sealed_vault_takes_its_key_from_one_of_three_places() {
    let desk = Desk::new();
    for (key, expected) in [
        ("key = \"vault.key\"", SealedKey::File(desk.path("vault.key"))),
        ("passphrase-file = \"vault.key\"", SealedKey::Passphrase(desk.path("vault.key"))),
        ("key-credential = \"patgate-vault-key\"", SealedKey::Systemd("patgate-vault-key".into())),
    ] {
        let vault = format!(
            "{SMALL}[vault.v]\ntype = \"sealed\"\npath = \"vault.sealed\"\n{key}\nstale-for = \"8h\"\n"
        );
        let config = desk.read(&vault).unwrap();
        let VaultSource::Sealed(Sealed { key, .. }) = &config.vaults["v"].source else { panic!("{key}") };
        assert_eq!(*key, expected);
        assert_eq!(config.vaults["v"].lifetime.stale_for.as_secs(), 8 * 60 * 60);
    }
}

#[test]
fn a_document_nested_beyond_reason_is_refused() {
    let desk = Desk::new();
    for text in ["[".repeat(100_000), format!("a = {}", "[".repeat(100_000)), "a.".repeat(100_000) + "b = 1"]
    {
        assert!(desk.read(&text).is_err());
    }
}

proptest! {
    #[test]
    fn arbitrary_text_is_read_without_a_panic(text in "\\PC{0,200}|[\\[\\]{}=\".#a-z0-9\n, -]{0,300}") {
        let desk = tempfile::tempdir().unwrap();
        let path = desk.path().join("patgate.toml");
        fs::write(&path, &text).unwrap();
        prop_assert!(file::read(&path).is_err());
    }

    #[test]
    fn a_damaged_configuration_is_read_without_a_panic(at in 0..SMALL.len(), cut in 0_usize..40, with in "\\PC{0,12}") {
        let mut text = SMALL.to_owned();
        text.replace_range(at..(at + cut).min(SMALL.len()), &with);
        let desk = tempfile::tempdir().unwrap();
        let path = desk.path().join("patgate.toml");
        fs::write(&path, &text).unwrap();
        if let Err(problems) = file::read(&path) {
            prop_assert!(!problems.0.is_empty());
        }
    }
}
