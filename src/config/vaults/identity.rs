//! `auth = { method = … }`: an identity of Entra, for Key Vault and for Azure DevOps. Never a secret itself.

use std::{path::PathBuf, sync::Arc};

use super::super::{
    disk::{self, Base},
    parse::{Fields, Item},
    suggest,
    text::shown,
};

const METHODS: &[&str] =
    &["managed-identity", "workload-identity", "client-secret", "client-certificate", "azure-cli"];

/// What the Azure of most is called.
const AUTHORITY: &str = "login.microsoftonline.com";

/// An identity of Entra, and where it is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The host that gives tokens. Reached over TLS alone.
    pub authority: Arc<str>,
    /// How it is proved.
    pub method: IdentityMethod,
}

/// How an identity is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityMethod {
    /// The machine's own: IMDS on a virtual machine, `IDENTITY_ENDPOINT` in App Service and Container Apps.
    ManagedIdentity {
        /// One of several that the machine has; absent: the one that the machine itself is.
        client_id: Option<Arc<str>>,
    },
    /// A token that the platform keeps in a file (Kubernetes), taken by a federated credential. What is absent comes
    /// from `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_FEDERATED_TOKEN_FILE`, as the webhook of AKS sets them.
    WorkloadIdentity {
        /// The directory.
        tenant_id: Option<Arc<str>>,
        /// The application.
        client_id: Option<Arc<str>>,
        /// The file that the platform writes.
        token_file: Option<PathBuf>,
    },
    /// An application's secret.
    ClientSecret {
        /// The directory.
        tenant_id: Arc<str>,
        /// The application.
        client_id: Arc<str>,
        /// A file that nobody else may read.
        secret_file: PathBuf,
    },
    /// An application's certificate.
    ClientCertificate {
        /// The directory.
        tenant_id: Arc<str>,
        /// The application.
        client_id: Arc<str>,
        /// The certificate that the application knows, PEM.
        certificate: PathBuf,
        /// Its RSA key, PEM, in a file that nobody else may read.
        key: PathBuf,
    },
    /// Who is logged in with the Azure CLI. For laptops.
    AzureCli {
        /// The directory, where it is not the login's own.
        tenant_id: Option<Arc<str>>,
    },
}

/// The key `auth`. `authority` is what is meant where the identity names none.
pub(super) fn read(fields: &Fields<'_>, base: &Base, authority: Option<&str>) -> Option<Identity> {
    let right = "write auth = { method = \"managed-identity\" }, or another method";
    let auth = fields.required("auth", right)?.table(right)?;
    let identity = identity(&auth, base, authority.unwrap_or(AUTHORITY));
    auth.finish();
    identity
}

fn identity(auth: &Fields<'_>, base: &Base, usual: &str) -> Option<Identity> {
    let authority = match auth.optional("authority") {
        Some(item) => item.check(host(item.string()?)),
        None => Some(usual.to_owned()),
    };
    let kind = auth.required("method", "write method = \"managed-identity\", or another method")?;
    let method = match kind.string()? {
        "managed-identity" => {
            Some(IdentityMethod::ManagedIdentity { client_id: optional(auth, "client-id")? })
        }
        "workload-identity" => workload(auth, base),
        "client-secret" => secret(auth, base),
        "client-certificate" => certificate(auth, base),
        "azure-cli" => Some(IdentityMethod::AzureCli { tenant_id: optional(auth, "tenant-id")? }),
        other => {
            // The keys of a method that is not known are not judged.
            for key in ["tenant-id", "client-id", "token-file", "secret-file", "certificate", "key"] {
                auth.optional(key);
            }
            kind.problem(format!(
                "\"{}\" is no way to prove an identity; {}",
                shown(other),
                suggest::instead(other, METHODS)
            ));
            None
        }
    };
    Some(Identity { authority: authority?.into(), method: method? })
}

fn workload(auth: &Fields<'_>, base: &Base) -> Option<IdentityMethod> {
    let (tenant_id, client_id) = (optional(auth, "tenant-id"), optional(auth, "client-id"));
    let token_file = match auth.optional("token-file") {
        Some(item) => Some(base.path(&item)?),
        None => None,
    };
    Some(IdentityMethod::WorkloadIdentity { tenant_id: tenant_id?, client_id: client_id?, token_file })
}

fn secret(auth: &Fields<'_>, base: &Base) -> Option<IdentityMethod> {
    let (tenant_id, client_id) = application(auth);
    let secret_file = private(auth, base, "secret-file", "name the file of the application's secret");
    Some(IdentityMethod::ClientSecret {
        tenant_id: tenant_id?,
        client_id: client_id?,
        secret_file: secret_file?,
    })
}

fn certificate(auth: &Fields<'_>, base: &Base) -> Option<IdentityMethod> {
    let (tenant_id, client_id) = application(auth);
    let right = "name the file of the application's certificate, PEM";
    let certificate = auth.required("certificate", right).and_then(|item| {
        let path = base.path(&item)?;
        disk::readable(&item, &path, right).then_some(path)
    });
    let key = private(auth, base, "key", "name the file of the certificate's key, PEM");
    Some(IdentityMethod::ClientCertificate {
        tenant_id: tenant_id?,
        client_id: client_id?,
        certificate: certificate?,
        key: key?,
    })
}

fn application(auth: &Fields<'_>) -> (Option<Arc<str>>, Option<Arc<str>>) {
    let required = |key, right| auth.required(key, right).and_then(|item| id(&item));
    (
        required("tenant-id", "write the id of the directory (tenant)"),
        required("client-id", "write the id of the application (client)"),
    )
}

/// `None`: it is there, and wrong.
#[expect(clippy::option_option, reason = "absent is not the same as wrong")]
fn optional(auth: &Fields<'_>, key: &'static str) -> Option<Option<Arc<str>>> {
    match auth.optional(key) {
        Some(item) => id(&item).map(Some),
        None => Some(None),
    }
}

/// An id, or a tenant's name. It becomes a part of a path.
fn id(item: &Item<'_>) -> Option<Arc<str>> {
    let text = item.string()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if !plain || text.starts_with('.') || text.len() > 128 {
        item.problem(
            "is no id; write it as Azure shows it, such as \"11111111-2222-3333-4444-555555555555\"",
        );
        return None;
    }
    Some(text.into())
}

/// A file that nobody else may read.
fn private(auth: &Fields<'_>, base: &Base, key: &'static str, right: &str) -> Option<PathBuf> {
    let item = auth.required(key, right)?;
    let path = base.path(&item)?;
    drop(zeroize::Zeroizing::new(disk::read_named(&item, &path, right)?));
    disk::private(&item, &path);
    Some(path)
}

/// A host's name alone: patgate itself says that it is reached over TLS.
pub(super) fn host(text: &str) -> Result<String, String> {
    let labels = text.split('.').collect::<Vec<_>>();
    let plain = |label: &&str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = labels.last().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if labels.len() < 2 || numeric || text.len() > 253 || !labels.iter().all(plain) {
        return Err(format!("is no host's name; write it without https://, such as \"{AUTHORITY}\""));
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_name_and_nothing_else() {
        for good in ["login.microsoftonline.com", "login.microsoftonline.us", "LOGIN.chinacloudapi.cn"] {
            assert_eq!(host(good), Ok(good.to_ascii_lowercase()));
        }
        for bad in [
            "",
            "localhost",
            "https://login.microsoftonline.com",
            "login.microsoftonline.com/tenant",
            "login.microsoftonline.com:8443",
            "user@login.microsoftonline.com",
            "127.0.0.1",
            "[::1]",
            "login..com",
            "-login.com",
            "lögin.com",
        ] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
