//! The bytes of a segment: one header, then frames.
//!
//! ```text
//! header   "patgate1" | version u32 | crc32c u32 | chain 16 | number u64 | first seq u64
//!          | link 32 | created u64 (Unix ns) | boot 16
//! frame    length u32 | crc32c u32 | hash 32 | seq u64 | payload (JSON)
//! space    zeros, to the end of the file
//! ```
//! Numbers are little-endian. A link is SHA-256: a header's is over the header's own bytes, a
//! frame's (`hash`) over the link before it ‖ seq ‖ payload. A header holds the last link of the
//! segment before it, so headers are part of the chain too. The checksum covers the length and
//! all that follows it; it tells a torn write from a whole one, the links tell what was altered.
//!
//! Space is where the writer goes on: to write into what is allotted and written already costs a
//! file system less than to make the file longer. Only a segment that is being written, or was when
//! its writer died, has any. The length's highest bit, [`SYNCED`], says that all before this frame
//! was on the disk when the frame was written: what is missing before it did not get lost on the way.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
};

use aws_lc_rs::digest;

use super::torn::{self, Tail};

/// What every segment begins with.
pub(crate) const MAGIC: &[u8; 8] = b"patgate1";
/// The version of this layout.
const VERSION: u32 = 1;
/// The size of a header in bytes.
pub(crate) const HEADER: usize = 104;
/// What stands before a frame's payload, in bytes.
pub(crate) const FRAME: usize = 48;
/// The largest payload in bytes.
pub(crate) const PAYLOAD_CAP: usize = 64 * 1024;
/// What every payload begins with.
pub(crate) const OPENING: &[u8] = br#"{"v":1,"kind":""#;
/// Set in the length of a frame before which all was on the disk.
pub(crate) const SYNCED: u32 = 1 << 31;

/// A link of the chain.
pub(crate) type Link = [u8; 32];

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The chain's random name.
    pub(crate) chain: [u8; 16],
    /// Counts segments, from 1.
    pub(crate) number: u64,
    /// The number of the first record in it.
    pub(crate) first: u64,
    /// The link before it; zeros for the first segment.
    pub(crate) link: Link,
    /// Unix time in nanoseconds.
    pub(crate) created: u64,
    /// The kernel's boot id, for `mono`.
    pub(crate) boot: [u8; 16],
}

impl Header {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::with_capacity(HEADER);
        rest.extend_from_slice(&self.chain);
        rest.extend_from_slice(&self.number.to_le_bytes());
        rest.extend_from_slice(&self.first.to_le_bytes());
        rest.extend_from_slice(&self.link);
        rest.extend_from_slice(&self.created.to_le_bytes());
        rest.extend_from_slice(&self.boot);
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&checksum(VERSION, &rest).to_le_bytes());
        bytes.append(&mut rest);
        bytes
    }

    /// Reads one, or says what is wrong with it.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "the segment's header is cut short";
        let bytes = &mut bytes;
        if take::<8>(bytes).ok_or(SHORT)? != *MAGIC {
            return Err("this is not a segment of an audit");
        }
        if take(bytes).map(u32::from_le_bytes).ok_or(SHORT)? != VERSION {
            return Err("the segment's version is not one this patgate reads");
        }
        let crc = take(bytes).map(u32::from_le_bytes).ok_or(SHORT)?;
        let body = bytes.get(..HEADER - 16).ok_or(SHORT)?;
        if checksum(VERSION, body) != crc {
            return Err("the segment's header was changed");
        }
        Ok(Self {
            chain: take(bytes).ok_or(SHORT)?,
            number: take(bytes).map(u64::from_le_bytes).ok_or(SHORT)?,
            first: take(bytes).map(u64::from_le_bytes).ok_or(SHORT)?,
            link: take(bytes).ok_or(SHORT)?,
            created: take(bytes).map(u64::from_le_bytes).ok_or(SHORT)?,
            boot: take(bytes).ok_or(SHORT)?,
        })
    }
}

/// Takes an array off the front.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// Of a frame, by its length as it stands there and what follows the checksum.
pub(crate) fn checksum(length: u32, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), rest)
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> Link {
    let mut link = [0; 32];
    for (to, from) in link.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    link
}

/// Appends a frame and returns its hash, the link for the next. `synced`: all before it is on the disk.
///
/// The link before it is written where the hash will stand, so that what is hashed lies in one
/// piece and nothing is copied twice.
pub(crate) fn push(out: &mut Vec<u8>, link: &Link, seq: u64, payload: &[u8], synced: bool) -> Link {
    let length = u32::try_from(payload.len()).unwrap_or(!SYNCED) | if synced { SYNCED } else { 0 };
    let start = out.len();
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(link);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(payload);
    let Some(frame) = out.get_mut(start..) else { return *link };
    let Some((head, body)) = frame.split_at_mut_checked(8) else { return *link };
    let hash = sha256(body);
    if let Some(slot) = body.first_chunk_mut() {
        *slot = hash;
    }
    if let Some(slot) = head.last_chunk_mut() {
        *slot = checksum(length, body).to_le_bytes();
    }
    hash
}

/// A frame as it was read; its checksum is right.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// The record's number.
    pub(crate) seq: u64,
    /// As it stands there.
    pub(crate) hash: Link,
    /// The JSON.
    pub(crate) payload: &'a [u8],
    whole: &'a mut [u8],
}

impl Frame<'_> {
    /// Whether its hash follows from the link before it. The frame is of no more use afterwards.
    pub(crate) fn follows(self, link: &Link) -> bool {
        let hash = self.hash;
        if let Some(slot) = self.whole.first_chunk_mut() {
            *slot = *link;
        }
        sha256(self.whole) == hash
    }
}

/// What stands at a place of a segment.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    /// A frame.
    Frame(Frame<'a>),
    /// The end of the file.
    End,
    /// Zeros where a frame would begin: space, if nothing else follows.
    Space,
    /// Bytes that are no frame, or not a whole one.
    Bad,
}

/// Reads a segment from front to end, one frame in memory.
#[derive(Debug)]
pub(crate) struct Reader {
    source: BufReader<File>,
    offset: u64,
    buffer: Vec<u8>,
    payload: Vec<u8>,
}

impl Reader {
    /// A reader that stands before the header.
    pub(crate) fn new(file: File) -> Self {
        Self {
            source: BufReader::with_capacity(256 * 1024, file),
            offset: 0,
            buffer: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Where the next frame begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the header; its raw bytes make the link of the first frame.
    ///
    /// # Errors
    /// Reading failed. The inner error: fewer bytes than a header has, or none that is right.
    pub(crate) fn header(&mut self) -> io::Result<Result<(Header, Link), &'static str>> {
        let mut bytes = Vec::with_capacity(HEADER);
        self.source.by_ref().take(HEADER as u64).read_to_end(&mut bytes)?;
        self.offset = bytes.len() as u64;
        Ok(Header::decode(&bytes).map(|header| (header, sha256(&bytes))))
    }

    /// Reads the next frame. Unless it is one, [`Self::offset`] is where what was found begins.
    ///
    /// # Errors
    /// Reading failed.
    pub(crate) fn next(&mut self) -> io::Result<Next<'_>> {
        let mut head = [0; 8];
        let got = fill(&mut self.source, &mut head)?;
        if got == 0 {
            return Ok(Next::End);
        }
        let mut rest = head.as_slice();
        let length = take(&mut rest).map(u32::from_le_bytes).unwrap_or_default();
        let crc = take(&mut rest).map(u32::from_le_bytes).unwrap_or_default();
        if length == 0 {
            return Ok(Next::Space);
        }
        let size = (length & !SYNCED) as usize;
        if got < head.len() || size == 0 || size > PAYLOAD_CAP {
            return Ok(Next::Bad);
        }
        self.buffer.resize(FRAME - 8 + size, 0);
        let got = fill(&mut self.source, &mut self.buffer)?;
        if got < self.buffer.len() || checksum(length, &self.buffer) != crc {
            return Ok(Next::Bad);
        }
        let mut rest = self.buffer.as_slice();
        let (Some(hash), Some(seq)) = (take(&mut rest), take(&mut rest).map(u64::from_le_bytes)) else {
            return Ok(Next::Bad);
        };
        self.payload.clear();
        self.payload.extend_from_slice(rest);
        self.offset += (FRAME + size) as u64;
        Ok(Next::Frame(Frame { seq, hash, payload: &self.payload, whole: &mut self.buffer }))
    }

    /// Goes back to where the next frame begins, to read again what may have been written since.
    ///
    /// # Errors
    /// Seeking failed.
    pub(crate) fn again(&mut self) -> io::Result<()> {
        self.source.seek(SeekFrom::Start(self.offset)).map(drop)
    }

    /// Tells what the bytes at [`Self::offset`] are that are no frame, given that nothing follows
    /// this segment. `None` if they are being written: the reader stands there again.
    ///
    /// # Errors
    /// Reading failed.
    pub(crate) fn tail(&mut self) -> io::Result<Option<Tail>> {
        self.again()?;
        let mut rest = Vec::new();
        self.source.by_ref().take(torn::CAP).read_to_end(&mut rest)?;
        // What is read while it is written may show the end without the beginning.
        self.again()?;
        let changed = !is_same(self.source.by_ref().take(torn::CAP), &rest)?;
        self.again()?;
        Ok((!changed).then(|| torn::tail(&rest, self.offset)).flatten())
    }
}

fn is_same(mut source: impl BufRead, mut rest: &[u8]) -> io::Result<bool> {
    loop {
        let bytes = source.fill_buf()?;
        if bytes.is_empty() {
            return Ok(rest.is_empty());
        }
        let Some(after) = rest.strip_prefix(bytes) else { return Ok(false) };
        rest = after;
        let length = bytes.len();
        source.consume(length);
    }
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
