//! `docs/configuration.md` is the parser's own truth: its keys, defaults and ranges.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use crate::support::patgate;

/// A row of the page: section, key, default, values.
#[derive(Debug)]
struct Row {
    section: String,
    key: String,
    default: String,
    values: String,
}

fn rows() -> Vec<Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in fs::read_to_string(page).unwrap().lines() {
        if let Some(heading) = line.strip_prefix("##") {
            section = heading.trim_start_matches('#').trim().replace('`', "");
        } else if let Some(row) = line.strip_prefix("| `") {
            let cells: Vec<_> = row.split(" | ").map(|cell| cell.replace('`', "")).collect();
            assert!(cells.len() >= 5, "{line}");
            let [key, default, values] = [&cells[0], &cells[1], &cells[2]].map(Clone::clone);
            rows.push(Row { section: section.clone(), key, default, values });
        }
    }
    rows
}

/// Where a key of a section of the page stands in a configuration.
fn place(section: &str) -> &str {
    match section {
        "Top level" => "",
        "[[listen]]" => "listen",
        "[admin]" => "admin",
        "[state]" => "state",
        "[audit]" => "audit",
        "[limits]" => "limits",
        "[upstream]" => "upstream",
        "[outbound]" => "outbound",
        "[vault.NAME]" | "type = \"environment\"" => "vault.environment",
        "type = \"sealed\"" => "vault.sealed",
        "type = \"file\"" => "vault.file",
        "type = \"command\"" => "vault.command",
        "type = \"azure-key-vault\"" => "vault.azure",
        "type = \"hashicorp\"" => "vault.hashicorp",
        "type = \"aws-secrets-manager\"" => "vault.aws",
        "[credential.NAME]" | "type = \"pat\"" => "credential.web",
        "type = \"entra\"" => "credential.entra",
        "[credential.NAME.rotate]" => "credential.rotated.rotate",
        "[client.NAME]" => "client.here",
        "[[rule]]" => "rule",
        "[[expect]]" => "expect",
        other => panic!("{other} is no section"),
    }
}

/// A configuration with all sections, and lines more in one of them.
fn configuration(section: &str, more: &str) -> String {
    let parts = [
        ("", "public-url = \"http://127.0.0.1:8080\""),
        ("[[listen]]", "address = \"127.0.0.1:8080\""),
        ("[admin]", "address = \"127.0.0.1:9443\""),
        ("[state]", "folder = \"state\""),
        ("[audit]", "folder = \"audit\""),
        ("[limits]", ""),
        ("[upstream]", ""),
        ("[outbound]", ""),
        ("[vault.environment]", "type = \"environment\""),
        ("[vault.file]", "type = \"file\""),
        ("[vault.command]", "type = \"command\""),
        ("[vault.sealed]", "type = \"sealed\"\npath = \"vault.sealed\"\nkey = \"vault.key\""),
        (
            "[vault.azure]",
            "type = \"azure-key-vault\"\naddress = \"https://corp.vault.azure.net\"\n\
             auth = { method = \"azure-cli\" }",
        ),
        (
            "[credential.entra]",
            "type = \"entra\"\nauth = { method = \"azure-cli\" }\norganizations = [\"contoso\"]",
        ),
        (
            "[vault.hashicorp]",
            "type = \"hashicorp\"\naddress = \"https://vault.test\"\nauth = { method = \"token-file\", token-file = \"token\" }",
        ),
        ("[vault.aws]", "type = \"aws-secrets-manager\"\nregion = \"eu-west-1\""),
        ("[credential.rotated]", "vault = \"sealed\"\nsecret = \"rotated\"\norganizations = [\"contoso\"]"),
        (
            "[credential.rotated.rotate]",
            "auth = { method = \"vault\", vault = \"environment\", secret = \"ENTRA\" }\nevery = \"7d\"\n\
             valid-for = \"14d\"\nscope = [\"vso.code\"]",
        ),
        ("[credential.web]", "vault = \"environment\"\nsecret = \"PAT\"\norganizations = [\"contoso\"]"),
        ("[client.here]", "addresses = [\"127.0.0.1\"]"),
        (
            "[[rule]]",
            "name = \"all\"\nclients = [\"here\"]\npaths = [\"/contoso/**\"]\nallow = [\"GET\"]\ncredential = \"web\"",
        ),
        ("[[expect]]", "from = \"127.0.0.1\"\nrequest = \"GET /contoso/_apis/x\"\nis = \"allowed\""),
    ];
    let all = |header: &str| section == "*" && header != "[credential.rotated]";
    let own = |header: &str| header.trim_matches(['[', ']']) == section || all(header);
    let text = parts.map(|(header, lines)| {
        let more = if own(header) { more } else { "" };
        let again = more.split_once(" = ").map(|(key, _)| format!("{key} = "));
        let lines = lines.lines().filter(|line| again.as_ref().is_none_or(|key| !line.starts_with(key)));
        format!("{header}\n{}\n{more}\n", lines.collect::<Vec<_>>().join("\n"))
    });
    text.concat()
}

/// [`configuration`] without what needs a file.
fn without_files() -> String {
    let text = configuration("", "");
    let (before, rest) = text.split_once("[vault.sealed]").unwrap();
    let (_, after) = rest.split_once("[credential.web]").unwrap();
    format!("{before}[credential.web]{after}")
}

/// What `check` says: the text of each problem by its key.
fn problems(text: &str) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    for name in ["vault.sealed", "vault.key"] {
        crate::support::write_private(&folder.path().join(name), "x");
    }
    let path = folder.path().join("patgate.toml");
    fs::write(&path, text).unwrap();
    let output = patgate().args(["check", "--json", "--config"]).arg(&path).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |problem: &Value, key: &str| problem[key].as_str().unwrap().to_owned();
    said["problems"].as_array().unwrap().iter().map(|one| (text(one, "key"), text(one, "text"))).collect()
}

#[test]
fn every_key_that_the_parser_knows_is_documented_and_no_other() {
    assert_eq!(problems(&configuration("", "")), BTreeMap::new());
    let found = problems(&configuration("*", "zzzzzzzz = 1"));
    let rows = rows();
    let mut sections = 0;
    for (key, text) in &found {
        let section = key.strip_suffix("zzzzzzzz").expect(key).trim_end_matches('.');
        let known = text.strip_prefix("is no key here; known: ").expect(text);
        let mut known: Vec<_> = known.split(", ").collect();
        if section.is_empty() {
            // The sections have pages of their own.
            let headings: Vec<_> =
                rows.iter().map(|row| place(&row.section).split('.').next().unwrap()).collect();
            known.retain(|key| !headings.contains(key));
        }
        let mut documented: Vec<_> = rows
            .iter()
            .filter(|row| {
                let shared = (row.section == "[vault.NAME]" && section.starts_with("vault."))
                    || (row.section == "[credential.NAME]"
                        && section.starts_with("credential.")
                        && !section.ends_with(".rotate"));
                shared || place(&row.section) == section
            })
            .map(|row| row.key.as_str())
            .collect();
        documented.sort_unstable();
        assert_eq!(documented, known, "[{section}]");
        sections += 1;
    }
    assert_eq!(sections, 21, "{found:?}");
}

#[test]
fn documented_ranges_are_the_parsers() {
    let mut ranges = 0;
    for row in rows() {
        let Some((least, most)) = row.values.split_once(" to ") else { continue };
        let value = if most.ends_with('B') {
            "\"9999TiB\""
        } else if most.ends_with(|c: char| c.is_ascii_digit()) {
            "99999999999"
        } else {
            "\"99999d\""
        };
        let section = place(&row.section);
        let found = problems(&configuration(section, &format!("{} = {value}", row.key)));
        let key = format!("{section}.{}", row.key);
        let text = found.get(key.trim_start_matches('.')).unwrap_or_else(|| panic!("{row:?}: {found:?}"));
        assert!(text.ends_with(&format!(" from {least} to {most}")), "{row:?}: {text}");
        ranges += 1;
    }
    assert!(ranges >= 18, "{ranges}");
}

#[test]
fn documented_defaults_are_the_parsers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("patgate.toml");
    fs::write(&path, without_files()).unwrap();
    let config = patgate::config::file::read(&path).unwrap();
    let vault = config.vaults["environment"].lifetime;
    let all = format!("{:?} {:?} {vault:?}", config.limits, config.audit);
    let mut defaults = 0;
    for row in rows() {
        if !matches!(row.section.as_str(), "[limits]" | "[audit]" | "[vault.NAME]")
            || row.default == "required"
        {
            continue;
        }
        let field = format!(" {}: ", row.key.replace('-', "_"));
        let (_, value) = all.split_once(&field).unwrap_or_else(|| panic!("{row:?}: {all}"));
        let value = value.split([',', ' ', '}']).next().unwrap();
        assert_eq!(amount(&row.default), amount(value), "{row:?}");
        defaults += 1;
    }
    assert!(defaults >= 18, "{defaults}");
}

/// Milliseconds, bytes or a count; else the word.
fn amount(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "ms" => 1,
        "ns" if number == "0" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "MiB" => 1 << 20,
        _ => 0,
    };
    match number.parse::<u64>() {
        Ok(number) if factor > 0 => Ok(number * factor),
        _ => Err(text.to_lowercase()),
    }
}

/// The rows of a page's tables whose first cell is code: its cells.
fn table(page: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    let rows = rows.filter(|row| row.starts_with('`'));
    rows.map(|row| row.trim_end_matches(" |").split(" | ").map(str::to_owned).collect()).collect()
}

/// What stands between backquotes in a cell.
fn codes(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_field_and_kind_of_a_record_is_documented() {
    let documented = table("docs/audit.md");
    let documented: Vec<_> = documented.iter().flat_map(|row| codes(&row[0])).collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/audit");
    let mut fields = Vec::new();
    for file in ["record.rs", "entry.rs", "lane.rs", "open.rs", "writer.rs"] {
        let text = fs::read_to_string(source.join(file)).unwrap();
        let text =
            text.split("#[cfg(test)]").next().unwrap().replace("thread::Builder::new()\n        .name(", "");
        for call in [".name(\"", ".number(\"", ".text(\"", ".key(\"", "Record::begin(&mut buffer, \""] {
            fields.extend(text.split(call).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    assert!(fields.len() > 40, "{fields:?}");
    for kind in [
        "intent",
        "outcome",
        "refusal",
        "connection",
        "gap",
        "start",
        "stop",
        "configured",
        "vault-write",
        "rotation",
    ] {
        fields.push(kind.into());
    }
    for field in fields {
        assert!(documented.contains(&field.as_str()), "{field} is not in docs/audit.md");
    }
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let documented = table("docs/operations.md");
    let mut documented: Vec<_> = documented.iter().flat_map(|row| codes(&row[0])).collect();
    documented.retain(|name| name.starts_with("patgate_"));
    let mut there: Vec<String> = Vec::new();
    let metrics = patgate::metrics::Metrics::new("0");
    metrics.credentials(&[patgate::vault::Health {
        credential: "web".into(),
        state: patgate::vault::State::Valid,
        since: jiff::Timestamp::UNIX_EPOCH,
        version: None,
        read: None,
        expires: Some(jiff::Timestamp::UNIX_EPOCH),
        previous_until: None,
        detail: None,
    }]);
    metrics.rotations(&[patgate::rotation::Standing::new(&"web".into())]);
    for line in metrics.encode().lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        there.push(format!("{name}{suffix}"));
    }
    documented.sort_unstable();
    there.sort_unstable();
    assert_eq!(documented, there);
}

#[test]
fn documented_spellings_are_read_as_the_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("patgate.toml");
    fs::write(&path, without_files()).unwrap();
    let mut read = 0;
    for row in table("docs/rules.md") {
        let Some(wanted) = codes(&row[1]).next().filter(|wanted| wanted.starts_with("/contoso/")) else {
            continue;
        };
        for request in codes(&row[0]) {
            let mut explain = patgate();
            explain.args(["explain", "--json", "--config"]).arg(&path);
            let output =
                explain.args(["--from", "127.0.0.1", "GET", &request.replace('…', "x")]).output().unwrap();
            let said: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(said["reading"]["path"], wanted.replace('…', "x"), "{request}: {said}");
            read += 1;
        }
    }
    assert!(read >= 8, "{read}");
}

#[test]
fn documented_patterns_and_actions_are_ones() {
    let (mut patterns, mut actions) = (0, 0);
    for row in table("docs/rules.md") {
        for code in codes(&row[0]) {
            if row.len() == 2 && code.starts_with('/') && codes(&row[1]).next().is_none() {
                patgate::policy::Pattern::parse(code).unwrap_or_else(|problem| panic!("{code}: {problem}"));
                patterns += 1;
            }
            if code.starts_with("git:") || code.bytes().all(|byte| byte.is_ascii_uppercase()) {
                patgate::gate::ActionPattern::parse(code)
                    .unwrap_or_else(|problem| panic!("{code}: {problem}"));
                actions += 1;
            }
        }
    }
    assert!(patterns >= 7 && actions == 10, "{patterns} {actions}");
}
