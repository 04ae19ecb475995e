//! Secrets in files, each holding one, that nobody else may read.

use std::path::Path;

use super::{
    Fetch, Fetched, SecretSource, VaultError, pat,
    private::{self, Readers},
};

/// Reads files. `secret` is an absolute path; mounted secrets (`..data` links) are followed at each read.
#[derive(Debug, Default)]
pub struct File;

impl SecretSource for File {
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        let path = Path::new(secret).to_owned();
        Box::pin(async move {
            // A file system that hangs must not hold up the control thread.
            let read = tokio::task::spawn_blocking(move || {
                private::read_line(&path, Readers::Owner, pat::LONGEST + 2)
            });
            let value = read.await.map_err(|_| VaultError::Unavailable("the read broke off".into()))??;
            Ok(Fetched { value, version: None })
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
    use crate::vault::pat::exposed;

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
        assert_eq!(exposed(&File.fetch(name).await.unwrap().value), "first");
        symlink("..two", folder.path().join("..new")).unwrap();
        fs::rename(folder.path().join("..new"), &data).unwrap();
        assert_eq!(exposed(&File.fetch(name).await.unwrap().value), "second");
    }
}
