//! `[credential.*]`: what may go up, where it comes from, and where it may go. Never a secret itself.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        disk::Base,
        parse::{Fields, Item},
        suggest,
        text::shown,
        units,
    },
    Entra, Named, Rotate, Vault, VaultSource, aws, azure, command, hashicorp, rotate, sealed,
};
use crate::clock;

/// What proves patgate to Azure DevOps.
#[derive(Debug)]
pub struct Credential {
    /// Its name, which is what logs and audit say.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: CredentialSource,
    /// The only organisations it may go to. Lower case, never empty.
    pub organizations: Vec<Arc<str>>,
    /// Whom to ask.
    pub owner: Option<Arc<str>>,
    /// Known expiry, for warnings.
    pub expires: Option<jiff::Timestamp>,
    /// For so long after it was replaced the version before may serve again, should Azure DevOps refuse the new one.
    /// Default: not at all.
    pub previous_grace: Duration,
    /// How patgate makes it anew, where it does.
    pub rotate: Option<Rotate>,
}

/// Where a credential comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// A personal access token that lives in a vault.
    Vault {
        /// The vault's name.
        vault: Arc<str>,
        /// What the vault calls it.
        secret: Arc<str>,
    },
    /// Short-lived tokens of Entra.
    Entra(Entra),
}

impl CredentialSource {
    /// Who gives it: the vault's name, or `entra`.
    #[must_use]
    pub fn giver(&self) -> Arc<str> {
        match self {
            Self::Vault { vault, .. } => Arc::clone(vault),
            Self::Entra(_) => "entra".into(),
        }
    }

    /// What the giver calls it; empty where there is but one thing to give.
    #[must_use]
    pub fn secret(&self) -> &str {
        match self {
            Self::Vault { secret, .. } => secret,
            Self::Entra(_) => "",
        }
    }
}

/// The longest `previous-grace`.
const LONGEST_GRACE: Duration = Duration::from_hours(24);

/// `[credential.*]`.
pub(in crate::config) fn credentials(
    root: &Fields<'_>,
    vaults: &Named<Vault>,
    base: &Base,
) -> Named<Arc<Credential>> {
    let named = root.named("credential").into_iter();
    let has_state = !root.lacks("state");
    let mut rotated = rotate::Taken::default();
    Named(
        named
            .map(|(name, item)| {
                let credential = credential(&name, &item, vaults, base, has_state).map(Arc::new);
                if let Some(credential) = &credential {
                    rotated.take(&item, credential);
                }
                (name, credential)
            })
            .collect(),
    )
}

fn credential(
    name: &Arc<str>,
    item: &Item<'_>,
    vaults: &Named<Vault>,
    base: &Base,
    has_state: bool,
) -> Option<Credential> {
    let fields = item.table("write [credential.NAME] above its keys")?;
    let source = source(&fields, vaults, base);
    let pat = matches!(source, Some(CredentialSource::Vault { .. }));
    let organizations = fields
        .required("organizations", "name the organizations it may go to, such as [\"contoso\"]")
        .and_then(|item| {
            let all = organizations(&item)?;
            if pat && all.len() > 1 {
                item.warning(format!(
                    "the credential \"{}\" is one personal access token for several organizations; Azure DevOps \
                     takes such global tokens until 1 December 2026: make one for each organization",
                    shown(name)
                ));
            }
            Some(all)
        });
    let owner = fields.optional("owner").and_then(|item| item.string()).map(Arc::from);
    let expires = fields.optional("expires").and_then(|item| {
        let moment = item.timestamp()?;
        if past(moment) {
            item.warning(format!("the credential \"{}\" expired on {moment}; renew it", shown(name)));
        }
        Some(moment)
    });
    let previous_grace =
        fields.optional("previous-grace").and_then(|item| item.duration(Duration::ZERO..=LONGEST_GRACE));
    let rotate = fields.optional("rotate").map(|item| {
        if expires.is_some() {
            item.problem("knows when its tokens end; leave expires out");
        }
        let (source, organizations) = (source.as_ref(), organizations.as_deref());
        rotate::read(&item, &rotate::Around { name, source, organizations, vaults, base, has_state })
    });
    fields.finish();

    let (name, rotate) = (Arc::clone(name), rotate.map_or(Some(None), |rotate| rotate.map(Some))?);
    Some(Credential {
        name,
        source: source?,
        organizations: organizations?,
        owner,
        expires,
        previous_grace: previous_grace.unwrap_or_default(),
        rotate,
    })
}

fn source(fields: &Fields<'_>, vaults: &Named<Vault>, base: &Base) -> Option<CredentialSource> {
    let kind = fields.optional("type").and_then(|item| match item.string()? {
        "pat" => Some(false),
        "entra" => Some(true),
        other => {
            let instead = suggest::instead(other, &["pat", "entra"]);
            item.check(Err(format!("\"{}\" is no type of credential; {instead}", shown(other))))
        }
    });
    if kind == Some(true) {
        return azure::entra(fields, base).map(CredentialSource::Entra);
    }
    let vault_name = fields.required("vault", "name one of the [vault.NAME]").and_then(|item| {
        let name = item.string()?;
        Some((Arc::from(name), vaults.find("vault", &item, name)))
    });
    let secret = fields.required("secret", "write what the vault calls it");
    let (vault, kind) = vault_name?;
    let secret = secret.and_then(|item| secret_name(&item, kind?, base))?;
    Some(CredentialSource::Vault { vault, secret })
}

/// What the vault calls the secret. No message shows it: somebody may have written the secret itself.
pub(super) fn secret_name(item: &Item<'_>, vault: &Vault, base: &Base) -> Option<Arc<str>> {
    if let VaultSource::Command(vault) = &vault.source {
        // It may be a list.
        return command::secret(item, vault, base);
    }
    let text = item.string()?;
    match &vault.source {
        VaultSource::Command(_) => None,
        VaultSource::Environment => {
            let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !plain || text.starts_with(|first: char| first.is_ascii_digit()) {
                item.problem(
                    "is no name of an environment variable; write the variable's name, such as ADO_PAT",
                );
                return None;
            }
            Some(text.into())
        }
        VaultSource::File(_) => match base.resolve(text).to_str() {
            Some(path) => Some(path.into()),
            None => item.check(Err("leads below a folder whose name is not UTF-8; move the file".into())),
        },
        VaultSource::Sealed(_) => sealed::secret(item, text),
        VaultSource::Hashicorp(_) => hashicorp::secret(item, text),
        VaultSource::AwsSecretsManager(_) => aws::secret(item, text),
        VaultSource::AzureKeyVault(_) => azure::secret(item, text),
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
pub(in crate::config) fn past(moment: jiff::Timestamp) -> bool {
    jiff::Timestamp::try_from(clock::wall()).is_ok_and(|now| moment <= now)
}
