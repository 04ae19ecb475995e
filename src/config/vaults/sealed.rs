//! `type = "sealed"`: a local file of secrets, encrypted for a key.

use std::{path::PathBuf, sync::Arc};

use super::{
    super::{
        disk::{self, Base},
        parse::{Fields, Item},
        units,
    },
    VaultSource,
};

/// A local file of secrets, encrypted for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The file.
    pub path: PathBuf,
    /// Where the key comes from.
    pub key: SealedKey,
}

/// The key of a sealed vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedKey {
    /// `key = "vault.key"`: an age identity in a file that nobody else may read.
    File(PathBuf),
    /// `key-credential = "patgate-vault-key"`: the same, as a credential of systemd (`$CREDENTIALS_DIRECTORY`).
    Systemd(String),
    /// `passphrase-file = "…"`: a passphrase in a file that nobody else may read.
    Passphrase(PathBuf),
}

/// The keys of a sealed vault.
pub(super) fn read(fields: &Fields<'_>, base: &Base) -> Option<VaultSource> {
    let path =
        fields.required("path", "write path = \"vault.sealed\", the file that `patgate vault seal` makes");
    let path = path.and_then(|item| {
        let path = base.path(&item)?;
        disk::readable(&item, &path, "make it with `patgate vault seal`").then_some(path)
    });
    let keys: Vec<_> = ["key", "key-credential", "passphrase-file"]
        .into_iter()
        .filter_map(|name| fields.optional(name).map(|item| (name, item)))
        .collect();
    let right = "name one of key, key-credential and passphrase-file";
    if let [_, rest @ ..] = keys.as_slice() {
        for (_, item) in rest {
            item.problem(format!("is a second source of the vault's key; {right}"));
        }
    }
    let Some((name, item)) = keys.first() else {
        fields.absence(format!("has no source of its key; {right}"));
        return None;
    };
    let private = |right| {
        let path = base.path(item)?;
        let content = disk::read_named(item, &path, right)?;
        drop(zeroize::Zeroizing::new(content));
        disk::private(item, &path);
        Some(path)
    };
    let key = match *name {
        "key" => SealedKey::File(private("name the file of the vault's age identity")?),
        "passphrase-file" => SealedKey::Passphrase(private("name the file of the vault's passphrase")?),
        _ => SealedKey::Systemd(item.check(credential_id(item.string()?))?),
    };
    Some(VaultSource::Sealed(Sealed { path: path?, key }))
}

/// A name below `$CREDENTIALS_DIRECTORY`, never a path out of it.
fn credential_id(text: &str) -> Result<String, String> {
    if text.contains('/') || text.starts_with('.') || text.chars().any(char::is_control) {
        return Err("is not the id of a systemd credential; write a file name, as in LoadCredential=".into());
    }
    Ok(text.into())
}

/// The name that the secret was sealed under.
pub(super) fn secret(item: &Item<'_>, text: &str) -> Option<Arc<str>> {
    item.check(units::name(text).map(|()| text.into()))
}
