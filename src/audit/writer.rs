//! The one thread that writes: takes what all lanes handed in, writes and syncs it once, and tells
//! each lane once. It waits for nothing but work: while one sync runs, the next batch gathers.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    Unavailable,
    chain::{Lock, Locking},
    journal::Journal,
    queue::{Batch, Owner, Shared, Trouble},
    record::{self, Fate, Record, Timekeeper},
};
use crate::{clock, config::Durability};

/// How often the free space is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The longest wait between two tries on a failing disk.
const BACK_OFF: Duration = Duration::from_secs(1);
/// What is kept at most while the disk fails, in bytes: outcomes of requests that were under way.
const KEPT_CAP: usize = 64 * 1024 * 1024;

/// The writer, until it is closed.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    lock: Lock,
    reserve: u64,
    time: Timekeeper,
    /// Records that happened and are not on the disk.
    kept: Vec<u8>,
    /// Records that were given up since the disk failed.
    lost: u64,
    failing: Option<Failing>,
    looked: Option<Instant>,
}

struct Failing {
    tries: u32,
    next: Instant,
    why: String,
}

impl Writer {
    /// A writer for a journal, with the lock of its chain.
    pub(crate) fn new(shared: Arc<Shared>, journal: Journal, lock: Lock, reserve: u64) -> Self {
        let time = Timekeeper::new(shared.base);
        Self { shared, journal, lock, reserve, time, kept: Vec::new(), lost: 0, failing: None, looked: None }
    }

    /// Writes until the audit is closed and all is written.
    pub(crate) fn run(mut self) {
        let mut batches = Vec::new();
        loop {
            let patience = self.failing.as_ref().map_or(LOOK, |failing| {
                failing.next.saturating_duration_since(clock::now()).max(Duration::from_millis(1))
            });
            let closing = self.shared.take(&mut batches, patience);
            // Whoever comes round here does answer.
            self.shared.end(Trouble::Stalled);
            self.look();
            if self.failing.is_some() {
                self.set_aside(&mut batches);
                if closing || self.failing.as_ref().is_some_and(|failing| failing.next <= clock::now()) {
                    self.resume();
                }
            } else if !batches.is_empty() {
                match self.write(&batches) {
                    Ok(()) => {
                        Self::acknowledge(&mut batches);
                        // It pays where each batch is synced; and what is left of a full disk is for records.
                        if self.shared.durability == Durability::Disk && self.shared.accepts().is_ok() {
                            self.journal.make_space();
                        }
                    }
                    Err(error) => {
                        self.fail(&error);
                        self.set_aside(&mut batches);
                    }
                }
            }
            let idle = batches.is_empty();
            self.shared.recycle(&mut batches);
            if closing && idle {
                break;
            }
        }
        self.journal.close();
    }

    fn write(&mut self, batches: &[Batch]) -> io::Result<()> {
        self.journal.prepare()?;
        let mut count = 0;
        for batch in batches {
            for (_, payload) in record::each(&batch.records) {
                self.journal.append(payload);
                count += 1;
            }
        }
        self.journal.commit(self.shared.durability == Durability::Disk)?;
        self.shared.records.fetch_add(count, Ordering::Relaxed);
        self.shared.batches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn acknowledge(batches: &mut [Batch]) {
        for batch in batches.iter() {
            if let Owner::Lane(mark, _, last) = &batch.owner {
                mark.settle(*last);
            }
        }
        Self::wake(batches);
        Self::answer(batches, &Ok(()));
    }

    fn answer(batches: &mut [Batch], answer: &Result<(), Unavailable>) {
        for batch in batches {
            if let Owner::Event(waiter) = &mut batch.owner
                && let Some(waiter) = waiter.take()
            {
                // Who waited may have gone.
                let _ = waiter.send(answer.clone());
            }
        }
    }

    /// Wakes each lane once: a second wake of the same task before it ran costs next to nothing.
    fn wake(batches: &[Batch]) {
        for batch in batches {
            if let Owner::Lane(mark, ..) = &batch.owner {
                mark.waker.wake();
            }
        }
    }

    /// Nobody's use may rest on the batch: what is awaited fails, what happened is kept.
    fn set_aside(&mut self, batches: &mut [Batch]) {
        for batch in batches.iter() {
            for (fate, payload) in record::each(&batch.records) {
                if fate == Fate::Kept && self.kept.len() < KEPT_CAP {
                    record::keep(&mut self.kept, payload);
                } else {
                    self.lost += 1;
                }
            }
            if let Owner::Lane(mark, first, last) = &batch.owner {
                mark.fail(*first, *last);
            }
        }
        Self::wake(batches);
        Self::answer(batches, &Err(self.shared.unavailable()));
    }

    fn fail(&mut self, error: &io::Error) {
        self.journal.abandon();
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        let tries = self.failing.as_ref().map_or(0, |failing| failing.tries + 1);
        let pause = (Duration::from_millis(50) * 2_u32.saturating_pow(tries.min(8))).min(BACK_OFF);
        let why = error.to_string();
        self.failing = Some(Failing { tries, next: clock::now() + pause, why: why.clone() });
        if self.shared.begin(Trouble::Failing, Some(why)) {
            tracing::error!(%error, "the audit can't be written: no credential is used until it can");
        }
    }

    /// Tries a new segment, with a record of the gap and what was kept.
    fn resume(&mut self) {
        if let Err(error) = self.write_kept() {
            self.fail(&error);
            return;
        }
        self.failing = None;
        self.lost = 0;
        self.kept = Vec::new();
        self.shared.end(Trouble::Failing);
        tracing::info!("the audit is written again");
    }

    /// Makes the chain's folder and its lock again where somebody deleted them.
    fn hold(&mut self) -> io::Result<()> {
        if self.lock.holds()? {
            return Ok(());
        }
        match Lock::take(self.journal.folder())? {
            Locking::Ours(lock) => {
                self.lock = lock;
                Ok(())
            }
            Locking::Taken(_) => Err(io::Error::other("another patgate writes here now")),
        }
    }

    fn write_kept(&mut self) -> io::Result<()> {
        self.hold()?;
        self.journal.prepare()?;
        let mut gap = Vec::new();
        let mut record = Record::begin(&mut gap, "gap", Fate::Kept, &mut self.time);
        record.number("last-seq", self.journal.last()).number("unknown", self.lost);
        if let Some(failing) = &self.failing {
            record.text("detail", &failing.why, 256);
        }
        record.finish();
        for (_, payload) in record::each(&gap).chain(record::each(&self.kept)) {
            self.journal.append(payload);
        }
        self.journal.commit(true)
    }

    /// Looks once a second: at the free space, and whether the segment is still there.
    fn look(&mut self) {
        let now = clock::now();
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            return;
        }
        self.looked = Some(now);
        let there = self.journal.is_named().unwrap_or(true) && self.lock.holds().unwrap_or(true);
        if self.failing.is_none() && !there {
            self.fail(&io::Error::new(io::ErrorKind::NotFound, "the segment or the lock was deleted"));
            return;
        }
        let why = match self.journal.free() {
            Ok(free) if free >= self.reserve => {
                if self.shared.end(Trouble::Low) {
                    tracing::info!(free, "there is space for the audit again");
                }
                return;
            }
            Ok(free) => format!("{free} bytes are free, of the reserve of {}", self.reserve),
            Err(error) => error.to_string(),
        };
        if self.shared.begin(Trouble::Low, Some(why.clone())) {
            tracing::error!(why, "too little space for the audit: no credential is used until there is more");
        }
    }
}
