//! The end of a chain that is being written: numbers records, links them, and puts batches on the disk.

use std::{
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    chain::{self, Position},
    disk::{Disk, SegmentFile},
    frame::{self, HEADER, Header},
    record,
};
use crate::clock;

/// The least and the most space that is made ahead at a time, in bytes.
const STEP: RangeInclusive<u64> = 16 * 1024..=1024 * 1024;
/// Space is made up to a multiple of this, in bytes.
const PAGE: u64 = 4096;

/// When a segment is closed and the next begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    /// In bytes.
    pub(crate) size: u64,
    /// Since it was begun.
    pub(crate) age: Duration,
}

/// The end of a chain. Records are staged by [`Self::append`] and put on the disk by
/// [`Self::commit`]; after an error from either [`Self::commit`] or [`Self::prepare`],
/// [`Self::abandon`] gives up the file for good: a disk that lost a write once may say
/// afterwards that all is well.
pub(crate) struct Journal {
    disk: Box<dyn Disk>,
    folder: PathBuf,
    chain: [u8; 16],
    boot: [u8; 16],
    rotation: Rotation,
    /// The last segment's number.
    number: u64,
    /// After the last record on the disk.
    durable: Position,
    /// After the last record staged.
    staged: Position,
    out: Vec<u8>,
    open: Option<Open>,
}

struct Open {
    file: Box<dyn SegmentFile>,
    path: PathBuf,
    /// What is on the disk, in bytes.
    length: u64,
    /// How long the file is, in bytes, with the space ahead.
    space: u64,
    /// Whether all of it was synced.
    synced: bool,
    /// Whether space could not be made.
    cramped: bool,
    begun: Instant,
}

impl Open {
    /// Ends it where its records end, on the disk.
    fn finish(&mut self) -> io::Result<()> {
        if self.space > self.length {
            self.file.cut(self.length)?;
            self.space = self.length;
        }
        self.file.sync()
    }
}

impl Journal {
    /// A journal that goes on after `durable`, in a segment after `number`.
    pub(crate) fn new(
        disk: Box<dyn Disk>,
        folder: PathBuf,
        chain: [u8; 16],
        rotation: Rotation,
        (number, durable): (u64, Position),
    ) -> Self {
        let out = Vec::with_capacity(64 * 1024);
        let boot = boot();
        Self { disk, folder, chain, boot, rotation, number, durable, staged: durable, out, open: None }
    }

    /// Free space in bytes.
    ///
    /// # Errors
    /// The file system does not say.
    pub(crate) fn free(&mut self) -> io::Result<u64> {
        self.disk.free(&self.folder)
    }

    /// Whether the open segment, if there is one, still has a name.
    ///
    /// # Errors
    /// The file system does not say.
    pub(crate) fn is_named(&self) -> io::Result<bool> {
        self.open.as_ref().map_or(Ok(true), |open| open.file.is_named())
    }

    /// The folder of the chain.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The last record that is on the disk.
    pub(crate) fn last(&self) -> u64 {
        self.durable.seq
    }

    /// Makes sure that a segment is open with room for more. Call before the records of a batch.
    ///
    /// # Errors
    /// The one before can't be closed, or the next can't be made.
    pub(crate) fn prepare(&mut self) -> io::Result<()> {
        if let Some(open) = &mut self.open {
            let aged = clock::now().saturating_duration_since(open.begun) >= self.rotation.age;
            if (open.length < self.rotation.size && !aged) || open.length <= HEADER as u64 {
                return Ok(());
            }
            open.finish()?;
            self.open = None;
        }
        let number = self.number + 1;
        let path = chain::segment(&self.folder, number);
        let file = match self.disk.create(&path) {
            // Left by a try of our own that failed: this chain is locked, and the number is new.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&path)?;
                self.disk.create(&path)?
            }
            other => other?,
        };
        let header = Header {
            chain: self.chain,
            number,
            first: self.durable.seq + 1,
            link: self.durable.link,
            created: record::unix_nanos(),
            boot: self.boot,
        }
        .encode();
        self.out.clear();
        self.out.extend_from_slice(&header);
        self.staged = Position { seq: self.durable.seq, link: frame::sha256(&header) };
        let begun = clock::now();
        self.open = Some(Open { file, path, length: 0, space: 0, synced: false, cramped: false, begun });
        Ok(())
    }

    /// Stages a record.
    pub(crate) fn append(&mut self, payload: &[u8]) {
        let seq = self.staged.seq + 1;
        let synced = self.out.is_empty() && self.open.as_ref().is_some_and(|open| open.synced);
        let link = frame::push(&mut self.out, &self.staged.link, seq, payload, synced);
        self.staged = Position { seq, link };
    }

    /// Writes what is staged, and makes it durable if `sync`.
    ///
    /// # Errors
    /// None of it counts as written.
    pub(crate) fn commit(&mut self, sync: bool) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Err(io::Error::other("no segment is open")) };
        let end = open.length + self.out.len() as u64;
        // It may be longer by now, whatever comes of this.
        open.space = open.space.max(end);
        open.file.write(&self.out, open.length)?;
        if sync {
            open.file.sync()?;
        }
        open.synced = sync;
        if !open.file.is_named()? {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the segment was deleted"));
        }
        if open.length == 0 {
            self.number += 1;
        }
        open.length = end;
        self.durable = self.staged;
        self.out.clear();
        self.out.shrink_to(1024 * 1024);
        Ok(())
    }

    /// Fills the file with zeros ahead of its records, so that the next batches need not make it
    /// longer: as much as it holds, and none while enough is left. The next sync takes them along.
    /// Without space left for that, the segment goes on as it is.
    pub(crate) fn make_space(&mut self) {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        let Some(open) = &mut self.open else { return };
        let step = open.length.clamp(*STEP.start(), *STEP.end());
        let end = (open.length + step).next_multiple_of(PAGE).min(self.rotation.size);
        if open.cramped || open.length == 0 || open.space - open.length >= step / 4 || end <= open.space {
            return;
        }
        let mut written = Ok(());
        while written.is_ok() && open.space < end {
            let size = usize::try_from(end - open.space).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            written = open.file.write(ZEROS.get(..size).unwrap_or(&ZEROS), open.space);
            open.space += size as u64;
        }
        if let Err(error) = written {
            open.cramped = true;
            tracing::warn!(%error, "no space can be made ahead of the audit's records");
            if open.file.cut(open.length).is_ok() {
                open.space = open.length;
            }
        }
    }

    /// Makes all of it durable, whatever the durability, at the end.
    pub(crate) fn close(mut self) {
        if let Some(open) = &mut self.open
            && let Err(error) = open.finish()
        {
            tracing::warn!(segment = %open.path.display(), %error, "the end of the audit may not be durable");
        }
    }

    /// Gives up the open segment after an error. What it holds beyond the last good record is cut
    /// off if the disk lets it; the verifier copes where it does not.
    pub(crate) fn abandon(&mut self) {
        self.out.clear();
        self.staged = self.durable;
        let Some(mut open) = self.open.take() else { return };
        let cleaned =
            if open.length == 0 { self.disk.remove(&open.path) } else { open.file.cut(open.length) };
        if let Err(error) = cleaned {
            tracing::warn!(segment = %open.path.display(), %error, "what was not recorded can't be cut off");
        }
    }
}

/// The kernel's boot id, for which `mono` holds; zeros where it is not known.
pub(crate) fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)?.try_into().ok()).collect();
    let mut boot = [0; 16];
    for (byte, pair) in boot.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = *pair;
        *byte = (high << 4) | low;
    }
    boot
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
