//! What a `git push` asks for, and the report that refuses it.
//!
//! `git push` shows a refusal to its user only as a report on each reference, in the side-band if
//! it asked for that, after its whole pack was taken (gitprotocol-pack, "Pushing Data To a
//! Server" and "Report Status"). A plain 403 ends in `Everything up-to-date`.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;

use super::drain::{self, Drained};

/// The list of commands is read up to this many bytes.
pub const COMMANDS: usize = 1024 * 1024;

/// The longest pkt-line, its four digits included (gitprotocol-common).
const LONGEST: usize = 65_520;

/// What the body of a push began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// The body is not there any more, or not what git sends, or the commands stand in a
    /// certificate (`push-cert`): the references are not known.
    Unread,
    /// A lone flush: git asks whether it may send a large pack, and sends it if the answer is 200.
    Probe,
    /// The references, and whether the report goes into the side-band.
    Commands {
        /// As they were sent.
        refs: Vec<Box<[u8]>>,
        /// `side-band-64k` was asked for.
        side_band: bool,
    },
}

/// How many pushes have their commands read at once, all workers together: a list and its report may take some
/// MiB, and a single address could ask for thousands.
const MOST: usize = 32;

/// How many have them read now.
static READING: AtomicUsize = AtomicUsize::new(0);

/// One of [`MOST`], given back on drop.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize) -> Option<Self> {
        let place = Self(count);
        (count.fetch_add(1, Relaxed) < MOST).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Reads the commands, then the rest, up to [`drain::PUSH`]. Where too many are read already, the body is
/// drained all the same.
pub async fn read<B>(body: B, idle: Duration) -> (Push, Drained)
where
    B: Body<Data = Bytes> + Unpin,
{
    read_among(&READING, body, idle).await
}

/// As [`read`], among those that `count` counts.
async fn read_among<B>(count: &AtomicUsize, body: B, idle: Duration) -> (Push, Drained)
where
    B: Body<Data = Bytes> + Unpin,
{
    let Some(_place) = Place::take(count) else {
        return (Push::Unread, drain::drain(body, drain::PUSH, idle).await);
    };
    let mut reading = Reading::default();
    let drained = drain::each(body, drain::PUSH, idle, |piece| reading.take(piece)).await;
    (reading.found(), drained)
}

/// The beginning of a body, until its first flush.
#[derive(Debug, Default)]
struct Reading {
    bytes: Vec<u8>,
    at: usize,
    refs: Vec<Box<[u8]>>,
    side_band: bool,
    report: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Flushed,
    Unreadable,
}

impl Reading {
    fn take(&mut self, piece: &[u8]) {
        if self.state != State::Open {
            return;
        }
        let room = COMMANDS.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(piece.get(..room).unwrap_or(piece));
        while self.state == State::Open {
            let Some(rest) = self.bytes.get(self.at..) else { return };
            match packet(rest) {
                Packet::Partial if self.bytes.len() < COMMANDS => return,
                Packet::Partial | Packet::Bad => self.state = State::Unreadable,
                Packet::Flush => self.state = State::Flushed,
                Packet::Line(line) => {
                    self.at += line.len() + 4;
                    let line = line.to_vec();
                    self.line(&line);
                }
            }
        }
        self.bytes = Vec::new();
    }

    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.starts_with(b"shallow ") && self.refs.is_empty() {
            return;
        }
        let mut parts = line.splitn(2, |byte| *byte == 0);
        let command = parts.next().unwrap_or_default();
        if let (true, Some(capabilities)) = (self.refs.is_empty(), parts.next()) {
            for capability in capabilities.split(|byte| *byte == b' ' || *byte == b'\n') {
                self.side_band |= capability == b"side-band-64k";
                self.report |= capability == b"report-status" || capability == b"report-status-v2";
            }
        }
        match reference(command) {
            Some(name) => self.refs.push(name.into()),
            None => self.state = State::Unreadable,
        }
    }

    fn found(self) -> Push {
        match self.state {
            State::Flushed if self.refs.is_empty() => Push::Probe,
            State::Flushed if self.report => Push::Commands { refs: self.refs, side_band: self.side_band },
            _ => Push::Unread,
        }
    }
}

enum Packet<'a> {
    Partial,
    Bad,
    Flush,
    Line(&'a [u8]),
}

fn packet(bytes: &[u8]) -> Packet<'_> {
    let Some((digits, rest)) = bytes.split_first_chunk::<4>() else { return Packet::Partial };
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Packet::Bad;
    }
    let length = std::str::from_utf8(digits).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
    match length {
        Some(0) => Packet::Flush,
        Some(length @ 4..=LONGEST) => rest.get(..length - 4).map_or(Packet::Partial, Packet::Line),
        _ => Packet::Bad,
    }
}

/// The reference of `old SP new SP name`. A name that could break out of the report is none
/// (git-check-ref-format forbids those bytes too).
fn reference(command: &[u8]) -> Option<&[u8]> {
    let mut parts = command.splitn(3, |byte| *byte == b' ');
    let (old, new, name) = (parts.next()?, parts.next()?, parts.next()?);
    let is_id = |id: &[u8]| matches!(id.len(), 40 | 64) && id.iter().all(u8::is_ascii_hexdigit);
    let plain = !name.is_empty() && name.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    (is_id(old) && is_id(new) && plain).then_some(name)
}

/// The body of the answer to `push`. `sentence` is one line, `text` what stands after `remote:`.
#[must_use]
pub fn report(push: &Push, sentence: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match push {
        Push::Probe => {}
        Push::Unread => {
            // The band of errors: all that can be said without knowing the references.
            side_band(&mut out, 3, text.as_bytes());
            flush(&mut out);
        }
        Push::Commands { refs, side_band: false } => statuses(&mut out, refs, sentence),
        Push::Commands { refs, side_band: true } => {
            let mut inner = Vec::new();
            statuses(&mut inner, refs, sentence);
            side_band(&mut out, 2, text.as_bytes());
            side_band(&mut out, 1, &inner);
            flush(&mut out);
        }
    }
    out
}

/// `unpack ok`, because an error there would be shown besides the reason of each reference.
fn statuses(out: &mut Vec<u8>, refs: &[Box<[u8]>], sentence: &str) {
    line(out, &[b"unpack ok\n"]);
    for name in refs {
        line(out, &[b"ng ", name, b" ", sentence.as_bytes(), b"\n"]);
    }
    flush(out);
}

fn side_band(out: &mut Vec<u8>, band: u8, data: &[u8]) {
    for piece in data.chunks(LONGEST - 5) {
        line(out, &[&[band], piece]);
    }
}

/// One pkt-line. What does not fit into one is cut.
pub(super) fn line(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let length = parts.iter().map(|part| part.len()).sum::<usize>().min(LONGEST - 4) + 4;
    let end = out.len() + length;
    out.extend_from_slice(format!("{length:04x}").as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.truncate(end);
}

fn flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: &str = "0000000000000000000000000000000000000000";
    const NEW: &str = "1111111111111111111111111111111111111111";
    const CAPABILITIES: &str = " report-status-v2 side-band-64k quiet object-format=sha1 agent=git/2.47.3";

    fn pkt(text: &str) -> String {
        format!("{:04x}{text}", text.len() + 4)
    }

    fn command(name: &str, capabilities: &str) -> String {
        pkt(&format!("{ZERO} {NEW} {name}{capabilities}"))
    }

    fn found(bytes: &[u8], step: usize) -> Push {
        let mut reading = Reading::default();
        for piece in bytes.chunks(step) {
            reading.take(piece);
        }
        reading.found()
    }

    fn commands(names: &[&str], side_band: bool) -> Push {
        Push::Commands { refs: names.iter().map(|name| name.as_bytes().into()).collect(), side_band }
    }

    #[test]
    fn a_push_is_read_in_every_form_that_git_sends() {
        let first = command("refs/heads/main", &format!("\0{CAPABILITIES}"));
        let long = "2".repeat(64);
        let shallow = pkt(&format!("shallow {NEW}\n"));
        for (body, expected) in [
            ("0000".to_owned(), Push::Probe),
            (format!("{first}0000PACK\u{1}binary"), commands(&["refs/heads/main"], true)),
            (
                format!("{first}{}0000PACK", command("refs/heads/b2", "\n")),
                commands(&["refs/heads/main", "refs/heads/b2"], true),
            ),
            (format!("{shallow}{shallow}{first}0000"), commands(&["refs/heads/main"], true)),
            (
                format!("{}0000", command("refs/heads/main", "\0 report-status")),
                commands(&["refs/heads/main"], false),
            ),
            (
                format!("{}0000", pkt(&format!("{long} {long} refs/heads/x\0 report-status\n"))),
                commands(&["refs/heads/x"], false),
            ),
            // Without a report there is no place for a reason.
            (format!("{}0000", command("refs/heads/main", "\0 side-band-64k")), Push::Unread),
            // Commands inside a certificate.
            (format!("{}{first}0000", pkt(&format!("push-cert\0{CAPABILITIES}\n"))), Push::Unread),
            // Not git.
            (String::new(), Push::Unread),
            ("000".to_owned(), Push::Unread),
            ("zzzz".to_owned(), Push::Unread),
            ("+004".to_owned(), Push::Unread),
            ("0003".to_owned(), Push::Unread),
            ("fff5".to_owned(), Push::Unread),
            ("\u{1f}\u{8b}gzip".to_owned(), Push::Unread),
            (pkt("hello"), Push::Unread),
            (first.clone(), Push::Unread),
            (format!("{}0000", command("refs/heads/a b", "\0 report-status")), Push::Unread),
            (format!("{}0000", command("refs/heads/a\nng x", "\0 report-status")), Push::Unread),
            (format!("{}0000", command("", "\0 report-status")), Push::Unread),
        ] {
            for step in [1, 7, usize::MAX] {
                assert_eq!(found(body.as_bytes(), step), expected, "{body:?} by {step}");
            }
        }
    }

    #[test]
    fn a_list_of_commands_over_the_cap_is_given_up_and_forgotten() {
        let mut reading = Reading::default();
        let first = command("refs/heads/main", &format!("\0{CAPABILITIES}"));
        reading.take(first.as_bytes());
        let more = command("refs/heads/other", "");
        for _ in 0..=COMMANDS / more.len() {
            reading.take(more.as_bytes());
        }
        assert!(reading.bytes.is_empty());
        assert_eq!(reading.found(), Push::Unread);
    }

    #[test]
    fn the_report_is_what_git_reads() {
        for (push, expected) in [
            (Push::Probe, ""),
            (Push::Unread, "0009\u{3}text0000"),
            (commands(&["refs/heads/main"], false), "000eunpack ok\n001ang refs/heads/main no\n0000"),
            (
                commands(&["refs/heads/main"], true),
                "0009\u{2}text0031\u{1}000eunpack ok\n001ang refs/heads/main no\n00000000",
            ),
        ] {
            assert_eq!(String::from_utf8(report(&push, "no", "text")).unwrap(), expected);
        }
    }

    #[test]
    fn a_report_longer_than_a_packet_is_split() {
        let names = vec!["refs/heads/a-branch-with-a-rather-long-name"; 2_000];
        let bytes = report(&commands(&names, true), "no", "text");
        let (mut at, mut inner) = (0, Vec::new());
        loop {
            match packet(&bytes[at..]) {
                Packet::Line([1, data @ ..]) => {
                    inner.extend_from_slice(data);
                    at += data.len() + 5;
                }
                Packet::Line(line) => at += line.len() + 4,
                Packet::Flush => break,
                Packet::Partial | Packet::Bad => panic!("not a pkt-line at {at}"),
            }
        }
        assert_eq!(at + 4, bytes.len());
        let text = String::from_utf8(inner).unwrap();
        assert_eq!(text.matches("ng refs/heads/").count(), 2_000);
        assert!(text.ends_with("0000"));
    }

    #[tokio::test]
    async fn a_thousand_pushes_at_once_are_not_all_kept_in_memory() {
        let count = AtomicUsize::new(0);
        let body = |text: String| http_body_util::Full::new(Bytes::from(text));
        let push = format!("{}0000PACK", command("refs/heads/main", &format!("\0{CAPABILITIES}")));
        let idle = Duration::from_secs(1);
        let held: Vec<_> = (0..MOST).map(|_| Place::take(&count).unwrap()).collect();
        assert_eq!(read_among(&count, body(push.clone()), idle).await, (Push::Unread, Drained::Whole));
        drop(held);
        let read = read_among(&count, body(push), idle).await;
        assert_eq!(read, (commands(&["refs/heads/main"], true), Drained::Whole), "places are given back");
    }
}
