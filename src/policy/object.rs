//! What a request is about, as patterns and tables see it.

use crate::{
    gate::{Action, Host, Target},
    policy::{discovery, mint},
};

/// A target taken apart once, for all the rules that are asked about it.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    pub(crate) host: Host,
    /// The canonical path: organisation, project (if known), route, tail.
    pub(crate) segments: Vec<&'a str>,
    /// Whether the second segment is a project.
    pub(crate) project_known: bool,
    /// Another spelling of the same object, if it has one. For denials alone.
    pub(crate) respelled: Option<Vec<&'a str>>,
    /// An operation that only a pattern that spells it out may open: up to and with this many segments.
    pub(crate) spelled_through: Option<usize>,
    /// An operation that mints or reveals credentials.
    pub(crate) mints: Option<&'static str>,
    /// One of the calls that every SDK starts with.
    pub(crate) is_discovery: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn new(target: &'a Target, action: &Action) -> Self {
        let segments: Vec<&str> = target.canonical().collect();
        Self::read(target.host(), segments, target.project().is_some(), action)
    }

    pub(crate) fn read(host: Host, segments: Vec<&'a str>, project_known: bool, action: &Action) -> Self {
        let route = segments.iter().skip(1).position(|segment| segment.starts_with('_')).map(|n| n + 1);
        let (mut mints, mut spelled_through) = (None, None);
        if let Some(route) = route {
            let path = segments.get(route..).unwrap_or_default();
            mints = mint::operation(path);
            spelled_through = mint::opaque(path).map(|length| route + length);
        }
        let is_discovery = discovery::includes(&segments, action);
        let respelled = respell(&segments);
        Self { host, segments, project_known, respelled, spelled_through, mints, is_discovery }
    }

    pub(crate) fn organization(&self) -> &'a str {
        self.segments.first().copied().unwrap_or_default()
    }
}

/// `/{org}/{project}/_apis/git/repositories/…` is also `/{org}/_apis/git/{project}/repositories/…`, an order
/// of version 1.0 that is still served: a denial of `/{org}/_apis/git/**` is about it. And a denial of a repository
/// is about its name with `.git` behind it too, which some clients append.
fn respell<'a>(segments: &[&'a str]) -> Option<Vec<&'a str>> {
    match segments {
        [organization, project, route @ "_git", repository, tail @ ..] => {
            let bare = repository.strip_suffix(".git").filter(|bare| !bare.is_empty())?;
            let project = if project == repository { &bare } else { project };
            let mut respelled = vec![*organization, *project, *route, bare];
            respelled.extend_from_slice(tail);
            Some(respelled)
        }
        [
            organization,
            project,
            api @ "_apis",
            area @ "git",
            resource @ ("repositories" | "repositoriespaged"),
            tail @ ..,
        ] => {
            let mut respelled = vec![*organization, *api, *area, *project, *resource];
            respelled.extend_from_slice(tail);
            Some(respelled)
        }
        _ => None,
    }
}
