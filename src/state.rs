//! What operators changed while patgate runs, kept over a restart: disabled credentials.
//!
//! What comes in: changes, from the admin socket. What goes out: a [`Document`]. It must never forget: a
//! document that can't be read stops a start, and a follower that can't read it keeps what it knew.
//!
//! One process owns the document, and it alone writes it. In a hand-over the new process takes it over; the old one,
//! while it ends its requests, follows what the new one writes.
//!
//! # Adding a kind of entry
//! A variant of `document::Entry` and a map in [`Document`]; whoever acts on it looks at [`State::document`].

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

mod document;
mod owner;

pub use document::{Disabled, Document};

use owner::{Claim, Ownership, Standing};

/// The document's file, in the folder.
const FILE: &str = "state.json";

/// Far more than any state; a bound for a file that is none.
const LARGEST: u64 = 16 << 20;

/// Why the state could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, with this id where it is known, owns it.
    #[error(
        "another patgate{process} uses the state in {path}; stop that one, or give each a [state] folder of its own",
        process = process(*.1), path = .0.display()
    )]
    InUse(PathBuf, Option<u32>),
    /// What is there is no state, or one of another version of patgate.
    #[error(
        "{path}: {why}; patgate does not start without knowing which credentials are disabled: put a copy back in its \
         place, or remove the file to start with none disabled", path = .0.display(), why = .1
    )]
    Broken(PathBuf, String),
    /// The folder can't be used.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, #[source] io::Error),
}

fn process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// Why a change was not kept.
#[derive(Debug, thiserror::Error)]
pub enum Unkept {
    /// A newer process owns the state.
    #[error("another patgate has taken over; ask that one")]
    TakenOver,
    /// The disk does not do its part.
    #[error("the state can't be written: {0}")]
    Io(#[from] io::Error),
}

/// The state of one process: `Clone + Send + Sync`.
#[derive(Clone, Debug)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None`: nothing outlives the process.
    place: Option<Place>,
    /// One writer at a time. Held over the disk, as `document` never is: the control thread looks at that.
    writes: Mutex<()>,
    document: Mutex<Arc<Document>>,
}

#[derive(Debug)]
struct Place {
    folder: PathBuf,
    ownership: Ownership,
}

impl State {
    /// Nothing is kept when the process ends.
    #[must_use]
    pub fn in_memory() -> Self {
        Self(Arc::new(Inner { place: None, writes: Mutex::default(), document: Mutex::default() }))
    }

    /// Opens (or makes) the folder, takes ownership, and reads the document. `overlap`: whether another patgate may still
    /// be ending its requests (a hand-over); then ownership is taken from it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(folder: &Path, overlap: bool) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io(folder.to_owned(), error);
        owner::make_folder(folder).map_err(io)?;
        let ownership = match Ownership::claim(folder, overlap).map_err(io)? {
            Claim::Ours(ownership) => ownership,
            Claim::Taken(pid) => return Err(OpenError::InUse(folder.to_owned(), pid)),
        };
        // Once the other process sees that it is no owner, so that nothing is written after this is read.
        let read = ownership.locked(|_| read(folder)).map_err(io)?;
        let document = match read {
            Ok(document) => document.unwrap_or_default(),
            Err(Unread::Broken(why)) => return Err(OpenError::Broken(folder.join(FILE), why)),
            Err(Unread::Io(error)) => return Err(OpenError::Io(folder.join(FILE), error)),
        };
        let place = Some(Place { folder: folder.to_owned(), ownership });
        Ok(Self(Arc::new(Inner {
            place,
            writes: Mutex::default(),
            document: Mutex::new(Arc::new(document)),
        })))
    }

    /// The state as this process knows it.
    #[must_use]
    pub fn document(&self) -> Arc<Document> {
        Arc::clone(&self.0.document.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether changes outlive the process.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.place.is_some()
    }

    /// Makes a change, durably where there is a folder. Blocks on the disk.
    ///
    /// # Errors
    /// See [`Unkept`]; the document is as it was then.
    pub fn change(&self, change: impl FnOnce(&mut Document)) -> Result<Arc<Document>, Unkept> {
        let _writing = self.0.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.document();
        let changed = |before: &Document| {
            let mut new = before.clone();
            change(&mut new);
            new.version += 1;
            new
        };
        let new = match &self.0.place {
            None => changed(&held),
            Some(Place { folder, ownership }) => ownership.locked(|standing| {
                let new = match standing {
                    Standing::Ours => changed(&held),
                    Standing::OursAgain => changed(&read(folder)?.unwrap_or_else(|| Document::clone(&held))),
                    Standing::Theirs => return Err(Unkept::TakenOver),
                };
                write(folder, &new)?;
                Ok(new)
            })??,
        };
        let new = Arc::new(new);
        *self.0.document.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        Ok(new)
    }

    /// Looks at what a newer process wrote; `None` where this one is the owner, or nothing changed. Blocks on the disk.
    ///
    /// # Errors
    /// It can't be read; what is known stays.
    pub fn follow(&self) -> Result<Option<Arc<Document>>, String> {
        let Some(Place { folder, ownership }) = &self.0.place else { return Ok(None) };
        if ownership.is_ours().map_err(|error| error.to_string())? {
            return Ok(None);
        }
        let read = read(folder).map_err(|unread| match unread {
            Unread::Broken(why) => why,
            Unread::Io(error) => error.to_string(),
        })?;
        let new = read.ok_or("it is gone")?;
        let mut held = self.0.document.lock().unwrap_or_else(PoisonError::into_inner);
        if new == **held {
            return Ok(None);
        }
        *held = Arc::new(new);
        Ok(Some(Arc::clone(&held)))
    }
}

#[derive(Debug)]
enum Unread {
    Broken(String),
    Io(io::Error),
}

impl From<Unread> for Unkept {
    fn from(unread: Unread) -> Self {
        Self::Io(match unread {
            Unread::Broken(why) => io::Error::other(why),
            Unread::Io(error) => error,
        })
    }
}

/// The document, or `None` where none was written yet.
fn read(folder: &Path) -> Result<Option<Document>, Unread> {
    use std::io::Read as _;
    let file = match std::fs::File::open(folder.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Unread::Io(error)),
    };
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(Unread::Io)?;
    if text.len() as u64 > LARGEST {
        return Err(Unread::Broken(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Document::parse(&text).map(Some).map_err(Unread::Broken)
}

/// Whole or not at all, and durable.
fn write(folder: &Path, document: &Document) -> io::Result<()> {
    use std::io::Write as _;
    // Readable by its owner alone, as `tempfile` makes them.
    let mut file = tempfile::Builder::new().prefix(".state-").tempfile_in(folder)?;
    file.write_all(document.text()?.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(folder.join(FILE)).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn disabled(by: &str) -> Disabled {
        let since = "2026-11-24T06:00:00Z".parse().unwrap();
        Disabled { since, by: by.into(), reason: "it leaked".into(), cut: false }
    }

    fn disable(state: &State, name: &str) -> Result<Arc<Document>, Unkept> {
        state.change(|document| {
            document.disabled.insert(name.into(), disabled("root"));
        })
    }

    #[test]
    fn what_was_changed_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let state = State::open(&folder, false).unwrap();
        assert_eq!((state.document().version, state.is_kept()), (0, true));
        disable(&state, "web").unwrap();
        disable(&state, "docs").unwrap();
        drop(state);
        let state = State::open(&folder, false).unwrap();
        assert_eq!(state.document().version, 2);
        assert_eq!(state.document().disabled.get("web"), Some(&disabled("root")));
        state.change(|document| drop(document.disabled.remove("web"))).unwrap();
        drop(state);
        let document = State::open(&folder, false).unwrap().document();
        assert_eq!(document.disabled.keys().map(|name| &**name).collect::<Vec<_>>(), ["docs"]);
        assert_eq!(document.version, 3);
    }

    #[test]
    fn a_broken_state_is_never_an_empty_one() {
        let good = r#"{"format":1,"version":1,"entries":[]}"#;
        for (text, right) in [
            (good, true),
            ("", false),
            ("nonsense", false),
            ("{}", false),
            ("null", false),
            (&good[..good.len() - 1], false),
            (r#"{"format":2,"version":1,"entries":[]}"#, false),
            (r#"{"format":1,"version":1,"entries":[],"more":1}"#, false),
            (r#"{"format":1,"version":1,"entries":[{"kind":"grant"}]}"#, false),
            (
                r#"{"format":1,"version":1,"entries":[{"kind":"disabled-credential","credential":"web"}]}"#,
                false,
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(FILE), text).unwrap();
            let opened = State::open(folder.path(), false);
            assert_eq!(opened.is_ok(), right, "{text}");
            if let Err(error) = opened {
                assert!(matches!(error, OpenError::Broken(..)), "{text}: {error}");
                assert!(error.to_string().contains("state.json: "), "{error}");
            }
        }
    }

    #[test]
    fn a_second_process_is_refused_and_a_successor_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let old = State::open(folder.path(), false).unwrap();
        disable(&old, "web").unwrap();
        let second = State::open(folder.path(), false).unwrap_err();
        let own = std::process::id();
        assert!(matches!(second, OpenError::InUse(_, Some(pid)) if pid == own), "{second}");
        assert!(old.follow().unwrap().is_none(), "the owner has nobody to follow");

        let new = State::open(folder.path(), true).unwrap();
        assert!(new.document().disabled.contains_key("web"));
        assert!(matches!(disable(&old, "docs"), Err(Unkept::TakenOver)));
        assert!(!old.document().disabled.contains_key("docs"));
        assert!(old.follow().unwrap().is_none(), "nothing is new");
        disable(&new, "docs").unwrap();
        let followed = old.follow().unwrap().unwrap();
        assert!(followed.disabled.contains_key("docs"));
        assert!(old.follow().unwrap().is_none());

        // What can't be read is no reason to forget.
        fs::write(folder.path().join(FILE), "nonsense").unwrap();
        assert!(old.follow().is_err());
        fs::remove_file(folder.path().join(FILE)).unwrap();
        assert!(old.follow().is_err());
        assert!(old.document().disabled.contains_key("docs"));
        drop(old);
        assert!(matches!(State::open(folder.path(), false), Err(OpenError::InUse(..))), "the new one lives");
    }

    #[test]
    fn where_the_successor_has_ended_the_old_process_goes_on_from_what_it_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let old = State::open(folder.path(), false).unwrap();
        let new = State::open(folder.path(), true).unwrap();
        disable(&new, "web").unwrap();
        drop(new);
        let document = disable(&old, "docs").unwrap();
        assert_eq!(document.disabled.len(), 2);
        assert_eq!((document.version, old.document().version), (2, 2));
        assert!(
            matches!(State::open(folder.path(), false), Err(OpenError::InUse(..))),
            "it is its own again"
        );
    }

    #[test]
    fn without_a_folder_changes_end_with_the_process() {
        let state = State::in_memory();
        assert_eq!(disable(&state, "web").unwrap().version, 1);
        assert!(!state.is_kept() && state.follow().unwrap().is_none());
        assert!(state.document().disabled.contains_key("web"));
    }

    #[test]
    fn a_change_that_cannot_be_written_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("state");
        let state = State::open(&at, false).unwrap();
        disable(&state, "web").unwrap();
        fs::remove_dir_all(&at).unwrap();
        assert!(disable(&state, "docs").is_err());
        assert_eq!(state.document().version, 1);
    }
}
