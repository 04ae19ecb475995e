//! Another configuration: noticed, read, and either whole or refused.
//!
//! Changes are noticed by content, not by events: files may be renamed over, mounted anew, or
//! hidden behind a symbolic link whose target is swapped (`..data`), and none of that matters
//! when the bytes are compared.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::Snapshot;
use crate::{
    config::{Problems, file},
    vault::Vaults,
};

/// The files that a configuration depends on, as they were when they were last looked at.
#[derive(Debug)]
pub(super) struct Watched {
    file: PathBuf,
    contents: BTreeMap<PathBuf, Option<[u8; 32]>>,
}

impl Watched {
    /// Looks for the first time: before the configuration is read, or what changes meanwhile is
    /// never noticed.
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), contents: contents(file) }
    }

    /// Whether any file differs from what was seen last; what is seen now counts as seen.
    pub(super) fn has_changed(&mut self) -> bool {
        let now = contents(&self.file);
        let changed = now != self.contents;
        self.contents = now;
        changed
    }
}

fn contents(file: &Path) -> BTreeMap<PathBuf, Option<[u8; 32]>> {
    file::sources(file).into_iter().map(|file| (file.clone(), digest(&file))).collect()
}

/// `None`: it can't be read, which is a state like any other.
fn digest(file: &Path) -> Option<[u8; 32]> {
    let bytes = std::fs::read(file).ok()?;
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes).as_ref().try_into().ok()
}

/// Reads the configuration again.
///
/// # Errors
/// Every problem, a line each. Nothing has changed then.
pub(super) fn attempt(old: &Snapshot, vaults: &Vaults) -> Result<Snapshot, Vec<String>> {
    let lines = |problems: Problems| problems.0.iter().map(ToString::to_string).collect::<Vec<_>>();
    let new = Snapshot::read(&old.config.file, old.generation + 1).map_err(lines)?;
    let fixed = crate::config::unreloadable(&old.config, &new.config);
    if !fixed.is_empty() {
        let text = |key| format!("{key} can't change while patgate runs; restart it for that");
        return Err(fixed.into_iter().map(text).collect());
    }
    vaults.reconfigure(&new.config).map_err(|problem| vec![problem])?;
    Ok(new)
}
