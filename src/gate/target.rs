//! Where a request is going.
//!
//! A [`Target`] is parsed from the very bytes that are forwarded. The ways in are mapped first, and
//! only by dropping whole leading segments; after that nothing is cut out, joined or encoded again.

use http::uri::PathAndQuery;

use super::{
    host::Host,
    query,
    segments::{Segments, Span},
    way_in,
};
use crate::refusal::Refusal;

/// The longest target that is read, in bytes: path and query as received.
pub const MAX_LENGTH: usize = 8 * 1024;

/// Where a request is going.
#[derive(Clone, Debug)]
pub struct Target {
    host: Host,
    path_and_query: PathAndQuery,
    /// In the canonical order: see [`Self::canonical`].
    segments: Segments,
    project: bool,
    team: Option<Span>,
}

impl Target {
    /// Reads a target as it was received: path and query, beginning with one slash.
    ///
    /// The host and the organisation come from the first segment: `/contoso/…`,
    /// `/pkgs.dev.azure.com/contoso/…`, `/contoso.visualstudio.com/…`, `/_ssh/v3/contoso/{project}/{repository}`.
    ///
    /// # Errors
    /// `head-malformed` (more than [`MAX_LENGTH`]), `path-ambiguous`, `query-ambiguous`, `target-unknown`,
    /// `organization-missing`
    pub fn parse(received: &PathAndQuery) -> Result<Self, Refusal> {
        if received.as_str().len() > MAX_LENGTH {
            return Err(Refusal::HeadMalformed);
        }
        let (host, path_and_query) = way_in::map(received)?;
        let segments = Segments::read(path_and_query.path())?;
        query::check(path_and_query.query().unwrap_or_default())?;
        let mut target = Self { host, path_and_query, segments, project: false, team: None };
        target.normalize()?;
        Ok(target)
    }

    /// The host of Azure DevOps.
    #[must_use]
    pub fn host(&self) -> Host {
        self.host
    }

    /// What is forwarded, byte by byte.
    #[must_use]
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.path_and_query
    }

    /// The path that is forwarded, as its bytes are.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path_and_query.path()
    }

    /// The query that is forwarded, as it may be recorded: values withheld, but for a few that are harmless.
    #[must_use]
    pub fn audit_query(&self) -> Option<Box<str>> {
        self.path_and_query.query().map(query::recorded)
    }

    /// The decoded value of a query parameter, whose name compares without case. Parameters that decide
    /// (`service`, `api-version`, …) are never there twice.
    #[must_use]
    pub fn query_value(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> {
        query::value(self.path_and_query.query()?, name)
    }

    /// The organisation, in lower case: ASCII letters, digits and hyphens.
    #[must_use]
    pub fn organization(&self) -> &str {
        self.segments.nth(0).unwrap_or_default()
    }

    /// The project (a name in lower case, or its id), where the path names one.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        if self.project { self.segments.nth(1) } else { None }
    }

    /// The team, where the path names one between the project and the route.
    #[must_use]
    pub fn team(&self) -> Option<&str> {
        self.team.map(|span| self.segments.get(span))
    }

    /// The path's one normal form, which rules match: decoded, in lower case, segment by segment.
    ///
    /// It is `[organization, project, route, …]`, or `[organization, route, …]` where no project is known,
    /// whatever the spelling: `DefaultCollection`, `_optimized`, `_full` and the team are left out,
    /// `/{org}/_git/{repository}` has its project, and so has the older `_apis/git/{project}/repositories/…`;
    /// encoded separators, where they pass at all, separate.
    pub fn canonical(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator + Clone {
        self.segments.spans.iter().map(|span| self.segments.get(*span))
    }

    /// The `n`th segment of [`Self::canonical`], counted from zero.
    #[must_use]
    pub fn segment(&self, n: usize) -> Option<&str> {
        self.segments.nth(n)
    }

    /// [`Self::canonical`] behind the organisation and the project: the route (`_git`, `_apis`, …) and what
    /// follows it, or what else a path without a route has there.
    pub fn route(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator + Clone {
        self.canonical().skip(if self.project { 2 } else { 1 })
    }

    /// Brings the segments into the order that [`Self::canonical`] describes.
    fn normalize(&mut self) -> Result<(), Refusal> {
        let organization = self.segments.nth(0).unwrap_or_default();
        if organization == "_patgate" || organization == "_ssh" {
            return Err(Refusal::TargetUnknown);
        }
        if !is_organization(organization) {
            return Err(Refusal::OrganizationMissing);
        }
        if self.segments.nth(1) == Some("defaultcollection") {
            self.segments.spans.remove(1);
        }
        let marker = self.segments.marker();
        let names = marker.unwrap_or(self.segments.spans.len().min(2));
        let spans = self.segments.spans.get(1..names).unwrap_or_default();
        let names = || spans.iter().map(|span| self.segments.get(*span));
        if spans.len() > 2 || !names().all(|name| is_name(name) && name != "defaultcollection") {
            return Err(Refusal::PathAmbiguous);
        }
        self.project = !spans.is_empty();
        if spans.len() == 2 {
            self.team = Some(self.segments.spans.remove(2));
        }
        if marker.is_none() {
            return Ok(());
        }
        match self.segments.nth(if self.project { 2 } else { 1 }) {
            Some("_git") => self.normalize_git(),
            Some("_apis") => self.normalize_apis(),
            _ => Ok(()),
        }
    }

    /// `[…, "_git", ("_optimized" | "_full"), repository, …]`
    fn normalize_git(&mut self) -> Result<(), Refusal> {
        let at = if self.project { 3 } else { 2 };
        if matches!(self.segments.nth(at), Some("_optimized" | "_full")) {
            self.segments.spans.remove(at);
        }
        let Some(mut repository) = self.segments.spans.get(at).copied() else { return Ok(()) };
        // git-lfs appends this to the remote's URL; nothing else does, and a repository may be called so.
        if self.segments.nth(at + 1) == Some("info") && self.segments.nth(at + 2) == Some("lfs") {
            repository = self.segments.without_suffix(repository, ".git");
        }
        if !is_name(self.segments.get(repository)) {
            return Err(Refusal::PathAmbiguous);
        }
        if let Some(span) = self.segments.spans.get_mut(at) {
            *span = repository;
        }
        if !self.project {
            // The repository that is called like its project.
            self.segments.spans.insert(1, repository);
            self.project = true;
        }
        Ok(())
    }

    /// `["_apis", "git", project, "repositories", …]`, an order of version 1.0 that is still served.
    fn normalize_apis(&mut self) -> Result<(), Refusal> {
        let at = if self.project { 4 } else { 3 };
        let is_git = self.segments.nth(at - 1) == Some("git");
        let is_older = matches!(self.segments.nth(at + 1), Some("repositories" | "repositoriespaged"));
        match self.segments.nth(at) {
            Some(project) if is_git && is_older && project != "recyclebin" => {
                // A repository that is called so, in the usual order.
                if self.project && project == "repositories" {
                    return Ok(());
                }
                // With a project before it as well, or such a name, nobody can say which one counts.
                if self.project || project == "repositories" || !is_name(project) {
                    return Err(Refusal::PathAmbiguous);
                }
            }
            _ => return Ok(()),
        }
        let project = self.segments.spans.remove(at);
        self.segments.spans.insert(1, project);
        self.project = true;
        Ok(())
    }
}

/// Whether this can be the name of an organisation: ASCII letters, digits, and hyphens between them.
pub(super) fn is_organization(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether this can be the name of a project, team or repository ("Naming restrictions and conventions").
fn is_name(name: &str) -> bool {
    !name.starts_with('_') && !name.contains(|c| "~&@'\"<>|#$*}{,+=[]".contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(target: &str) -> Result<Target, Refusal> {
        PathAndQuery::try_from(target)
            .map_err(|_| Refusal::PathAmbiguous)
            .and_then(|target| Target::parse(&target))
    }

    fn canonical(target: &str) -> String {
        let target = parse(target).unwrap_or_else(|why| panic!("{target}: {why:?}"));
        target.canonical().collect::<Vec<_>>().join("/")
    }

    #[test]
    fn a_target_that_is_nowhere_is_refused() {
        use Refusal::{HeadMalformed, OrganizationMissing, PathAmbiguous, QueryAmbiguous, TargetUnknown};
        let long = format!("/contoso/{}", "a".repeat(MAX_LENGTH));
        for (target, why) in [
            ("/_patgate/ready", TargetUnknown),
            ("/%5Fpatgate/ready", TargetUnknown),
            ("/_PatGate", TargetUnknown),
            ("/evil.example/contoso", TargetUnknown),
            ("/dev.azure.com.evil.example/contoso", TargetUnknown),
            ("/dev.azure.com:443/contoso", PathAmbiguous),
            ("/user@dev.azure.com/contoso", TargetUnknown),
            ("/favicon.ico", TargetUnknown),
            ("/app.vssps.visualstudio.com/_apis/accounts", TargetUnknown),
            ("/_ssh/v3/contoso/web", TargetUnknown),
            ("/_ssh/v2/contoso/web/repo", TargetUnknown),
            ("/_ssh/v3/contoso/_git/repo", TargetUnknown),
            ("/dev.azure.com/_patgate/ready", TargetUnknown),
            ("/dev.azure.com/_ssh/v3/contoso/web/repo", TargetUnknown),
            ("/_ssh/v3/pkgs.dev.azure.com/web/repo", OrganizationMissing),
            ("/", OrganizationMissing),
            ("/?x=y", OrganizationMissing),
            ("/_apis", OrganizationMissing),
            ("/_apis/ResourceAreas", OrganizationMissing),
            ("/_signin", OrganizationMissing),
            ("/dev.azure.com", OrganizationMissing),
            ("/dev.azure.com/", OrganizationMissing),
            ("/dev.azure.com/pkgs.dev.azure.com/contoso", OrganizationMissing),
            ("/my%20org/web", OrganizationMissing),
            ("/con_toso/web", OrganizationMissing),
            ("/contoso-/web", OrganizationMissing),
            ("//evil/a", PathAmbiguous),
            ("/dev.azure.com//evil", PathAmbiguous),
            ("/contoso.visualstudio.com//evil", PathAmbiguous),
            ("/_ssh/v3//contoso/web/repo", PathAmbiguous),
            ("/../contoso", PathAmbiguous),
            ("/dev%2eazure%2ecom/contoso", PathAmbiguous),
            ("/dev.azure.com/../contoso", PathAmbiguous),
            ("/contoso/a/b/c/_git/x", PathAmbiguous),
            ("/contoso/DefaultCollection/DefaultCollection/_git/x", PathAmbiguous),
            ("/contoso/a+b/_apis/wit", PathAmbiguous),
            ("/contoso/web/_git/_x", PathAmbiguous),
            ("/contoso/web/_git/a@b", PathAmbiguous),
            ("/contoso/web/_apis/git/other/repositories/r/items", PathAmbiguous),
            ("/contoso/_apis/git/repositories/repositories/items", PathAmbiguous),
            ("*", PathAmbiguous),
            ("/contoso/web?service=a&service=b", QueryAmbiguous),
            (&long, HeadMalformed),
        ] {
            assert_eq!(parse(target).map(|target| target.path().to_owned()), Err(why), "{target}");
        }
    }

    #[test]
    fn equivalent_spellings_have_one_canonical_form() {
        for (expected, spellings) in [
            (
                "contoso/web/_git/api/info/refs",
                &[
                    "/contoso/web/_git/api/info/refs",
                    "/Contoso/WEB/_GIT/Api/Info/Refs",
                    "/contoso/web/_git/api/info/refs/",
                    "/contoso/%77eb/%5Fgit/api/info/refs",
                    "/contoso/web/_git/_optimized/api/info/refs",
                    "/contoso/web/_git/_full/api/info/refs",
                    "/contoso/DefaultCollection/web/_git/api/info/refs",
                    "/contoso/web/team%20a/_git/api/info/refs",
                    "/contoso/web/team%20a/_git/_full/api/info/refs",
                    "/dev.azure.com/contoso/web/_git/api/info/refs",
                    "/contoso.visualstudio.com/web/_git/api/info/refs",
                    "/contoso.visualstudio.com/defaultcollection/web/_git/api/info/refs",
                    "/_ssh/v3/contoso/web/api/info/refs",
                ] as &[&str],
            ),
            (
                "contoso/web/_git/web",
                &[
                    "/contoso/web/_git/web",
                    "/contoso/_git/web",
                    "/contoso/_git/_full/web",
                    "/contoso.visualstudio.com/_git/web",
                ],
            ),
            (
                "contoso/web/_git/web/info/lfs/objects/batch",
                &[
                    "/contoso/_git/web/info/lfs/objects/batch",
                    "/contoso/_git/web.git/info/lfs/objects/batch",
                    "/contoso/web/_git/web.git/info/lfs/objects/batch",
                ],
            ),
            ("contoso/web/_git/web.git/info/refs", &["/contoso/web/_git/web.git/info/refs"]),
            (
                "contoso/web/_apis/git/repositories/api/items",
                &[
                    "/contoso/web/_apis/git/repositories/api/items",
                    "/contoso/_apis/git/web/repositories/api/items",
                    "/contoso/DefaultCollection/_apis/Git/Web/Repositories/api/items",
                ],
            ),
            (
                "contoso/web/_apis/git/repositories/repositories/items",
                &["/contoso/web/_apis/git/repositories/repositories/items"],
            ),
            ("contoso/_apis/git/repositories/1/items", &["/contoso/_apis/git/repositories/1/items"]),
            ("contoso/_apis/git/recyclebin/repositories", &["/contoso/_apis/git/recycleBin/repositories"]),
            (
                "contoso/web/_packaging/f/npm/registry/@s/n",
                &[
                    "/contoso/web/_packaging/f/npm/registry/@s%2fn",
                    "/contoso/web/_packaging/f/npm/registry/@s/n",
                ],
            ),
            ("contoso", &["/contoso", "/contoso/", "/contoso/DefaultCollection"]),
            ("contoso/web/a/b", &["/contoso/web/a/b"]),
            ("contoso/_git", &["/contoso/_git"]),
        ] {
            for spelling in spellings {
                assert_eq!(canonical(spelling), expected, "{spelling}");
            }
        }
    }

    #[test]
    fn organization_project_team_and_route_are_told_apart() {
        for (target, organization, project, team, route) in [
            ("/Contoso/Web/Team/_apis/work", "contoso", Some("web"), Some("team"), "_apis/work"),
            ("/contoso/_apis/projects", "contoso", None, None, "_apis/projects"),
            ("/contoso/_git/web", "contoso", Some("web"), None, "_git/web"),
            ("/contoso/_apis/git/web/repositories", "contoso", Some("web"), None, "_apis/git/repositories"),
            ("/contoso/web", "contoso", Some("web"), None, ""),
            ("/contoso/%C3%89t%C3%A9/_git/%C3%A9", "contoso", Some("été"), None, "_git/é"),
        ] {
            let read = parse(target).unwrap();
            assert_eq!(read.organization(), organization, "{target}");
            assert_eq!(read.project(), project, "{target}");
            assert_eq!(read.team(), team, "{target}");
            assert_eq!(read.route().collect::<Vec<_>>().join("/"), route, "{target}");
        }
    }

    proptest! {
        #[test]
        fn what_is_forwarded_reads_the_same(
            target in "/(dev\\.azure\\.com/|pkgs\\.dev\\.azure\\.com/|_ssh/v3/|contoso\\.visualstudio\\.com/)?(contoso|a-b)(/(DefaultCollection|web|My%20p|%5Fgit|_git|_apis|git|_full|repositories|info|lfs|r\\.git|@s%2fn|%C3%A9)){0,6}/?(\\?[a-z=&%0-9]{0,8})?",
        ) {
            let Ok(first) = parse(&target) else { return Ok(()) };
            let again = parse(&format!("/{}{}", first.host().authority(), first.path_and_query())).unwrap();
            prop_assert_eq!(first.host(), again.host());
            prop_assert_eq!(first.path_and_query(), again.path_and_query());
            prop_assert_eq!(first.team(), again.team());
            prop_assert_eq!(first.project(), again.project());
            prop_assert!(first.canonical().eq(again.canonical()));
            let path = first.path();
            prop_assert!(path.starts_with('/') && !path.starts_with("//"));
        }

        #[test]
        fn no_target_makes_it_panic(target in proptest::collection::vec(any::<u8>(), 0..48)) {
            for prefix in ["", "/", "/_ssh/v3/", "/contoso/_git/", "/a.visualstudio.com"] {
                let bytes = [prefix.as_bytes(), &target].concat();
                if let Ok(target) = PathAndQuery::try_from(bytes.as_slice()) {
                    let _ = Target::parse(&target);
                }
            }
        }
    }
}
