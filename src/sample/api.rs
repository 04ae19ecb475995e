//! The few resources of Azure DevOps' API that a sample organisation has.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::answer::{self, MEMBER, MEMBER_MAIL, MEMBER_NAME, Stream};

/// The projects, each with a repository of its name, and their ids.
const PROJECTS: [(&str, &str, &str); 2] = [
    ("web", "0d1f6f2a-3c4b-4e5d-8f60-718293a4b5c6", "b7c1e9d3-2a4f-4b6c-8d0e-1f2a3b4c5d6e"),
    ("payroll", "1e2f7a3b-4d5c-4f6e-9071-8293a4b5c6d7", "c8d2fae4-3b5a-4c7d-9e1f-2a3b4c5d6e7f"),
];

/// Answers one request to `_apis`.
pub(super) fn answer(
    organization: &str,
    project: Option<&str>,
    tail: &[String],
    method: &Method,
) -> Response<Stream> {
    let tail: Vec<_> = tail.iter().map(String::as_str).collect();
    let value = match (method.as_str(), project, tail.as_slice()) {
        ("GET", None, ["projects"]) => {
            list(&PROJECTS.map(|(name, id, _)| the_project(organization, name, id)))
        }
        ("GET", None, ["connectiondata"]) => connection_data(organization),
        ("GET", None, ["resourceareas"]) => resource_areas(organization),
        ("OPTIONS", _, []) => locations(),
        ("GET", of, ["git", "repositories"]) => {
            let wanted = PROJECTS.iter().filter(|(name, id, _)| of.is_none_or(|of| of == *name || of == *id));
            list(&wanted.map(|project| repository(organization, project)).collect::<Vec<_>>())
        }
        _ => {
            return answer::error(
                StatusCode::NOT_FOUND,
                "VssResourceNotFoundException",
                "The controller for this path was not found in the sample organisation.",
            );
        }
    };
    answer::document(StatusCode::OK, &value)
}

fn list(values: &[Value]) -> Value {
    json!({ "count": values.len(), "value": values })
}

fn the_project(organization: &str, name: &str, id: &str) -> Value {
    json!({
        "id": id, "name": name, "state": "wellFormed", "revision": 11, "visibility": "private",
        "url": format!("https://dev.azure.com/{organization}/_apis/projects/{id}"),
        "lastUpdateTime": "2026-01-01T09:00:00Z",
    })
}

fn repository(organization: &str, (name, project, id): &(&str, &str, &str)) -> Value {
    json!({
        "id": id, "name": name, "defaultBranch": "refs/heads/main", "isDisabled": false,
        "project": the_project(organization, name, project),
        "url": format!("https://dev.azure.com/{organization}/{project}/_apis/git/repositories/{id}"),
        "remoteUrl": format!("https://{organization}@dev.azure.com/{organization}/{name}/_git/{name}"),
        "sshUrl": format!("git@ssh.dev.azure.com:v3/{organization}/{name}/{name}"),
        "webUrl": format!("https://dev.azure.com/{organization}/{name}/_git/{name}"),
    })
}

fn connection_data(organization: &str) -> Value {
    let user = json!({
        "id": MEMBER,
        "descriptor": format!("Microsoft.IdentityModel.Claims.ClaimsIdentity;{MEMBER}\\{MEMBER_MAIL}"),
        "subjectDescriptor": "aad.NWEyYzlmNGUtNmQxYi03YzBhLTllNTctMWI3ZDNjOGYyYTYw",
        "providerDisplayName": MEMBER_NAME,
        "isActive": true,
        "properties": { "Account": { "$type": "System.String", "$value": MEMBER_MAIL } },
        "resourceVersion": 2, "metaTypeId": 0,
    });
    json!({
        "authenticatedUser": user, "authorizedUser": user,
        "instanceId": "6f1c2d3e-4b5a-4697-8a9b-0c1d2e3f4a5b",
        "deploymentId": "13a19993-c6bc-326c-afb4-32c5519f46f0",
        "deploymentType": "hosted",
        "locationServiceData": {
            "serviceOwner": "00025394-6065-48ca-87d9-7f5672854ef7",
            "defaultAccessMappingMoniker": "PublicAccessMapping",
            "lastChangeId": 3_600_126, "lastChangeId64": 3_600_126,
            "accessMappings": [{ "moniker": "PublicAccessMapping", "accessPoint": format!("https://dev.azure.com/{organization}/") }],
        },
    })
}

fn resource_areas(organization: &str) -> Value {
    let area = |id: &str, name: &str, host: &str| json!({ "id": id, "name": name, "locationUrl": format!("https://{host}/{organization}/") });
    list(&[
        area("79134c72-4a58-4b42-976c-04e7115f32bf", "core", "dev.azure.com"),
        area("4e080c62-fa21-4fbc-8fef-2a10a2b38049", "git", "dev.azure.com"),
        area("5264459e-e5e0-4bd8-b118-0985e68a4ec5", "wit", "dev.azure.com"),
        area("c73a23a1-59bb-458c-8ce3-02c83215e015", "Licensing", "vssps.dev.azure.com"),
    ])
}

fn locations() -> Value {
    let location = |id: &str, area: &str, resource: &str, template: &str| {
        json!({
            "id": id, "area": area, "resourceName": resource, "routeTemplate": template, "resourceVersion": 1,
            "minVersion": "1.0", "maxVersion": "7.2", "releasedVersion": "7.1",
        })
    };
    list(&[
        location("603fe2ac-9723-48b9-88ad-09305aa6c6e1", "core", "projects", "_apis/{resource}/{*projectId}"),
        location(
            "225f7195-f9c7-4d14-ab28-a83f7ff77e1f",
            "git",
            "repositories",
            "{project}/_apis/{area}/{resource}/{repositoryId}",
        ),
        location("00d9565f-ed9c-4a06-9a50-00e7896ccab4", "Location", "ConnectionData", "_apis/{resource}"),
    ])
}
