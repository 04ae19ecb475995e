//! The KV engine, versions 1 and 2: which one stands where, reads, and writes that keep the other fields.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use secrecy::SecretString;

use super::{
    super::{Fetched, VaultError},
    session::Pass,
    wire::{Answer, Ask, Wire},
};
use crate::config::Kv;

mod content;

use content::{
    Change, CheckAndSet, Mounted, Plain, Spot, fetched, merged, mounted, nowhere, present, refused, room,
    written,
};
pub(super) use content::{Reference, Refused};

/// As many places of mounts are remembered; there are as many credentials as a configuration has, and few.
const REMEMBERED: usize = 1024;

/// The secrets of one vault.
pub(super) struct Store {
    wire: Arc<Wire>,
    kv: Option<Kv>,
    spots: Mutex<BTreeMap<Arc<str>, Spot>>,
}

impl Store {
    pub(super) fn new(wire: Arc<Wire>, kv: Option<Kv>) -> Self {
        Self { wire, kv, spots: Mutex::default() }
    }

    /// Reads the present value.
    pub(super) async fn read(&self, pass: Arc<Pass>, at: &Reference) -> Result<Fetched, Refused> {
        let mut first = None;
        for spot in self.spots(&pass, at).await? {
            let answer = self.wire.ask(Ask::get(&spot.path()).with(&pass.token)).await?;
            match fetched(&answer, &spot, at) {
                Ok(fetched) => {
                    self.remember(at, &spot);
                    return Ok(fetched);
                }
                Err(refused) if matches!(refused.error, VaultError::Denied(_)) => {
                    self.forget(at);
                    first.get_or_insert(refused);
                }
                Err(refused) => return Err(refused),
            }
        }
        Err(first.unwrap_or_else(|| nowhere(at).into()))
    }

    /// Reads the version before the present one.
    pub(super) async fn read_previous(&self, pass: Arc<Pass>, at: &Reference) -> Result<Fetched, Refused> {
        let spot = self.spot(&pass, at).await?;
        if spot.version == Kv::V1 {
            let text = format!("{} is a KV engine of version 1, which keeps no earlier versions", spot.mount);
            return Err(VaultError::Denied(text.into()).into());
        }
        let answer = self.wire.ask(Ask::get(&spot.path()).with(&pass.token)).await?;
        let (_, version) = present(&answer, at)?;
        let Some(previous) = version.checked_sub(1).filter(|version| *version > 0) else {
            return Err(VaultError::Denied(format!("{} has no earlier version", at.path).into()).into());
        };
        let answer = self.wire.ask(Ask::get(&spot.path()).version(previous).with(&pass.token)).await?;
        fetched(&answer, &spot, at)
    }

    /// Writes the field, and keeps the others.
    pub(super) async fn write(
        &self,
        pass: Arc<Pass>,
        at: &Reference,
        value: &SecretString,
    ) -> Result<Option<Arc<str>>, Refused> {
        let spot = self.spot(&pass, at).await?;
        let answer = self.wire.ask(Ask::get(&spot.path()).with(&pass.token)).await?;
        match spot.version {
            Kv::V1 => self.write_plain(&pass, at, &spot, &answer, value).await.map(|()| None),
            Kv::V2 => {
                let version = self.write_version(&pass, at, &spot, &answer, value).await?;
                Ok(Some(version.to_string().into()))
            }
        }
    }

    async fn write_plain(
        &self,
        pass: &Pass,
        at: &Reference,
        spot: &Spot,
        present: &Answer,
        value: &SecretString,
    ) -> Result<(), Refused> {
        let known = if present.status.is_success() {
            present.json::<Plain<'_>>()?.data
        } else if present.status == http::StatusCode::NOT_FOUND {
            None
        } else {
            return Err(refused(present, &at.path));
        };
        let room = room(known.as_ref(), value);
        let fields = merged(known.as_ref(), at, value);
        let answer = self.wire.ask(Ask::post(&spot.path(), &fields, room).with(&pass.token)).await?;
        if answer.status.is_success() {
            Ok(())
        } else {
            Err(refused(&answer, &format!("a write to {}", at.path)))
        }
    }

    async fn write_version(
        &self,
        pass: &Pass,
        at: &Reference,
        spot: &Spot,
        answer: &Answer,
        value: &SecretString,
    ) -> Result<u64, Refused> {
        let (known, cas) = present(answer, at)?;
        let path = spot.path();
        // A change needs `patch`; without it, all of the secret is written, which needs `update`.
        if known.is_some() {
            let body = Change { options: CheckAndSet { cas }, data: merged(None, at, value) };
            let answer = self.wire.ask(Ask::patch(&path, &body, room(None, value)).with(&pass.token)).await?;
            if answer.status != http::StatusCode::FORBIDDEN
                && answer.status != http::StatusCode::METHOD_NOT_ALLOWED
            {
                return written(&answer, at);
            }
        }
        let room = room(known.as_ref(), value);
        let body = Change { options: CheckAndSet { cas }, data: merged(known.as_ref(), at, value) };
        let answer = self.wire.ask(Ask::post(&path, &body, room).with(&pass.token)).await?;
        written(&answer, at)
    }

    /// Where a secret may be: known, or the vault's word, or, where it gives none, two guesses.
    async fn spots(&self, pass: &Pass, at: &Reference) -> Result<Vec<Spot>, Refused> {
        if let Some(known) = self.known(at) {
            return Ok(vec![known]);
        }
        let first = at.path.split('/').next().unwrap_or_default();
        if let Some(version) = self.kv {
            return Ok(Spot::below(first, &at.path, version).into_iter().collect());
        }
        let question = format!("sys/internal/ui/mounts/{}", at.path);
        let answer = self.wire.ask(Ask::get(&question).with(&pass.token)).await?;
        if answer.status.is_success() {
            return Ok(vec![mounted(answer.json::<Mounted>()?.data, at)?]);
        }
        match answer.failure("a question about the mount") {
            // A policy may forbid the question and allow the read.
            VaultError::Denied(_) => {
                Ok([Kv::V2, Kv::V1].into_iter().filter_map(|kv| Spot::below(first, &at.path, kv)).collect())
            }
            error => Err(error.into()),
        }
    }

    /// The one place where a secret is, for what needs more than a read.
    async fn spot(&self, pass: &Arc<Pass>, at: &Reference) -> Result<Spot, Refused> {
        let mut spots = self.spots(pass, at).await?;
        if spots.len() > 1 {
            self.read(Arc::clone(pass), at).await?;
            spots = self.known(at).into_iter().collect();
        }
        spots.pop().ok_or_else(|| nowhere(at).into())
    }

    fn known(&self, at: &Reference) -> Option<Spot> {
        self.spots.lock().unwrap_or_else(PoisonError::into_inner).get(&at.path).cloned()
    }

    fn remember(&self, at: &Reference, spot: &Spot) {
        let mut spots = self.spots.lock().unwrap_or_else(PoisonError::into_inner);
        if spots.len() >= REMEMBERED {
            spots.clear();
        }
        spots.insert(Arc::clone(&at.path), spot.clone());
    }

    /// An engine may have been moved, or upgraded to version 2.
    fn forget(&self, at: &Reference) {
        self.spots.lock().unwrap_or_else(PoisonError::into_inner).remove(&at.path);
    }
}
