//! `patgate vault list`

use std::io::Write;

use jiff::Timestamp;
use serde_json::json;

use super::{Failure, Place};
use crate::vault::sealed::{self, Listed};

/// What `list` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  patgate vault list --vault vault.sealed
  patgate vault list --vault vault.sealed --json | jq -r .name

No secret is printed. Exit codes: 0 listed, 69 a file can't be read now, 78 the key does not open the vault, or it is none.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// One JSON object a line: name, version, sealed, expires, previous
    #[arg(long)]
    json: bool,
}

pub(super) fn run(list: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let all = sealed::list(&list.place.vault, &list.place.key())?;
    let width = all.iter().map(|one| one.name.chars().count()).max().unwrap_or_default();
    for one in all {
        writeln!(out, "{}", if list.json { as_json(&one) } else { as_text(&one, width) })?;
    }
    Ok(())
}

fn as_text(one: &Listed, width: usize) -> String {
    let sealed = match (one.version, one.sealed) {
        (Some(version), Some(sealed)) => format!("version {version}, sealed {sealed}"),
        _ => "sealed before versions were counted".to_owned(),
    };
    let expires = one.expires.map(|expires| format!(", expires {expires}")).unwrap_or_default();
    let previous = if one.previous.is_some() { ", with a previous value" } else { "" };
    format!("{:width$}  {sealed}{expires}{previous}", one.name)
}

fn as_json(one: &Listed) -> String {
    let text = |moment: Option<Timestamp>| moment.map(|moment| moment.to_string());
    let previous =
        one.previous.map(|(version, sealed)| json!({ "version": version, "sealed": text(sealed) }));
    json!({
        "name": one.name, "version": one.version, "sealed": text(one.sealed), "expires": text(one.expires),
        "previous": previous,
    })
    .to_string()
}
