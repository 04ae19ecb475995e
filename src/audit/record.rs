//! A record's JSON, written once into a buffer that is used again.
//!
//! In a buffer each record has a length (u32, little-endian) before it, whose highest bit says
//! that the record is kept when the disk fails: everything but what is waited for.

use std::{io::Write, net::IpAddr, time::Instant};

use super::{Ending, Event, Facts, frame};
use crate::clock;

/// The bit of a length that marks a record which is kept when the disk fails.
const KEPT: u32 = 1 << 31;

/// Whether a record that could not be written is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It happened: it will be written when the disk is back.
    Kept,
    /// Somebody waits for it, is told of the failure, and acts on that.
    Awaited,
}

/// Writes times. A day's text is made once a second.
#[derive(Debug)]
pub(crate) struct Timekeeper {
    base: Instant,
    second: Option<u64>,
    text: String,
}

impl Timekeeper {
    /// `base` is what `mono` counts from.
    pub(crate) fn new(base: Instant) -> Self {
        Self { base, second: None, text: String::new() }
    }

    /// The Unix time in whole seconds.
    pub(crate) fn second() -> u64 {
        unix().as_secs()
    }

    fn stamp(&mut self, out: &mut Vec<u8>) {
        let now = unix();
        if self.second != Some(now.as_secs()) {
            self.second = Some(now.as_secs());
            let second = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            let time = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
            self.text = time.to_string();
            self.text.pop();
        }
        out.extend_from_slice(br#","time":""#);
        out.extend_from_slice(self.text.as_bytes());
        let mut digits = *b".000000000Z\"";
        let mut nanos = now.subsec_nanos();
        for digit in digits.iter_mut().skip(1).take(9).rev() {
            *digit = b'0' + u8::try_from(nanos % 10).unwrap_or_default();
            nanos /= 10;
        }
        out.extend_from_slice(&digits);
        out.extend_from_slice(br#","mono":"#);
        let mono = clock::now().saturating_duration_since(self.base).as_nanos();
        integer(out, u64::try_from(mono).unwrap_or(u64::MAX));
    }
}

fn unix() -> std::time::Duration {
    clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// Unix time in nanoseconds.
pub(crate) fn unix_nanos() -> u64 {
    u64::try_from(unix().as_nanos()).unwrap_or(u64::MAX)
}

/// A record that is being written.
pub(crate) struct Record<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    fate: Fate,
}

impl<'a> Record<'a> {
    /// Begins a record with its kind and its time.
    pub(crate) fn begin(out: &'a mut Vec<u8>, kind: &str, fate: Fate, time: &mut Timekeeper) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(frame::OPENING);
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
        time.stamp(out);
        Self { out, start, fate }
    }

    /// Adds a text, cut to `cap` bytes.
    pub(crate) fn text(&mut self, key: &str, value: &str, cap: usize) -> &mut Self {
        self.key(key);
        string(self.out, cut(value, cap));
        self
    }

    /// Adds a name, or nothing.
    pub(crate) fn name(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(key, value, 256),
            None => self,
        }
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, key: &str, value: u64) -> &mut Self {
        self.key(key);
        integer(self.out, value);
        self
    }

    /// Adds an address.
    pub(crate) fn address(&mut self, address: Option<IpAddr>) -> &mut Self {
        if let Some(address) = address {
            self.key("address");
            // Writing to a vector does not fail.
            let _ = write!(self.out, "\"{address}\"");
        }
        self
    }

    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// What is known of a request when it is let through.
    pub(crate) fn facts(&mut self, id: &str, facts: &Facts) -> &mut Self {
        self.text("id", id, 64).name("client", facts.client.as_deref());
        self.address(facts.peer.map(|peer| peer.ip()));
        if let Some(peer) = facts.peer {
            self.number("port", u64::from(peer.port()));
        }
        self.name("rule", facts.rule.as_deref()).name("action", facts.action);
        self.name("method", facts.method.as_ref().map(http::Method::as_str)).name("host", facts.host);
        if let Some(path) = &facts.path {
            self.text("path", path, 2048);
        }
        if let Some(query) = &facts.query {
            self.text("query", query, 2048);
        }
        self.name("credential", facts.credential.as_deref()).name("policy", facts.policy.as_deref())
    }

    /// What is known of a request when it has ended.
    pub(crate) fn result(&mut self, facts: &Facts, ending: Ending, micros: u64) -> &mut Self {
        self.name("credential-version", facts.credential_version.as_deref());
        self.name("fingerprint", facts.fingerprint.as_deref());
        if let Some(status) = facts.status {
            self.number("status", u64::from(status));
        }
        if let Some(status) = facts.upstream_status {
            self.number("upstream-status", u64::from(status));
        }
        self.number("bytes-in", facts.bytes_in).number("bytes-out", facts.bytes_out);
        self.number("micros", micros).name("ending", Some(ending.as_str()));
        if let Ending::Refused(why) = ending {
            self.name("refusal", Some(why.code()));
        }
        self.name("activity", facts.activity.as_deref()).name("acted-as", facts.acted_as.as_deref());
        if let Some(detail) = &facts.detail {
            self.text("detail", detail, 1024);
        }
        self
    }

    /// Ends the record.
    pub(crate) fn finish(&mut self) {
        self.out.push(b'}');
        let length = u32::try_from(self.out.len() - self.start - 4).unwrap_or(u32::MAX) & !KEPT;
        let mark = if self.fate == Fate::Kept { length | KEPT } else { length };
        if let Some(slot) = self.out.get_mut(self.start..).and_then(<[u8]>::first_chunk_mut) {
            *slot = mark.to_le_bytes();
        }
    }
}

/// Writes an event.
pub(crate) fn event(out: &mut Vec<u8>, event: &Event, boot: &str, time: &mut Timekeeper) {
    let fate = match event {
        Event::Outcome { .. } | Event::Rotation { .. } => Fate::Kept,
        _ => Fate::Awaited,
    };
    let mut record = Record::begin(out, event.kind(), fate, time);
    match event {
        Event::Start { version, policy, listeners } => {
            record.name("version", Some(version)).name("policy", Some(policy)).name("boot", Some(boot));
            record.number("pid", u64::from(std::process::id()));
            record.text("listeners", &listeners.join(" "), 1024);
        }
        Event::Stop { reason } => {
            record.name("reason", Some(reason));
        }
        Event::Configured { policy, generation } => {
            record.name("policy", Some(policy)).number("generation", *generation);
        }
        Event::ConfigurationRefused { problems, first } => {
            record.number("problems", *problems as u64).text("detail", first, 1024);
        }
        Event::VaultRead { vault, credential, version, purpose, outcome }
        | Event::VaultWrite { vault, credential, version, purpose, outcome } => {
            record.name("vault", Some(vault)).name("credential", Some(credential));
            record.name("credential-version", version.as_deref());
            record.name("purpose", Some(purpose)).name("outcome", Some(outcome));
        }
        Event::Intent { id, purpose, facts } => {
            record.facts(id, facts).name("purpose", Some(purpose));
        }
        Event::Outcome { id, facts, ending, micros } => {
            record.facts(id, facts).result(facts, *ending, *micros);
        }
        Event::Rotation { credential, rotation, step, authorization, detail } => {
            record.name("credential", Some(credential)).name("rotation", Some(rotation));
            record.name("step", Some(step)).name("authorization", authorization.as_deref());
            if let Some(detail) = detail {
                record.text("detail", detail, 1024);
            }
        }
        Event::CredentialRejected { credential, version, reason } => {
            record.name("credential", Some(credential)).name("credential-version", version.as_deref());
            record.text("detail", reason, 1024);
        }
        Event::CredentialPrevious { credential, version, until } => {
            record.name("credential", Some(credential)).name("credential-version", Some(version));
            record.text("detail", &format!("until {until:.0}"), 64);
        }
        Event::Operation { operator, uid, operation, credential, reason, cut, outcome, detail } => {
            record.name("operator", Some(operator));
            if let Some(uid) = uid {
                record.number("uid", u64::from(*uid));
            }
            record.name("operation", Some(operation)).name("credential", credential.as_deref());
            record.name("cut", cut.then_some("yes")).name("outcome", Some(outcome));
            if let Some(reason) = reason {
                record.text("reason", reason, 2048);
            }
            if let Some(detail) = detail {
                record.text("detail", detail, 1024);
            }
        }
    }
    record.finish();
}

/// The records of a buffer, in order.
pub(crate) fn each(mut buffer: &[u8]) -> impl Iterator<Item = (Fate, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = buffer.split_first_chunk::<4>()?;
        let mark = u32::from_le_bytes(*head);
        let (payload, rest) = rest.split_at_checked((mark & !KEPT) as usize)?;
        buffer = rest;
        Some((if mark & KEPT == 0 { Fate::Awaited } else { Fate::Kept }, payload))
    })
}

/// Adds a payload to a buffer as a record that is kept.
pub(crate) fn keep(buffer: &mut Vec<u8>, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&(length | KEPT).to_le_bytes());
    buffer.extend_from_slice(payload);
}

fn cut(text: &str, cap: usize) -> &str {
    if text.len() <= cap {
        return text;
    }
    // A character has four bytes at most.
    (0..4).find_map(|back| text.get(..cap.saturating_sub(back))).unwrap_or_default()
}

fn integer(out: &mut Vec<u8>, value: u64) {
    // Writing to a vector does not fail.
    let _ = serde_json::to_writer(out, &value);
}

fn string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        let _ = serde_json::to_writer(out, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;

    fn parsed(out: &[u8]) -> serde_json::Value {
        let records: Vec<_> = each(out).collect();
        assert_eq!(records.len(), 1);
        serde_json::from_slice(records[0].1).unwrap()
    }

    #[test]
    fn what_a_client_sends_stays_inside_its_string() {
        let mut time = Timekeeper::new(clock::now());
        for path in ["/a\",\"rule\":\"x", "/a\n{\"v\":1}", "/\u{1b}[2J\u{0}", "/é\u{202e}", "/\\", "/~ "] {
            let mut out = Vec::new();
            let facts = Facts { path: Some(path.into()), ..Facts::default() };
            Record::begin(&mut out, "intent", Fate::Awaited, &mut time).facts("id", &facts).finish();
            let value = parsed(&out);
            assert_eq!(value["path"], path);
            assert!(value.get("rule").is_none());
            assert!(!out[4..].iter().any(|byte| *byte < b' '), "{path:?}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, cap, expected) in [
            ("abc", 3, "abc"),
            ("abc", 2, "ab"),
            ("aé", 2, "a"),
            ("a😀", 4, "a"),
            ("a😀", 5, "a😀"),
            ("é", 0, ""),
        ] {
            assert_eq!(cut(text, cap), expected);
        }
    }

    #[test]
    fn the_longest_record_fits_a_frame() {
        let long: Box<str> = "\u{1}".repeat(100_000).into();
        let name: std::sync::Arc<str> = long.as_ref().into();
        let facts = Facts {
            path: Some(long.clone()),
            query: Some(long.clone()),
            client: Some(name.clone()),
            rule: Some(name.clone()),
            credential: Some(name.clone()),
            credential_version: Some(name.clone()),
            fingerprint: Some(name.clone()),
            policy: Some(name),
            activity: Some(long.clone()),
            acted_as: Some(long.clone()),
            detail: Some(long),
            ..Facts::default()
        };
        let mut out = Vec::new();
        let mut time = Timekeeper::new(clock::now());
        let mut record = Record::begin(&mut out, "outcome", Fate::Kept, &mut time);
        record.facts("id", &facts).result(&facts, Ending::Complete, 1).finish();
        assert!(out.len() - 4 <= frame::PAYLOAD_CAP, "{}", out.len());
        assert_eq!(parsed(&out)["path"].as_str().unwrap().len(), 2048);
    }

    #[test]
    fn a_record_says_when_in_nanoseconds_of_utc() {
        let mut out = Vec::new();
        let mut time = Timekeeper::new(clock::now());
        let mut record = Record::begin(&mut out, "refusal", Fate::Kept, &mut time);
        record.result(&Facts::default(), Ending::Refused(Refusal::NoRule), 7).finish();
        let value = parsed(&out);
        let text = value["time"].as_str().unwrap();
        assert_eq!((text.len(), &text[10..11], &text[29..]), (30, "T", "Z"));
        let stamp: jiff::Timestamp = text.parse().unwrap();
        let now = i64::try_from(Timekeeper::second()).unwrap();
        assert!((now - stamp.as_second()).abs() < 60);
        assert_eq!((value["refusal"].as_str(), value["micros"].as_u64()), (Some("no-rule"), Some(7)));
    }

    #[test]
    fn every_event_is_one_record() {
        let events = [
            Event::Start { version: "1", policy: "p".into(), listeners: vec!["a".into(), "b".into()] },
            Event::Stop { reason: "signal" },
            Event::Configured { policy: "p".into(), generation: 2 },
            Event::ConfigurationRefused { problems: 3, first: "x\ny".into() },
            Event::VaultRead {
                vault: "v".into(),
                credential: "c".into(),
                version: None,
                purpose: "refresh",
                outcome: "read",
            },
            Event::CredentialRejected {
                credential: "c".into(),
                version: Some("2".into()),
                reason: "r".into(),
            },
            Event::CredentialPrevious {
                credential: "c".into(),
                version: "1".into(),
                until: jiff::Timestamp::UNIX_EPOCH,
            },
            Event::Operation {
                operator: "root".into(),
                uid: Some(0),
                operation: "disable",
                credential: Some("c".into()),
                reason: Some("it leaked".into()),
                cut: true,
                outcome: "asked",
                detail: None,
            },
            Event::VaultWrite {
                vault: "v".into(),
                credential: "c".into(),
                version: None,
                purpose: "rotate",
                outcome: "intended",
            },
            Event::Intent { id: "i".into(), purpose: "rotate", facts: Box::default() },
            Event::Outcome { id: "i".into(), facts: Box::default(), ending: Ending::Complete, micros: 1 },
            Event::Rotation {
                credential: "c".into(),
                rotation: "r".into(),
                step: "created",
                authorization: None,
                detail: Some("d".into()),
            },
        ];
        let kinds = [
            "start",
            "stop",
            "configured",
            "configuration-refused",
            "vault-read",
            "credential-rejected",
            "credential-previous",
            "operation",
            "vault-write",
            "intent",
            "outcome",
            "rotation",
        ];
        for (given, kind) in events.iter().zip(kinds) {
            let mut out = Vec::new();
            event(&mut out, given, "boot", &mut Timekeeper::new(clock::now()));
            assert_eq!(parsed(&out)["kind"], kind);
        }
    }
}
