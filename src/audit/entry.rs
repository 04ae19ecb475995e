//! The record of one request, from its arrival to its ending.

use std::{net::SocketAddr, rc::Rc, time::Instant};

use super::{Ending, Facts, Lane, Unavailable, flood::Key, record::Fate};
use crate::{clock, config::Durability};

/// The record of one request, until it is ended. Dropped without an ending, it writes one:
/// `panic` while the thread unwinds, else `client-gone`. Cheap to move (one pointer).
pub struct Entry(Box<Inner>);

struct Inner {
    facts: Facts,
    id: [u8; 20],
    lane: Rc<Lane>,
    started: Instant,
    /// How many intents were handed to the lane.
    attempts: u64,
    ending: Option<Ending>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("id", &self.id()).field("facts", &self.0.facts).finish_non_exhaustive()
    }
}

impl Entry {
    pub(super) fn new(lane: Rc<Lane>, id: [u8; 20], peer: Option<SocketAddr>) -> Self {
        let facts = Facts { peer, ..Facts::default() };
        Self(Box::new(Inner { facts, id, lane, started: clock::now(), attempts: 0, ending: None }))
    }

    /// The request's id as clients see it in `X-Patgate-Request-Id`: 20 characters of `0-9a-z`.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.id()
    }

    /// When the request arrived.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.0.started
    }

    /// What is known so far.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// What is known so far, to add to.
    pub fn facts_mut(&mut self) -> &mut Facts {
        &mut self.0.facts
    }

    /// Writes the one final record: a refusal where no intent was written, else an outcome.
    pub fn end(mut self, ending: Ending) {
        self.0.ending = Some(ending);
    }

    /// Writes an intent and waits until it is durable. `purpose` and `path` are for a further
    /// attempt of the same request.
    ///
    /// # Errors
    /// It can't be made durable: nothing may be used.
    pub(super) async fn intend(
        &mut self,
        purpose: Option<&str>,
        path: Option<&str>,
    ) -> Result<(), Unavailable> {
        let lane = Rc::clone(&self.0.lane);
        lane.shared.accepts()?;
        let inner = &mut *self.0;
        inner.attempts += 1;
        let attempt = inner.attempts;
        let ticket = lane.append("intent", Fate::Awaited, |record| {
            record.facts(id(&inner.id), &inner.facts);
            if attempt > 1 {
                record.number("attempt", attempt);
            }
            record.name("purpose", purpose);
            if let Some(path) = path {
                record.text("purpose-path", path, 2048);
            }
        });
        if lane.shared.durability == Durability::Memory {
            lane.carry();
            return Ok(());
        }
        lane.durable(ticket).await
    }
}

impl Inner {
    fn id(&self) -> &str {
        id(&self.id)
    }
}

fn id(id: &[u8; 20]) -> &str {
    std::str::from_utf8(id).unwrap_or_default()
}

impl Drop for Inner {
    fn drop(&mut self) {
        let gone = if std::thread::panicking() { Ending::Panic } else { Ending::ClientGone };
        let ending = self.ending.unwrap_or(gone);
        let micros = clock::now().saturating_duration_since(self.started).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        let metrics = &self.lane.metrics;
        metrics.ended(ending);
        metrics.up(self.facts.bytes_in);
        metrics.down(self.facts.bytes_out);
        let fill = |record: &mut super::record::Record<'_>| {
            record.facts(self.id(), &self.facts).result(&self.facts, ending, micros);
        };
        if self.attempts > 0 {
            self.lane.append("outcome", Fate::Kept, fill);
            return;
        }
        let (reason, refused) = match ending {
            Ending::Refused(why) => (why.code(), true),
            other => (other.as_str(), false),
        };
        let key = Key {
            // What patgate answered by itself is no refusal.
            kind: if ending == Ending::Complete { "outcome" } else { "refusal" },
            address: self.facts.peer.map(|peer| peer.ip()),
            client: self.facts.client.clone(),
            reason,
            refused,
        };
        self.lane.flooded(key, fill);
    }
}
