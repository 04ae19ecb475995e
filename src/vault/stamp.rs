//! Whether a local secret may have changed, without reading it.

use std::{fs, future::Future, os::unix::fs::MetadataExt as _, path::Path, pin::Pin};

/// How the files that a secret comes from look from outside. Where two differ, the secret may have changed; links are
/// followed, so a link that turns shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<Option<Look>>);

/// One file: device, inode, size, and the moments of its last change of content and of anything.
type Look = (u64, u64, u64, (i64, i64), (i64, i64));

/// A boxed future, as [`super::Fetch`].
pub type Stamping<'a> = Pin<Box<dyn Future<Output = Option<Stamp>> + Send + 'a>>;

impl Stamp {
    /// Looks at files. Blocks. One that is not there has a look too.
    pub(super) fn of<'a>(paths: impl Iterator<Item = &'a Path>) -> Self {
        Self(paths.map(look).collect())
    }
}

fn look(path: &Path) -> Option<Look> {
    let about = fs::metadata(path).ok()?;
    let (content, anything) = ((about.mtime(), about.mtime_nsec()), (about.ctime(), about.ctime_nsec()));
    Some((about.dev(), about.ino(), about.size(), content, anything))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn whatever_happens_to_a_file_shows() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other, link] = ["secret", "other", "link"].map(|name| folder.path().join(name));
        let now = || Stamp::of([link.as_path()].into_iter());
        symlink(&path, &link).unwrap();
        let mut before = now();
        let steps: [(&str, &dyn Fn()); 6] = [
            ("made", &|| fs::write(&path, "one").unwrap()),
            ("longer", &|| fs::write(&path, "longer").unwrap()),
            ("mode", &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap()),
            ("renamed over", &|| {
                fs::write(&other, "longer").unwrap();
                fs::rename(&other, &path).unwrap();
            }),
            ("link turned", &|| {
                fs::write(&other, "longer").unwrap();
                fs::remove_file(&link).unwrap();
                symlink(&other, &link).unwrap();
            }),
            ("gone", &|| fs::remove_file(&other).unwrap()),
        ];
        for (what, step) in steps {
            step();
            let after = now();
            assert_ne!(after, before, "{what}");
            assert_eq!(after, now(), "{what}");
            before = after;
        }
    }
}
