//! A record as a line for people. What a client sent can't steer the terminal.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A record as people read it.
pub(crate) struct Sentence<'a> {
    /// The record.
    pub(crate) fields: &'a Map<String, Value>,
    /// Whether to use colours.
    pub(crate) colour: bool,
}

impl Sentence<'_> {
    /// The line, without its end.
    pub(crate) fn line(&self) -> String {
        let kind = self.text("kind").unwrap_or_default();
        let time = self.text("time").unwrap_or_default();
        let mut line = format!("{}Z ", time.get(..23).unwrap_or(&time).replace('T', " "));
        let (on, off) = if self.colour { (self.paint(&kind), "\u{1b}[0m") } else { ("", "") };
        let _ = write!(line, "{on}{kind:8}{off}");
        match kind.as_str() {
            "intent" | "outcome" | "refusal" | "connection" => self.request(&mut line),
            _ => self.rest(&mut line, &["v", "kind", "time", "mono", "boot"]),
        }
        line
    }

    fn paint(&self, kind: &str) -> &'static str {
        let good = self.text("ending").is_none_or(|ending| ending == "complete")
            && self.number("status").is_none_or(|status| status < 400);
        match kind {
            "intent" => "\u{1b}[2m",
            "outcome" if good => "\u{1b}[32m",
            "outcome" | "gap" => "\u{1b}[31m",
            "refusal" | "connection" => "\u{1b}[33m",
            _ => "\u{1b}[36m",
        }
    }

    fn request(&self, line: &mut String) {
        let word = |line: &mut String, before: &str, key: &str| {
            if let Some(text) = self.text(key) {
                let _ = write!(line, " {before}{text}");
            }
        };
        let _ = write!(line, " {}", self.text("client").unwrap_or_else(|| "-".to_owned()));
        word(line, "", "address");
        if self.text("action") != self.text("method") {
            word(line, "", "action");
        }
        word(line, "", "method");
        let host = self.text("host").filter(|host| host != "dev.azure.com").unwrap_or_default();
        if let Some(path) = self.text("path") {
            let query = self.text("query").map(|query| format!("?{query}")).unwrap_or_default();
            let _ = write!(line, " {host}{path}{query}");
        }
        word(line, "rule=", "rule");
        word(line, "credential=", "credential");
        word(line, "", "purpose");
        word(line, "", "purpose-path");
        word(line, "", "status");
        if self.text("ending").is_some_and(|ending| ending != "complete") {
            word(line, "", "ending");
        }
        word(line, "", "refusal");
        if let (Some(up), Some(down)) = (self.number("bytes-in"), self.number("bytes-out")) {
            if up > 0 {
                let _ = write!(line, " in {}", size(up));
            }
            if down > 0 {
                let _ = write!(line, " out {}", size(down));
            }
        }
        if let Some(micros) = self.number("micros") {
            let _ = write!(line, " {}.{:03} ms", micros / 1000, micros % 1000);
        }
        word(line, "×", "count");
        word(line, "acted-as=", "acted-as");
        word(line, ": ", "detail");
    }

    fn rest(&self, line: &mut String, but: &[&str]) {
        for key in self.fields.keys().filter(|key| !but.contains(&key.as_str())) {
            let _ = write!(line, " {}={}", plain(key), self.text(key).unwrap_or_default());
        }
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.fields.get(key)?.as_u64()
    }

    fn text(&self, key: &str) -> Option<String> {
        match self.fields.get(key)? {
            Value::String(text) => Some(plain(text)),
            other => Some(plain(&other.to_string())),
        }
    }
}

/// Shows what could steer a terminal, or turn the direction of its text, as an escape.
fn plain(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut plain, c| {
        if steers(c) {
            plain.extend(c.escape_unicode());
        } else {
            plain.push(c);
        }
        plain
    })
}

fn size(bytes: u64) -> String {
    let mut unit = ("B", 1);
    for next in [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)] {
        if bytes >= next.1 {
            unit = next;
        }
    }
    if unit.1 == 1 {
        format!("{bytes} B")
    } else {
        format!("{}.{} {}", bytes / unit.1, bytes % unit.1 * 10 / unit.1, unit.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_a_line() {
        let line = |json: &str| {
            let fields: Map<String, Value> = serde_json::from_str(json).unwrap();
            Sentence { fields: &fields, colour: false }.line()
        };
        let time = r#""time":"2026-11-24T05:10:04.123456789Z","mono":1"#;
        for (json, expected) in [
            (
                format!(
                    r#"{{"v":1,"kind":"outcome",{time},"id":"x","client":"agents","address":"10.0.0.1","action":"git:fetch","method":"GET","host":"dev.azure.com","path":"/c/_git/w","status":200,"bytes-in":0,"bytes-out":12700,"micros":45120,"ending":"complete"}}"#
                ),
                "2026-11-24 05:10:04.123Z outcome  agents 10.0.0.1 git:fetch GET /c/_git/w 200 out 12.4 KiB 45.120 ms",
            ),
            (
                format!(
                    r#"{{"v":1,"kind":"refusal",{time},"address":"10.0.0.9","method":"GET","action":"GET","path":"/a\u001b[2J\u202e","refusal":"no-rule","count":12}}"#
                ),
                "2026-11-24 05:10:04.123Z refusal  - 10.0.0.9 GET /a\\u{1b}[2J\\u{202e} no-rule ×12",
            ),
            (
                format!(r#"{{"v":1,"kind":"gap",{time},"last-seq":7,"unknown":0}}"#),
                "2026-11-24 05:10:04.123Z gap      last-seq=7 unknown=0",
            ),
        ] {
            assert_eq!(line(&json), expected);
        }
    }

    #[test]
    fn sizes_are_read_at_a_glance() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
