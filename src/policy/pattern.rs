//! What a rule's `paths` say.
//!
//! A pattern is brought into the same normal form as a target (organisation, project, route,
//! tail), and the two are compared segment by segment: one object has one verdict, however it is
//! spelled. Two readings of a match, by what the rule would do:
//!
//! - An *allow* must be certain. A pattern that names or stars a project never matches a request
//!   whose project is not known.
//! - A *denial* must not be got round. What a request leaves open counts as a match: an unknown
//!   project (`DELETE /contoso/_apis/git/repositories/{id}` under `/*/*/_apis/git/repositories/**`),
//!   an id where the pattern has a name (Azure DevOps takes either), or the same name in wider
//!   letters (`ｓecret`: databases that compare names without width or case take them for one).

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;

use crate::{gate::Host, policy::object::Object};

mod parse;

/// One pattern of `paths`.
///
/// Segments: `*` is one segment (never a host, never one that begins with `_`), `**` the rest, or
/// nothing (in the last place only), `{a,b}` alternatives, a trailing `*` inside a segment whatever
/// follows (`release-*`). Written decoded, compared without case. The first segment is the
/// organisation; one with a dot before it is the host, `dev.azure.com` otherwise.
///
/// `/contoso/_git/web` is `/contoso/web/_git/web`, so `/contoso/_git/**` is every repository that
/// bears its project's name; every repository there is is `/contoso/*/_git/**`.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As it was typed.
    text: Box<str>,
    host: Host,
    segments: Box<[Segment]>,
    /// Whether it ends with `**`.
    rest: bool,
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `*`
    Any,
    /// A name, or alternatives.
    OneOf(Box<[Word]>),
    /// A segment that begins with `_`.
    Route(Box<str>),
    /// The repository of `/{org}/_git/{repo}`, which is in the project of that name.
    AsProject,
}

/// A name, or the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    /// Lower case.
    text: Box<str>,
    /// Whether more may follow.
    open: bool,
}

/// The place of the project in the canonical form.
const PROJECT: usize = 1;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right, as one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::pattern(text)
    }

    /// The host that it is about.
    pub(crate) fn host(&self) -> Host {
        self.host
    }

    /// Whether this is certainly the object, as an allow needs it.
    pub(crate) fn matches(&self, object: &Object<'_>) -> bool {
        object.spelled_through.is_none_or(|length| self.spells(length)) && self.is(object)
    }

    /// Whether this is certainly the object, whatever it takes to open it.
    pub(crate) fn is(&self, object: &Object<'_>) -> bool {
        self.host == object.host
            && (object.project_known || !self.names_project())
            && self.matches_segments(self.segments.iter(), &object.segments, Segment::matches)
    }

    /// Whether this may be the object, as a denial needs it.
    pub(crate) fn may_match(&self, object: &Object<'_>) -> bool {
        if self.host != object.host {
            return false;
        }
        let may_be =
            |segments: &[&str]| self.matches_segments(self.segments.iter(), segments, Segment::may_match);
        if may_be(&object.segments) || object.respelled.as_deref().is_some_and(may_be) {
            return true;
        }
        let without_project =
            self.segments.iter().enumerate().filter(|(n, _)| *n != PROJECT).map(|(_, segment)| segment);
        !object.project_known
            && self.names_project()
            && self.matches_segments(without_project, &object.segments, Segment::may_match)
    }

    /// Whether it has the organisation in it.
    pub(crate) fn reaches(&self, organization: &str) -> bool {
        self.segments.first().is_none_or(|segment| segment.matches(organization, None))
    }

    /// Whether every object of `other` is one of this.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let length_fits = if self.rest {
            self.segments.len() <= other.segments.len()
        } else {
            !other.rest && self.segments.len() == other.segments.len()
        };
        self.host == other.host
            && length_fits
            && self.segments.iter().zip(&other.segments).all(|(own, other)| own.covers(other))
    }

    /// The only organisations that it has in it, if it names them.
    pub(crate) fn organizations(&self) -> Option<impl Iterator<Item = &str>> {
        match self.segments.first() {
            Some(Segment::OneOf(words)) if words.iter().all(|word| !word.open) => {
                Some(words.iter().map(|word| &*word.text))
            }
            _ => None,
        }
    }

    /// The segments after the organisation and the project, as far as they are written out.
    pub(crate) fn route(&self) -> Vec<&str> {
        let start = self.segments.iter().position(|segment| matches!(segment, Segment::Route(_)));
        let segments = start.and_then(|start| self.segments.get(start..)).unwrap_or_default();
        segments
            .iter()
            .map_while(|segment| match segment {
                Segment::Route(text) => Some(&**text),
                Segment::OneOf(words) => match &**words {
                    [Word { text, open: false }] => Some(&**text),
                    _ => None,
                },
                Segment::Any | Segment::AsProject => None,
            })
            .collect()
    }

    /// Whether a name in it is an id, which a request may go round with the name.
    pub(crate) fn names_id(&self) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::OneOf(words) => words.iter().any(|word| is_id(&word.text)),
            _ => false,
        })
    }

    fn names_project(&self) -> bool {
        self.segments.get(PROJECT).is_some_and(|segment| !matches!(segment, Segment::Route(_)))
    }

    /// Whether the first `length` segments are written out from the route on.
    fn spells(&self, length: usize) -> bool {
        let start = self.segments.iter().position(|segment| matches!(segment, Segment::Route(_)));
        let spelled = start.and_then(|start| self.segments.get(start..length));
        spelled.is_some_and(|segments| {
            segments.iter().all(|segment| match segment {
                Segment::Route(_) => true,
                Segment::OneOf(words) => words.iter().all(|word| !word.open),
                Segment::Any | Segment::AsProject => false,
            })
        })
    }

    fn matches_segments<'p>(
        &self,
        pattern: impl Iterator<Item = &'p Segment>,
        segments: &[&str],
        matches: impl Fn(&Segment, &str, Option<&str>) -> bool,
    ) -> bool {
        let project = segments.get(PROJECT).copied();
        let mut segments = segments.iter();
        for own in pattern {
            if !segments.next().is_some_and(|segment| matches(own, segment, project)) {
                return false;
            }
        }
        self.rest || segments.next().is_none()
    }
}

impl Segment {
    fn matches(&self, segment: &str, project: Option<&str>) -> bool {
        match self {
            Self::Any => !segment.starts_with('_'),
            Self::OneOf(words) => words.iter().any(|word| word.matches(segment)),
            Self::Route(text) => **text == *segment,
            Self::AsProject => project == Some(segment),
        }
    }

    fn may_match(&self, segment: &str, project: Option<&str>) -> bool {
        self.matches(segment, project)
            || match self {
                Self::Any => true,
                Self::OneOf(words) => {
                    is_id(segment)
                        || folded(segment).is_some_and(|name| words.iter().any(|word| word.may_be(&name)))
                }
                Self::AsProject => {
                    let fold = |text: &str| folded(text).unwrap_or_else(|| text.to_owned());
                    is_id(segment)
                        || project.is_some_and(|project| is_id(project) || fold(project) == fold(segment))
                }
                Self::Route(_) => false,
            }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, other) => !matches!(other, Self::Route(_)),
            (Self::OneOf(own), Self::OneOf(others)) => {
                others.iter().all(|other| own.iter().any(|word| word.covers(other)))
            }
            (own, other) => own == other,
        }
    }
}

impl Word {
    fn matches(&self, segment: &str) -> bool {
        if self.open { segment.starts_with(&*self.text) } else { *segment == *self.text }
    }

    fn covers(&self, other: &Self) -> bool {
        self.matches(&other.text) && (self.open || !other.open)
    }

    /// Whether it may be meant by a name that was folded.
    fn may_be(&self, name: &str) -> bool {
        let own = folded(&self.text);
        let own = own.as_deref().unwrap_or(&self.text);
        if self.open { name.starts_with(own) } else { name == own }
    }
}

/// A name with the plain form of every letter (full width, long s, ligatures); `None` where all are plain.
fn folded(name: &str) -> Option<String> {
    (!name.is_ascii()).then(|| name.nfkc().flat_map(char::to_lowercase).collect())
}

/// Whether a segment has the form of a GUID, which Azure DevOps takes in place of most names.
fn is_id(segment: &str) -> bool {
    let groups = || segment.split('-').map(str::len);
    groups().eq([8, 4, 4, 4, 12]) && segment.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
