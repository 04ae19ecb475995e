//! Identities of Entra: who patgate is to Key Vault and to Azure DevOps.
//!
//! What comes in: how the configuration proves an identity. What goes out: tokens. Nothing is kept here: whoever
//! asks keeps the token, and at each asking the files are read anew, so that a secret or certificate that was
//! rotated is taken up, and a token that was refused is not given a second time. It must never let a secret or a
//! token into an error's text: of what Entra answers, only the code of the error is shown.
//!
//! # Adding a method
//! A variant of [`config::IdentityMethod`]; an arm in [`Login::credential`]; a line in the tests of the stand-in.

use std::{env, path::PathBuf, sync::Arc};

use azure_core::{
    cloud::{CloudConfiguration, CustomConfiguration},
    credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions},
    error::ErrorKind,
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertionCredential,
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};

use super::{
    VaultError,
    private::{self, Readers},
    token::exposed,
};
use crate::{
    clock,
    config::{self, IdentityMethod},
};

mod assertion;
mod cli;
mod line;
mod refusal;

pub(super) use line::Line;
pub(super) use refusal::cause;

/// The longest secret of an application, in bytes; Entra's own have 40.
const LONGEST_SECRET: usize = 1024;

/// Who asks, and the way to those who answer.
#[derive(Debug)]
pub(super) struct Login {
    authority: Arc<str>,
    method: IdentityMethod,
    line: Arc<Line>,
}

impl Login {
    /// Looks at the identity once: what is missing in the environment, or does not fit together, is said here.
    ///
    /// # Errors
    /// As a sentence.
    pub(super) fn new(identity: &config::Identity, line: Arc<Line>) -> Result<Self, String> {
        let method = resolved(&identity.method, |name| env::var(name).ok())?;
        if let IdentityMethod::ClientCertificate { certificate, key, .. } = &method {
            assertion::Certificate::read(certificate, key).map_err(|error| error.to_string())?;
        }
        Ok(Self { authority: Arc::clone(&identity.authority), method, line })
    }

    /// A new token.
    ///
    /// # Errors
    /// [`VaultError::Denied`] where Entra refuses the identity, [`VaultError::Unavailable`] where it can't be asked.
    pub(super) async fn token(&self, scope: &str) -> Result<AccessToken, VaultError> {
        let credential = self.credential().await?;
        let token = credential.get_token(&[scope], None).await.map_err(|error| self.explain(&error))?;
        let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::MIN);
        if token.expires_on.unix_timestamp() <= now.as_second() {
            return Err(VaultError::Unavailable("the token of the identity has expired already".into()));
        }
        Ok(token)
    }

    /// The library's credential, made for one token.
    async fn credential(&self) -> Result<Arc<dyn TokenCredential>, VaultError> {
        let client_options = self.line.options(&self.authority);
        let made: azure_core::Result<Arc<dyn TokenCredential>> = match &self.method {
            IdentityMethod::ManagedIdentity { client_id } => {
                let user_assigned_id = client_id.as_deref().map(|id| UserAssignedId::ClientId(id.into()));
                let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
                ManagedIdentityCredential::new(Some(options)).map(|made| made as _)
            }
            IdentityMethod::WorkloadIdentity { tenant_id, client_id, token_file } => {
                let (Some(tenant), Some(client), Some(file)) = (tenant_id, client_id, token_file) else {
                    return Err(VaultError::Unavailable("the workload's identity is not complete".into()));
                };
                let assertion = assertion::TokenFile { path: file.clone(), turns: self.line.turns() };
                self.asserted(tenant, client, assertion, client_options)
            }
            IdentityMethod::ClientSecret { tenant_id, client_id, secret_file } => {
                let file = secret_file.clone();
                let read = move || private::read_line(&file, Readers::Owner, LONGEST_SECRET);
                let secret = private::aside(self.line.turns(), read).await??;
                let secret = Secret::new(exposed(&secret).trim().to_owned());
                let options = ClientSecretCredentialOptions { client_options };
                ClientSecretCredential::new(tenant_id, client_id.to_string(), secret, Some(options))
                    .map(|made| made as _)
            }
            IdentityMethod::ClientCertificate { tenant_id, client_id, certificate, key } => {
                let assertion = assertion::Signed {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    client_id: Arc::clone(client_id),
                    audience: format!("https://{}/{tenant_id}/oauth2/v2.0/token", self.authority),
                    turns: self.line.turns(),
                };
                self.asserted(tenant_id, client_id, assertion, client_options)
            }
            IdentityMethod::AzureCli { tenant_id } => {
                let tenant_id = tenant_id.as_deref().map(str::to_owned);
                let executor: Arc<dyn azure_identity::Executor> = Arc::new(cli::Az);
                let mut options = AzureCliCredentialOptions::default();
                (options.tenant_id, options.executor) = (tenant_id, Some(executor));
                AzureCliCredential::new(Some(options)).map(|made| made as _)
            }
        };
        made.map_err(|error| self.explain(&error))
    }

    #[expect(clippy::unused_self, reason = "it reads better beside the others")]
    fn asserted<A: azure_identity::ClientAssertion + 'static>(
        &self,
        tenant: &str,
        client: &str,
        assertion: A,
        client_options: ClientOptions,
    ) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let options = ClientAssertionCredentialOptions { client_options };
        ClientAssertionCredential::new(tenant.into(), client.into(), assertion, Some(options))
            .map(|made| made as _)
    }

    /// Our own sentence where the cause is known. The library's text may quote what was answered, so it is not shown.
    fn explain(&self, error: &azure_core::Error) -> VaultError {
        if let Some(known) = cause(error) {
            return known;
        }
        let text = match self.method {
            IdentityMethod::AzureCli { .. } => {
                "what `az` printed is no token; `az account get-access-token` of Azure CLI 2.54 or later is needed"
                    .to_owned()
            }
            IdentityMethod::ManagedIdentity { .. } => {
                "the machine's identity can't be read: its answer is not understood, or this platform is not one of \
                 those that are (virtual machines, AKS, App Service, Container Apps)"
                    .to_owned()
            }
            _ => format!("what {} answered is no token", self.authority),
        };
        VaultError::Unavailable(text.into())
    }
}

#[async_trait::async_trait]
impl TokenCredential for Login {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let &[scope] = scopes else {
            return Err(azure_core::Error::with_message(ErrorKind::Credential, "one scope is wanted"));
        };
        self.token(scope).await.map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))
    }
}

impl Line {
    /// No second try: the cache has a back-off of its own, and a try that waits would outlast the deadline.
    pub(super) fn options(self: &Arc<Self>, authority: &str) -> ClientOptions {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = format!("https://{authority}");
        ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::clone(self) as _)),
            cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
            ..ClientOptions::default()
        }
    }
}

/// The same with what the environment says filled in.
fn resolved(
    method: &IdentityMethod,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<IdentityMethod, String> {
    let IdentityMethod::WorkloadIdentity { tenant_id, client_id, token_file } = method else {
        return Ok(method.clone());
    };
    let set = |name: &str, key: &str| {
        variable(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            format!(
                "{name} is not set, so this pod has no workload identity (the webhook of AKS sets it); write {key} \
                 into auth, or label the pod azure.workload.identity/use"
            )
        })
    };
    let id = |known: &Option<Arc<str>>, name: &str, key: &str| match known {
        Some(known) => Ok(Arc::clone(known)),
        None => set(name, key).map(Arc::from),
    };
    Ok(IdentityMethod::WorkloadIdentity {
        tenant_id: Some(id(tenant_id, "AZURE_TENANT_ID", "tenant-id")?),
        client_id: Some(id(client_id, "AZURE_CLIENT_ID", "client-id")?),
        token_file: Some(match token_file {
            Some(known) => known.clone(),
            None => PathBuf::from(set("AZURE_FEDERATED_TOKEN_FILE", "token-file")?),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_what_its_platform_says_where_the_configuration_is_silent() {
        let silent = IdentityMethod::WorkloadIdentity { tenant_id: None, client_id: None, token_file: None };
        let aks = |name: &str| match name {
            "AZURE_TENANT_ID" => Some("tenant".to_owned()),
            "AZURE_CLIENT_ID" => Some("client".to_owned()),
            "AZURE_FEDERATED_TOKEN_FILE" => Some("/var/run/secrets/azure/tokens/token".to_owned()),
            _ => None,
        };
        let full = IdentityMethod::WorkloadIdentity {
            tenant_id: Some("tenant".into()),
            client_id: Some("client".into()),
            token_file: Some("/var/run/secrets/azure/tokens/token".into()),
        };
        assert_eq!(resolved(&silent, aks).unwrap(), full);
        let own = IdentityMethod::WorkloadIdentity {
            tenant_id: Some("own".into()),
            client_id: Some("own".into()),
            token_file: Some("own".into()),
        };
        assert_eq!(resolved(&own, aks).unwrap(), own);
        let wrong = resolved(&silent, |_| None).unwrap_err();
        assert!(wrong.contains("AZURE_TENANT_ID") && wrong.contains("tenant-id"), "{wrong}");
        assert!(resolved(&silent, |_| Some(String::new())).is_err());
    }
}
