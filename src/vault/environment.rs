//! Secrets in the environment of patgate's own process.

use std::{env, ffi::OsString, fmt};

use super::{Fetch, Fetched, SecretSource, VaultError, private::without_line_end};

/// Reads variables. `secret` is the variable's name.
pub struct Environment {
    variable: fn(&str) -> Option<OsString>,
}

impl Environment {
    /// The process's own.
    #[must_use]
    pub fn new() -> Self {
        Self { variable: |name| env::var_os(name) }
    }

    fn read(&self, name: &str) -> Result<Fetched, VaultError> {
        let missing = || VaultError::Denied(format!("there is no environment variable {name}").into());
        // `env::var_os` answers nothing good for such names.
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(missing());
        }
        let value = (self.variable)(name).ok_or_else(missing)?.into_string().map_err(|_| {
            VaultError::Unusable(format!("the environment variable {name} does not hold text").into())
        })?;
        Ok(Fetched::new(without_line_end(value)))
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

impl SecretSource for Environment {
    fn fetch<'a>(&'a self, secret: &'a str) -> Fetch<'a> {
        Box::pin(async move { self.read(secret) })
    }
}

#[cfg(test)]
impl Environment {
    /// Another environment, for tests: a process can't change its own.
    pub(super) fn of(variable: fn(&str) -> Option<OsString>) -> Self {
        Self { variable }
    }
}
