//! What patgate answers, for people.

use serde_json::Value;

/// All credentials, a line each. What an operator has to look at stands out where there is colour.
pub(super) fn credentials(said: &Value, colour: bool) -> String {
    let heading = ["CREDENTIAL", "STATE", "SINCE", "VERSION", "EXPIRES", "VAULT"].map(String::from).to_vec();
    let list = said.get("credentials").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(list.iter().map(row)).collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut lines = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let padded = format!("{cell:width$}");
            let paint = if colour && number > 0 && column == 1 { paint(cell) } else { "" };
            let off = if paint.is_empty() { "" } else { "\u{1b}[0m" };
            for part in [paint, &padded, off, "  "] {
                line.push_str(part);
            }
        }
        lines.push(line.trim_end().to_owned());
        let one = number.checked_sub(1).and_then(|index| list.get(index));
        lines.extend(one.and_then(why));
    }
    lines.join("\n")
}

fn row(one: &Value) -> Vec<String> {
    let text = |key: &str| one.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    let since =
        one.pointer("/disabled/since").and_then(Value::as_str).map_or_else(|| text("since"), str::to_owned);
    let vault = if one.get("configured") == Some(&Value::Bool(false)) {
        "(not in the configuration)".to_owned()
    } else {
        text("vault")
    };
    vec![
        shown(&text("credential")),
        text("state"),
        since,
        shown(&text("version")),
        text("expires"),
        shown(&vault),
    ]
}

/// Why a credential is disabled, on a line of its own.
fn why(one: &Value) -> Option<String> {
    let disabled = one.get("disabled").filter(|disabled| disabled.is_object())?;
    let text = |key: &str| disabled.get(key).and_then(Value::as_str).map(shown).unwrap_or_default();
    Some(format!("  disabled by {}: {}", text("by"), text("reason")))
}

fn paint(state: &str) -> &'static str {
    match state {
        "valid" => "\u{1b}[32m",
        "unused" | "-" => "",
        "stale" | "expiring" => "\u{1b}[33m",
        _ => "\u{1b}[31m",
    }
}

/// The reads of an answer, one or all.
pub(super) fn each_read(said: &Value) -> Vec<&Value> {
    said.get("credentials").and_then(Value::as_array).map_or_else(|| vec![said], |all| all.iter().collect())
}

/// What came of reading vaults, a line each.
pub(super) fn reads(said: &Value) -> String {
    let line = |one: &&Value| {
        let name = shown(one.get("credential").and_then(Value::as_str).unwrap_or("-"));
        match one.get("error").and_then(Value::as_str) {
            None => format!("{name}: read, {}", one.get("state").and_then(Value::as_str).unwrap_or("-")),
            Some(error) => format!("{name}: FAILED: {}", shown(error)),
        }
    };
    each_read(said).iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Without what would move the cursor.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_for_each_credential_and_one_for_why() {
        let said = json!({ "credentials": [
            { "credential": "web", "configured": true, "state": "valid", "vault": "corp", "expires": null },
            { "credential": "old", "configured": false, "state": "disabled",
              "disabled": { "since": "2026-11-24T06:00:00Z", "by": "root", "reason": "it \u{1b}leaked", "cut": true } },
        ] });
        let plain = credentials(&said, false);
        let lines: Vec<_> = plain.lines().collect();
        assert_eq!(
            lines,
            [
                "CREDENTIAL  STATE     SINCE                 VERSION  EXPIRES  VAULT",
                "web         valid     -                     -        -        corp",
                "old         disabled  2026-11-24T06:00:00Z  -        -        (not in the configuration)",
                "  disabled by root: it \\u{1b}leaked",
            ]
        );
        let painted = credentials(&said, true);
        assert!(painted.contains("\u{1b}[32mvalid   \u{1b}[0m") && painted.contains("\u{1b}[31mdisabled"));
    }

    #[test]
    fn a_read_that_failed_says_why() {
        let one = json!({ "credential": "web", "read": false, "state": "unreachable", "error": "silence" });
        assert_eq!(reads(&one), "web: FAILED: silence");
        let all = json!({ "credentials": [{ "credential": "web", "read": true, "state": "valid", "error": null }] });
        assert_eq!(reads(&all), "web: read, valid");
    }
}
