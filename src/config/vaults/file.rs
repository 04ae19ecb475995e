//! `type = "file"`: files, each holding one secret.

use super::{
    super::{parse::Fields, suggest, text::shown},
    VaultSource,
};

/// Files, each holding one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileVault {
    /// Who may be able to read them.
    pub readable_by: ReadableBy,
}

/// Who may be able to read a file besides patgate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadableBy {
    /// Nobody; where the file is root's, its group.
    Owner,
    /// Whoever is on the machine, as with Docker's secrets (root's, mode 444). The file may belong to anybody.
    Others,
}

/// The keys of such a vault.
pub(super) fn read(fields: &Fields<'_>) -> Option<VaultSource> {
    let readable_by = match fields.optional("readable-by") {
        None => ReadableBy::Owner,
        Some(item) => match item.string()? {
            "owner" => ReadableBy::Owner,
            "others" => ReadableBy::Others,
            other => {
                let instead = suggest::instead(other, &["owner", "others"]);
                item.problem(format!("\"{}\" is nobody that patgate knows; {instead}", shown(other)));
                return None;
            }
        },
    };
    Some(VaultSource::File(FileVault { readable_by }))
}
