//! Memory for secrets: pages of their own, kept out of swap and core dumps, zeroised at their end.
//!
//! What comes in: bytes, written once. What goes out: [`Bytes`] whose every clone and slice lies in the same pages,
//! which go back to the system, zeroised, with the last of them.

use std::{ops::Range, sync::Once};

use bytes::Bytes;
use memmap2::{Advice, MmapMut};
use zeroize::{Zeroize as _, Zeroizing};

/// Where the system gives no pages, the heap has to do: zeroised as well, but not locked.
enum Memory {
    Pages(MmapMut),
    Heap(Zeroizing<Vec<u8>>),
}

impl Memory {
    fn of(size: usize) -> Self {
        let Ok(pages) = MmapMut::map_anon(size.max(1)) else {
            return Self::Heap(Zeroizing::new(vec![0; size]));
        };
        if let Err(error) = pages.lock() {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                tracing::warn!(%error, "secrets can't be kept out of swap: the limit of locked memory is too low");
            });
        }
        // Core dumps are off; this is for whoever switches them on.
        let _ = pages.advise(Advice::DontDump);
        Self::Pages(pages)
    }

    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Pages(pages) => pages,
            Self::Heap(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Pages(pages) => pages,
            Self::Heap(bytes) => bytes,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.bytes().zeroize();
    }
}

/// Locked memory that is being written.
pub(super) struct Writing {
    memory: Memory,
    written: usize,
}

impl Writing {
    /// Room for so many bytes.
    pub(super) fn of(size: usize) -> Self {
        Self { memory: Memory::of(size), written: 0 }
    }

    /// Writes some more: `write` says how much of what is left it has filled. Gives where it stands, or nothing if
    /// there was no room.
    pub(super) fn put(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<Range<usize>> {
        let begin = self.written;
        let filled = write(self.memory.bytes().get_mut(begin..)?)?;
        self.written = begin.checked_add(filled)?;
        Some(begin..self.written)
    }

    /// Copies some bytes.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> Option<Range<usize>> {
        self.put(|room| {
            room.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(bytes.len())
        })
    }

    /// All of it, for reading.
    pub(super) fn finish(self) -> Bytes {
        Bytes::from_owner(self.memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Locked memory of this process in KiB.
    fn locked() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_written_stands_where_it_is_said_to_and_nothing_stands_beyond() {
        let mut writing = Writing::of(8);
        assert_eq!(writing.copy(b"abc"), Some(0..3));
        assert_eq!(writing.copy(b"de"), Some(3..5));
        let all = {
            let big = vec![b'x'; 1 << 20];
            assert_eq!(writing.copy(&big), None);
            writing.finish()
        };
        assert_eq!(&all[..5], b"abcde");
        assert!(all[5..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn it_is_locked_while_anything_of_it_is_left() {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
        assert!(limit.current.is_none_or(|limit| limit >= 4 << 20), "the tests want 4 MiB of locked memory");
        let mut writing = Writing::of(3 << 20);
        writing.copy(b"abc");
        let part = writing.finish().slice(1..2);
        assert!(locked() >= 3 << 10, "{} KiB are locked", locked());
        drop(part);
        assert!(locked() < 3 << 10, "{} KiB are locked", locked());
    }
}
