//! Tokens of Entra for Azure DevOps: the credential that nobody has to rotate.

use std::sync::Arc;

use secrecy::SecretString;

use super::{
    Facts, Fetch, Fetched, SecretSource, VaultError,
    identity::{Line, Login},
};
use crate::config::{self, Outbound};

/// Azure DevOps, as Entra calls it in every tenant
/// (learn.microsoft.com/azure/devops/integrate/get-started/authentication/service-principal-managed-identity).
const AZURE_DEVOPS: &str = "499b84ac-1321-427f-aa17-267ca6975798/.default";

/// Makes tokens of one identity. Each read is a new token: what Azure DevOps refused is not given again.
pub(super) struct Entra {
    login: Login,
}

impl Entra {
    /// Sets it up; nothing is asked yet.
    ///
    /// # Errors
    /// As a sentence.
    pub(super) fn open(entra: &config::Entra, outbound: &Outbound) -> Result<Self, String> {
        let config::Entra { trust, addresses, identity } = entra;
        let line: Arc<Line> = Line::new(None, identity, trust, addresses, outbound)?;
        Ok(Self { login: Login::new(identity, line)? })
    }

    async fn token(&self) -> Result<Fetched, VaultError> {
        let token = self.login.token(AZURE_DEVOPS).await?;
        let expires = jiff::Timestamp::from_second(token.expires_on.unix_timestamp()).ok();
        let facts = Facts { not_before: None, expires };
        Ok(Fetched { value: SecretString::from(token.token.secret()), version: None, facts })
    }
}

impl SecretSource for Entra {
    fn fetch<'a>(&'a self, _: &'a str) -> Fetch<'a> {
        Box::pin(self.token())
    }
}
