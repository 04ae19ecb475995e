//! `[vault.*]` and `[credential.*]`: where secrets live, and where they may go. Never a secret itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;

use super::{
    disk::Base,
    parse::{Fields, Item},
    suggest,
    text::shown,
    tls, units,
};

mod aws;
mod azure;
mod command;
mod credential;
mod file;
mod hashicorp;
mod identity;
mod program;
mod rotate;
mod sealed;

pub use aws::AwsSecretsManager;
pub use azure::{AzureKeyVault, Entra};
pub use command::{CommandFormat, CommandVault};
pub use credential::{Credential, CredentialSource};
pub use file::{FileVault, ReadableBy};
pub(crate) use hashicorp::path_and_field;
pub use hashicorp::{ClientIdentity, Hashicorp, HashicorpAuth, Kv};
pub use identity::{Identity, IdentityMethod};
pub use rotate::Rotate;
pub use sealed::{Sealed, SealedKey};

pub(super) use credential::{credentials, past};

const TYPES: &[&str] =
    &["sealed", "file", "environment", "command", "hashicorp", "azure-key-vault", "aws-secrets-manager"];

/// Where secrets live, and how long what it gave may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vault {
    /// What it is.
    pub source: VaultSource,
    /// See [`Lifetime`].
    pub lifetime: Lifetime,
}

/// What a vault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultSource {
    /// A local file of secrets, encrypted for a key.
    Sealed(Sealed),
    /// Files, each holding one secret.
    File(FileVault),
    /// Environment variables of patgate's own process.
    Environment,
    /// A program that prints a secret.
    Command(CommandVault),
    /// HashiCorp Vault or OpenBao.
    Hashicorp(Hashicorp),
    /// AWS Secrets Manager.
    AwsSecretsManager(AwsSecretsManager),
    /// Azure Key Vault.
    AzureKeyVault(AzureKeyVault),
}

/// How long a secret is used before it is read again, and how long past that if the vault is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Read again after this. Default 5 min.
    pub refresh: Duration,
    /// Kept for this long while the vault fails to answer. Default 1 h.
    pub stale_for: Duration,
    /// For one read of the vault. Default 5 s.
    pub deadline: Duration,
    /// Kept for this long after the vault said that it is gone, or forbidden. Default: not at all.
    pub keep_when_denied: Duration,
}

impl std::fmt::Display for Lifetime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { refresh, stale_for, deadline, keep_when_denied } = self;
        let [refresh, stale_for, deadline, denied] =
            [refresh, stale_for, deadline, keep_when_denied].map(|time| units::written(time.as_millis()));
        write!(f, "read every {refresh}, kept {stale_for} without it, deadline {deadline}")?;
        if !keep_when_denied.is_zero() {
            write!(f, ", kept {denied} when denied")?;
        }
        Ok(())
    }
}

impl Default for Lifetime {
    fn default() -> Self {
        Self {
            refresh: Duration::from_mins(5),
            stale_for: Duration::from_hours(1),
            deadline: Duration::from_secs(5),
            keep_when_denied: Duration::ZERO,
        }
    }
}

/// Whose certificates a vault's are to be signed by: `ca`, or the platform's roots where it is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The only authorities that are believed, and the file they came from.
    pub ca: Option<(std::path::PathBuf, Vec<CertificateDer<'static>>)>,
}

impl Trust {
    /// The key `ca`.
    fn read(fields: &Fields<'_>, base: &Base) -> Self {
        Self { ca: fields.optional("ca").and_then(|item| tls::authorities(&item, base)) }
    }
}

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
    let kind = fields.required("type", "write type = \"sealed\", \"file\" or another type of vault")?;
    let name = kind.string()?;
    if !TYPES.contains(&name) {
        // Its other keys are not judged: they belong to a type that is not known.
        let instead = suggest::instead(name, TYPES);
        kind.problem(format!("\"{}\" is no type of vault; {instead}", shown(name)));
        return None;
    }
    let lifetime = lifetime(&fields);
    let source = match name {
        "sealed" => sealed::read(&fields, base),
        "file" => file::read(&fields),
        "environment" => Some(VaultSource::Environment),
        "command" => command::read(&fields, base),
        "hashicorp" => hashicorp::read(&fields, base),
        "azure-key-vault" => azure::read(&fields, base),
        _ => aws::read(&fields, base),
    };
    fields.finish();
    Some(Vault { source: source?, lifetime })
}

fn lifetime(fields: &Fields<'_>) -> Lifetime {
    const DAY: Duration = Duration::from_hours(24);
    let default = Lifetime::default();
    let read = |key, range, default| {
        fields.optional(key).and_then(|item: Item<'_>| item.duration(range)).unwrap_or(default)
    };
    Lifetime {
        refresh: read("refresh", Duration::from_millis(100)..=DAY, default.refresh),
        stale_for: read("stale-for", Duration::ZERO..=7 * DAY, default.stale_for),
        deadline: read("deadline", Duration::from_millis(10)..=Duration::from_mins(5), default.deadline),
        keep_when_denied: read("keep-when-denied", Duration::ZERO..=DAY, default.keep_when_denied),
    }
}
