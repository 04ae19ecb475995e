//! `[credential.NAME] rotate`: a token that patgate makes anew, and writes to its vault.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        disk::Base,
        parse::{Fields, Item},
        suggest,
        text::shown,
        units,
    },
    Credential, CredentialSource, Lifetime, Named, Vault, VaultSource, credential,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// How a token is made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotate {
    /// The vault's name that gives an Entra token of the user whose tokens these are.
    pub vault: Arc<str>,
    /// What that vault calls it.
    pub secret: Arc<str>,
    /// The organisation that the token is for: the only one of the credential's.
    pub organization: Arc<str>,
    /// How often.
    pub every: Duration,
    /// How long each token counts; more than `every` and `grace` together.
    pub valid_for: Duration,
    /// How long the one before counts once the next is in use. At least the vault's `refresh`.
    pub grace: Duration,
    /// `vso.…`; never empty.
    pub scope: Vec<Arc<str>>,
    /// What the tokens' names begin with.
    pub name: Arc<str>,
}

/// What is known of the credential that a token is for.
pub(super) struct Around<'a> {
    pub(super) name: &'a str,
    pub(super) source: Option<&'a CredentialSource>,
    pub(super) organizations: Option<&'a [Arc<str>]>,
    pub(super) vaults: &'a Named<Vault>,
    pub(super) base: &'a Base,
    pub(super) has_state: bool,
}

/// Reads `rotate`.
pub(super) fn read(item: &Item<'_>, around: &Around<'_>) -> Option<Rotate> {
    let fields = item.table("write [credential.NAME.rotate] above its keys")?;
    let vault = fitting(item, around);
    if !around.has_state {
        item.problem(
            "needs a place to remember which tokens patgate made; write [state] with folder = \"state\"",
        );
    }
    let entra = fields
        .required("auth", "write auth = { method = \"vault\", vault = \"NAME\", secret = \"…\" }")
        .and_then(|item| auth(&item, around));
    let organization = organization(&fields, item, around);
    let every = period(&fields, "every", SECOND..=180 * DAY, "write every = \"7d\"");
    let valid_for = period(&fields, "valid-for", 2 * SECOND..=366 * DAY, "write valid-for = \"14d\"");
    let grace = fields.optional("grace");
    let grace = (grace.as_ref().map_or(Some(DAY), |item| item.duration(Duration::ZERO..=90 * DAY)), grace);
    let scope = fields
        .required("scope", "name what the token may do, such as [\"vso.code\"]")
        .and_then(|item| scope(&item));
    let name = match fields.optional("name") {
        None => Some(format!("patgate {}", around.name).into()),
        Some(item) => item.string().and_then(|text| item.check(units::name(text).map(|()| Arc::from(text)))),
    };
    fields.finish();

    if let (Some((every, _)), Some((valid_for, item)), (Some(grace), _)) = (&every, &valid_for, &grace)
        && *valid_for <= every.saturating_add(*grace)
    {
        item.problem(
            "is not longer than every and grace together, so a token would end before the next one is safe",
        );
    }
    if let Some((length, item)) = every.as_ref().filter(|(every, _)| *every < HOUR) {
        let length = units::written(length.as_millis());
        item.warning(format!("a new token every {length} is for a lab; write 1d or more"));
    }
    if let (Some(vault), (Some(length), at)) = (vault, &grace) {
        suffices(at.as_ref().unwrap_or(item), *length, vault.lifetime);
    }
    let (vault, secret) = entra?;
    Some(Rotate {
        vault,
        secret,
        organization: organization?,
        every: every?.0,
        valid_for: valid_for?.0,
        grace: grace.0?,
        scope: scope?,
        name: name?,
    })
}

/// Whether a grace is long enough for whoever still has the token from the vault.
fn suffices(item: &Item<'_>, grace: Duration, lifetime: Lifetime) {
    let refresh = units::written(lifetime.refresh.as_millis());
    let longest = lifetime.refresh.saturating_add(lifetime.stale_for);
    if grace < lifetime.refresh {
        item.problem(format!(
            "is shorter than the vault's refresh, so a token would be revoked that is still in use; write {refresh} or more"
        ));
    } else if grace < longest {
        item.warning(format!(
            "is shorter than the vault's refresh and stale-for together: another patgate that can't read the vault may use a \
             token that is revoked; write {} or more",
            units::written(longest.as_millis())
        ));
    }
}

/// What is rotated so far: two rotations of the same would revoke each other's tokens.
#[derive(Default)]
pub(super) struct Taken(Vec<(Arc<str>, CredentialSource, Rotate)>);

impl Taken {
    /// Takes one more.
    pub(super) fn take(&mut self, item: &Item<'_>, credential: &Credential) {
        let Some(rotate) = &credential.rotate else { return };
        let tokens = |rotate: &Rotate| (Arc::clone(&rotate.organization), Arc::clone(&rotate.name));
        for (other, source, taken) in &self.0 {
            if *source == credential.source {
                item.problem(format!(
                    "rotates the same secret as \"{}\"; let one of them do it",
                    shown(other)
                ));
            } else if tokens(taken) == tokens(rotate) {
                item.problem(format!(
                    "rotates tokens of the same name as \"{}\"; write another name in rotate",
                    shown(other)
                ));
            }
        }
        self.0.push((Arc::clone(&credential.name), credential.source.clone(), rotate.clone()));
    }
}

/// The credential's vault, which patgate has to be able to write to.
fn fitting<'a>(item: &Item<'_>, around: &Around<'a>) -> Option<&'a Vault> {
    let name = match around.source? {
        CredentialSource::Vault { vault, .. } => vault,
        CredentialSource::Entra(_) => {
            item.problem(
                "is for personal access tokens; tokens of Entra are new by themselves: leave it out",
            );
            return None;
        }
    };
    let vault = around.vaults.0.get(name)?.as_ref()?;
    let kind = match vault.source {
        VaultSource::File(_) => "file",
        VaultSource::Environment => "environment",
        VaultSource::Command(_) => "command",
        VaultSource::Sealed(_)
        | VaultSource::Hashicorp(_)
        | VaultSource::AwsSecretsManager(_)
        | VaultSource::AzureKeyVault(_) => return Some(vault),
    };
    item.problem(format!(
        "needs a vault that patgate can write to, and \"{}\" is of type \"{kind}\"; use one of sealed, hashicorp, \
         aws-secrets-manager and azure-key-vault",
        shown(name)
    ));
    None
}

/// Where the user's Entra token comes from.
fn auth(item: &Item<'_>, around: &Around<'_>) -> Option<(Arc<str>, Arc<str>)> {
    const METHODS: &[&str] = &["vault"];
    const NOT_USERS: &[&str] =
        &["managed-identity", "workload-identity", "client-secret", "client-certificate"];
    let fields = item.table("write { method = \"vault\", vault = \"NAME\", secret = \"…\" }")?;
    let method = fields.required("method", "write method = \"vault\"");
    let is_known = method.as_ref().and_then(|method| match method.string()? {
        "vault" => Some(()),
        name if NOT_USERS.contains(&name) => method.check(Err(format!(
            "\"{name}\" is no user, and Azure DevOps lets users alone make tokens; have a user's Entra token read from a \
             vault: method = \"vault\""
        ))),
        name => {
            let instead = suggest::instead(name, METHODS);
            method.check(Err(format!("\"{}\" is no method; {instead}", shown(name))))
        }
    });
    // The keys of another method are not judged.
    is_known?;
    let vault =
        fields.required("vault", "name the [vault.NAME] that gives a user's Entra token").and_then(|item| {
            let name = item.string()?;
            Some((Arc::<str>::from(name), around.vaults.find("vault", &item, name)))
        });
    let secret = fields.required("secret", "write what that vault calls the user's Entra token");
    fields.finish();
    let (vault, kind) = vault?;
    let secret = secret.and_then(|item| credential::secret_name(&item, kind?, around.base))?;
    Some((vault, secret))
}

fn organization(fields: &Fields<'_>, rotate: &Item<'_>, around: &Around<'_>) -> Option<Arc<str>> {
    let named = fields.optional("organization");
    let organizations = around.organizations?;
    let [only] = organizations else {
        rotate.problem(
            "makes tokens for one organization each; give every organization a credential of its own, with one name in \
             organizations",
        );
        return None;
    };
    let Some(item) = named else { return Some(Arc::clone(only)) };
    let name = item.string().and_then(|text| item.check(units::organization(text)))?;
    if *name == **only {
        return Some(Arc::clone(only));
    }
    item.check(Err(format!("{name} is not the credential's organization; write {only}, or leave it out")))
}

fn period<'a>(
    fields: &Fields<'a>,
    key: &'static str,
    range: std::ops::RangeInclusive<Duration>,
    right: &str,
) -> Option<(Duration, Item<'a>)> {
    let item = fields.required(key, right)?;
    Some((item.duration(range)?, item))
}

fn scope(item: &Item<'_>) -> Option<Vec<Arc<str>>> {
    let mut found: Vec<Arc<str>> = Vec::new();
    for item in item.array("name what the token may do, such as [\"vso.code\"]")? {
        let Some(text) = item.string() else { continue };
        let rest = text.strip_prefix("vso.").unwrap_or_default();
        let is_scope =
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphabetic() || b"._".contains(&byte));
        if text == "app_token" {
            item.problem("is every right of the user's; name what the token may do, such as vso.code");
        } else if !is_scope {
            item.problem(format!(
                "\"{}\" is no scope; write one such as vso.code or vso.packaging",
                shown(text)
            ));
        } else if found.iter().any(|known| **known == *text) {
            item.problem(format!("{text} stands here twice; keep one"));
        } else {
            found.push(text.into());
        }
    }
    (!found.is_empty()).then_some(found)
}
