//! Who may write the state.
//!
//! The owner holds the lock of the file `owner` for as long as it lives. A successor puts a file of its own, locked, in
//! that one's place: the old process sees that the file of this name is another one than it holds. A second lock,
//! `lock`, is held for moments, so that nobody writes while somebody takes over.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// For a process that writes the state, or takes it over. Nobody holds the lock for longer than a write.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(25);

/// What came of a claim.
#[derive(Debug)]
pub(super) enum Claim {
    /// This process owns the state.
    Ours(Ownership),
    /// Another one does: its id, as it wrote it.
    Taken(Option<u32>),
}

/// Whose the state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// This process's.
    Ours,
    /// This process's again: the successor has ended. What that one wrote is to be read.
    OursAgain,
    /// A successor's.
    Theirs,
}

/// A claim that holds until a successor takes over.
#[derive(Debug)]
pub(super) struct Ownership {
    folder: PathBuf,
    /// Locked.
    owner: Mutex<File>,
}

impl Ownership {
    /// Claims the state; from another living process only where `overlap` says that it hands over.
    pub(super) fn claim(folder: &Path, overlap: bool) -> io::Result<Claim> {
        let _moment = moment(folder)?;
        let path = folder.join("owner");
        let mut owner = open(&path)?;
        match owner.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if overlap => {
                let new = tempfile::Builder::new().prefix(".owner-").tempfile_in(folder)?;
                new.as_file().try_lock().map_err(io::Error::from)?;
                owner = new.persist(&path).map_err(|error| error.error)?;
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = owner.take(32).read_to_string(&mut text);
                return Ok(Claim::Taken(read.ok().and_then(|_| text.trim().parse().ok())));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        sign(&mut owner)?;
        Ok(Claim::Ours(Self { folder: folder.to_owned(), owner: Mutex::new(owner) }))
    }

    /// Whether nobody has taken over.
    pub(super) fn is_ours(&self) -> io::Result<bool> {
        let own = self.owner.lock().unwrap_or_else(PoisonError::into_inner).metadata()?;
        match fs::metadata(self.folder.join("owner")) {
            Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Runs `work` while nobody can take over, and tells it whether somebody has. One who has, and has ended since, is
    /// succeeded by this process.
    pub(super) fn locked<T>(&self, work: impl FnOnce(Standing) -> T) -> io::Result<T> {
        let _moment = moment(&self.folder)?;
        if self.is_ours()? {
            return Ok(work(Standing::Ours));
        }
        let mut named = open(&self.folder.join("owner"))?;
        match named.try_lock() {
            Ok(()) => {
                sign(&mut named)?;
                *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = named;
                Ok(work(Standing::OursAgain))
            }
            Err(TryLockError::WouldBlock) => Ok(work(Standing::Theirs)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Says whose the state is, for people and for messages.
fn sign(owner: &mut File) -> io::Result<()> {
    owner.set_len(0)?;
    owner.rewind()?;
    writeln!(owner, "{}", std::process::id())
}

/// Waits for its turn. The lock ends with the file.
fn moment(folder: &Path) -> io::Result<File> {
    let lock = open(&folder.join("lock"))?;
    for _ in 0..TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock of the state"))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes a folder that nobody else may enter; fine if it is there, and if nobody else may write into it.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let about = fs::metadata(folder)?;
    if about.mode() & 0o022 != 0 {
        let mode = about.mode() & 0o7777;
        let why = format!(
            "others may write into the folder (mode {mode:04o}), and so enable what is disabled; chmod 700 it"
        );
        return Err(io::Error::other(why));
    }
    let user = rustix::process::geteuid().as_raw();
    if about.uid() != user && about.uid() != 0 {
        let why =
            format!("the folder belongs to the user {}; it has to be patgate's own, or root's", about.uid());
        return Err(io::Error::other(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_others_may_write_into_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, good) in [(0o700, true), (0o755, true), (0o775, false), (0o777, false), (0o1777, false)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(make_folder(folder.path()).is_ok(), good, "{mode:o}");
        }
    }

    #[test]
    fn each_successor_takes_the_place_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = Vec::new();
        for _ in 0..3 {
            let Claim::Ours(new) = Ownership::claim(folder.path(), true).unwrap() else { panic!("not ours") };
            assert!(held.iter().all(|old: &Ownership| !old.is_ours().unwrap()));
            assert!(new.is_ours().unwrap());
            held.push(new);
        }
        // The last one's end frees it, whatever the others do.
        drop(held.pop());
        assert!(matches!(Ownership::claim(folder.path(), false).unwrap(), Claim::Ours(_)));
    }
}
