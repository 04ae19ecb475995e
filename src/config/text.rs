//! The files of a configuration as text, in which every byte has a place.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::{
    Spanned,
    de::{DeTable, Error},
};

use super::{Place, notes::Notes};

/// What the parser says of text that it takes for a part of something that was not closed.
struct Cascade {
    unclosed: &'static str,
    within: &'static [&'static str],
    text: &'static str,
}

const CASCADES: &[Cascade] = &[
    Cascade {
        unclosed: "unclosed array",
        within: &["array elements", "in array"],
        text: "an array that begins here or above is not closed; write ] at its end",
    },
    Cascade {
        unclosed: "unclosed inline table",
        within: &["inline table", "key-value pairs"],
        text: "an inline table that begins here or above is not closed; write } at its end",
    },
];

/// A file of the configuration, as text.
#[derive(Debug)]
pub(super) struct Text {
    file: Arc<PathBuf>,
    pub(super) content: String,
    /// The content without the lines behind which the parser would lose its way.
    readable: String,
    /// What was wrong with those lines.
    astray: Vec<Error>,
    /// Where each line begins, so that a place is found in logarithmic time.
    lines: Vec<usize>,
}

impl Text {
    pub(super) fn new(file: PathBuf, content: String) -> Self {
        let lines = std::iter::once(0)
            .chain(content.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1))
            .collect();
        let (readable, astray) = readable(content.clone());
        Self { file: Arc::new(file), content, readable, astray, lines }
    }

    /// The file as the user wrote it.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The place of a byte.
    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let before = self.content.as_bytes().get(start..offset.min(self.content.len())).unwrap_or_default();
        // Continuation bytes do not count, so that columns count characters.
        let column = before.iter().filter(|byte| **byte & 0xC0 != 0x80).count() + 1;
        Place { file: Arc::clone(&self.file), line, column }
    }

    /// The document, as far as it can be read. What cannot be is noted.
    pub(super) fn parse<'a>(&'a self, notes: &Notes) -> Spanned<DeTable<'a>> {
        let (table, mut errors) = DeTable::parse_recoverable(&self.readable);
        errors.extend(self.astray.iter().cloned());
        for cascade in CASCADES {
            self.collapse(cascade, &mut errors, notes);
        }
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let place = self.place(span.start);
            let line = place.line;
            notes.syntax(place, line, self.sentence(error.message(), &span));
        }
        table
    }

    /// Whatever follows an array or an inline table that is not closed is read as a part of it: one mistake, one
    /// problem.
    fn collapse(&self, cascade: &Cascade, errors: &mut Vec<Error>, notes: &Notes) {
        let start = |error: &Error| error.span().map_or(0, |span| span.start);
        let unclosed = |error: &&Error| error.message().split(',').next() == Some(cascade.unclosed);
        let within = |error: &&Error| cascade.within.iter().any(|part| error.message().contains(part));
        let Some(last) = errors.iter().filter(unclosed).map(start).max() else { return };
        let first = errors.iter().filter(within).map(start).min().unwrap_or(last);
        errors.retain(|error| !(first..=last).contains(&start(error)));
        notes.syntax(self.place(first), self.place(last).line, cascade.text.into());
    }

    fn sentence(&self, message: &str, span: &Range<usize>) -> String {
        if message == "duplicate key" {
            let key = self.content.get(span.clone()).unwrap_or_default();
            return format!("`{}` stands twice in the same table; keep one", shown(key));
        }
        if message.starts_with("string values must be quoted") {
            return "is a string without quotes; write it in quotes".into();
        }
        match message.split_once(", expected ") {
            Some((wrong, right)) => format!("{wrong}; here TOML expects {right}"),
            None => format!("{message}; this is not TOML"),
        }
    }
}

/// Blanks lines that are no `key = value`: the parser skips what follows one, and the problems there would only show
/// once it is mended. Every other byte keeps its place.
fn readable(mut content: String) -> (String, Vec<Error>) {
    const MOST: usize = 50;
    let mut astray = Vec::new();
    for _ in 0..MOST {
        let (_, errors) = DeTable::parse_recoverable(&content);
        let Some(error) = errors.into_iter().find(|error| error.message().starts_with("key with no value"))
        else {
            break;
        };
        let at = error.span().map_or(0, |span| span.start).min(content.len());
        let (before, after) = content.split_at_checked(at).unwrap_or(("", ""));
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = after.find('\n').map_or(content.len(), |newline| at + newline);
        let blank = " ".repeat(end - start);
        content.replace_range(start..end, &blank);
        astray.push(error);
    }
    (content, astray)
}

/// Text of the user's as it may stand in a message: short, and on one line.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String =
        text.chars().take(LONGEST).flat_map(|c| c.escape_debug().collect::<Vec<_>>()).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown.replace("\\\"", "\"").replace("\\'", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_columns_count_characters() {
        let text = Text::new("patgate.toml".into(), "ä = 1\n\n  b = \"ü\" # x".into());
        for (part, line, column) in [("ä", 1, 1), ("=", 1, 3), ("b", 3, 3), ("#", 3, 11)] {
            let place = text.place(text.content.find(part).unwrap());
            assert_eq!((place.line, place.column), (line, column), "{part}");
        }
        assert_eq!(text.place(usize::MAX).line, 3);
        assert_eq!(Text::new("x".into(), String::new()).place(0).to_string(), "x:1:1");
    }

    #[test]
    fn what_the_user_wrote_stays_on_one_line_and_short() {
        assert_eq!(shown("a\"b'c"), "a\"b'c");
        assert_eq!(shown("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), 81);
    }
}
