use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

fn secret(value: &str) -> SecretString {
    value.to_owned().into()
}

fn new_key(folder: &Path) -> SealedKey {
    let path = folder.join("vault.key");
    generate_key(&path).unwrap();
    SealedKey::File(path)
}

pub(super) fn stored(vault: &Path, key: &SealedKey, name: &str) -> Result<String, VaultError> {
    let fetched = Sealed::open(vault, key).unwrap().read(name)?;
    Ok(token::exposed(&fetched.value).to_owned())
}

#[test]
fn what_was_put_is_found_and_the_file_does_not_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let (vault, key) = (folder.path().join("vault.age"), new_key(folder.path()));
    put(&vault, &key, "one", &secret("canary-one"), None).unwrap();
    put(&vault, &key, "two", &secret("canary-\"two\""), None).unwrap();
    put(&vault, &key, "one", &secret("canary-new"), None).unwrap();
    assert_eq!(stored(&vault, &key, "one").unwrap(), "canary-new");
    assert_eq!(stored(&vault, &key, "two").unwrap(), "canary-\"two\"");
    assert_eq!(names(&vault, &key).unwrap(), ["one", "two"]);
    let bytes = fs::read(&vault).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"canary"));
    assert_eq!(fs::metadata(&vault).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn a_passphrase_opens_what_it_sealed_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let vault = folder.path().join("vault.age");
    let passphrase = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        SealedKey::Passphrase(path)
    };
    let key = passphrase("right", "correct horse battery\n");
    put(&vault, &key, "one", &secret("canary"), None).unwrap();
    assert_eq!(stored(&vault, &key, "one").unwrap(), "canary");
    for wrong in [passphrase("wrong", "correct horse"), new_key(folder.path())] {
        assert!(matches!(stored(&vault, &wrong, "one"), Err(VaultError::Unavailable(_))));
        assert!(matches!(put(&vault, &wrong, "two", &secret("x"), None), Err(SealedError::Locked(_))));
    }
    assert_eq!(stored(&vault, &key, "one").unwrap(), "canary");
}

#[test]
fn a_broken_vault_is_trouble_and_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (vault, key) = (folder.path().join("vault.age"), new_key(folder.path()));
    put(&vault, &key, "one", &secret("canary"), None).unwrap();
    let whole = fs::read(&vault).unwrap();
    let mut altered = whole.clone();
    *altered.last_mut().unwrap() ^= 1;
    for content in [b"".as_slice(), b"age", &whole[..whole.len() / 2], &whole[..whole.len() - 1], &altered] {
        fs::write(&vault, content).unwrap();
        assert!(matches!(stored(&vault, &key, "one"), Err(VaultError::Unavailable(_))));
        assert!(put(&vault, &key, "two", &secret("x"), None).is_err());
        assert_eq!(fs::read(&vault).unwrap(), content);
    }
}

#[test]
fn an_unusable_secret_or_name_is_not_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let (vault, key) = (folder.path().join("vault.age"), new_key(folder.path()));
    for value in ["", "a b", "{\"pat\":1}"] {
        assert!(
            matches!(put(&vault, &key, "one", &secret(value), None), Err(SealedError::Secret(_))),
            "{value}"
        );
    }
    for name in ["", "a\nb", &"n".repeat(LONGEST_NAME + 1)] {
        assert!(matches!(put(&vault, &key, name, &secret("x"), None), Err(SealedError::Name)), "{name}");
    }
    assert!(!vault.exists());
}

#[test]
fn two_that_seal_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (vault, key) = (folder.path().join("vault.age"), new_key(folder.path()));
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (vault, key) = (&vault, &key);
            scope.spawn(move || put(vault, key, &format!("n{n}"), &secret("canary"), None).unwrap());
        }
    });
    assert_eq!(names(&vault, &key).unwrap().len(), 8);
}
#[tokio::test]
async fn the_previous_value_is_read_and_a_written_one_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (vault, key) = (folder.path().join("vault.age"), new_key(folder.path()));
    let expires: Timestamp = "2099-12-31T00:00:00Z".parse().unwrap();
    put(&vault, &key, "web", &secret("canary-one"), Some(expires)).unwrap();
    let source = Sealed::open(&vault, &key).unwrap();
    let text = |fetched: Fetched| {
        (token::exposed(&fetched.value).to_owned(), fetched.version, fetched.facts.expires)
    };
    assert!(matches!(source.fetch_previous("web").await, Err(VaultError::Denied(_))));
    let one = ("canary-one".to_owned(), Some("1".into()), Some(expires));
    assert_eq!(text(source.fetch("web").await.unwrap()), one);

    let before = source.stamp("web").await.unwrap();
    assert_eq!(source.write("web", &secret("canary-two")).await.unwrap(), Some("2".into()));
    assert_ne!(source.stamp("web").await.unwrap(), before);
    let two = ("canary-two".to_owned(), Some("2".into()), None);
    assert_eq!(text(source.fetch("web").await.unwrap()), two);
    assert_eq!(text(source.fetch_previous("web").await.unwrap()), one);
    assert_eq!(source.write("web", &secret("canary-two")).await.unwrap(), Some("2".into()), "as it was");
    assert_eq!(text(source.fetch_previous("web").await.unwrap()), one);
    assert_eq!(source.write("new", &secret("canary-three")).await.unwrap(), Some("3".into()));

    for (name, value, verdict) in [("web", "no token", "unusable"), ("a\nb", "canary", "denied")] {
        let found = match source.write(name, &secret(value)).await {
            Err(VaultError::Unusable(_)) => "unusable",
            Err(VaultError::Denied(_)) => "denied",
            other => panic!("{other:?}"),
        };
        assert_eq!(found, verdict);
    }
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(matches!(
        source.write("web", &secret("x")).await,
        Err(VaultError::Unavailable(_) | VaultError::Denied(_))
    ));
}

#[test]
fn a_vault_of_the_first_format_is_opened_and_becomes_one_of_the_present() {
    let folder = tempfile::tempdir().unwrap();
    let (vault, key) = (folder.path().join("vault.age"), new_key(folder.path()));
    let recipient = key::public(&Key::read(&key).unwrap().public()[0]).unwrap();
    let old = age::encrypt(&recipient, br#"{"web":"canary"}"#).unwrap();
    fs::write(&vault, old).unwrap();
    fs::set_permissions(&vault, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(stored(&vault, &key, "web").unwrap(), "canary");
    let listed = list(&vault, &key).unwrap();
    assert_eq!((listed[0].version, listed[0].sealed), (None, None));
    put(&vault, &key, "web", &secret("canary-new"), None).unwrap();
    let listed = list(&vault, &key).unwrap();
    assert_eq!((listed[0].version, listed[0].previous), (Some(1), Some((None, None))));
    assert_eq!(recipients(&vault, &key).unwrap().all.len(), 1);
    let newer = age::encrypt(&recipient, b"patgate-vault 3\n{}").unwrap();
    fs::write(&vault, newer).unwrap();
    let error = put(&vault, &key, "web", &secret("x"), None).unwrap_err();
    assert!(matches!(error, SealedError::Newer(_, 3)), "{error}");
}
