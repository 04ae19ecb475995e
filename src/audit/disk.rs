//! The few things the writer wants of a disk, behind a trait so that tests can let them fail.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Where segments are kept.
pub(crate) trait Disk: Send {
    /// Makes a new segment file, readable by nobody else, and makes its name durable.
    ///
    /// # Errors
    /// It exists, or can't be made.
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
    /// Removes a segment that never held an acknowledged record.
    ///
    /// # Errors
    /// It can't be removed.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
    /// Free space in bytes for this user at this folder.
    ///
    /// # Errors
    /// The file system does not say.
    fn free(&mut self, folder: &Path) -> io::Result<u64>;
}

/// A segment that is being written.
pub(crate) trait SegmentFile: Send {
    /// Writes at a place, in bytes from the front.
    ///
    /// # Errors
    /// Some or all of it may not have been written.
    fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes durable what was written.
    ///
    /// # Errors
    /// What was written may be lost, even if a later call succeeds.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts off what stands behind `length`.
    ///
    /// # Errors
    /// It is still there.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Whether it still has a name: what is written to a deleted file, nobody will read.
    ///
    /// # Errors
    /// The file system does not say.
    fn is_named(&self) -> io::Result<bool>;
}

/// A real file system.
#[derive(Debug)]
pub(crate) struct Local;

impl Disk for Local {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        if let Some(folder) = path.parent() {
            sync_folder(folder)?;
        }
        Ok(Box::new(file))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn free(&mut self, folder: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(folder)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

impl SegmentFile for File {
    fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn is_named(&self) -> io::Result<bool> {
        Ok(self.metadata()?.nlink() > 0)
    }
}

/// Makes a folder that nobody else may enter, with its parents; fine if it is there.
///
/// # Errors
/// It can't be made.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    folder.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_folder)
}

/// Whether anybody but its owner may put files into a folder, or take them out of it.
///
/// # Errors
/// It can't be looked at.
pub(crate) fn is_open_to_others(folder: &Path) -> io::Result<bool> {
    Ok(folder.metadata()?.mode() & 0o022 != 0)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// It can't be synced.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
pub(crate) mod flaky {
    //! A disk that fails when it is told to.

    use std::sync::{Arc, Mutex};

    use super::*;

    /// What fails, and what was done.
    #[derive(Debug, Default)]
    pub(crate) struct Plan {
        pub(crate) failing_creates: usize,
        pub(crate) failing_writes: usize,
        pub(crate) failing_syncs: usize,
        pub(crate) failing_cuts: usize,
        /// Of writes of zeros, which make space.
        pub(crate) failing_spaces: usize,
        pub(crate) spaces: usize,
        pub(crate) free: Option<u64>,
        pub(crate) syncs: usize,
        /// While somebody holds this, a sync does not come back.
        pub(crate) gate: Arc<Mutex<()>>,
        pub(crate) at_gate: usize,
    }

    #[derive(Clone, Debug, Default)]
    pub(crate) struct Flaky(pub(crate) Arc<Mutex<Plan>>);

    struct FlakyFile(Box<dyn SegmentFile>, Arc<Mutex<Plan>>);

    fn due(count: &mut usize) -> io::Result<()> {
        if *count == 0 {
            return Ok(());
        }
        *count -= 1;
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }

    impl Disk for Flaky {
        fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
            due(&mut self.0.lock().unwrap().failing_creates)?;
            Ok(Box::new(FlakyFile(Local.create(path)?, Arc::clone(&self.0))))
        }

        fn remove(&mut self, path: &Path) -> io::Result<()> {
            Local.remove(path)
        }

        fn free(&mut self, folder: &Path) -> io::Result<u64> {
            let free = self.0.lock().unwrap().free;
            free.map_or_else(|| Local.free(folder), Ok)
        }
    }

    impl SegmentFile for FlakyFile {
        fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
            let failed = {
                let mut plan = self.1.lock().unwrap();
                if bytes.iter().all(|byte| *byte == 0) {
                    plan.spaces += 1;
                    due(&mut plan.failing_spaces)
                } else {
                    due(&mut plan.failing_writes)
                }
            };
            let written = if failed.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
            self.0.write(written, at)?;
            failed
        }

        fn sync(&mut self) -> io::Result<()> {
            let gate = {
                let mut plan = self.1.lock().unwrap();
                plan.at_gate += 1;
                Arc::clone(&plan.gate)
            };
            drop(gate.lock());
            let mut plan = self.1.lock().unwrap();
            plan.syncs += 1;
            due(&mut plan.failing_syncs)?;
            self.0.sync()
        }

        fn cut(&mut self, length: u64) -> io::Result<()> {
            due(&mut self.1.lock().unwrap().failing_cuts)?;
            self.0.cut(length)
        }

        fn is_named(&self) -> io::Result<bool> {
            self.0.is_named()
        }
    }
}
