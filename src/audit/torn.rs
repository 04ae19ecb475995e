//! What is at the end of a last segment and is no frame: a write that broke off, or somebody's doing.
//!
//! A write breaks off in two ways. A process that is killed leaves the beginning of what it wrote.
//! A machine that loses its power leaves any of its sectors and not the others, which then hold the
//! zeros that were there before; but only of what was written since the last sync, and a frame that
//! says [`SYNCED`] stands behind one. So a frame may be short, or have a sector of zeros in it, and
//! whole frames of the same batch may follow that; all else was changed by somebody.

use super::frame::{FRAME, OPENING, PAYLOAD_CAP, SYNCED, checksum, take};

/// How much of a damaged tail is looked at, in bytes.
pub(crate) const CAP: u64 = 32 * 1024 * 1024;
/// What a disk writes whole or not at all, in bytes.
pub(crate) const SECTOR: usize = 512;

/// What is wrong at the end of a last segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Where it begins.
    pub(crate) offset: u64,
    /// How many bytes there are, without the space behind them; 0 where there is only space.
    pub(crate) bytes: u64,
    /// What shows that this is no write that broke off.
    pub(crate) altered: Option<&'static str>,
}

/// Judges what stands at `offset`, to the end of the file. `None` if a whole frame does by now.
pub(crate) fn tail(rest: &[u8], offset: u64) -> Option<Tail> {
    let end = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let written = rest.get(..end).unwrap_or_default();
    if frame(written, 0).is_some() {
        return None;
    }
    let altered = if end > 0 {
        altered(written, offset)
    } else {
        // Far more space than is ever made, and who knows what behind it.
        (rest.len() as u64 >= CAP).then_some("there is more space than patgate makes")
    };
    Some(Tail { offset, bytes: end as u64, altered })
}

/// Whether all bytes are zeros.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Whether a frame stands anywhere that was written after a sync.
pub(crate) fn has_synced(rest: &[u8]) -> bool {
    later(rest).any(|length| length & SYNCED != 0)
}

fn altered(rest: &[u8], offset: u64) -> Option<&'static str> {
    let lost = has_lost_sector(rest, offset);
    if later(rest).any(|length| !lost || length & SYNCED != 0) {
        return Some("a record was changed or removed");
    }
    if lost {
        return None;
    }
    let size = rest.len().saturating_sub(FRAME);
    if let Ok(length) = u32::try_from(size)
        && size <= PAYLOAD_CAP
        && [length, length | SYNCED].into_iter().any(|length| is_frame(rest, length))
    {
        return Some("a record's length was changed");
    }
    let size = stated(rest);
    (size > 0 && size <= PAYLOAD_CAP && rest.len() >= FRAME + size).then_some("a record was changed")
}

/// The lengths of the whole frames behind the first bytes.
fn later(rest: &[u8]) -> impl Iterator<Item = u32> {
    let openings = rest.windows(OPENING.len()).enumerate().filter(|(_, window)| *window == OPENING);
    openings
        .filter_map(|(at, _)| at.checked_sub(FRAME).filter(|start| *start > 0))
        .filter_map(|at| frame(rest, at))
}

/// Whether a sector that the first frame reaches into is zeros, from where the frame begins.
fn has_lost_sector(rest: &[u8], offset: u64) -> bool {
    let before = usize::try_from(offset % SECTOR as u64).unwrap_or_default();
    let (head, others) = rest.split_at_checked(SECTOR - before).unwrap_or((rest, &[]));
    let size = stated(rest);
    let reach = if size <= PAYLOAD_CAP { (FRAME + size).saturating_sub(head.len()) } else { 0 };
    is_blank(head) || others.chunks(SECTOR).take(reach.div_ceil(SECTOR)).any(is_blank)
}

/// The size of the payload that the first frame says it has.
fn stated(rest: &[u8]) -> usize {
    rest.first_chunk().map_or(0, |length| (u32::from_le_bytes(*length) & !SYNCED) as usize)
}

/// The length of the whole frame that begins at `start`, as it stands there.
fn frame(rest: &[u8], start: usize) -> Option<u32> {
    let rest = rest.get(start..)?;
    let length = u32::from_le_bytes(*rest.first_chunk()?);
    is_frame(rest, length).then_some(length)
}

/// Whether a whole frame stands at the front, if `length` were its length.
fn is_frame(rest: &[u8], length: u32) -> bool {
    let size = (length & !SYNCED) as usize;
    let Some(mut rest) = rest.get(4..).filter(|_| size > 0 && size <= PAYLOAD_CAP) else { return false };
    let Some(crc) = take(&mut rest).map(u32::from_le_bytes) else { return false };
    rest.get(..FRAME - 8 + size).is_some_and(|body| checksum(length, body) == crc)
}
