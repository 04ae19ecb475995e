//! Shows an audit folder's records, as they stand and as they come. It reads only, and proves
//! nothing: that is [`super::verify`]'s work.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{
    chain,
    frame::{Next, Reader},
    open,
    sentence::Sentence,
};

/// How a record is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The record as it is stored, one JSON object a line, with `chain` and `seq` before the rest.
    Json,
    /// A line for people; nothing in it can steer a terminal but our own colours.
    Text {
        /// Whether to use colours.
        colour: bool,
    },
}

/// A view of an audit folder.
#[derive(Debug)]
pub struct Tail {
    folder: PathBuf,
    form: Form,
    cursors: Vec<Cursor>,
}

impl Tail {
    /// A view that has shown nothing yet.
    #[must_use]
    pub fn new(folder: &Path, form: Form) -> Self {
        Self { folder: folder.to_owned(), form, cursors: Vec::new() }
    }

    /// Shows the last `count` records of all chains, in the order of their times; `None`: all.
    ///
    /// # Errors
    /// A file can't be read, or `out` can't be written.
    pub fn last(&mut self, count: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        self.look(count)?;
        let mut heads = Vec::new();
        for cursor in &mut self.cursors {
            heads.push(cursor.next()?);
        }
        let mut kept = VecDeque::new();
        while let Some(at) = earliest(&heads) {
            let (Some(head), Some(cursor)) = (heads.get_mut(at), self.cursors.get_mut(at)) else { break };
            if let Some(line) = std::mem::replace(head, cursor.next()?) {
                match count {
                    None => self.form.write(&line, out)?,
                    Some(count) => {
                        kept.push_back(line);
                        if kept.len() > count {
                            kept.pop_front();
                        }
                    }
                }
            }
        }
        kept.iter().try_for_each(|line| self.form.write(line, out))?;
        out.flush()
    }

    /// Shows what has come since the last call.
    ///
    /// # Errors
    /// As [`Self::last`].
    pub fn more(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.look(None)?;
        for cursor in &mut self.cursors {
            while let Some(line) = cursor.next()? {
                self.form.write(&line, out)?;
            }
        }
        out.flush()
    }

    /// The places where records are and could not be read: `patgate audit verify` says more.
    #[must_use]
    pub fn unreadable(&self) -> Vec<String> {
        self.cursors.iter().filter_map(|cursor| cursor.unreadable.clone()).collect()
    }

    /// Finds chains that are new.
    fn look(&mut self, count: Option<usize>) -> io::Result<()> {
        for folder in open::chains(&self.folder)? {
            if !self.cursors.iter().any(|cursor| cursor.folder == folder)
                && let Some(cursor) = Cursor::new(folder, count)?
            {
                self.cursors.push(cursor);
            }
        }
        Ok(())
    }
}

fn earliest(heads: &[Option<Line>]) -> Option<usize> {
    let heads = heads.iter().enumerate().filter_map(|(at, line)| Some((line.as_ref()?.time(), at)));
    heads.min().map(|(_, at)| at)
}

/// A record, and where it is from.
#[derive(Debug)]
struct Line {
    chain: String,
    seq: u64,
    payload: Vec<u8>,
}

impl Line {
    /// The time, as text that sorts.
    fn time(&self) -> &[u8] {
        const KEY: &[u8] = br#""time":""#;
        let found = self.payload.windows(KEY.len()).position(|window| window == KEY);
        found.and_then(|at| self.payload.get(at + KEY.len()..)?.get(..30)).unwrap_or_default()
    }
}

/// A place in a chain that is read from, perhaps while it is written.
#[derive(Debug)]
struct Cursor {
    folder: PathBuf,
    segment: u64,
    reader: Option<Reader>,
    unreadable: Option<String>,
}

impl Cursor {
    /// Stands far enough back for `count` records. `None` for a chain without segments.
    fn new(folder: PathBuf, count: Option<usize>) -> io::Result<Option<Self>> {
        let segments = chain::segments(&folder)?;
        let (Some((oldest, _)), Some((newest, path))) = (segments.first(), segments.last()) else {
            return Ok(None);
        };
        let mut segment = *oldest;
        if let Some(count) = count {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            let last = count_through(path)?;
            let first = |path: &Path| -> io::Result<Option<u64>> {
                Ok(Reader::new(File::open(path)?).header()?.ok().map(|(header, _)| header.first))
            };
            segment = *newest;
            for (number, path) in segments.iter().rev() {
                segment = *number;
                if first(path)?.is_some_and(|first| first.saturating_add(count) <= last.saturating_add(1)) {
                    break;
                }
            }
        }
        Ok(Some(Self { folder, segment, reader: None, unreadable: None }))
    }

    /// The next record, if there is one at present.
    fn next(&mut self) -> io::Result<Option<Line>> {
        let mut fresh = false;
        loop {
            let Some(mut reader) = self.reader.take() else {
                let path = chain::segment(&self.folder, self.segment);
                let file = match File::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    file => file?,
                };
                let mut reader = Reader::new(file);
                if reader.header()?.is_err() {
                    // It may be on its way still.
                    return Ok(None);
                }
                self.reader = Some(reader);
                continue;
            };
            // Looked for before reading: what follows then ends this segment.
            let ended = chain::segment(&self.folder, self.segment + 1).exists();
            let seen = match reader.next()? {
                Next::Frame(frame) => {
                    let chain = self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    Some(Line { chain, seq: frame.seq, payload: frame.payload.to_vec() })
                }
                Next::End => None,
                Next::Space if !ended || !fresh => None,
                Next::Space | Next::Bad => {
                    let path = chain::segment(&self.folder, self.segment);
                    self.unreadable = Some(format!("{}: at byte {}", path.display(), reader.offset()));
                    None
                }
            };
            if seen.is_some() {
                self.unreadable = None;
                self.reader = Some(reader);
                return Ok(seen);
            }
            if ended && fresh {
                self.segment += 1;
                continue;
            }
            reader.again()?;
            self.reader = Some(reader);
            if !ended {
                return Ok(None);
            }
            // What was read ahead may be older than the segment's end.
            fresh = true;
        }
    }
}

/// The last record's number in a segment.
fn count_through(path: &Path) -> io::Result<u64> {
    let mut reader = Reader::new(File::open(path)?);
    let Ok((header, _)) = reader.header()? else { return Ok(0) };
    let mut last = header.first.saturating_sub(1);
    while let Next::Frame(frame) = reader.next()? {
        last = frame.seq;
    }
    Ok(last)
}

impl Form {
    fn write(self, line: &Line, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Json => {
                write!(out, r#"{{"chain":"{}","seq":{},"#, line.chain, line.seq)?;
                out.write_all(line.payload.strip_prefix(b"{").unwrap_or_default())?;
                out.write_all(b"\n")
            }
            Self::Text { colour } => {
                let fields: Map<String, Value> = serde_json::from_slice(&line.payload).unwrap_or_default();
                writeln!(out, "{}", Sentence { fields: &fields, colour }.line())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::{
        audit::{Audit, Event},
        config,
    };

    fn open(folder: &Path, segment_size: u64, overlap: bool) -> Audit {
        let config = config::Audit {
            folder: folder.to_owned(),
            durability: config::Durability::Os,
            segment_size,
            segment_age: Duration::from_hours(1),
            reserve: 0,
        };
        Audit::open(&config, overlap).unwrap()
    }

    fn write(audit: &Audit, generation: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(audit.event(Event::Configured { policy: "p".into(), generation })).unwrap();
    }

    fn generations(json: &[u8]) -> Vec<u64> {
        let lines = std::str::from_utf8(json).unwrap().lines();
        lines
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["generation"].as_u64().unwrap())
            .collect()
    }

    #[test]
    fn the_last_records_of_all_chains_come_in_the_order_of_their_times() {
        let folder = tempfile::tempdir().unwrap();
        // A segment for each record or two.
        let (one, two) = (open(folder.path(), 300, false), open(folder.path(), 300, true));
        for generation in 0..20 {
            write(if generation % 3 == 0 { &one } else { &two }, generation);
        }
        for (count, from) in
            [(None, 0), (Some(100), 0), (Some(20), 0), (Some(7), 13), (Some(1), 19), (Some(0), 20)]
        {
            let mut out = Vec::new();
            Tail::new(folder.path(), Form::Json).last(count, &mut out).unwrap();
            assert_eq!(generations(&out), (from..20).collect::<Vec<_>>(), "{count:?}");
        }
    }

    #[test]
    fn what_comes_is_shown_once_across_segments() {
        let folder = tempfile::tempdir().unwrap();
        let audit = open(folder.path(), 300, false);
        write(&audit, 0);
        let mut tail = Tail::new(folder.path(), Form::Json);
        let mut out = Vec::new();
        tail.last(Some(10), &mut out).unwrap();
        assert_eq!(generations(&out), [0]);
        for generation in 1..10 {
            write(&audit, generation);
            let mut out = Vec::new();
            tail.more(&mut out).unwrap();
            assert_eq!(generations(&out), [generation]);
        }
        let mut out = Vec::new();
        tail.more(&mut out).unwrap();
        assert!(out.is_empty() && tail.unreadable().is_empty());
        let other = open(folder.path(), 300, true);
        write(&other, 10);
        tail.more(&mut out).unwrap();
        assert_eq!(generations(&out), [10]);
    }
}
