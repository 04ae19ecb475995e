//! The users of this machine, by name and by number, as `/etc/passwd` has them.

use std::{fs, sync::Arc};

/// More than a machine has; what stands behind is not looked at.
const LARGEST: usize = 1 << 20;

/// The uid of a user.
pub(crate) fn uid(name: &str) -> Option<u32> {
    entries().into_iter().find(|(known, _)| known == name).map(|(_, uid)| uid)
}

/// The name of a user.
pub(crate) fn name(uid: u32) -> Option<Arc<str>> {
    entries().into_iter().find(|(_, known)| *known == uid).map(|(name, _)| name.into())
}

fn entries() -> Vec<(String, u32)> {
    let text = fs::read("/etc/passwd").unwrap_or_default();
    parse(&String::from_utf8_lossy(text.get(..LARGEST).unwrap_or(&text)))
}

/// `name:password:uid:…`, a line each; what is not of that form is passed over.
fn parse(text: &str) -> Vec<(String, u32)> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with(['+', '-', '#']))?;
        Some((name.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_a_name_and_a_number() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\n\n# x:x:1:\n+::::\npatgate:x:998:\nbad:x:y:\n:x:7:\nshort:x\n";
        assert_eq!(parse(text), [("root".into(), 0), ("patgate".into(), 998)]);
    }

    #[test]
    fn root_is_known_here() {
        assert_eq!((uid("root"), name(0).as_deref()), (Some(0), Some("root")));
        assert_eq!(uid("nobody-of-this-name"), None);
    }
}
