//! `type = "command"`: a program that prints a secret.

use std::sync::Arc;

use super::{
    super::{
        disk::Base,
        parse::{Fields, Item},
    },
    VaultSource,
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandVault {}

/// The keys of such a vault.
pub(super) fn read(fields: &Fields<'_>, _: &Base) -> Option<VaultSource> {
    fields.absence("is of a type that is not built in this version");
    None
}

/// What such a vault calls a secret.
pub(super) fn secret(item: &Item<'_>, _: &str) -> Option<Arc<str>> {
    item.problem("is in a vault of a type that is not built in this version");
    None
}
