//! Secrets in files, each holding one, that nobody else may read, unless the configuration allows that.

use std::{path::Path, sync::Arc};

use tokio::sync::Semaphore;

use super::{
    Fetch, Fetched, SecretSource, Stamp, Stamping, VaultError,
    private::{self, Readers, Unread},
    token,
};
use crate::config::{FileVault, ReadableBy};

/// A file system that hangs keeps no more threads than these.
const AT_ONCE: usize = 8;

/// Reads files. `secret` is an absolute path; mounted secrets (`..data` links) are followed at each read.
#[derive(Debug)]
pub struct File {
    readers: Readers,
    turns: Arc<Semaphore>,
}

impl File {
    /// A source for any path.
    #[must_use]
    pub fn new(config: &FileVault) -> Self {
        let readers = match config.readable_by {
            ReadableBy::Owner => Readers::Owner,
            ReadableBy::Others => Readers::Anyone,
        };
        Self { readers, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl SecretSource for File {
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        let path = Path::new(secret).to_owned();
        let (turns, readers) = (Arc::clone(&self.turns), self.readers);
        Box::pin(async move {
            let read = move || private::read_line(&path, readers, token::LONGEST + 2);
            Ok(Fetched::new(private::aside(turns, read).await?.map_err(|unread| refused(unread, readers))?))
        })
    }

    fn stamp<'a>(&'a self, secret: &'a str) -> Stamping<'a> {
        let path = Path::new(secret).to_owned();
        let turns = Arc::clone(&self.turns);
        Box::pin(async move {
            private::aside(turns, move || Stamp::of(std::iter::once(path.as_path()))).await.ok()
        })
    }
}

/// In a container there are no others, and Docker's secrets can be read by all of them.
fn refused(unread: Unread, readers: Readers) -> VaultError {
    match unread {
        open @ Unread::Open(..) if readers == Readers::Owner => VaultError::Denied(
            format!("{open}; where nobody else is, as in a container, readable-by = \"others\" of the vault accepts it")
                .into(),
        ),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;
    use crate::vault::token::exposed;

    const PRIVATE: FileVault = FileVault { readable_by: ReadableBy::Owner };

    #[tokio::test]
    async fn what_docker_mounts_is_read_where_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pat");
        fs::write(&path, "canary\n").unwrap();
        let name = path.to_str().unwrap();
        for (mode, private, shared) in
            [(0o444, false, true), (0o400, true, true), (0o644, false, true), (0o464, false, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            for (readable_by, read) in [(ReadableBy::Owner, private), (ReadableBy::Others, shared)] {
                match File::new(&FileVault { readable_by }).fetch(name).await {
                    Ok(fetched) => assert!(read && exposed(&fetched.value) == "canary", "{mode:o}"),
                    Err(VaultError::Denied(why)) => {
                        let told = why.contains("readable-by");
                        assert!(!read && told == (readable_by == ReadableBy::Owner), "{mode:o}: {why}");
                    }
                    Err(error) => panic!("{mode:o}: {error}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn a_change_shows_without_a_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pat");
        let (source, name) = (File::new(&PRIVATE), path.to_str().unwrap());
        let absent = source.stamp(name).await.unwrap();
        fs::write(&path, "one").unwrap();
        let first = source.stamp(name).await.unwrap();
        assert_eq!(source.stamp(name).await.unwrap(), first);
        fs::write(&path, "three").unwrap();
        let second = source.stamp(name).await.unwrap();
        assert!(absent != first && first != second && absent != second);
    }

    #[tokio::test]
    async fn a_mounted_secret_is_followed_when_its_link_turns() {
        let folder = tempfile::tempdir().unwrap();
        for (version, value) in [("..one", "first"), ("..two", "second")] {
            fs::create_dir(folder.path().join(version)).unwrap();
            let file = folder.path().join(version).join("pat");
            fs::write(&file, value).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        }
        let (data, secret) = (folder.path().join("..data"), folder.path().join("pat"));
        symlink("..one", &data).unwrap();
        symlink("..data/pat", &secret).unwrap();
        let name = secret.to_str().unwrap();
        assert_eq!(exposed(&File::new(&PRIVATE).fetch(name).await.unwrap().value), "first");
        symlink("..two", folder.path().join("..new")).unwrap();
        fs::rename(folder.path().join("..new"), &data).unwrap();
        assert_eq!(exposed(&File::new(&PRIVATE).fetch(name).await.unwrap().value), "second");
    }
}
