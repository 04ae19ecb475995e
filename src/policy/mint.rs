//! Operations that mint or reveal credentials, and operations whose path does not say what they do.
//!
//! The first match no method and no pattern: a rule would have to name the very operation, with an
//! action of its own. The second match only a pattern that spells them out, without a `*` or `**`
//! in their place: what they do stands in their bodies, which rules do not see.
//!
//! Paths begin at the route, so that the organisation's and the project's spelling are one. `*` is
//! one segment; what follows the last segment belongs to the operation too. Sources: the swagger of
//! Azure DevOps (`MicrosoftDocs/vsts-rest-api-specs`) and its own `OPTIONS` answers.
//!
//! # Adding one
//! A line in a table, and one in its test.

use std::sync::LazyLock;

/// Name and path of each operation that mints or reveals credentials.
const MINTS: &[(&str, &str)] = &[
    // Personal access tokens, theirs and others'; session tokens.
    ("tokens", "_apis/tokens"),
    ("tokens", "_apis/token"),
    ("token-administration", "_apis/tokenadmin"),
    ("token-administration", "_apis/tokenadministration"),
    ("token-signing", "_apis/tokensigning"),
    ("session-token", "_apis/webplatformauth"),
    // OAuth applications, their secrets and their grants.
    ("oauth", "_apis/delegatedauth"),
    ("oauth", "_apis/oauth2"),
    ("oauth", "_oauth"),
    ("oauth", "_apis/distributedtask/oauthconfiguration"),
    ("oauth", "_apis/serviceendpoint/oauthconfiguration"),
    ("oauth", "_apis/connectedservice"),
    ("oauth", "_apis/projects/*/connectedservices"),
    // Service connections, and the calls that use them on behalf of the caller.
    ("service-endpoint", "_apis/serviceendpoint/endpoints"),
    ("service-endpoint", "_apis/serviceendpoint/endpointproxy"),
    ("service-endpoint", "_apis/serviceendpoint/vstsaadoauth"),
    ("service-endpoint", "_apis/serviceendpoint/*/endpointtoken"),
    ("service-endpoint", "_apis/serviceendpoint/share"),
    ("service-endpoint", "_apis/distributedtask/serviceendpoints"),
    ("service-endpoint", "_apis/distributedtask/serviceendpointproxy"),
    ("secure-file", "_apis/distributedtask/securefiles"),
    // Tokens of runs, agents and the machines they run on.
    ("job-token", "_apis/build/builds/*/oauthtoken"),
    ("job-token", "_apis/distributedtask/hubs/*/plans/*/jobs/*/oidctoken"),
    ("job-token", "_apis/distributedtask/hubs/*/plans/*/jobs/*/idtoken"),
    ("agent", "_apis/distributedtask/pools/*/sessions"),
    ("agent", "_apis/distributedtask/pools/*/messages"),
    ("agent", "_apis/distributedtask/deploymentgroupaccesstoken"),
    ("agent", "_apis/distributedtask/machinegroupaccesstoken"),
    ("agent", "_apis/distributedtask/deploymentpoolaccesstoken"),
    ("agent", "_apis/pipelines/environments/environmentaccesstoken"),
    ("agent", "_apis/mps/*/pools/*/machines/*/accesstoken"),
    ("storage-token", "_apis/migration/sastokenrequest"),
    // The web pages for all of these.
    ("tokens", "_userssettings"),
    ("tokens", "_usersettings"),
    ("tokens", "_details/security"),
    ("tokens", "_api/_account"),
    ("service-endpoint", "_admin/_services"),
];

/// Operations that do what their body says: any request of the API, or any part of the web pages
/// (the one that issues tokens among them).
const OPAQUE: &[&str] = &[
    "_apis/*/$batch",
    "_apis/contribution/hierarchyquery",
    "_apis/contribution/hierarchy",
    "_apis/contribution/dataproviders/query",
    "_apis/contribution/nodes/query",
    // What the web pages are made of: no interface for anybody else, and not described anywhere.
    "_api",
];

/// The tables, taken apart once: they are asked about every request.
static MINTING: LazyLock<Vec<(&str, Vec<&str>)>> =
    LazyLock::new(|| MINTS.iter().map(|(name, path)| (*name, path.split('/').collect())).collect());
static OPENING: LazyLock<Vec<Vec<&str>>> =
    LazyLock::new(|| OPAQUE.iter().map(|path| path.split('/').collect()).collect());

/// The operation that mints or reveals a credential at this path, if it is one. `path` begins at the route.
pub(crate) fn operation(path: &[&str]) -> Option<&'static str> {
    let path = Written::new(path);
    MINTING.iter().find(|(_, operation)| path.begins_with(operation).is_some()).map(|(name, _)| *name)
}

/// How many segments of `path`, which begins at the route, make up an operation that does what its body says.
pub(crate) fn opaque(path: &[&str]) -> Option<usize> {
    let path = Written::new(path);
    OPENING.iter().find_map(|operation| path.begins_with(operation))
}

/// A path without the `public` that some areas are also served under.
struct Written<'a> {
    path: &'a [&'a str],
    is_public: bool,
}

impl<'a> Written<'a> {
    fn new(path: &'a [&'a str]) -> Self {
        Self { path, is_public: matches!(path, ["_apis", "public", ..]) }
    }

    /// The number of segments of the path that `operation` stands for, if the path begins with it.
    fn begins_with(&self, operation: &[&str]) -> Option<usize> {
        let mut length = 0;
        let mut segments = self.path.iter();
        for (n, expected) in operation.iter().enumerate() {
            if n == 1 && self.is_public {
                segments.next();
                length += 1;
            }
            let segment = segments.next()?;
            if *expected != "*" && segment != expected {
                return None;
            }
            length += 1;
        }
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_that_give_credentials_away_are_known() {
        for (path, expected) in [
            ("_apis/tokens/pats", Some("tokens")),
            ("_apis/token/sessiontokens", Some("tokens")),
            ("_apis/tokenadmin/personalaccesstokens/x", Some("token-administration")),
            ("_apis/delegatedauth/registrationsecret/x", Some("oauth")),
            ("_apis/serviceendpoint/endpoints", Some("service-endpoint")),
            (
                "_apis/serviceendpoint/11111111-1111-1111-1111-111111111111/endpointtoken",
                Some("service-endpoint"),
            ),
            ("_apis/serviceendpoint/types", None),
            ("_apis/distributedtask/serviceendpoints/x", Some("service-endpoint")),
            ("_apis/distributedtask/securefiles/1", Some("secure-file")),
            ("_apis/public/distributedtask/securefiles", Some("secure-file")),
            ("_apis/build/builds/7/oauthtoken", Some("job-token")),
            ("_apis/build/builds/7", None),
            ("_apis/build/builds/7/logs", None),
            ("_apis/distributedtask/hubs/build/plans/p/jobs/j/oidctoken", Some("job-token")),
            ("_apis/distributedtask/pools/3/messages", Some("agent")),
            ("_apis/distributedtask/pools/3/agents", None),
            ("_apis/distributedtask/variablegroups", None),
            ("_apis/git/repositories/tokens", None),
            ("_git/tokens", None),
            ("_userssettings/tokens", Some("tokens")),
            ("_usersettings/tokens", Some("tokens")),
            ("_apis", None),
        ] {
            let segments: Vec<&str> = path.split('/').collect();
            assert_eq!(operation(&segments), expected, "{path}");
        }
    }

    #[test]
    fn operations_that_do_what_their_body_says_are_known() {
        for (path, expected) in [
            ("_apis/wit/$batch", Some(3)),
            ("_apis/public/wit/$batch", Some(4)),
            ("_apis/wit/workitems", None),
            ("_apis/contribution/hierarchyquery/project/x", Some(3)),
            ("_apis/contribution/installedapps", None),
            ("_api/_versioncontrol/items", Some(1)),
        ] {
            let segments: Vec<&str> = path.split('/').collect();
            assert_eq!(opaque(&segments), expected, "{path}");
        }
    }
}
