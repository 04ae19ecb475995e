//! What would be right, where a name is not known.

/// Keys that other versions know or that a reader may expect, and what to do without them.
const ABSENT: &[(&str, &str, &str)] = &[
    ("listen", "client-ca", "is not in this version: clients are known by `addresses`; leave it out"),
    (
        "listen",
        "proxy-protocol-from",
        "is not in this version: the address of the connection counts; leave it out",
    ),
    (
        "listen",
        "forwarded-from",
        "is not in this version: the address of the connection counts; leave it out",
    ),
    ("admin", "socket", "is not in this version: a configuration is changed in its file; leave it out"),
    ("admin", "admins", "is not in this version: a configuration is changed in its file; leave it out"),
    ("admin", "certificate", "is not in this version: the admin address is on loopback; leave it out"),
    ("admin", "key", "is not in this version: the admin address is on loopback; leave it out"),
    ("audit", "retention", "is not in this version: closed segments stay until you move them; leave it out"),
    ("audit", "signing-key", "is not in this version: the record is chained, not signed; leave it out"),
    ("client", "token", "is not in this version: name the client's networks with `addresses`"),
    ("client", "certificate", "is not in this version: name the client's networks with `addresses`"),
    ("client", "jwt", "is not in this version: name the client's networks with `addresses`"),
    ("credential", "scopes", "is not in this version; leave it out"),
    ("credential", "pat", "a secret never stands here; put it into a vault and name it with `secret`"),
    ("credential", "token", "a secret never stands here; put it into a vault and name it with `secret`"),
    ("credential", "password", "a secret never stands here; put it into a vault and name it with `secret`"),
    ("credential", "value", "a secret never stands here; put it into a vault and name it with `secret`"),
    ("rule", "in", "is not in this version; use `paths`, such as paths = [\"/contoso/web/**\"]"),
    ("rule", "owner", "is not in this version; name whom to ask in `help`"),
];

/// The sentence for a key that is not known in a table.
pub(super) fn unknown_key(table: &str, key: &str, known: &[&str]) -> String {
    if let Some((_, _, text)) = ABSENT.iter().find(|entry| entry.0 == table && entry.1 == key) {
        return (*text).into();
    }
    format!("is no key here; {}", instead(key, known))
}

/// "did you mean …?", or what there is.
pub(super) fn instead<S: AsRef<str>>(name: &str, known: &[S]) -> String {
    const MOST: usize = 20;
    if let Some(nearest) = nearest(name, known) {
        return format!("did you mean `{nearest}`?");
    }
    if known.is_empty() {
        return "there is none so far".into();
    }
    let mut text = String::from("known: ");
    let mut names: Vec<_> = known.iter().map(AsRef::as_ref).collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(MOST);
    text.push_str(&names.join(", "));
    if known.len() > MOST {
        text.push_str(", …");
    }
    text
}

/// The known name that is nearest, if it is near: a third of the letters may differ.
fn nearest<'a, S: AsRef<str>>(name: &str, known: &'a [S]) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let lower = name.to_lowercase().replace('_', "-");
    known
        .iter()
        .map(|known| (distance(&lower, &known.as_ref().to_lowercase()), known.as_ref()))
        .filter(|(distance, known)| distance * 3 <= known.chars().count().max(3))
        .min()
        .map(|(_, known)| known)
}

/// Letters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (other, above) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(letter != *other)).min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_finds_the_name() {
        for (typed, meant) in [
            ("adress", "address"),
            ("organisations", "organizations"),
            ("public_url", "public-url"),
            ("Certificate", "certificate"),
            ("lisen", "listen"),
        ] {
            let known = ["address", "organizations", "public-url", "certificate", "listen", "key"];
            assert_eq!(nearest(typed, &known), Some(meant), "{typed}");
        }
    }

    #[test]
    fn a_name_that_is_like_none_gets_the_list() {
        assert_eq!(instead("colour", &["address", "owner"]), "known: address, owner");
        assert_eq!(instead::<&str>("colour", &[]), "there is none so far");
    }

    #[test]
    fn the_distance_counts_single_letters() {
        for (a, b, expected) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("äb", "ab", 1)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
