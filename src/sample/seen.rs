//! What the sample organisation saw: for tests that ask whether a request went up, and with what.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use http::{header::AUTHORIZATION, request::Parts};

/// How many requests are kept, unless [`super::Organization::keep`] says otherwise.
pub const KEPT: usize = 1_024;
/// The most that can be kept.
pub const MOST_KEPT: usize = 1 << 20;

/// One request as it arrived.
#[derive(Debug)]
pub struct Seen {
    /// `GET`, …
    pub method: String,
    /// The request target, byte by byte.
    pub target: String,
    /// Every value of `Authorization`, in order.
    pub authorization: Vec<String>,
    /// Every header in order: its name in lower case, and its value (bytes outside UTF-8 replaced).
    pub headers: Vec<(String, String)>,
    body: AtomicU64,
    whole: AtomicBool,
}

impl Seen {
    pub(super) fn new(head: &Parts) -> Self {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            method: head.method.to_string(),
            target: head.uri.to_string(),
            authorization: head.headers.get_all(AUTHORIZATION).iter().map(text).collect(),
            headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: AtomicU64::new(0),
            whole: AtomicBool::new(false),
        }
    }

    /// The values of one header.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(named, _)| named == name).map(|(_, value)| value.as_str())
    }

    /// How many bytes of the body have been read so far.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.body.load(Ordering::Acquire)
    }

    /// Whether the body was read to its end.
    #[must_use]
    pub fn body_is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.body.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    pub(super) fn complete(&self) {
        self.whole.store(true, Ordering::Release);
    }
}

/// The latest requests, and how many there were.
#[derive(Debug)]
pub(super) struct Log {
    latest: Mutex<VecDeque<Arc<Seen>>>,
    kept: AtomicUsize,
    count: AtomicU64,
}

impl Default for Log {
    fn default() -> Self {
        Self { latest: Mutex::default(), kept: AtomicUsize::new(KEPT), count: AtomicU64::new(0) }
    }
}

impl Log {
    /// Adds a request and gives it its number, from one.
    pub(super) fn add(&self, seen: Arc<Seen>) -> u64 {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        while latest.len() >= self.kept.load(Ordering::Acquire) {
            latest.pop_front();
        }
        latest.push_back(seen);
        self.count.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(super) fn latest(&self) -> Vec<Arc<Seen>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn keep(&self, count: usize) {
        self.kept.store(count.clamp(1, MOST_KEPT), Ordering::Release);
    }

    pub(super) fn forget(&self) {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}
