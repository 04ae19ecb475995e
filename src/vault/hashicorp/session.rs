//! One token for all reads: got once, kept alive while the vault is in use, got anew when it is over.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use secrecy::SecretString;
use tokio::{
    sync::{Mutex, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{
    super::VaultError,
    login::{self, Granted, Login},
    wire::Wire,
};
use crate::clock;

/// A login may take as long as so many requests. It goes on where nobody waits for it any more, for a wrapped secret
/// id that was taken and not kept would be lost.
const LOGIN: u32 = 2;

/// Before a token's end, another is got: at most this long, and a tenth of its life.
const MARGIN: Duration = Duration::from_secs(30);

/// A token that is younger than this has the policies of now: what is forbidden to it stays forbidden.
const YOUNG: Duration = Duration::from_mins(5);

/// Between two tries of a renewal at least.
const PAUSE: Duration = Duration::from_secs(1);

/// A token, by which it is told apart from the next one.
pub(super) struct Pass {
    pub(super) token: SecretString,
    since: Instant,
}

struct Current {
    pass: Arc<Pass>,
    /// `None`: never.
    ends: Option<Instant>,
    margin: Duration,
    /// `None`: there is nothing to renew.
    _renewal: Option<Renewal>,
}

/// What renews a token, for as long as the token is in use.
struct Renewal(AbortHandle);

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Default)]
struct Held {
    current: Option<Current>,
    failure: Option<(Instant, VaultError)>,
}

impl Held {
    /// The token, if it has not ended and is another than the refused one.
    fn usable(&self, refused: Option<&Arc<Pass>>, early: bool) -> Option<Arc<Pass>> {
        let current = self.current.as_ref()?;
        let margin = if early { current.margin } else { Duration::ZERO };
        let over = current.ends.is_some_and(|ends| ends.saturating_duration_since(clock::now()) <= margin);
        let is_refused = refused.is_some_and(|refused| Arc::ptr_eq(refused, &current.pass));
        (!over && !is_refused).then(|| Arc::clone(&current.pass))
    }

    fn current(&mut self, pass: &Arc<Pass>) -> Option<&mut Current> {
        self.current.as_mut().filter(|current| Arc::ptr_eq(&current.pass, pass))
    }
}

/// See the module.
pub(super) struct Session {
    wire: Arc<Wire>,
    login: Login,
    held: Mutex<Held>,
    /// Its other end goes with the vault's source: tasks that are under way then end.
    alive: watch::Receiver<()>,
}

impl Session {
    pub(super) fn new(wire: Arc<Wire>, login: Login, alive: watch::Receiver<()>) -> Arc<Self> {
        Arc::new(Self { wire, login, held: Mutex::default(), alive })
    }

    /// A token that is good as far as is known.
    ///
    /// # Errors
    /// Those of a login.
    pub(super) async fn pass(self: &Arc<Self>) -> Result<Arc<Pass>, VaultError> {
        self.other_than(None).await
    }

    /// What to try next where the vault forbade something to `pass`: `None` if that is its last word.
    ///
    /// # Errors
    /// Those of a login.
    pub(super) async fn after_refusal(
        self: &Arc<Self>,
        pass: Arc<Pass>,
    ) -> Result<Option<Arc<Pass>>, VaultError> {
        if let Some(other) = self.held.lock().await.usable(Some(&pass), true) {
            return Ok(Some(other));
        }
        let young = clock::now().saturating_duration_since(pass.since) < YOUNG;
        if young && login::is_known(&self.wire, &pass.token).await? {
            return Ok(None);
        }
        self.other_than(Some(pass)).await.map(Some)
    }

    async fn other_than(self: &Arc<Self>, refused: Option<Arc<Pass>>) -> Result<Arc<Pass>, VaultError> {
        let asked = clock::now();
        if let Some(pass) = self.held.lock().await.usable(refused.as_ref(), true) {
            return Ok(pass);
        }
        let session = Arc::clone(self);
        let login = tokio::spawn(async move {
            let mut alive = session.alive.clone();
            tokio::select! {
                _ = alive.changed() => Err(broke_off()),
                pass = session.log_in(asked, refused) => pass,
            }
        });
        login.await.unwrap_or_else(|_| Err(broke_off()))
    }

    /// Logs in, unless somebody else did since `asked`.
    async fn log_in(
        self: &Arc<Self>,
        asked: Instant,
        refused: Option<Arc<Pass>>,
    ) -> Result<Arc<Pass>, VaultError> {
        let mut held = self.held.lock().await;
        if let Some(pass) = held.usable(refused.as_ref(), true) {
            return Ok(pass);
        }
        if let Some((at, why)) = held.failure.as_ref().filter(|(at, _)| *at >= asked) {
            tracing::trace!(?at, "a login failed for all that waited for it");
            return Err(why.clone());
        }
        let login = timeout(self.wire.patience() * LOGIN, self.login.login(&self.wire)).await;
        match login.unwrap_or_else(|_| Err(VaultError::Unavailable("the login took too long".into()))) {
            Ok(granted) => Ok(self.keep(&mut held, granted)),
            Err(why) => {
                held.failure = Some((clock::now(), why.clone()));
                // It may still do for the little time that it has.
                let old = held.usable(refused.as_ref(), false);
                old.filter(|_| matches!(why, VaultError::Unavailable(_))).ok_or(why)
            }
        }
    }

    fn keep(self: &Arc<Self>, held: &mut Held, granted: Granted) -> Arc<Pass> {
        let Granted { token, lifetime, renewable } = granted;
        let since = clock::now();
        let pass = Arc::new(Pass { token, since });
        let ends = lifetime.and_then(|lifetime| since.checked_add(lifetime));
        let margin = lifetime.map_or(MARGIN, |lifetime| MARGIN.min(lifetime / 10));
        let renewal = lifetime.filter(|_| renewable).map(|lifetime| {
            let (session, mut alive) = (Arc::downgrade(self), self.alive.clone());
            let pass = Arc::clone(&pass);
            let renewal = tokio::spawn(async move {
                tokio::select! {
                    _ = alive.changed() => {}
                    () = renew(session, pass, lifetime) => {}
                }
            });
            Renewal(renewal.abort_handle())
        });
        held.current = Some(Current { pass: Arc::clone(&pass), ends, margin, _renewal: renewal });
        held.failure = None;
        pass
    }
}

/// Renews a token at two thirds of its life, until that brings nothing or the token is no longer the one in use.
async fn renew(session: Weak<Session>, pass: Arc<Pass>, mut lifetime: Duration) {
    let mut wait = lifetime * 2 / 3;
    let mut ends = pass.since.checked_add(lifetime);
    loop {
        sleep(wait.max(PAUSE)).await;
        let Some(session) = session.upgrade() else { return };
        let now = clock::now();
        let left = ends.map(|ends| ends.saturating_duration_since(now));
        if left == Some(Duration::ZERO) {
            return;
        }
        let renewed = login::renew(&session.wire, &pass.token).await;
        let mut held = session.held.lock().await;
        let Some(current) = held.current(&pass) else { return };
        match renewed {
            Ok(None) => {
                current.ends = None;
                return;
            }
            Ok(Some(longer)) => {
                let now = clock::now();
                lifetime = longer;
                ends = now.checked_add(lifetime);
                current.ends = ends;
                current.margin = MARGIN.min(lifetime / 10);
                // The longest life of a token has an end that no renewal moves.
                if left.is_some_and(|left| lifetime <= left + PAUSE) {
                    return;
                }
                wait = lifetime * 2 / 3;
            }
            Err(VaultError::Unavailable(why)) => {
                tracing::warn!(%why, "the token of a vault could not be renewed");
                wait = left.unwrap_or(lifetime) / 4;
            }
            Err(why) => {
                tracing::warn!(%why, "the token of a vault is not renewed; the next read logs in again");
                held.current = None;
                return;
            }
        }
    }
}

fn broke_off() -> VaultError {
    VaultError::Unavailable("the login broke off".into())
}
