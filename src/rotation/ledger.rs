//! Where a rotation's state is kept: a file each, whole or not at all, and durable.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    future::Future,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::state::{FORMAT, State};

/// Far more than any state.
const LARGEST: u64 = 1 << 20;

/// What a file's name shows as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A boxed future.
pub(super) type Kept<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// Where a rotation's state is kept.
pub(super) trait Keep: Send + Sync {
    /// What was kept last; `None`: nothing yet. What can't be read is an error, never nothing.
    fn load(&self) -> Kept<'_, Option<State>>;
    /// Keeps it durably.
    fn save<'a>(&'a self, state: &'a State) -> Kept<'a, ()>;
}

/// One credential's file.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    folder: PathBuf,
    credential: Arc<str>,
}

/// Held for a turn, so that no other process has one.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "the lock goes with the handle")] File);

impl Ledger {
    /// In the state's folder.
    pub(super) fn new(state: &Path, credential: &Arc<str>) -> Self {
        Self { folder: state.join("rotation"), credential: Arc::clone(credential) }
    }

    /// Makes the folder where it is not there.
    ///
    /// # Errors
    /// As the system says, with the folder's name.
    pub(super) fn prepare(&self) -> Result<(), String> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|error| format!("{}: {error}", self.folder.display()))
    }

    /// Takes the turn; `None`: another process has it.
    ///
    /// # Errors
    /// As the system says, with the file's name.
    pub(super) fn turn(&self) -> Result<Option<Turn>, String> {
        let path = self.folder.join(format!("{}.lock", self.stem()));
        let said = |error: io::Error| format!("{}: {error}", path.display());
        let options = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = options.map_err(said)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Turn(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(said(error)),
        }
    }

    /// The file's name without its end. Names of credentials may be longer than a file's.
    fn stem(&self) -> String {
        let shown = utf8_percent_encode(&self.credential, PLAIN).to_string();
        if shown.len() <= 200 {
            return shown;
        }
        let hash = digest(&SHA256, self.credential.as_bytes());
        hash.as_ref().iter().fold("long-".to_owned(), |stem, byte| format!("{stem}{byte:02x}"))
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.stem()))
    }

    fn read(&self) -> Result<Option<State>, String> {
        let path = self.path();
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(said(&error)),
        };
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text).map_err(|error| said(&error))?;
        let state: State = serde_json::from_slice(&text)
            .map_err(|error| said(&format!("this is no state of a rotation: {error}")))?;
        if state.format != FORMAT {
            let (format, known) = (state.format, FORMAT);
            return Err(said(&format!(
                "another version of patgate wrote this (format {format}; this one reads {known})"
            )));
        }
        if state.credential != self.credential {
            return Err(said(&format!("this is the state of the credential {}", state.credential)));
        }
        Ok(Some(state))
    }

    fn write(&self, state: &State) -> io::Result<()> {
        // Readable by its owner alone, as `tempfile` makes them.
        let mut file = tempfile::Builder::new().prefix(".rotation-").tempfile_in(&self.folder)?;
        serde_json::to_writer_pretty(&mut file, state)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(self.path()).map_err(|error| error.error)?;
        fs::File::open(&self.folder)?.sync_all()
    }
}

impl Keep for Ledger {
    fn load(&self) -> Kept<'_, Option<State>> {
        let ledger = self.clone();
        aside(move || ledger.read())
    }

    fn save<'a>(&'a self, state: &'a State) -> Kept<'a, ()> {
        let (ledger, state) = (self.clone(), state.clone());
        aside(move || ledger.write(&state).map_err(|error| format!("{}: {error}", ledger.path().display())))
    }
}

/// On a thread that may wait for the disk.
fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Kept<'static, T> {
    Box::pin(async move {
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(format!("it broke off: {error}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(folder: &Path, name: &str) -> Ledger {
        let ledger = Ledger::new(folder, &name.into());
        ledger.prepare().unwrap();
        ledger
    }

    #[tokio::test]
    async fn what_was_kept_is_found_again_by_the_same_name_alone() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["web", "web/../x", "WEB", "é", &"é".repeat(120), &"é".repeat(119)];
        for (count, name) in names.iter().enumerate() {
            let one = ledger(folder.path(), name);
            assert_eq!(one.load().await, Ok(None), "{name}");
            let mut state = State::new(&(*name).into());
            state.failures = u32::try_from(count).unwrap();
            one.save(&state).await.unwrap();
        }
        for (count, name) in names.iter().enumerate() {
            let state = ledger(folder.path(), name).load().await.unwrap().unwrap();
            assert_eq!(state.failures as usize, count, "{name}");
        }
        assert_eq!(fs::read_dir(folder.path().join("rotation")).unwrap().count(), names.len());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no name leads out of the folder");
    }

    #[tokio::test]
    async fn a_state_that_cannot_be_read_is_never_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let one = ledger(folder.path(), "web");
        one.save(&State::new(&"web".into())).await.unwrap();
        let good = fs::read_to_string(one.path()).unwrap();
        for text in [
            "",
            "{}",
            &good[..good.len() / 2],
            &good.replace("\"format\": 1", "\"format\": 2"),
            &good.replace("web", "docs"),
        ] {
            fs::write(one.path(), text).unwrap();
            assert!(one.load().await.is_err(), "{text}");
        }
    }

    #[test]
    fn one_process_at_a_time_has_the_turn() {
        let folder = tempfile::tempdir().unwrap();
        let one = ledger(folder.path(), "web");
        let turn = one.turn().unwrap().unwrap();
        assert!(one.turn().unwrap().is_none());
        assert!(ledger(folder.path(), "docs").turn().unwrap().is_some());
        drop(turn);
        assert!(one.turn().unwrap().is_some());
    }
}
