//! Whole configurations: the bad ones with their exact text, the shipped ones, and arbitrary ones.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::{Config, Durability, RuleClients, RuleVerdict, SealedKey, Vault, file, unreloadable};

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
