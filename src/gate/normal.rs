//! The one order of a path's segments, however Azure DevOps lets it be spelled.

use super::segments::{Segments, Span};
use crate::refusal::Refusal;

/// The segments in the order of `Target::canonical`.
#[derive(Clone, Debug)]
pub(super) struct Normal {
    pub(super) segments: Segments,
    /// Whether the second segment is a project.
    pub(super) project: bool,
    pub(super) team: Option<Span>,
}

impl Normal {
    /// Orders the segments of a path that begins with an organisation.
    ///
    /// # Errors
    /// `path-ambiguous`, `target-unknown`, `organization-missing`
    pub(super) fn of(segments: Segments) -> Result<Self, Refusal> {
        let mut normal = Self { segments, project: false, team: None };
        normal.order()?;
        Ok(normal)
    }

    /// Brings the segments into the order that `Target::canonical` describes.
    fn order(&mut self) -> Result<(), Refusal> {
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
        // No route is written in other letters, and what a server makes of them is its own secret.
        if marker.and_then(|marker| self.segments.nth(marker)).is_some_and(|route| !route.is_ascii()) {
            return Err(Refusal::PathAmbiguous);
        }
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
            Some("_git") => self.order_git(),
            Some("_apis") => self.order_apis(),
            _ => Ok(()),
        }
    }

    /// `[…, "_git", ("_optimized" | "_full"), repository, …]`
    fn order_git(&mut self) -> Result<(), Refusal> {
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
    fn order_apis(&mut self) -> Result<(), Refusal> {
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

    use super::{super::Target, *};

    fn parse(target: &str) -> Result<Target, Refusal> {
        Target::parse(&target.parse().map_err(|_| Refusal::PathAmbiguous)?)
    }

    fn canonical(target: &str) -> String {
        let target = parse(target).unwrap_or_else(|why| panic!("{target}: {why:?}"));
        target.canonical().collect::<Vec<_>>().join("/")
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

    /// The same text with some letters in the other case, and some encoded.
    fn respelled(text: &str, how: &[u8]) -> String {
        let mut how = how.iter().cycle();
        let respell = |c: char| match how.next().map(|how| how % 4) {
            Some(0) => c.to_uppercase().to_string(),
            Some(1) if c.is_ascii_alphanumeric() || c == '_' => format!("%{:02x}", u32::from(c)),
            _ => c.to_string(),
        };
        text.chars().map(respell).collect()
    }

    proptest! {
        #[test]
        fn no_spelling_escapes_its_canonical_form(
            how in proptest::collection::vec(any::<u8>(), 1..12),
            way in proptest::sample::select(&["", "/dev.azure.com", "/DEV.AZURE.COM"]),
            collection in any::<bool>(),
            team in any::<bool>(),
            refs in proptest::sample::select(&["", "_full/", "_optimized/"]),
            repository in "[a-z][a-z0-9]{0,5}",
            slash in any::<bool>(),
        ) {
            let spell = |text: &str| respelled(text, &how);
            let path = format!(
                "{way}/{}{}/{}{}/{}/{}{}/{}{}",
                spell("contoso"),
                if collection { "/DefaultCollection" } else { "" },
                spell("web"),
                if team { "/some%20team" } else { "" },
                spell("_git"),
                refs,
                spell(&repository),
                spell("git-receive-pack"),
                if slash { "/" } else { "" },
            );
            prop_assert_eq!(canonical(&path), format!("contoso/web/_git/{repository}/git-receive-pack"));
        }
    }
}
