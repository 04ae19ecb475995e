//! What was printed, compared with what a page says: `…` stands for anything, and times and sizes differ.

pub fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// What is printed otherwise than it is to be.
pub fn difference(expected: &[String], printed: &[String]) -> Option<String> {
    // A block may leave an empty line at its end out.
    let trim = |lines: &[String]| {
        let length = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
        lines[..length].to_vec()
    };
    let (expected, printed) = (trim(expected), trim(printed));
    if all_like(&expected, &printed) {
        return None;
    }
    let first = expected.iter().find(|line| *line != "…" && !printed.iter().any(|other| like(line, other)));
    let first =
        first.map_or("lines are out of order, or too many".to_owned(), |line| format!("no line: {line}"));
    Some(first)
}

fn all_like(expected: &[String], printed: &[String]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((any, rest)), _) if any == "…" => (0..=printed.len()).any(|n| all_like(rest, &printed[n..])),
        (Some((line, rest)), Some((other, others))) => like(line, other) && all_like(rest, others),
        _ => false,
    }
}

/// Whether a line is the one that is to be printed.
fn like(expected: &str, printed: &str) -> bool {
    let (expected, printed) = (blurred(expected), blurred(printed));
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// A line without the numbers that differ from run to run: those beside `-`, `:` or `.`, but for ports and statuses.
fn blurred(line: &str) -> String {
    let varies = |word: &str| {
        let mut digits = word.bytes().filter(u8::is_ascii_digit);
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit() || b"-:.TZ".contains(&byte));
        is_number && digits.next().is_some() && word.bytes().any(|byte| b"-:.".contains(&byte))
    };
    let blur = |word: &str| {
        let mut blurred = String::new();
        for c in word.chars() {
            let c = if c.is_ascii_digit() { '0' } else { c };
            if c != '0' || !blurred.ends_with('0') {
                blurred.push(c);
            }
        }
        blurred
    };
    let words = line.split(' ').map(|word| if varies(word) { blur(word) } else { word.to_owned() });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn times_may_differ_and_nothing_else() {
    for (expected, printed, alike) in [
        ("2026-11-24 05:53:47.113Z intent", "2027-01-01 00:00:00.000Z intent", true),
        ("200 15.970 ms", "200 3.1 ms", true),
        ("200 out 519 B", "403 out 519 B", false),
        ("request …", "request abc", true),
        ("a … c", "a b d", false),
        ("patgate.toml:44:1: x", "patgate.toml:45:1: x", false),
    ] {
        assert_eq!(like(expected, printed), alike, "{expected} / {printed}");
    }
}
