//! One worker's way to the writer.
//!
//! Records gather in a buffer of the lane. What is waited for is handed over once a round of the
//! runtime, by a task that is queued behind those that are ready already; the rest goes along, or
//! follows after [`LINGER`]. The writer wakes that task once a batch, and it wakes those whose
//! records are durable.

use std::{
    cell::{Cell, RefCell},
    collections::{HashSet, VecDeque},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{
    Entry, Unavailable,
    flood::{Flood, Key},
    queue::{Batch, Mark, Owner, Shared, Trouble},
    record::{Fate, Record, Timekeeper},
};
use crate::{metrics::Metrics, refusal::Refusal};

/// How long what nobody waits for may stay in the lane.
const LINGER: Duration = Duration::from_millis(10);
/// How often those who wait, and what is held of a flood, are looked at.
const ROUND: Duration = Duration::from_millis(250);
/// How long an intent waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a lane gathers at most before it hands over at once, in bytes.
const FULL: usize = 256 * 1024;

/// One worker's way to the writer. Not `Send`: each worker has its own.
pub struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<Metrics>,
    mark: Arc<Mark>,
    buffer: RefCell<Vec<u8>>,
    time: RefCell<Timekeeper>,
    flood: RefCell<Flood>,
    /// The last record's ticket.
    ticket: Cell<u64>,
    /// The last ticket that was handed over.
    handed: Cell<u64>,
    /// Every ticket up to this one is durable, but for `failed`.
    durable: Cell<u64>,
    failed: RefCell<HashSet<u64>>,
    waiters: RefCell<VecDeque<Waiter>>,
    urgent: Cell<bool>,
    alarm: Cell<Option<Duration>>,
    task: RefCell<Waker>,
    ids: Ids,
}

struct Waiter {
    ticket: u64,
    since: Instant,
    waker: Waker,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut lane = f.debug_struct("Lane");
        lane.field("ticket", &self.ticket).field("durable", &self.durable).finish_non_exhaustive()
    }
}

impl Lane {
    /// A lane, with its task on the calling thread's runtime.
    pub(super) fn open(shared: Arc<Shared>, metrics: Arc<Metrics>) -> Rc<Self> {
        let mark = Arc::new(Mark::default());
        let lane = Rc::new(Self {
            mark: Arc::clone(&mark),
            buffer: RefCell::default(),
            time: RefCell::new(Timekeeper::new(shared.base)),
            shared,
            metrics,
            flood: RefCell::default(),
            ticket: Cell::new(0),
            handed: Cell::new(0),
            durable: Cell::new(0),
            failed: RefCell::default(),
            waiters: RefCell::default(),
            urgent: Cell::new(false),
            alarm: Cell::new(None),
            task: RefCell::new(Waker::noop().clone()),
            ids: Ids::new(),
        });
        let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        tokio::task::spawn_local(Carrier { lane: Rc::downgrade(&lane), mark, sleep, armed: None });
        lane
    }

    /// Begins the record of a request. `peer`: `None` for patgate's own requests.
    pub fn entry(self: &Rc<Self>, peer: Option<SocketAddr>) -> Entry {
        Entry::new(Rc::clone(self), self.ids.next(), peer)
    }

    /// A connection that ended before a request could be read (a malformed head, a failed handshake,
    /// a cap). Aggregated under flood like other refusals. `detail` is cut to 1,024 bytes.
    pub fn connection(&self, peer: SocketAddr, why: Refusal, detail: &str) {
        self.metrics.refusal(why);
        let key = Key {
            kind: "connection",
            address: Some(peer.ip()),
            client: None,
            reason: why.code(),
            refused: true,
        };
        self.flooded(key, |record| {
            record.address(Some(peer.ip())).number("port", u64::from(peer.port()));
            record.name("refusal", Some(why.code())).text("detail", detail, 1024);
        });
    }

    /// Writes a record that may come in floods, or counts it.
    pub(super) fn flooded(&self, key: Key, fill: impl FnOnce(&mut Record<'_>)) {
        let second = Timekeeper::second();
        let hold = self.shared.accepts().is_err();
        if !hold && self.flood.borrow().is_due(second) {
            self.release();
        }
        let kind = key.kind;
        if self.flood.borrow_mut().admit(key, second, hold) {
            self.append(kind, Fate::Kept, fill);
        } else {
            self.rouse(ROUND);
        }
    }

    /// Writes what is held of a flood.
    fn release(&self) {
        let held = self.flood.borrow_mut().drain();
        for (key, count) in held {
            self.append(key.kind, Fate::Kept, |record| {
                record.name("client", key.client.as_deref()).address(key.address);
                record.name(if key.refused { "refusal" } else { "ending" }, Some(key.reason));
                record.number("count", count);
            });
        }
    }

    /// Adds a record to the buffer, and gives its ticket.
    pub(super) fn append(&self, kind: &str, fate: Fate, fill: impl FnOnce(&mut Record<'_>)) -> u64 {
        let ticket = self.ticket.get() + 1;
        self.ticket.set(ticket);
        let mut gathered = self.buffer.borrow_mut();
        let mut record = Record::begin(&mut gathered, kind, fate, &mut self.time.borrow_mut());
        fill(&mut record);
        record.finish();
        let is_full = gathered.len() >= FULL;
        drop(gathered);
        if is_full {
            self.hand_over();
        } else if fate == Fate::Kept {
            self.rouse(LINGER);
        }
        ticket
    }

    /// Waits until a record is durable. It is handed over at the end of this round.
    pub(super) fn durable(&self, ticket: u64) -> Durable<'_> {
        if !self.urgent.replace(true) {
            self.task.borrow().wake_by_ref();
        }
        Durable { lane: self, ticket, waiting: false }
    }

    /// Hands over what nobody waits for, soon.
    pub(super) fn carry(&self) {
        self.rouse(LINGER);
    }

    /// Has the task come round within `pause`.
    fn rouse(&self, pause: Duration) {
        if self.alarm.get().is_none_or(|set| set > pause) {
            self.alarm.set(Some(pause));
            self.task.borrow().wake_by_ref();
        }
    }

    fn hand_over(&self) {
        self.urgent.set(false);
        let (first, last) = (self.handed.get() + 1, self.ticket.get());
        if first > last {
            return;
        }
        self.handed.set(last);
        let records = self.buffer.take();
        let spare =
            self.shared.push(Batch { records, owner: Owner::Lane(Arc::clone(&self.mark), first, last) });
        self.buffer.replace(spare);
    }

    /// Takes note of what the writer has settled, and wakes those who wait for it.
    fn settle(&self) {
        let done = self.mark.done();
        let failed = self.mark.take_failed();
        let mut waiters = self.waiters.borrow_mut();
        for (first, last) in failed {
            let mut set = self.failed.borrow_mut();
            set.extend(waiters.iter().map(|waiter| waiter.ticket).filter(|n| (first..=last).contains(n)));
        }
        self.durable.set(done);
        while let Some(waiter) = first_if(&mut waiters, |waiter| waiter.ticket <= done) {
            waiter.waker.wake();
        }
    }

    /// What is done now and then.
    fn round(&self) {
        if self.shared.accepts().is_ok() && self.flood.borrow().is_due(Timekeeper::second()) {
            self.release();
        }
        self.hand_over();
        let now = Instant::now();
        let mut waiters = self.waiters.borrow_mut();
        while let Some(waiter) = first_if(&mut waiters, |waiter| now - waiter.since >= PATIENCE) {
            if self.shared.begin(Trouble::Stalled, None) {
                tracing::error!("the audit's disk does not answer: no credential is used until it does");
            }
            self.failed.borrow_mut().insert(waiter.ticket);
            waiter.waker.wake();
        }
        if !waiters.is_empty() || !self.flood.borrow().is_empty() {
            self.alarm.set(Some(ROUND));
        }
    }
}

fn first_if(waiters: &mut VecDeque<Waiter>, is_due: impl FnOnce(&Waiter) -> bool) -> Option<Waiter> {
    if waiters.front().is_some_and(is_due) { waiters.pop_front() } else { None }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.release();
        self.hand_over();
        self.task.borrow().wake_by_ref();
    }
}

/// Waits for a ticket.
pub(super) struct Durable<'a> {
    lane: &'a Lane,
    ticket: u64,
    waiting: bool,
}

impl Future for Durable<'_> {
    type Output = Result<(), Unavailable>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (lane, ticket) = (self.lane, self.ticket);
        if !lane.failed.borrow().is_empty() && lane.failed.borrow_mut().remove(&ticket) {
            return Poll::Ready(Err(lane.shared.unavailable()));
        }
        if lane.durable.get() >= ticket {
            return Poll::Ready(Ok(()));
        }
        let mut waiters = lane.waiters.borrow_mut();
        if self.waiting {
            let found = waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket);
            if let Some(waiter) = found.ok().and_then(|at| waiters.get_mut(at)) {
                waiter.waker.clone_from(cx.waker());
            }
        } else {
            // Tickets are given in order, but who got one may be polled later.
            let at = waiters.partition_point(|waiter| waiter.ticket < ticket);
            waiters.insert(at, Waiter { ticket, since: Instant::now(), waker: cx.waker().clone() });
            drop(waiters);
            self.waiting = true;
            lane.rouse(ROUND);
        }
        Poll::Pending
    }
}

impl Drop for Durable<'_> {
    fn drop(&mut self) {
        if self.waiting && !self.lane.failed.borrow().is_empty() {
            self.lane.failed.borrow_mut().remove(&self.ticket);
        }
    }
}

/// The lane's task.
struct Carrier {
    lane: Weak<Lane>,
    mark: Arc<Mark>,
    sleep: Pin<Box<Sleep>>,
    /// What `sleep` was set to, until it fires.
    armed: Option<Duration>,
}

impl Future for Carrier {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(lane) = this.lane.upgrade() else { return Poll::Ready(()) };
        this.mark.waker.register(cx.waker());
        lane.task.borrow_mut().clone_from(cx.waker());
        lane.settle();
        if lane.urgent.get() {
            lane.hand_over();
        }
        while let Some(pause) = lane.alarm.get() {
            if this.armed.is_none_or(|armed| armed > pause) {
                this.sleep.as_mut().reset(Instant::now() + pause);
                this.armed = Some(pause);
            }
            ready!(this.sleep.as_mut().poll(cx));
            this.armed = None;
            lane.alarm.set(None);
            lane.round();
        }
        Poll::Pending
    }
}

/// Request ids: 20 characters of base 32, unique by a random half for each lane and a count, which
/// is scattered so that ids don't tell how many requests there were.
#[derive(Debug)]
struct Ids {
    lane: u64,
    factor: u64,
    count: Cell<u64>,
}

/// An id for a call of patgate's own, in the form of a request's.
#[must_use]
pub fn request_id() -> Box<str> {
    let id = Ids::new().next();
    std::str::from_utf8(&id).unwrap_or_default().into()
}

const HALF: u64 = (1 << 50) - 1;

impl Ids {
    fn new() -> Self {
        let mut random = [0; 16];
        // Without randomness the time still tells lanes apart.
        if aws_lc_rs::rand::fill(&mut random).is_err() {
            random = u128::from(super::record::unix_nanos()).to_le_bytes();
        }
        let random = u128::from_le_bytes(random);
        let half = |shift: u32| u64::try_from((random >> shift) & u128::from(HALF)).unwrap_or_default();
        Self { lane: half(0), factor: half(64) | 1, count: Cell::new(0) }
    }

    fn next(&self) -> [u8; 20] {
        let count = self.count.get() + 1;
        self.count.set(count);
        // An odd factor: every count has its own product.
        let scattered = count.wrapping_mul(self.factor) & HALF;
        let mut number = (u128::from(self.lane) << 50) | u128::from(scattered);
        let mut id = [b'0'; 20];
        for letter in id.iter_mut().rev() {
            let digit = usize::try_from(number & 31).unwrap_or_default();
            *letter = b"0123456789abcdefghjkmnpqrstvwxyz".get(digit).copied().unwrap_or(b'0');
            number >>= 5;
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_of_one_form() {
        let (one, two) = (Ids::new(), Ids::new());
        let ids: HashSet<_> = (0..1000).flat_map(|_| [one.next(), two.next()]).collect();
        assert_eq!(ids.len(), 2000);
        assert!(ids.iter().flatten().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit()));
    }
}
