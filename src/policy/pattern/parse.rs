//! From what was typed to the normal form, or to what is wrong with it.

use unicode_normalization::UnicodeNormalization;

use super::{Pattern, Segment, Word};
use crate::gate::{Host, characters::lower};

/// No segment stands for more names than this.
const MOST_WORDS: usize = 64;

pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    let written = split(text)?;
    let (host, written) = host(&written)?;
    let (rest, written) = match written.split_last() {
        Some((last, written)) if last == "**" => (true, written),
        _ => (false, &*written),
    };
    let mut segments = written.iter().map(|segment| self::segment(segment)).collect::<Result<Vec<_>, _>>()?;
    if segments.is_empty() && !rest {
        return Err("names no organization; write /organization/** for all of one, or /** for all".into());
    }
    normalize(&mut segments, rest)?;
    Ok(Pattern { text: text.into(), host, segments: segments.into(), rest })
}

/// The segments as they were typed, in lower case.
fn split(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Err("is empty; write /organization/project/** or /**".into());
    }
    let Some(path) = text.strip_prefix('/') else {
        return Err(format!("{text:?} does not begin with a slash; write /{text}"));
    };
    for (wrong, reason) in [
        ('\\', "holds a backslash; segments are divided by slashes"),
        ('%', "holds a percent sign; patterns are written decoded (a space is a space)"),
        ('?', "holds a question mark; rules don't see the query, end the pattern before it"),
        ('#', "holds a number sign; no path has one"),
        (':', "holds a colon; no path has one"),
        (';', "holds a semicolon; no path has one"),
    ] {
        if text.contains(wrong) {
            return Err(format!("{text:?} {reason}"));
        }
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{text:?} holds a control character; no path has one"));
    }
    let text = path.nfc().map(lower).collect::<String>();
    let segments: Vec<String> = text.split('/').map(str::to_owned).collect();
    let last = segments.len().saturating_sub(1);
    for (n, segment) in segments.iter().enumerate() {
        match &**segment {
            "" if n == last => return Err(format!("{path:?} ends with a slash; drop it, or end with /**")),
            "" => return Err(format!("{path:?} has an empty segment; write one slash where there are two")),
            "." | ".." => {
                return Err(format!("{path:?} has the segment {segment:?}, which no path has; drop it"));
            }
            "**" if n != last => {
                return Err(format!("{path:?} has ** before its end; write * for one segment"));
            }
            _ => {}
        }
    }
    Ok(segments)
}

/// Takes the host off, where one is named.
fn host(written: &[String]) -> Result<(Host, Vec<String>), String> {
    let (first, rest) = written.split_first().map_or(("", written), |(first, rest)| (&**first, rest));
    if !first.contains('.') {
        return Ok((Host::DevAzure, written.to_vec()));
    }
    if first.contains(['*', '{', '}']) {
        return Err(format!("the host {first:?} is not written out; write one pattern for each host"));
    }
    if rest.is_empty() {
        return Err(format!("names the host {first:?} and no organization; write /{first}/** for all of it"));
    }
    if let Some(labels) = first.strip_suffix(".visualstudio.com") {
        // The older names: the organisation, and the service where it has a host of its own.
        let (organization, service) = labels.split_once('.').unwrap_or((labels, ""));
        let name =
            if service.is_empty() { "dev.azure.com".into() } else { format!("{service}.dev.azure.com") };
        if let Some(host) = Host::parse(&name) {
            let segments = std::iter::once(organization.to_owned()).chain(rest.iter().cloned());
            return Ok((host, segments.collect()));
        }
    }
    let Some(host) = Host::parse(first) else {
        return Err(format!(
            "{first:?} is no host of Azure DevOps that is served here; the first segment is a host or, \
             without a dot, an organization"
        ));
    };
    Ok((host, rest.to_vec()))
}

fn segment(written: &str) -> Result<Segment, String> {
    if written == "*" {
        return Ok(Segment::Any);
    }
    let words = alternatives(written)?;
    if let [word] = &*words
        && word.text.starts_with('_')
    {
        if word.open {
            return Err(format!("{written:?} leaves a route open; write it out (_git, _apis, …)"));
        }
        return Ok(Segment::Route(word.text.clone()));
    }
    if words.iter().any(|word| word.text.starts_with('_')) {
        return Err(format!("{written:?} has a route among its alternatives; write one pattern for each"));
    }
    Ok(Segment::OneOf(words.into()))
}

/// The words of a segment, with its braces multiplied out.
fn alternatives(written: &str) -> Result<Vec<Word>, String> {
    let unbalanced = || format!("{written:?} has braces that don't match; write {{a,b}}");
    let mut texts = vec![String::new()];
    let mut remaining = written;
    while !remaining.is_empty() {
        let (plain, braces) = remaining.split_at(remaining.find(['{', '}']).unwrap_or(remaining.len()));
        for text in &mut texts {
            text.push_str(plain);
        }
        let Some(inner) = braces.strip_prefix('{') else {
            if !braces.is_empty() {
                return Err(unbalanced());
            }
            break;
        };
        let (inner, after) = inner.split_once('}').ok_or_else(unbalanced)?;
        if inner.contains('{') {
            return Err(format!("{written:?} has braces within braces; write all alternatives in one pair"));
        }
        texts = inner
            .split(',')
            .flat_map(|choice| texts.iter().map(move |text| format!("{text}{choice}")))
            .take(MOST_WORDS + 1)
            .collect();
        if texts.len() > MOST_WORDS {
            return Err(format!(
                "{written:?} stands for more than {MOST_WORDS} names; write several patterns"
            ));
        }
        remaining = after;
    }
    texts.into_iter().map(|text| word(&text, written)).collect()
}

fn word(text: &str, written: &str) -> Result<Word, String> {
    let (name, open) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
    if name.contains('*') {
        return Err(format!("{written:?} has a * before its end; in a segment it stands last (release-*)"));
    }
    if name.is_empty() {
        return Err(if open {
            format!("{written:?} has * among its alternatives; write * alone")
        } else {
            format!("{written:?} has an empty alternative; drop the comma")
        });
    }
    let dropped = |c: char| c.is_whitespace() || c == '.';
    if name.starts_with(dropped) || (!open && name.ends_with(dropped)) {
        return Err(format!(
            "{written:?} can never match: Azure DevOps drops spaces and dots at the ends of a segment, so \
             patgate refuses them; drop them here too"
        ));
    }
    Ok(Word { text: name.into(), open })
}

/// Brings the spellings of one object into the one form: organisation, project, route, tail.
fn normalize(segments: &mut Vec<Segment>, rest: bool) -> Result<(), String> {
    let is_route = |segment: Option<&Segment>, name: &str| matches!(segment, Some(Segment::Route(text)) if **text == *name);
    if matches!(segments.first(), Some(Segment::Route(_))) {
        return Err("begins with a route; the first segment is the organization (/*/_apis/**)".into());
    }
    if let Some(Segment::OneOf(words)) = segments.first()
        && let Some(word) = words.iter().find(|word| !word.text.bytes().all(is_of_organization))
    {
        return Err(format!(
            "{:?} can be no organization: their names hold letters, digits and hyphens alone",
            word.text
        ));
    }
    if is_name(segments.get(1), "defaultcollection") {
        segments.remove(1);
    }
    if is_route(segments.get(1), "_git") {
        drop_limit(segments, 2);
        let project = match segments.get(2) {
            Some(project @ (Segment::Any | Segment::OneOf(_))) => project.clone(),
            None if rest => {
                segments.push(Segment::Any);
                Segment::Any
            }
            _ => return Err("names no repository after _git; write /organization/*/_git/**".into()),
        };
        segments.insert(1, project);
        if let Some(repository) = segments.get_mut(3) {
            *repository = Segment::AsProject;
        }
    } else if is_route(segments.get(2), "_git") {
        drop_limit(segments, 3);
    } else if is_route(segments.get(1), "_apis")
        && is_name(segments.get(2), "git")
        && !is_name(segments.get(3), "recyclebin")
        && (is_name(segments.get(4), "repositories") || is_name(segments.get(4), "repositoriespaged"))
    {
        // An order of version 1.0 that is still served.
        let project = segments.remove(3);
        segments.insert(1, project);
    }
    let has_route = segments.iter().take(3).any(|segment| matches!(segment, Segment::Route(_)));
    if segments.len() > 2 && !has_route {
        return Err(
            "has three names before a route, and can never match: after organization and project comes \
                    a segment that begins with _ (_git, _apis), or **; a team is no part of a pattern, \
                    the project's covers all its teams"
                .into(),
        );
    }
    Ok(())
}

/// `_optimized` and `_full` are views of the same repository.
fn drop_limit(segments: &mut Vec<Segment>, place: usize) {
    if let Some(Segment::Route(text)) = segments.get(place)
        && matches!(&**text, "_optimized" | "_full")
    {
        segments.remove(place);
    }
}

fn is_of_organization(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

fn is_name(segment: Option<&Segment>, name: &str) -> bool {
    match segment {
        Some(Segment::OneOf(words)) => matches!(&**words, [Word { text, open: false }] if **text == *name),
        _ => false,
    }
}
