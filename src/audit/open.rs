//! Opens an audit folder: finds a chain, mends what a crash left, starts the writer.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Audit, OpenError,
    chain::{self, Fault, Lock, Locking, Walked},
    disk::{self, Disk},
    journal::{self, Journal, Rotation},
    queue::Shared,
    record::{self, Fate, Record, Timekeeper},
    writer::Writer,
};
use crate::{clock, config};

/// How many of a chain's last segments are read at the start.
const READ: usize = 2;
/// How many requests without an outcome are followed at once.
const FOLLOWED: usize = 64 * 1024;

/// See [`Audit::open`]. `disk` makes the disk for each chain.
pub(super) fn open(
    config: &config::Audit,
    overlap: bool,
    disk: &mut dyn FnMut() -> Box<dyn Disk>,
) -> Result<Audit, OpenError> {
    let io = |error| OpenError::Io(config.folder.clone(), error);
    disk::make_folder(&config.folder).map_err(io)?;
    if disk::is_open_to_others(&config.folder).map_err(io)? {
        let folder = config.folder.display();
        tracing::warn!(%folder, "others may write into the audit's folder, and so take records away; chmod 700 it");
    }
    let mut known = chain::chains(&config.folder).map_err(io)?;
    let next = known.last().map_or(1, |(number, _)| number + 1);
    if overlap || known.is_empty() {
        known.push((next, chain::path(&config.folder, next)));
    }
    let mut free = Vec::new();
    for (number, path) in known {
        // With another chain free, the next one need not be begun.
        if number == next && !free.is_empty() {
            continue;
        }
        match Lock::take(&path).map_err(|error| OpenError::Io(path.clone(), error))? {
            Locking::Ours(lock) => free.push((path, lock)),
            Locking::Taken(pid) if !overlap => return Err(OpenError::InUse(path, pid)),
            Locking::Taken(_) => {}
        }
    }
    let mut chains = free.into_iter();
    let Some((folder, lock)) = chains.next() else {
        return Err(io(io::Error::other("every chain is in use")));
    };
    let rotation = Rotation { size: config.segment_size, age: config.segment_age };
    let base = clock::now();
    for (path, _lock) in chains {
        mend(&path, rotation, base, disk(), false)?;
    }
    let journal = mend(&folder, rotation, base, disk(), true)?;
    let shared = Arc::new(Shared::new(config.durability, base));
    let writer = Writer::new(Arc::clone(&shared), journal, lock, config.reserve);
    let told = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("audit".to_owned())
        .spawn(move || {
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run()));
            if ran.is_err() {
                // Nothing may be used that is not recorded, and nobody is left to record.
                tracing::error!("the audit's writer failed: patgate ends");
                std::process::abort();
            }
            told.ended();
        })
        .map_err(io)?;
    Ok(Audit { shared, folder: Arc::new(folder) })
}

/// Reads the end of a chain, cuts a torn tail, and gives every request that has no outcome one.
/// `ours`: a segment is begun in any case, which proves that it can be.
fn mend(
    folder: &Path,
    rotation: Rotation,
    base: std::time::Instant,
    disk: Box<dyn Disk>,
    ours: bool,
) -> Result<Journal, OpenError> {
    let io = |error| OpenError::Io(folder.to_owned(), error);
    let found = read(folder)?;
    let number = found.walked.segment;
    let mut cut = None;
    if let Some((path, tail)) = &found.walked.torn {
        if tail.offset == 0 {
            std::fs::remove_file(path).and_then(|()| disk::sync_folder(folder)).map_err(io)?;
        } else {
            cut_off(path, tail.offset).map_err(io)?;
        }
        cut = Some((path.clone(), tail.bytes));
    } else if let Some((path, end)) = &found.walked.space {
        cut_off(path, *end).map_err(io)?;
    }
    let mut name = found.walked.chain;
    if number == 0 && aws_lc_rs::rand::fill(&mut name).is_err() {
        return Err(io(io::Error::other("the system gives no randomness")));
    }
    let mut journal = Journal::new(disk, folder.to_owned(), name, rotation, (number, found.walked.end));
    if !ours && cut.is_none() && found.open.is_empty() {
        return Ok(journal);
    }
    let mut time = Timekeeper::new(base);
    let mut buffer = Vec::new();
    if let Some((path, bytes)) = &cut {
        let mut record = Record::begin(&mut buffer, "recovered", Fate::Kept, &mut time);
        record.number("cut", *bytes).number("last-seq", found.walked.end.seq);
        record.name("segment", path.file_name().and_then(|name| name.to_str()));
        record.name("boot", Some(&journal::hex(&journal::boot()))).finish();
    }
    for intent in &found.open {
        unknown(&mut buffer, &intent.payload, &mut time);
    }
    let written = journal.prepare().and_then(|()| {
        for (_, payload) in record::each(&buffer) {
            journal.append(payload);
        }
        journal.commit(true)
    });
    written.map_err(io)?;
    Ok(journal)
}

/// Ends a segment where its records end.
fn cut_off(segment: &Path, length: u64) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(segment)?;
    file.set_len(length)?;
    file.sync_all()
}

/// The outcome of a request whose end nobody saw.
fn unknown(buffer: &mut Vec<u8>, intent: &[u8], time: &mut Timekeeper) {
    let mut record = Record::begin(buffer, "outcome", Fate::Kept, time);
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(intent).unwrap_or_default();
    let told = [
        "id",
        "client",
        "address",
        "rule",
        "action",
        "method",
        "host",
        "path",
        "query",
        "credential",
        "policy",
    ];
    for key in told {
        if let Some(text) = fields.get(key).and_then(|value| value.as_str()) {
            record.text(key, text, 2048);
        }
    }
    record.name("ending", Some("unknown")).finish();
}

struct Found {
    walked: Walked,
    /// The intents without an outcome.
    open: Vec<Intent>,
}

struct Intent {
    seq: u64,
    payload: Box<[u8]>,
}

fn read(folder: &Path) -> Result<Found, OpenError> {
    let io = |error| OpenError::Io(folder.to_owned(), error);
    let segments = chain::segments(folder).map_err(io)?;
    if let Some(missing) = segments.windows(2).find_map(|pair| match pair {
        [(one, _), (other, _)] if one + 1 != *other => Some(one + 1),
        _ => None,
    }) {
        return Err(OpenError::Altered(format!("{}: segment {missing} is missing", folder.display())));
    }
    // A last segment whose header is torn holds nothing: the ones before it are read instead.
    let fault = |fault| match fault {
        Fault::Io(path, error) => OpenError::Io(path, error),
        altered @ Fault::Altered { .. } => OpenError::Altered(altered.to_string()),
    };
    let unbegun = segments.last().map_or(Ok(false), |(_, path)| chain::is_unbegun(path)).map_err(fault)?;
    let keep = if unbegun { READ + 1 } else { READ };
    let last = segments.get(segments.len().saturating_sub(keep)..).unwrap_or_default();
    let mut open: HashMap<Box<[u8]>, Intent> = HashMap::new();
    let walked = chain::walk(last, &mut |seq, payload| {
        let Some(id) = id(payload) else { return };
        match chain::kind(payload) {
            Some("intent") if open.len() < FOLLOWED => {
                open.insert(id.into(), Intent { seq, payload: payload.into() });
            }
            Some("outcome" | "refusal") => {
                open.remove(id);
            }
            _ => {}
        }
    })
    .map_err(fault)?;
    let mut open: Vec<_> = open.into_values().collect();
    open.sort_by_key(|intent| intent.seq);
    Ok(Found { walked, open })
}

/// A record's request id. It stands before anything that a client sent.
fn id(payload: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = br#","id":""#;
    let at = payload.windows(KEY.len()).position(|window| window == KEY)?;
    let rest = payload.get(at + KEY.len()..)?;
    rest.get(..rest.iter().position(|byte| *byte == b'"')?)
}

/// The folders of the chains under `folder`, for those who only read.
///
/// # Errors
/// The folder can't be read.
pub(super) fn chains(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(chain::chains(folder)?.into_iter().map(|(_, path)| path).collect())
}
