//! Proves an audit folder: that every record follows from the one before it.
//!
//! It needs no key and little memory. What a chain alone can't show: that its last records were
//! cut off at a record's end, or that all of it was written anew by somebody who could write here.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    chain::{self, Fault, Lock},
    journal, open,
};

/// What was found, chain by chain.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of their numbers.
    pub chains: Vec<Chain>,
}

/// One chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its folder.
    pub folder: PathBuf,
    /// Its random name, in hexadecimal; zeros for a chain without a whole segment.
    pub id: String,
    /// Whether a process writes it at present.
    pub live: bool,
    /// Segments proved.
    pub segments: u64,
    /// Records proved.
    pub records: u64,
    /// Of these, intents.
    pub intents: u64,
    /// Of these, outcomes.
    pub outcomes: u64,
    /// The last record's number.
    pub last: u64,
    /// What is to be said of it.
    pub verdict: Verdict,
}

/// What is to be said of a chain, the better first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every record follows from the one before it, from the first to the last.
    Intact,
    /// The last record was not written whole; the next start of patgate cuts it off and says so.
    Torn {
        /// The segment.
        segment: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// How many bytes are no record.
        bytes: u64,
    },
    /// All that is here is good, but something is known to be missing.
    Gap(Vec<String>),
    /// It was altered.
    Altered {
        /// The segment.
        segment: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// The record that should stand there.
        seq: u64,
        /// What is wrong.
        what: String,
    },
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Torn { .. } => "torn",
            Self::Gap(_) => "gap",
            Self::Altered { .. } => "altered",
        }
    }

    /// The exit code of `patgate audit verify`: 0 intact, 1 torn, 2 gap, 3 altered.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Intact => 0,
            Self::Torn { .. } => 1,
            Self::Gap(_) => 2,
            Self::Altered { .. } => 3,
        }
    }
}

impl Report {
    /// The worst verdict's exit code; see [`Verdict::code`].
    #[must_use]
    pub fn code(&self) -> u8 {
        self.chains.iter().map(|chain| chain.verdict.code()).max().unwrap_or(0)
    }
}

/// Proves every chain of an audit folder.
///
/// # Errors
/// A file can't be read, or the folder holds no chain.
pub fn verify(folder: &Path) -> io::Result<Report> {
    let chains = open::chains(folder)?;
    if chains.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no audit in this folder"));
    }
    let chains = chains.into_iter().map(one).collect::<io::Result<_>>()?;
    Ok(Report { chains })
}

fn one(folder: PathBuf) -> io::Result<Chain> {
    // Before reading: a tail that is being written is not torn.
    let live = Lock::is_taken(&folder);
    let (mut records, mut intents, mut outcomes, mut last) = (0, 0, 0, 0);
    let walked = chain::walk(&chain::segments(&folder)?, &mut |seq, payload| {
        records += 1;
        last = seq;
        match chain::kind(payload) {
            Some("intent") => intents += 1,
            Some("outcome") => outcomes += 1,
            _ => {}
        }
    });
    let mut chain = Chain {
        folder,
        id: String::new(),
        live,
        segments: 0,
        records,
        intents,
        outcomes,
        last,
        verdict: Verdict::Intact,
    };
    match walked {
        Ok(walked) => {
            chain.id = journal::hex(&walked.chain);
            chain.segments = walked.segments;
            if !walked.gaps.is_empty() {
                chain.verdict = Verdict::Gap(walked.gaps);
            } else if let Some((segment, tail)) = walked.torn.filter(|_| !live) {
                chain.verdict = Verdict::Torn { segment, offset: tail.offset, bytes: tail.bytes };
            }
        }
        Err(Fault::Altered { path, offset, seq, what }) => {
            chain.verdict = Verdict::Altered { segment: path, offset, seq, what };
        }
        Err(Fault::Io(path, error)) => {
            return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
        }
    }
    Ok(chain)
}
