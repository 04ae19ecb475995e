//! Entra's token endpoint for client credentials (learn.microsoft.com/entra/identity-platform/
//! v2-oauth2-client-creds-grant-flow), and the identity service of virtual machines and of App Service.

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::{AsDer as _, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{
        KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256,
        UnparsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, Response, request::Parts};
use serde_json::{Value, json};

use super::{
    AUTHORITY, AZURE_DEVOPS, Azure, Body, CLIENT, IDENTITY_HEADER, State, TENANT, documented, now, pairs,
    query, text,
};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A certificate that the application knows.
pub(super) struct Registered {
    thumbprint: String,
    public: Vec<u8>,
}

/// A certificate with its RSA key, as PEM.
pub(super) fn certificate() -> (Registered, String, String) {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let key = rcgen::KeyPair::try_from(der.as_ref()).unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["patgate".into()]).unwrap().self_signed(&key).unwrap();
    let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, certificate.der()));
    let registered = Registered { thumbprint, public: pair.public_key().as_ref().to_vec() };
    (registered, certificate.pem(), key.serialize_pem())
}

/// A cluster's public key, and the token that it gives a workload.
pub(super) fn workload() -> (Vec<u8>, String) {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let encoded = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encoded(json!({ "alg": "RS256", "kid": "cluster" }));
    let claims = encoded(json!({
        "iss": "https://cluster.example", "sub": "system:serviceaccount:patgate:patgate",
        "aud": ["api://AzureADTokenExchange"], "exp": now() + 3600, "iat": now(), "nbf": now(),
        "jti": "CANARYWORKLOADCANARYWORKLOADCANARY",
    }));
    let signed = format!("{header}.{claims}");
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    (pair.public_key().as_ref().to_vec(), token)
}

pub(super) fn token(state: &mut State, head: &Parts, body: &[u8]) -> Response<Body> {
    let path = head.uri.path();
    let Some(tenant) = path.strip_prefix('/').and_then(|path| path.strip_suffix("/oauth2/v2.0/token")) else {
        return documented(404, &json!({ "error": "not_found" }));
    };
    if head.method != Method::POST
        || text(&head.headers, "content-type") != "application/x-www-form-urlencoded"
    {
        return error(400, "invalid_request", 900_144, "The request body must contain parameters.");
    }
    if tenant != TENANT {
        return error(400, "invalid_request", 90_002, &format!("Tenant '{tenant}' not found."));
    }
    let form = pairs(&String::from_utf8_lossy(body));
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if field("client_id") != CLIENT {
        let words = format!("Application with identifier '{}' was not found.", field("client_id"));
        return error(400, "unauthorized_client", 700_016, &words);
    }
    let resource = field("scope").strip_suffix("/.default").unwrap_or_default().to_owned();
    if field("grant_type") != "client_credentials" || !is_resource(&resource) {
        return error(400, "invalid_resource", 500_011, "The resource principal was not found.");
    }
    let proved = if form.contains_key("client_secret") {
        if field("client_secret") == state.secret {
            Ok(())
        } else {
            Err((401, "invalid_client", 7_000_215, "Invalid client secret provided."))
        }
    } else if field("client_assertion_type") == ASSERTION_TYPE {
        asserted(state, field("client_assertion"))
    } else {
        Err((
            401,
            "invalid_client",
            7_000_218,
            "The request body must contain client_assertion or client_secret.",
        ))
    };
    if let Err((status, kind, code, words)) = proved {
        return error(status, kind, code, words);
    }
    let life = state.life;
    documented(
        200,
        &json!({
            "token_type": "Bearer", "expires_in": life, "ext_expires_in": life,
            "access_token": issue(state, &resource),
        }),
    )
}

fn is_resource(resource: &str) -> bool {
    resource == "https://vault.azure.net" || resource == AZURE_DEVOPS
}

fn issue(state: &mut State, resource: &str) -> String {
    let token = Azure::token(state.issued.len());
    state.issued.push((token.clone(), resource.into()));
    token
}

/// Who signed, and whether what was signed is meant for this.
fn asserted(state: &mut State, assertion: &str) -> Result<(), (u16, &'static str, u32, &'static str)> {
    let malformed = (401, "invalid_client", 50_027, "JWT token is invalid or malformed.");
    let decoded = |part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed)?;
        serde_json::from_slice::<Value>(&bytes).map_err(|_| malformed)
    };
    let (signed, signature) = assertion.rsplit_once('.').ok_or(malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(malformed)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed)?;
    let (header, claims) = (decoded(header)?, decoded(claims)?);
    let moment = |name: &str| claims[name].as_i64().unwrap_or_default();
    if moment("nbf") > now() || moment("exp") <= now() || moment("exp") > now() + 2 * 3600 {
        return Err((401, "invalid_client", 700_024, "Client assertion is not within its valid time range."));
    }
    let id = claims["jti"].as_str().unwrap_or_default().to_owned();
    if header["alg"] == "PS256" {
        let unknown = (
            401,
            "invalid_client",
            700_027,
            "The certificate with identifier used to sign is not registered.",
        );
        let registered = state.certificate.as_ref().ok_or(unknown)?;
        let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &registered.public);
        if header["x5t#S256"] != registered.thumbprint || header["typ"] != "JWT" {
            return Err(unknown);
        }
        key.verify(signed.as_bytes(), &signature).map_err(|_| unknown)?;
        let audience = format!("https://{AUTHORITY}/{TENANT}/oauth2/v2.0/token");
        // No assertion is good twice.
        if claims["aud"] != audience
            || claims["iss"] != CLIENT
            || claims["sub"] != CLIENT
            || id.len() < 16
            || state.proofs.contains(&id)
        {
            return Err(malformed);
        }
        state.proofs.push(id);
        return Ok(());
    }
    let unknown = (401, "invalid_client", 70_021, "No matching federated identity record found.");
    let public = state.workload.as_ref().ok_or(unknown)?;
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
    key.verify(signed.as_bytes(), &signature).map_err(|_| unknown)?;
    let matches = claims["iss"] == "https://cluster.example"
        && claims["sub"] == "system:serviceaccount:patgate:patgate"
        && claims["aud"] == json!(["api://AzureADTokenExchange"]);
    if matches { Ok(()) } else { Err(unknown) }
}

/// The identity service of a virtual machine, or of App Service.
pub(super) fn metadata(state: &mut State, head: &Parts) -> Response<Body> {
    let query = query(head);
    let field = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let right = match head.uri.path() {
        "/metadata/identity/oauth2/token" => {
            text(&head.headers, "metadata") == "true" && head.headers.get("x-forwarded-for").is_none()
        }
        "/msi/token" => text(&head.headers, "x-identity-header") == IDENTITY_HEADER,
        _ => return documented(404, &json!({ "error": "not_found" })),
    };
    let resource = field("resource").to_owned();
    if !right || field("api-version") != "2019-08-01" || !is_resource(&resource) {
        return documented(400, &json!({ "error": "invalid_request", "error_description": "bad" }));
    }
    if !matches!(field("client_id"), "" | CLIENT) {
        return documented(
            400,
            &json!({ "error": "invalid_request", "error_description": "Identity not found" }),
        );
    }
    let life = state.life;
    documented(
        200,
        &json!({
            "access_token": issue(state, &resource), "client_id": CLIENT, "expires_in": life.to_string(),
            "expires_on": (now() + life).to_string(), "not_before": now().to_string(), "resource": resource,
            "token_type": "Bearer",
        }),
    )
}

fn error(status: u16, kind: &str, code: u32, words: &str) -> Response<Body> {
    let described = format!(
        "AADSTS{code}: {words} CANARYWORDS\r\nTrace ID: 3d2f\r\nCorrelation ID: 9a1c\r\nTimestamp: 2026-01-01 00:00:00Z"
    );
    documented(
        status,
        &json!({
            "error": kind, "error_description": described, "error_codes": [code], "trace_id": "3d2f",
            "correlation_id": "9a1c", "error_uri": format!("https://{AUTHORITY}/error?code={code}"),
        }),
    )
}
