//! The files that a configuration names: relative to it, small, and private where they hold a key.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::parse::Item;

/// More than any configuration, chain or bundle of CAs needs; a bound for a file named by mistake.
const LARGEST: u64 = 8 << 20;

/// The folder that relative paths start from.
#[derive(Debug)]
pub(super) struct Base(pub(super) PathBuf);

impl Base {
    pub(super) fn resolve(&self, written: &str) -> PathBuf {
        self.0.join(written)
    }

    /// The path that an item holds.
    pub(super) fn path(&self, item: &Item<'_>) -> Option<PathBuf> {
        item.string().map(|written| self.resolve(written))
    }
}

/// Reads a file whole, up to a cap.
///
/// # Errors
/// A clause such as `can't be read (permission denied)`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("can't be read ({})", reason(&error));
    regular(path)?;
    let mut content = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > LARGEST {
        return Err(format!("is larger than {} MiB", LARGEST >> 20));
    }
    Ok(content)
}

/// Only a regular file: opening a pipe would wait, and a device has no end.
fn regular(path: &Path) -> Result<Metadata, String> {
    let metadata = std::fs::metadata(path).map_err(|error| format!("can't be read ({})", reason(&error)))?;
    if metadata.is_file() { Ok(metadata) } else { Err("is not a regular file".into()) }
}

pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or folder".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        kind => kind.to_string(),
    }
}

/// Reads a file that an item names, and remembers it as a source.
pub(super) fn read_named(item: &Item<'_>, path: &Path, right: &str) -> Option<Vec<u8>> {
    item.source(path);
    item.check(read(path).map_err(|wrong| format!("{} {wrong}; {right}", path.display())))
}

/// Whether a file that an item names is there and can be opened.
pub(super) fn readable(item: &Item<'_>, path: &Path, right: &str) -> bool {
    let opened = regular(path).and_then(|_| {
        File::open(path).map(drop).map_err(|error| format!("can't be read ({})", reason(&error)))
    });
    item.check(opened.map_err(|wrong| format!("{} {wrong}; {right}", path.display()))).is_some()
}

/// Notes a problem where others can read a key. A key that belongs to another user (root, who mounts it for a
/// group that patgate is in) may be readable by its group; patgate's own may not.
pub(super) fn private(item: &Item<'_>, path: &Path) {
    const GROUP_AND_OTHERS: u32 = 0o077;
    const OTHERS: u32 = 0o007;
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    let refused = if own { GROUP_AND_OTHERS } else { OTHERS };
    if metadata.mode() & refused != 0 {
        let (path, mode) = (path.display(), metadata.mode() & 0o777);
        item.problem(format!(
            "{path} holds a key and others may use the file (mode {mode:04o}); run: chmod 600 {path}"
        ));
    }
}
