//! HashiCorp Vault and OpenBao: the KV engine, read with a token of patgate's own.
//!
//! What comes in: `mount/path#field`. What goes out: the field's text, the version's number, its known end. A token of
//! the vault, a secret id and an answer's body must never stand in an error or on the log, and nothing but the
//! configuration says where the vault is: `VAULT_ADDR` and its like are not read.
//!
//! # Adding a way to log in
//! A variant of [`HashicorpAuth`], its keys in `config/vaults/hashicorp.rs`, and an arm in [`login`].

use std::{sync::Arc, time::Duration};

use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use secrecy::SecretString;
use tokio::sync::watch;

use super::{
    Fetch, SecretSource, VaultError, Write, network,
    private::{self, Readers},
};
use crate::config::{self, ClientIdentity, HashicorpAuth, Outbound};

mod helper;
mod kv;
mod login;
#[cfg(test)]
mod real;
mod session;
mod wire;
mod wrapped;

use kv::{Reference, Refused, Store};
use login::Login;
use session::{Pass, Session};
use wire::Wire;

/// The longest private key, in bytes.
const KEY: usize = 64 * 1024;

/// A request has this long, where it is not a read that somebody waits for.
const LEAST: Duration = Duration::from_secs(5);

/// One vault.
pub struct Hashicorp {
    session: Arc<Session>,
    store: Store,
    /// When it goes, what was started for it ends.
    _alive: watch::Sender<()>,
}

impl Hashicorp {
    /// Sets up what reads the vault. It is not asked anything yet. `deadline` is for one request, five seconds at least.
    ///
    /// # Errors
    /// A client certificate that can't be used, as a sentence.
    pub fn open(vault: &config::Hashicorp, deadline: Duration, outbound: &Outbound) -> Result<Self, String> {
        let identity = match &vault.auth {
            HashicorpAuth::Certificate { identity, .. } => Some(read(identity)?),
            _ => None,
        };
        // A proxy would see what is not encrypted.
        let direct = Outbound::default();
        let outbound = if vault.address.starts_with("http://") { &direct } else { outbound };
        let client = network::client(outbound, &vault.trust, &vault.addresses, identity)?;
        let namespace = vault.namespace.as_deref();
        let wire = Arc::new(Wire::new(client, address(vault), namespace, deadline.max(LEAST))?);
        let (alive, until) = watch::channel(());
        let login = Login::new(vault.auth.clone(), namespace);
        let session = Session::new(Arc::clone(&wire), login, until);
        Ok(Self { session, store: Store::new(wire, vault.kv), _alive: alive })
    }

    /// Does something with the token at hand and, if the vault forbids it, once more with a new one.
    async fn attempt<T, F>(&self, work: impl Fn(Arc<Pass>) -> F) -> Result<T, VaultError>
    where
        F: Future<Output = Result<T, Refused>>,
    {
        let pass = self.session.pass().await?;
        let refused = match work(Arc::clone(&pass)).await {
            Err(refused) if refused.forbidden => refused,
            other => return other.map_err(|refused| refused.error),
        };
        match self.session.after_refusal(pass).await? {
            Some(other) => work(other).await.map_err(|refused| refused.error),
            None => Err(refused.error),
        }
    }
}

/// What URLs begin with. A host that is reached elsewhere is reached at the port that stands there, which the client
/// heeds where the URL has none.
fn address(vault: &config::Hashicorp) -> Arc<str> {
    let (scheme, authority) = vault.address.split_once("://").unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, _)) if vault.addresses.contains_key(host) => format!("{scheme}://{host}").into(),
        _ => Arc::clone(&vault.address),
    }
}

/// The client certificate with its key.
fn read(identity: &ClientIdentity) -> Result<network::Identity, String> {
    let pem = private::read(&identity.key, Readers::Owner, KEY).map_err(|unread| unread.to_string())?;
    // The parser's own words may quote the key.
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| format!("{} holds no private key that can be used", identity.key.display()))?;
    Ok((identity.chain.clone(), key))
}

impl SecretSource for Hashicorp {
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        Box::pin(async move {
            let at = Reference::parse(secret)?;
            self.attempt(|pass| self.store.read(pass, &at)).await
        })
    }

    fn fetch_previous<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        Box::pin(async move {
            let at = Reference::parse(secret)?;
            self.attempt(|pass| self.store.read_previous(pass, &at)).await
        })
    }

    fn write<'a>(&'a self, secret: &'a str, value: &'a SecretString) -> Write<'a> {
        Box::pin(async move {
            let at = Reference::parse(secret)?;
            self.attempt(|pass| self.store.write(pass, &at, value)).await
        })
    }
}
