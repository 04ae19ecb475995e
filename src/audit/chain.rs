//! A chain: a folder of segments, one writer, and the walk that proves its links.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use super::{
    disk,
    frame::{HEADER, Header, Link, Next, Reader},
    torn::{self, Tail},
};

const PREFIX: &str = "chain-";
const SUFFIX: &str = ".seg";
/// How often a place is read that changes while it is read.
const TRIES: usize = 100;

/// The chains of an audit folder, by their numbers.
///
/// # Errors
/// The folder can't be read.
pub(crate) fn chains(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    numbered(folder, |name| name.strip_prefix(PREFIX)?.parse().ok())
}

/// Where a chain is.
pub(crate) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{number}"))
}

/// The segments of a chain, by their numbers.
///
/// # Errors
/// The folder can't be read.
pub(crate) fn segments(chain: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    numbered(chain, |name| name.strip_suffix(SUFFIX)?.parse().ok())
}

/// Where a segment is.
pub(crate) fn segment(chain: &Path, number: u64) -> PathBuf {
    chain.join(format!("{number:06}{SUFFIX}"))
}

fn numbered(folder: &Path, number: impl Fn(&str) -> Option<u64>) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(&number) {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// A chain that this process alone writes, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    locked: File,
}

/// What became of a try to lock a chain.
#[derive(Debug)]
pub(crate) enum Locking {
    /// It is ours.
    Ours(Lock),
    /// Another process has it: its id, as it wrote it.
    Taken(Option<u32>),
}

impl Lock {
    /// Makes the chain's folder where it is not there, and tries to lock it.
    ///
    /// # Errors
    /// The folder or the lock's file can't be made.
    pub(crate) fn take(chain: &Path) -> io::Result<Locking> {
        disk::make_folder(chain)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(chain.join("lock"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Locking::Ours(Self { locked: file }))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Locking::Taken(holder(&mut file))),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it is still the one that others would find: its file may have been deleted.
    ///
    /// # Errors
    /// The file system does not say.
    pub(crate) fn holds(&self) -> io::Result<bool> {
        Ok(self.locked.metadata()?.nlink() > 0)
    }

    /// Whether some process writes this chain at present.
    pub(crate) fn is_taken(chain: &Path) -> bool {
        File::open(chain.join("lock")).is_ok_and(|file| {
            let shared = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
            shared == Err(rustix::io::Errno::WOULDBLOCK)
        })
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// A place in a chain: after this record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The last record's number; 0 before the first.
    pub(crate) seq: u64,
    /// The link for what follows.
    pub(crate) link: Link,
}

/// What a walk found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walked {
    /// The chain's random name.
    pub(crate) chain: [u8; 16],
    /// The first record's number.
    pub(crate) first: u64,
    /// After the last good record.
    pub(crate) end: Position,
    /// The last segment's number; 0 for none.
    pub(crate) segment: u64,
    /// How many segments were walked.
    pub(crate) segments: u64,
    /// Bytes at the end that are no record, in the last segment.
    pub(crate) torn: Option<(PathBuf, Tail)>,
    /// Where in the last segment its records end and space begins, if it has any.
    pub(crate) space: Option<(PathBuf, u64)>,
    /// What is missing, and why that is known.
    pub(crate) gaps: Vec<String>,
}

/// What ended a walk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// A file can't be read.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// The chain was altered.
    #[error("{}: at byte {offset}, record {seq}: {what}", path.display())]
    Altered {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The record that should stand there.
        seq: u64,
        /// What is wrong.
        what: String,
    },
}

/// Walks the segments given, which must be a chain's last ones, and shows each record to `visit`.
/// Memory does not grow with the chain.
///
/// # Errors
/// The first place that does not follow from what stands before it.
pub(crate) fn walk(segments: &[(u64, PathBuf)], visit: &mut dyn FnMut(u64, &[u8])) -> Result<Walked, Fault> {
    let mut walked = Walked::default();
    let mut walk = Walk { begun: false, left: None };
    for (at, (number, path)) in segments.iter().enumerate() {
        let next = segments.get(at + 1);
        // The last header may have been torn; the segment before it is the last one then.
        let until = match next {
            None => None,
            Some((_, next)) => match header(next)? {
                Ok((header, _)) => Some(header),
                Err(_) if at + 2 == segments.len() && is_unbegun(next)? => None,
                Err(what) => return Err(altered(next, 0, walked.end.seq + 1, what)),
            },
        };
        walk.segment(&mut walked, *number, path, until, visit)?;
    }
    Ok(walked)
}

struct Walk {
    begun: bool,
    /// Where the segment before holds more than the next one follows.
    left: Option<(PathBuf, u64)>,
}

impl Walk {
    fn segment(
        &mut self,
        walked: &mut Walked,
        number: u64,
        path: &Path,
        until: Option<Header>,
        visit: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), Fault> {
        let io = |error| Fault::Io(path.to_owned(), error);
        let mut reader = Reader::new(File::open(path).map_err(io)?);
        let (header, link) = match reader.header().map_err(io)? {
            Ok(found) => found,
            Err(_) if until.is_none() && is_unbegun(path)? => {
                let bytes = fs::metadata(path).map_err(io)?.len();
                let tail = Tail { offset: 0, bytes, altered: None };
                walked.torn = Some((path.to_owned(), tail));
                return Ok(());
            }
            Err(what) => return Err(altered(path, 0, walked.end.seq + 1, what)),
        };
        self.join(walked, number, path, &header)?;
        walked.end.link = link;
        walked.segment = number;
        walked.segments += 1;
        let mut tries = 0;
        loop {
            if until.is_some_and(|next| walked.end.seq + 1 == next.first && walked.end.link == next.link) {
                let length = std::fs::metadata(path).map_err(io)?.len();
                if reader.offset() < length {
                    self.left = Some((path.to_owned(), reader.offset()));
                }
                return Ok(());
            }
            let at = reader.offset();
            let seq = walked.end.seq + 1;
            match reader.next().map_err(io)? {
                Next::End if until.is_none() => return Ok(()),
                Next::End => {
                    return Err(altered(path, at, seq, "the segment ends before the next one begins"));
                }
                Next::Space | Next::Bad if until.is_none() => {
                    let tail = match reader.tail().map_err(io)? {
                        Some(tail) => tail,
                        None if tries < TRIES => {
                            tries += 1;
                            continue;
                        }
                        None => Tail { offset: at, bytes: 0, altered: None },
                    };
                    if let Some(what) = tail.altered {
                        return Err(altered(path, at, seq, what));
                    }
                    if tail.bytes == 0 {
                        walked.space = Some((path.to_owned(), at));
                    } else {
                        walked.torn = Some((path.to_owned(), tail));
                    }
                    return Ok(());
                }
                Next::Space | Next::Bad => {
                    return Err(altered(path, at, seq, "the record was changed or cut"));
                }
                Next::Frame(frame) => {
                    tries = 0;
                    let (found, hash) = (frame.seq, frame.hash);
                    if found != seq {
                        return Err(altered(path, at, seq, &format!("record {found} stands here")));
                    }
                    let is_gap = kind(frame.payload) == Some("gap");
                    visit(seq, frame.payload);
                    if !frame.follows(&walked.end.link) {
                        return Err(altered(
                            path,
                            at,
                            seq,
                            "the record does not follow from the one before it",
                        ));
                    }
                    if let Some((left, offset)) = self.left.take().filter(|_| !is_gap) {
                        return Err(altered(&left, offset, seq, "records stand here that nothing follows"));
                    }
                    if is_gap {
                        walked.gaps.push(format!("record {seq}: the disk failed before this record"));
                    }
                    walked.end = Position { seq, link: hash };
                }
            }
        }
    }

    /// Whether a segment goes on where the one before it ended.
    fn join(&mut self, walked: &mut Walked, number: u64, path: &Path, header: &Header) -> Result<(), Fault> {
        if header.number != number {
            let what = format!("this is segment {} by its header", header.number);
            return Err(altered(path, 0, header.first, &what));
        }
        if !self.begun {
            if number == 1 && (header.first != 1 || header.link != Link::default()) {
                return Err(altered(path, 0, 1, "the first segment does not begin at the first record"));
            }
            self.begun = true;
            walked.chain = header.chain;
            walked.first = header.first;
            walked.end = Position { seq: header.first.saturating_sub(1), link: header.link };
            if number > 1 {
                walked.gaps.push(format!("the segments before {number} are not here"));
            }
            return Ok(());
        }
        let (last, end) = (walked.segment, walked.end);
        let wrong = if number != last + 1 {
            format!("segment {} is missing", last + 1)
        } else if header.chain != walked.chain {
            "this segment is of another chain".to_owned()
        } else if header.first != end.seq + 1 || header.link != end.link {
            "this segment does not follow from the one before it".to_owned()
        } else {
            return Ok(());
        };
        Err(altered(path, 0, end.seq + 1, &wrong))
    }
}

/// The kind of a record, without reading the rest of it.
pub(crate) fn kind(payload: &[u8]) -> Option<&str> {
    let rest = payload.strip_prefix(super::frame::OPENING)?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    rest.get(..end).and_then(|kind| std::str::from_utf8(kind).ok())
}

fn header(path: &Path) -> Result<Result<(Header, Link), &'static str>, Fault> {
    let io = |error| Fault::Io(path.to_owned(), error);
    Reader::new(File::open(path).map_err(io)?).header().map_err(io)
}

/// Whether a segment's header was never written whole, nor anything after it.
///
/// # Errors
/// It can't be read.
pub(crate) fn is_unbegun(path: &Path) -> Result<bool, Fault> {
    let io = |error| Fault::Io(path.to_owned(), error);
    let mut file = File::open(path).map_err(io)?;
    let mut begin = Vec::new();
    Read::by_ref(&mut file).take(torn::SECTOR as u64).read_to_end(&mut begin).map_err(io)?;
    if begin.len() < HEADER || !torn::is_blank(&begin) {
        return Ok(begin.len() < HEADER);
    }
    // Its sector was lost. The rest of the first batch may be there, and nothing that came later.
    file.take(torn::CAP).read_to_end(&mut begin).map_err(io)?;
    Ok(!torn::has_synced(&begin))
}

fn altered(path: &Path, offset: u64, seq: u64, what: &str) -> Fault {
    Fault::Altered { path: path.to_owned(), offset, seq, what: what.to_owned() }
}
