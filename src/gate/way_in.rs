//! The ways in: what stands before an organisation in a path, and which host it means.

use bytes::Bytes;
use http::uri::PathAndQuery;

use super::{host::Host, segments::Segments};
use crate::refusal::Refusal;

/// Finds the host and the path that is forwarded: a suffix of what was received, from a slash on, behind
/// what stands for the segments dropped before it.
pub(super) fn map(received: &PathAndQuery) -> Result<(Host, PathAndQuery), Refusal> {
    let rest = received.as_str().strip_prefix('/').ok_or(Refusal::PathAmbiguous)?;
    let (first, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if first.eq_ignore_ascii_case("_ssh") {
        return Ok((Host::DevAzure, map_ssh(tail).unwrap_or_else(|| received.clone())));
    }
    if !first.contains('.') {
        return Ok((Host::DevAzure, received.clone()));
    }
    if let Some(host) = Host::parse(first) {
        let tail = if tail.starts_with('/') { tail } else { "/" };
        return join(&[tail]).map(|path| (host, path));
    }
    if let Some((host, organization)) = Host::legacy(first) {
        return join(&["/", organization, tail]).map(|path| (host, path));
    }
    // A dot segment is ambiguous before it is unknown.
    Segments::read(received.path())?;
    Err(Refusal::TargetUnknown)
}

/// `/v3/{organization}/{project}/{repository}…`, as in the addresses of `ssh.dev.azure.com`.
fn map_ssh(tail: &str) -> Option<PathAndQuery> {
    let (path, _) = tail.split_once('?').unwrap_or((tail, ""));
    let mut segments = path.strip_prefix('/')?.split('/');
    let version = segments.next()?;
    let (organization, project, repository) = (segments.next()?, segments.next()?, segments.next()?);
    let named =
        [organization, project, repository].iter().all(|name| !name.is_empty() && !name.starts_with('_'));
    if !version.eq_ignore_ascii_case("v3") || !named {
        return None;
    }
    let rest = tail.get("/".len() + version.len() + "///".len() + organization.len() + project.len()..)?;
    join(&["/", organization, "/", project, "/_git/", rest]).ok()
}

fn join(pieces: &[&str]) -> Result<PathAndQuery, Refusal> {
    PathAndQuery::from_maybe_shared(Bytes::from(pieces.concat())).map_err(|_| Refusal::PathAmbiguous)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_in_leads_to_a_host_and_a_suffix_of_what_was_received() {
        for (received, host, forwarded) in [
            ("/contoso/web/_git/web?a=b", Host::DevAzure, "/contoso/web/_git/web?a=b"),
            ("/Contoso/Web/", Host::DevAzure, "/Contoso/Web/"),
            ("/dev.azure.com/contoso", Host::DevAzure, "/contoso"),
            ("/DEV.azure.com/contoso/?x", Host::DevAzure, "/contoso/?x"),
            (
                "/pkgs.dev.azure.com/contoso/_packaging/f/npm/registry/@s%2fn",
                Host::Pkgs,
                "/contoso/_packaging/f/npm/registry/@s%2fn",
            ),
            ("/Contoso.visualstudio.com/web/_apis/git?x=y", Host::DevAzure, "/Contoso/web/_apis/git?x=y"),
            ("/contoso.visualstudio.com", Host::DevAzure, "/contoso"),
            ("/contoso.visualstudio.com/", Host::DevAzure, "/contoso/"),
            ("/contoso.visualstudio.com?x", Host::DevAzure, "/contoso?x"),
            ("/contoso.pkgs.visualstudio.com/_packaging/f/x", Host::Pkgs, "/contoso/_packaging/f/x"),
            (
                "/_ssh/v3/contoso/My%20web/repo/info/refs?service=x",
                Host::DevAzure,
                "/contoso/My%20web/_git/repo/info/refs?service=x",
            ),
            ("/_SSH/V3/contoso/web/repo", Host::DevAzure, "/contoso/web/_git/repo"),
        ] {
            let read = map(&received.parse().unwrap()).map(|(host, path)| (host, path.to_string()));
            assert_eq!(read, Ok((host, forwarded.to_owned())), "{received}");
        }
    }
}
