//! Which characters a decoded segment may hold, and their lower case.

use unicode_normalization::{char::decompose_compatible, is_nfc};

/// Whether every server between here and Azure DevOps' code takes a decoded segment for the same.
pub(super) fn is_unambiguous(piece: &str) -> bool {
    let trimmed = |c: char| c.is_whitespace() || c == '.';
    if piece.is_empty() || piece.starts_with(trimmed) || piece.ends_with(trimmed) {
        return false;
    }
    if piece.bytes().any(|byte| byte < 0x20 || b"\x7f;:%?/\\".contains(&byte)) {
        return false;
    }
    piece.is_ascii() || (is_nfc(piece) && !piece.chars().any(is_deceptive))
}

/// Characters outside ASCII that are not seen, end lines, or become a separator, a dot or an
/// underscore where a server replaces compatible characters by plain ones.
fn is_deceptive(c: char) -> bool {
    if c.is_ascii() {
        return false;
    }
    let invisible = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffd}' | '\u{e0000}'..='\u{e0fff}');
    let mut replaced = false;
    decompose_compatible(c, |plain| replaced |= "/\\.%:;?#_".contains(plain));
    c.is_control() || invisible || replaced
}

/// The lower case of one character, where that is one character: so `İ` stays itself and never meets `i`.
pub(crate) fn lower(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_refused_for_what_another_server_would_make_of_it() {
        for piece in [
            "",
            ".",
            "..",
            " a",
            "a ",
            "a.",
            ".a",
            "\u{3000}a",
            "a\tb",
            "a/b",
            "a\\b",
            "a%b",
            "a;b",
            "a:b",
            "a?b",
        ] {
            assert!(!is_unambiguous(piece), "{piece:?}");
        }
        for piece in
            ["e\u{301}", "\u{212a}", "a\u{ff0f}b", "\u{ff3f}apis", "a\u{200b}", "a\u{202e}b", "a\u{85}b"]
        {
            assert!(!is_unambiguous(piece), "{piece:?}");
        }
        for piece in
            ["a", "a b", "a.b", "$batch", "@scope", "été", "日本", "می\u{200c}خواهم", "c#", "a+b", "(1)!^"]
        {
            assert!(is_unambiguous(piece), "{piece:?}");
        }
    }

    #[test]
    fn lower_case_is_one_character_for_one() {
        for (upper, wanted) in [('A', 'a'), ('É', 'é'), ('Σ', 'σ'), ('İ', 'İ'), ('ß', 'ß'), ('1', '1')]
        {
            assert_eq!(lower(upper), wanted);
        }
    }
}
