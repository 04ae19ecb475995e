//! Secrets in files, each holding one, that nobody else may read.

use std::{path::Path, sync::Arc};

use tokio::sync::Semaphore;

use super::{
    Fetch, Fetched, SecretSource,
    private::{self, Readers},
    token,
};

/// A file system that hangs keeps no more threads than these.
const AT_ONCE: usize = 8;

/// Reads files. `secret` is an absolute path; mounted secrets (`..data` links) are followed at each read.
#[derive(Debug)]
pub struct File {
    turns: Arc<Semaphore>,
}

impl File {
    /// A source for any path.
    #[must_use]
    pub fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Default for File {
    fn default() -> Self {
        Self::new()
    }
}

impl SecretSource for File {
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        let path = Path::new(secret).to_owned();
        let turns = Arc::clone(&self.turns);
        Box::pin(async move {
            let value =
                private::aside(turns, move || private::read_line(&path, Readers::Owner, token::LONGEST + 2));
            let value = value.await??;
            Ok(Fetched::new(value))
        })
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
        assert_eq!(exposed(&File::new().fetch(name).await.unwrap().value), "first");
        symlink("..two", folder.path().join("..new")).unwrap();
        fs::rename(folder.path().join("..new"), &data).unwrap();
        assert_eq!(exposed(&File::new().fetch(name).await.unwrap().value), "second");
    }
}
