//! Where a request is going.
//!
//! A [`Target`] is parsed from the very bytes that are forwarded. The ways in are mapped first, and
//! only by dropping whole leading segments; after that nothing is cut out, joined or encoded again.

use http::uri::PathAndQuery;

use super::{host::Host, normal::Normal, query, segments::Segments, way_in};
use crate::refusal::Refusal;

/// The longest target that is read, in bytes: path and query as received.
pub const MAX_LENGTH: usize = 8 * 1024;

/// Where a request is going.
#[derive(Clone, Debug)]
pub struct Target {
    host: Host,
    path_and_query: PathAndQuery,
    normal: Normal,
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
        let normal = Normal::of(segments)?;
        Ok(Self { host, path_and_query, normal })
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
        self.normal.segments.nth(0).unwrap_or_default()
    }

    /// The project (a name in lower case, or its id), where the path names one.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        if self.normal.project { self.normal.segments.nth(1) } else { None }
    }

    /// The team, where the path names one between the project and the route.
    #[must_use]
    pub fn team(&self) -> Option<&str> {
        self.normal.team.map(|span| self.normal.segments.get(span))
    }

    /// The path's one normal form, which rules match: decoded, in lower case, segment by segment.
    ///
    /// It is `[organization, project, route, …]`, or `[organization, route, …]` where no project is known,
    /// whatever the spelling: `DefaultCollection`, `_optimized`, `_full` and the team are left out,
    /// `/{org}/_git/{repository}` has its project, and so has the older `_apis/git/{project}/repositories/…`;
    /// encoded separators, where they pass at all, separate.
    pub fn canonical(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator + Clone {
        self.normal.segments.spans.iter().map(|span| self.normal.segments.get(*span))
    }

    /// The `n`th segment of [`Self::canonical`], counted from zero.
    #[must_use]
    pub fn segment(&self, n: usize) -> Option<&str> {
        self.normal.segments.nth(n)
    }

    /// [`Self::canonical`] behind the organisation and the project: the route (`_git`, `_apis`, …) and what
    /// follows it, or what else a path without a route has there.
    pub fn route(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator + Clone {
        self.canonical().skip(if self.normal.project { 2 } else { 1 })
    }
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
