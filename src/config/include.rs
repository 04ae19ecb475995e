//! `include`: which other files hold clients, rules and expectations.

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{
    disk::{self, Base},
    notes::Notes,
    parse::{Fields, Item},
    text::Text,
};

/// More files than anybody keeps rules in.
const MOST: usize = 1_000;

/// Reads a file of the configuration. `place` is blamed where it can't be read.
pub(super) fn text(path: &Path, shown: PathBuf, notes: &Notes, item: Option<&Item<'_>>) -> Option<Text> {
    notes.source(path);
    let blame = |text: &str| match item {
        Some(item) => item.problem(format!("{} {text}", shown.display())),
        None => notes.problem(Text::new(shown.clone(), String::new()).place(0), "file", text),
    };
    let content = match disk::read(path) {
        Ok(content) => content,
        Err(wrong) => {
            blame(&format!("{wrong}; name a TOML file that patgate may read"));
            return None;
        }
    };
    match String::from_utf8(content) {
        Ok(content) => Some(Text::new(shown, content)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let readable =
                String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default()).into_owned();
            let place = Text::new(shown, readable).place(valid);
            notes.syntax(place, usize::MAX, "is not UTF-8 from here on; save the file as UTF-8".into());
            None
        }
    }
}

/// The files that `include` names, in the order of the bytes of their paths, each once.
///
/// `shown` is the folder as the user wrote it, so that messages name files as the user does.
pub(super) fn files(root: &Fields<'_>, main: &Path, base: &Base, shown: &Path, notes: &Notes) -> Vec<Text> {
    let right = "write file names, such as [\"rules.d/*.toml\"]";
    let Some(item) = root.optional("include") else { return Vec::new() };
    let mut found = BTreeSet::<Vec<u8>>::new();
    let mut texts = Vec::new();
    for item in item.array(right).unwrap_or_default() {
        let mut relative = item.string().map(|pattern| matching(&item, pattern, base)).unwrap_or_default();
        relative.retain(|path| {
            let path = base.0.join(path);
            path != main && found.insert(path.as_os_str().as_bytes().to_vec())
        });
        if found.len() > MOST {
            item.problem(format!("names more than {MOST} files; put the rules into fewer"));
            break;
        }
        for path in relative {
            texts.extend(
                text(&base.0.join(&path), shown.join(&path), notes, Some(&item))
                    .map(|text| (base.0.join(&path), text)),
            );
        }
    }
    texts.sort_by(|(a, _), (b, _)| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    texts.into_iter().map(|(_, text)| text).collect()
}

/// The paths, relative to the folder of the configuration, that one pattern names.
fn matching(item: &Item<'_>, pattern: &str, base: &Base) -> Vec<PathBuf> {
    let pattern = Path::new(pattern);
    let (Some(name), folder) = (pattern.file_name().and_then(|name| name.to_str()), pattern.parent()) else {
        item.problem("names no file; write a file name, such as \"rules.d/*.toml\"");
        return Vec::new();
    };
    let folder = folder.unwrap_or(Path::new(""));
    if folder.as_os_str().as_bytes().contains(&b'*') {
        item.problem(
            "holds a * in the name of a folder; write it in the file's name alone: \"rules.d/*.toml\"",
        );
        return Vec::new();
    }
    if !name.contains('*') {
        return vec![pattern.to_path_buf()];
    }
    let entries = match std::fs::read_dir(base.0.join(folder)) {
        Ok(entries) => entries,
        Err(error) => {
            let folder = base.0.join(folder);
            item.problem(format!(
                "the folder {} can't be read ({}); make it, or leave the pattern out",
                folder.display(),
                disk::reason(&error)
            ));
            return Vec::new();
        }
    };
    let mut paths: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name())
        // Hidden files are the drafts of editors and the `..data` of mounted folders.
        .filter(|file| file.to_str().is_some_and(|file| !file.starts_with('.') && matches(name, file)))
        .map(|file| folder.join(file))
        .collect();
    paths.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    if paths.is_empty() {
        item.warning("names no file that is there");
    }
    paths
}

/// Whether a name is what `*` and the text between mean.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_within_a_name() {
        for (pattern, name, expected) in [
            ("*.toml", "web.toml", true),
            ("*.toml", "web.toml~", false),
            ("*", "anything", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("rules", "rules", true),
            ("rules", "rules2", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
