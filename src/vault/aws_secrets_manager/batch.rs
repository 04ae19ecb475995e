//! Reads that come within the same few milliseconds go up as one.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use aws_sdk_secretsmanager::Client;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use zeroize::Zeroizing;

use super::{
    field::Value,
    read::{self, Answers},
};
use crate::vault::VaultError;

/// How long the first waits for others.
const WINDOW: Duration = Duration::from_millis(5);

/// What `BatchGetSecretValue` takes at most.
const MOST: usize = 20;

type Reading = BoxFuture<'static, Arc<Answers>>;

/// See the module. A read is driven by whoever waits for it, and ends when nobody does.
pub(super) struct Batch {
    client: Client,
    open: Mutex<Option<Open>>,
    /// patgate may not read several at once.
    refused: Arc<AtomicBool>,
}

/// A read that others may still join.
struct Open {
    /// `None` once it is on its way.
    names: Arc<Mutex<Option<Vec<Arc<str>>>>>,
    reading: WeakShared<Reading>,
}

impl Batch {
    pub(super) fn new(client: Client) -> Self {
        Self { client, open: Mutex::default(), refused: Arc::default() }
    }

    /// The current version of a secret.
    pub(super) async fn read(&self, name: &str) -> Result<Value, VaultError> {
        let answers = self.join(name).await;
        match answers.0.get(name) {
            Some(Ok(value)) => Ok(Value {
                text: value.text.as_ref().map(|text| Zeroizing::new(text.as_str().to_owned())),
                version: value.version.clone(),
            }),
            Some(Err(error)) => Err(error.clone()),
            None => Err(VaultError::Unavailable("its answer is not one of Secrets Manager".into())),
        }
    }

    fn join(&self, name: &str) -> Shared<Reading> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = open.as_ref().and_then(|open| open.join(name)) {
            return reading;
        }
        let names = Arc::new(Mutex::new(Some(vec![Arc::from(name)])));
        let (client, taken, refused) = (self.client.clone(), Arc::clone(&names), Arc::clone(&self.refused));
        let reading = async move {
            tokio::time::sleep(WINDOW).await;
            let names = taken.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
            Arc::new(read::many(&client, &names, &refused).await)
        };
        let reading = reading.boxed().shared();
        *open = reading.downgrade().map(|reading| Open { names, reading });
        reading
    }
}

impl Open {
    /// Adds a name, unless this read is full, on its way, or abandoned.
    fn join(&self, name: &str) -> Option<Shared<Reading>> {
        let reading = self.reading.upgrade()?;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names.as_mut()?;
        if !names.iter().any(|known| **known == *name) {
            if names.len() >= MOST {
                return None;
            }
            names.push(name.into());
        }
        Some(reading)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("refused", &self.refused).finish_non_exhaustive()
    }
}
