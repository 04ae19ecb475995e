//! What was typed, read into what is true.
use std::path::Path;

use super::{Config, Problems};

/// Reads a configuration with all its includes.
///
/// # Errors
/// Every problem there is, at once.
pub fn read(path: &Path) -> Result<Config, Problems> {
    let _ = path;
    todo!("config")
}
