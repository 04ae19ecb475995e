//! The calls that every SDK of Azure DevOps starts with, before the one that is wanted.
//!
//! They are granted to a client wherever it has any rule in that organisation, with the credential
//! of the first such rule.

use http::Method;

use crate::gate::Action;

/// Whether these segments and this action are discovery: routes (`OPTIONS _apis`, and of one area),
/// resource areas, connection data. On the organisation, never on a project.
pub(crate) fn includes(segments: &[&str], action: &Action) -> bool {
    let Action::Method(method) = action else { return false };
    match segments {
        [_, "_apis"] | [_, "_apis", _] if method == Method::OPTIONS => true,
        [_, "_apis", "resourceareas" | "connectiondata"] | [_, "_apis", "resourceareas", _] => {
            method == Method::GET
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_is_these_calls_and_no_others() {
        for (method, path, expected) in [
            ("OPTIONS", "contoso/_apis", true),
            ("OPTIONS", "contoso/_apis/core", true),
            ("OPTIONS", "contoso/_apis/git/repositories", false),
            ("OPTIONS", "contoso/web/_apis", false),
            ("GET", "contoso/_apis", false),
            ("GET", "contoso/_apis/resourceareas", true),
            ("GET", "contoso/_apis/resourceareas/79134c72-4a58-4b42-976c-04e7115f32bf", true),
            ("GET", "contoso/_apis/resourceareas/x/y", false),
            ("POST", "contoso/_apis/resourceareas", false),
            ("GET", "contoso/_apis/connectiondata", true),
            ("GET", "contoso/_apis/connectiondata/x", false),
            ("GET", "contoso/_apis/projects", false),
        ] {
            let segments: Vec<&str> = path.split('/').collect();
            let action = Action::Method(method.parse().unwrap());
            assert_eq!(includes(&segments, &action), expected, "{method} {path}");
        }
        assert!(!includes(&["contoso", "_apis"], &Action::GitFetch));
    }
}
