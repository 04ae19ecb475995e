//! The Unix socket that operators change things through: where it is, and whose.
//!
//! Its file is put in place whole, with a rename, so that a new process takes it over from an old one between two
//! connections. The old one sees that the file is another than its own, and leaves it there.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A living process answers there.
    #[error(
        "{path} is the socket of another patgate that runs; stop that one, or choose another [admin] socket",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// Something else has that name.
    #[error("{path} is there and is no socket; remove it, or choose another [admin] socket", path = .0.display())]
    Occupied(PathBuf),
    /// Whoever may write into the folder could put another socket there.
    #[error(
        "others may write into {path} (mode {mode:04o}), or it is another user's, and so they can put a socket of their \
         own in this one's place; chmod 755 it, give it to root or to patgate's user, or choose another folder for \
         [admin] socket",
        path = .0.display(), mode = .1
    )]
    OpenFolder(PathBuf, u32),
    /// Anything else.
    #[error("[admin] socket {path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, #[source] io::Error),
}

/// The socket of this process. Dropped, its file is removed, unless another process took the name over.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    file: (u64, u64),
    listener: UnixListener,
}

impl Socket {
    /// Opens it. What a dead process left is replaced; a living one's only in a hand-over (`overlap`). `shared`: users
    /// other than patgate's own and root may connect; who they are is asked of each connection.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn open(path: &Path, shared: bool, overlap: bool) -> Result<Self, SocketError> {
        let failed = |error| SocketError::Io(path.to_owned(), error);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_new = !folder.exists();
        // As systemd's RuntimeDirectory= would, where nobody else has.
        DirBuilder::new()
            .recursive(true)
            .mode(if shared { 0o755 } else { 0o700 })
            .create(folder)
            .map_err(|error| SocketError::Io(folder.to_owned(), error))?;
        if is_new && shared {
            // The umask leaves it to its owner alone. Others may go through, and see nothing.
            let mode = fs::Permissions::from_mode(0o711);
            fs::set_permissions(folder, mode).map_err(|error| SocketError::Io(folder.to_owned(), error))?;
        }
        let about = fs::metadata(folder).map_err(|error| SocketError::Io(folder.to_owned(), error))?;
        // Whoever may make files there may take the name while patgate is down, and tell operators what he likes.
        let foreign = about.uid() != 0 && about.uid() != rustix::process::geteuid().as_raw();
        if foreign || about.mode() & 0o022 != 0 {
            return Err(SocketError::OpenFolder(folder.to_owned(), about.mode() & 0o7777));
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(there) if !there.file_type().is_socket() => {
                return Err(SocketError::Occupied(path.to_owned()));
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) if !overlap => return Err(SocketError::InUse(path.to_owned())),
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                }
                Err(error) => return Err(failed(error)),
            },
        }
        let mut aside = OsString::from(path);
        aside.push(format!(".{}", std::process::id()));
        let aside = PathBuf::from(aside);
        let _ = fs::remove_file(&aside);
        let opened = Self::put(path, &aside, shared);
        if opened.is_err() {
            let _ = fs::remove_file(&aside);
        }
        opened.map_err(failed)
    }

    fn put(path: &Path, aside: &Path, shared: bool) -> io::Result<Self> {
        let listener = UnixListener::bind(aside)?;
        listener.set_nonblocking(true)?;
        let mode = if shared { 0o666 } else { 0o600 };
        fs::set_permissions(aside, fs::Permissions::from_mode(mode))?;
        let about = fs::symlink_metadata(aside)?;
        fs::rename(aside, path)?;
        Ok(Self { path: path.to_owned(), file: (about.dev(), about.ino()), listener })
    }

    /// The listener, for the runtime of the calling thread.
    ///
    /// # Errors
    /// The runtime can't take it.
    pub fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let named = fs::symlink_metadata(&self.path).map(|about| (about.dev(), about.ino()));
        if named.is_ok_and(|named| named == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_a_dead_process_left_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        let socket = Socket::open(&path, false, false).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(matches!(Socket::open(&path, false, false), Err(SocketError::InUse(_))));
        drop(socket);
        assert!(!path.exists());
        let shared = Socket::open(&path, true, false).unwrap();
        assert_eq!(mode(&path), 0o666);
        drop(shared);
        fs::write(&path, "").unwrap();
        assert!(matches!(Socket::open(&path, false, true), Err(SocketError::Occupied(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_successor_takes_the_name_and_the_old_process_leaves_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let old = Socket::open(&path, false, false).unwrap();
        let new = Socket::open(&path, false, true).unwrap();
        drop(old);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(new.listener.accept().is_ok(), "it is the new one's");
        drop(new);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_others_may_write_into_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, good) in [(0o700, true), (0o755, true), (0o1777, false), (0o775, false), (0o777, false)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            let opened = Socket::open(&folder.path().join("s"), false, false);
            assert_eq!(opened.is_ok(), good, "{mode:o}");
        }
        let made = folder.path().join("made");
        drop(Socket::open(&made.join("s"), false, false).unwrap());
        assert_eq!(mode(&made), 0o700);
        fs::write(folder.path().join("file"), "").unwrap();
        let error = Socket::open(&folder.path().join("file/s"), false, false).unwrap_err();
        assert!(error.to_string().contains("file: "), "{error}");
    }
}
