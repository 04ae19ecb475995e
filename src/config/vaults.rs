//! `[vault.*]` and `[credential.*]`: where secrets live, and where they may go. Never a secret itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Credential, Lifetime, SealedKey, Vault,
    disk::{self, Base},
    parse::{Fields, Item},
    suggest,
    text::shown,
    units,
};
use crate::clock;

const KNOWN: &[&str] = &["sealed", "file", "environment"];
const NOT_BUILT: &[&str] = &["hashicorp", "azure-key-vault", "aws-secrets-manager", "command"];

/// Things by their names; `None` where one is named, but has problems of its own.
pub(super) struct Named<T>(pub(super) BTreeMap<Arc<str>, Option<T>>);

impl<T> Named<T> {
    /// The thing of a name. A name that leads nowhere is noted.
    pub(super) fn find(&self, kind: &str, item: &Item<'_>, name: &str) -> Option<&T> {
        if let Some(found) = self.0.get(name) {
            return found.as_ref();
        }
        let names: Vec<_> = self.0.keys().collect();
        let instead = suggest::instead(name, &names);
        item.dangling(format!("no {kind} is named \"{}\"; {instead}", shown(name)));
        None
    }

    pub(super) fn into_complete(self) -> BTreeMap<Arc<str>, T> {
        self.0.into_iter().filter_map(|(name, thing)| Some((name, thing?))).collect()
    }
}

/// `[vault.*]`.
pub(super) fn vaults(root: &Fields<'_>, base: &Base) -> Named<Vault> {
    let named = root.named("vault").into_iter();
    Named(named.map(|(name, item)| (name, vault(&item, base))).collect())
}

fn vault(item: &Item<'_>, base: &Base) -> Option<Vault> {
    let fields = item.table("write [vault.NAME] above its keys")?;
    let kind = fields.required("type", "write type = \"sealed\", \"file\" or \"environment\"")?;
    let known = KNOWN.join(", ");
    match kind.string()? {
        name @ ("sealed" | "file" | "environment") => {
            let lifetime = lifetime(&fields);
            let vault = match name {
                "sealed" => sealed(&fields, base, lifetime),
                "file" => Some(Vault::File { lifetime }),
                _ => Some(Vault::Environment { lifetime }),
            };
            fields.finish();
            vault
        }
        // Its other keys are not judged: they belong to a type that is not known.
        name if NOT_BUILT.contains(&name) => {
            kind.problem(format!("\"{name}\" is not built in this version; known: {known}"));
            None
        }
        name => {
            let instead = suggest::instead(name, KNOWN);
            kind.problem(format!("\"{}\" is no type of vault; {instead}", shown(name)));
            None
        }
    }
}

fn lifetime(fields: &Fields<'_>) -> Lifetime {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let default = Lifetime::default();
    let read = |key, range, default| {
        fields.optional(key).and_then(|item: Item<'_>| item.duration(range)).unwrap_or(default)
    };
    Lifetime {
        refresh: read("refresh", Duration::from_millis(100)..=30 * DAY, default.refresh),
        stale_for: read("stale-for", Duration::ZERO..=365 * DAY, default.stale_for),
        deadline: read("deadline", Duration::from_millis(10)..=Duration::from_secs(300), default.deadline),
    }
}

fn sealed(fields: &Fields<'_>, base: &Base, lifetime: Lifetime) -> Option<Vault> {
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
    Some(Vault::Sealed { path: path?, key, lifetime })
}

/// A name below `$CREDENTIALS_DIRECTORY`, never a path out of it.
fn credential_id(text: &str) -> Result<String, String> {
    if text.contains('/') || text.starts_with('.') || text.chars().any(char::is_control) {
        return Err("is not the id of a systemd credential; write a file name, as in LoadCredential=".into());
    }
    Ok(text.into())
}

/// `[credential.*]`.
pub(super) fn credentials(root: &Fields<'_>, vaults: &Named<Vault>, base: &Base) -> Named<Arc<Credential>> {
    let named = root.named("credential").into_iter();
    Named(
        named
            .map(|(name, item)| {
                let credential = credential(&name, &item, vaults, base).map(Arc::new);
                (name, credential)
            })
            .collect(),
    )
}

fn credential(name: &Arc<str>, item: &Item<'_>, vaults: &Named<Vault>, base: &Base) -> Option<Credential> {
    let fields = item.table("write [credential.NAME] above its keys")?;
    let vault_name = fields.required("vault", "name one of the [vault.NAME]").and_then(|item| {
        let name = item.string()?;
        Some((Arc::from(name), vaults.find("vault", &item, name)))
    });
    let secret = fields.required("secret", "write what the vault calls it");
    let organizations = fields
        .required("organizations", "name the organizations it may go to, such as [\"contoso\"]")
        .and_then(|item| organizations(&item));
    let owner = fields.optional("owner").and_then(|item| item.string()).map(Arc::from);
    let expires = fields.optional("expires").and_then(|item| {
        let moment = item.timestamp()?;
        if past(moment) {
            item.warning(format!("the credential \"{}\" expired on {moment}; renew it", shown(name)));
        }
        Some(moment)
    });
    fields.finish();

    let (vault, kind) = vault_name?;
    let secret = secret.and_then(|item| secret_name(&item, kind?, base))?;
    Some(Credential { name: Arc::clone(name), vault, secret, organizations: organizations?, owner, expires })
}

/// What the vault calls the secret. No message shows it: somebody may have written the secret itself.
fn secret_name(item: &Item<'_>, vault: &Vault, base: &Base) -> Option<Arc<str>> {
    let text = item.string()?;
    match vault {
        Vault::Environment { .. } => {
            let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !plain || text.starts_with(|first: char| first.is_ascii_digit()) {
                item.problem(
                    "is no name of an environment variable; write the variable's name, such as ADO_PAT",
                );
                return None;
            }
            Some(text.into())
        }
        Vault::File { .. } => match base.resolve(text).to_str() {
            Some(path) => Some(path.into()),
            None => item.check(Err("leads below a folder whose name is not UTF-8; move the file".into())),
        },
        Vault::Sealed { .. } => {
            if let Err(wrong) = units::name(text) {
                item.problem(wrong);
                return None;
            }
            Some(text.into())
        }
    }
}

fn organizations(item: &Item<'_>) -> Option<Vec<Arc<str>>> {
    let mut found: Vec<Arc<str>> = Vec::new();
    for item in item.array("name the organizations it may go to, such as [\"contoso\"]")? {
        let Some(organization) = item.string().and_then(|text| item.check(units::organization(text))) else {
            continue;
        };
        if found.iter().any(|known| **known == *organization) {
            item.problem(format!("{organization} stands here twice; keep one"));
        } else {
            found.push(organization.into());
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Whether a moment is over.
pub(super) fn past(moment: jiff::Timestamp) -> bool {
    jiff::Timestamp::try_from(clock::wall()).is_ok_and(|now| moment <= now)
}
