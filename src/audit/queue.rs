//! The hand-over from the lanes to the writer: whole buffers, in order, behind one short lock.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use super::Unavailable;
use crate::config::Durability;

/// With more bytes than this waiting for the writer, no intent is taken.
const CAP: usize = 8 * 1024 * 1024;
/// Buffers kept for the next hand-over.
const SPARES: usize = 16;

/// Why intents are not taken at present: bits, because reasons come and go on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Trouble {
    /// A write or a sync failed.
    Failing = 1,
    /// Less free space than the reserve.
    Low = 2,
    /// The disk does not answer.
    Stalled = 4,
    /// The audit is closed.
    Closed = 8,
}

/// A buffer of records on its way to the writer.
#[derive(Debug)]
pub(crate) struct Batch {
    /// As [`super::record`] writes them.
    pub(crate) records: Vec<u8>,
    /// Whom to tell.
    pub(crate) owner: Owner,
}

/// Who handed in a batch.
#[derive(Debug)]
pub(crate) enum Owner {
    /// A lane, with the tickets of its first and its last record.
    Lane(Arc<Mark>, u64, u64),
    /// Somebody who waits for this one record.
    Event(Option<oneshot::Sender<Result<(), Unavailable>>>),
}

/// How far a lane's records have come.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    /// Every ticket up to this one is durable, or has failed.
    done: AtomicU64,
    failing: AtomicBool,
    failed: Mutex<Vec<(u64, u64)>>,
    /// The lane's task.
    pub(crate) waker: AtomicWaker,
}

impl Mark {
    /// Every ticket up to this one is settled. Read this before [`Self::take_failed`].
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// The ranges of tickets that failed since the last call.
    pub(crate) fn take_failed(&self) -> Vec<(u64, u64)> {
        if !self.failing.load(Ordering::Acquire) || !self.failing.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.failed))
    }

    /// Tickets up to `last` are durable.
    pub(crate) fn settle(&self, last: u64) {
        self.done.store(last, Ordering::Release);
    }

    /// These tickets failed.
    pub(crate) fn fail(&self, first: u64, last: u64) {
        lock(&self.failed).push((first, last));
        self.failing.store(true, Ordering::Release);
        self.done.store(last, Ordering::Release);
    }
}

/// What the lanes, the writer and the rest of the process share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What an intent waits for.
    pub(crate) durability: Durability,
    /// What `mono` counts from.
    pub(crate) base: Instant,
    state: Mutex<State>,
    wake: Condvar,
    ended: Condvar,
    waiting: AtomicUsize,
    trouble: AtomicU8,
    why: Mutex<Arc<str>>,
    /// Records on the disk.
    pub(crate) records: AtomicU64,
    /// Batches on the disk.
    pub(crate) batches: AtomicU64,
    /// Writes and syncs that failed.
    pub(crate) failures: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    batches: Vec<Batch>,
    spares: Vec<Vec<u8>>,
    /// The writer sleeps.
    asleep: bool,
    closing: bool,
    ended: bool,
}

impl Shared {
    /// An empty queue.
    pub(crate) fn new(durability: Durability, base: Instant) -> Self {
        Self {
            durability,
            base,
            state: Mutex::default(),
            wake: Condvar::new(),
            ended: Condvar::new(),
            waiting: AtomicUsize::new(0),
            trouble: AtomicU8::new(0),
            why: Mutex::new("".into()),
            records: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Hands in a batch; gives an empty buffer for the next.
    pub(crate) fn push(&self, batch: Batch) -> Vec<u8> {
        self.waiting.fetch_add(batch.records.len(), Ordering::Relaxed);
        let mut state = lock(&self.state);
        state.batches.push(batch);
        let asleep = std::mem::take(&mut state.asleep);
        let spare = state.spares.pop();
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
        spare.unwrap_or_default()
    }

    /// Takes all batches into `into`, waiting for some for as long as `patience`. Gives whether the
    /// audit is closing.
    pub(crate) fn take(&self, into: &mut Vec<Batch>, patience: Duration) -> bool {
        let mut state = lock(&self.state);
        if state.batches.is_empty() && !state.closing && !patience.is_zero() {
            state.asleep = true;
            state = match self.wake.wait_timeout(state, patience) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
            state.asleep = false;
        }
        into.append(&mut state.batches);
        state.closing
    }

    /// Gives buffers back for further use.
    pub(crate) fn recycle(&self, batches: &mut Vec<Batch>) {
        let mut freed = 0;
        let mut state = lock(&self.state);
        for mut batch in batches.drain(..) {
            freed += batch.records.len();
            if state.spares.len() < SPARES && batch.records.capacity() <= 1024 * 1024 {
                batch.records.clear();
                state.spares.push(batch.records);
            }
        }
        drop(state);
        self.waiting.fetch_sub(freed, Ordering::Relaxed);
    }

    /// Whether intents are taken, and if not, why.
    ///
    /// # Errors
    /// The reason.
    pub(crate) fn accepts(&self) -> Result<(), Unavailable> {
        let trouble = self.trouble.load(Ordering::Acquire);
        if trouble == 0 && self.waiting.load(Ordering::Relaxed) < CAP {
            return Ok(());
        }
        Err(self.unavailable())
    }

    /// Why intents are not taken, as a value.
    pub(crate) fn unavailable(&self) -> Unavailable {
        let trouble = self.trouble.load(Ordering::Acquire);
        let has = |one: Trouble| trouble & one as u8 != 0;
        if has(Trouble::Closed) {
            Unavailable("it is closed".into())
        } else if has(Trouble::Failing) || has(Trouble::Low) {
            Unavailable(Arc::clone(&lock(&self.why)))
        } else if has(Trouble::Stalled) {
            Unavailable("the disk does not answer".into())
        } else {
            Unavailable("the disk is too slow".into())
        }
    }

    /// Trouble begins. Gives whether it is new.
    pub(crate) fn begin(&self, trouble: Trouble, why: Option<String>) -> bool {
        if let Some(why) = why {
            *lock(&self.why) = why.into();
        }
        self.trouble.fetch_or(trouble as u8, Ordering::AcqRel) & trouble as u8 == 0
    }

    /// Trouble ends. Gives whether there was any.
    pub(crate) fn end(&self, trouble: Trouble) -> bool {
        if self.trouble.load(Ordering::Acquire) & trouble as u8 == 0 {
            return false;
        }
        self.trouble.fetch_and(!(trouble as u8), Ordering::AcqRel);
        true
    }

    /// Asks the writer to end when all is written, and waits for that. Gives whether it has.
    pub(crate) fn close(&self, timeout: Duration) -> bool {
        self.begin(Trouble::Closed, None);
        let mut state = lock(&self.state);
        state.closing = true;
        self.wake.notify_one();
        let waited = self.ended.wait_timeout_while(state, timeout, |state| !state.ended);
        waited.map_or(false, |(state, _)| state.ended)
    }

    /// The writer has ended.
    pub(crate) fn ended(&self) {
        lock(&self.state).ended = true;
        self.ended.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
