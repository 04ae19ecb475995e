//! What every source of secrets has to keep, run over each of them. A new source adds one line to [`all`].

use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    FingerprintKey, SecretSource, Token, VaultError,
    environment::Environment,
    fetch_token,
    file::File,
    sealed::{self, Sealed},
};
use crate::config::{CredentialSource, SealedKey};

/// A source with somebody who fills it.
trait Filled {
    fn source(&self) -> Box<dyn SecretSource>;
    /// Puts a value in, whatever it is, and says by what name it is read.
    fn put(&self, name: &str, value: &[u8]) -> String;
    /// Forbids patgate to read it. `false` where there is no such thing.
    fn forbid(&self, name: &str) -> bool;
}

fn all(folder: &Path) -> Vec<(&'static str, Box<dyn Filled>)> {
    let key = SealedKey::File(folder.join("vault.key"));
    sealed::generate_key(&folder.join("vault.key")).unwrap();
    vec![
        ("environment", Box::new(Variables) as Box<dyn Filled>),
        ("file", Box::new(Files(folder.to_owned()))),
        ("sealed", Box::new(SealedFile { path: folder.join("vault.age"), key })),
    ]
}

thread_local! {
    static VARIABLES: RefCell<HashMap<String, OsString>> = RefCell::default();
}

struct Variables;

impl Filled for Variables {
    fn source(&self) -> Box<dyn SecretSource> {
        Box::new(Environment::of(|name| VARIABLES.with_borrow(|all| all.get(name).cloned())))
    }
    fn put(&self, name: &str, value: &[u8]) -> String {
        use std::os::unix::ffi::OsStringExt as _;
        let value = OsString::from_vec(value.to_vec());
        VARIABLES.with_borrow_mut(|all| all.insert(name.to_owned(), value));
        name.to_owned()
    }
    fn forbid(&self, _: &str) -> bool {
        false
    }
}

struct Files(PathBuf);

impl Filled for Files {
    fn source(&self) -> Box<dyn SecretSource> {
        Box::new(File::new())
    }
    fn put(&self, name: &str, value: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, value).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }
    fn forbid(&self, name: &str) -> bool {
        fs::set_permissions(name, fs::Permissions::from_mode(0o640)).unwrap();
        true
    }
}

struct SealedFile {
    path: PathBuf,
    key: SealedKey,
}

impl Filled for SealedFile {
    fn source(&self) -> Box<dyn SecretSource> {
        Box::new(Sealed::open(&self.path, &self.key).unwrap())
    }
    fn put(&self, name: &str, value: &[u8]) -> String {
        sealed::put_anything(&self.path, &self.key, name, &String::from_utf8_lossy(value));
        name.to_owned()
    }
    fn forbid(&self, _: &str) -> bool {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o644)).unwrap();
        true
    }
}

async fn fetch(source: &dyn SecretSource, name: &str) -> Result<Token, VaultError> {
    let from = CredentialSource::Vault { vault: "v".into(), secret: name.into() };
    fetch_token(source, &from, &FingerprintKey::new(&[1; 32])).await.map(|got| got.token)
}

#[tokio::test]
async fn every_source_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, filled) in all(folder.path()) {
        let source = filled.source();
        let name = filled.put("good", b"canary-first");
        let first = fetch(&*source, &name).await.unwrap();
        assert!(first.occurs_in(b"<canary-first>"), "{kind}: the right value");

        filled.put("good", b"canary-second");
        let second = fetch(&*source, &name).await.unwrap();
        assert!(second.occurs_in(b"canary-second") && !second.is(&first), "{kind}: a change is seen");

        for absent in ["absent", "", "with=sign", "/nowhere/at/all"] {
            let missing = fetch(&*source, absent).await;
            assert!(matches!(missing, Err(VaultError::Denied(_))), "{kind}: {absent:?}: {missing:?}");
        }

        let huge = vec![b'a'; 200_000];
        for garbage in [
            b"".as_slice(),
            b"\n",
            b"canary with spaces",
            b"canary\ncanary",
            b"{\"canary\":1}",
            b"canary\xff\xfe",
            &huge,
        ] {
            let name = filled.put("garbage", garbage);
            match fetch(&*source, &name).await {
                Err(VaultError::Unusable(why)) => {
                    assert!(!why.contains("canary") && !why.contains("aaaa"), "{kind}: {why}");
                }
                other => panic!("{kind}: {:?}: {other:?}", String::from_utf8_lossy(garbage)),
            }
        }

        if filled.forbid(&name) {
            let forbidden = fetch(&*source, &name).await;
            assert!(matches!(forbidden, Err(VaultError::Denied(_))), "{kind}: {forbidden:?}");
        }
    }
}
