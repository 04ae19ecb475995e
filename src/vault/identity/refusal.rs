//! What those who give tokens say when they give none, in our words.

use std::error::Error;

use http::StatusCode;
use serde::Deserialize;

use crate::vault::VaultError;

/// What Entra says of an error, but for the sentence, which may quote what was sent.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Answer {
    error: String,
    error_codes: Vec<u32>,
}

/// The codes that people meet, in words.
const KNOWN: &[(u32, &str)] = &[
    (7_000_215, "the secret of the application is wrong"),
    (7_000_222, "the secret of the application has expired"),
    (7_000_112, "the application is disabled"),
    (700_016, "the application (client-id) is not known in the tenant"),
    (90_002, "the tenant (tenant-id) is not known"),
    (900_023, "the tenant (tenant-id) is not known"),
    (500_011, "the tenant does not know the service that the token is for"),
    (700_027, "the application does not know the certificate"),
    (50_027, "the proof of the identity is malformed"),
    (700_024, "the proof of the identity is out of its time; compare the machine's clock"),
    (70_021, "no federated credential of the application matches the workload"),
    (700_211, "no federated credential of the application matches the workload's issuer"),
    (700_212, "no federated credential of the application matches the workload's audience"),
    (700_213, "no federated credential of the application matches the workload's subject"),
    (53_003, "a conditional access policy forbids it"),
    (700_082, "the login has expired"),
    (50_173, "the login has been revoked"),
];

/// Codes of Entra's own trouble.
const PASSING: &[u32] = &[90_033, 50_196, 90_006, 90_012, 90_020];

/// Finds our own error below those of the libraries.
pub(in crate::vault) fn cause(error: &azure_core::Error) -> Option<VaultError> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(own) = error.downcast_ref::<VaultError>() {
            return Some(own.clone());
        }
        // An `io::Error` does not count what it holds among its sources.
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(own) = held.and_then(|held| held.downcast_ref::<VaultError>()) {
            return Some(own.clone());
        }
        next = error.source();
    }
    None
}

/// What an authority's answer means. Its sentence is not shown.
pub(super) fn of_authority(host: &str, status: StatusCode, body: &[u8]) -> VaultError {
    let answer: Answer = serde_json::from_slice(body).unwrap_or_default();
    let code = answer.error_codes.first().copied();
    let shown = match code {
        Some(code) => format!("AADSTS{code}"),
        None => format!("status {}", status.as_u16()),
    };
    let passing = status == StatusCode::TOO_MANY_REQUESTS
        || !status.is_client_error()
        || answer.error == "temporarily_unavailable"
        || answer.error_codes.iter().any(|code| PASSING.contains(code));
    if passing {
        return VaultError::Unavailable(format!("{host} gives no token now ({shown})").into());
    }
    if answer.error.is_empty() && code.is_none() {
        // Not Entra's own words: somebody on the way.
        return VaultError::Unavailable(format!("{host} gives no token ({shown})").into());
    }
    VaultError::Denied(format!("Entra gives the identity no token: {} ({shown})", words(code)).into())
}

fn words(code: Option<u32>) -> &'static str {
    let known = KNOWN.iter().find(|(known, _)| Some(*known) == code);
    known.map_or("it refuses it", |(_, words)| words)
}

/// What the machine's own service means. It is to be asked again on 404 and 410, as Microsoft documents.
pub(super) fn of_metadata(status: StatusCode) -> VaultError {
    let shown = status.as_u16();
    match status {
        StatusCode::BAD_REQUEST => VaultError::Denied(
            format!(
                "the machine does not have that identity ({shown}); assign it, or write the right client-id"
            )
            .into(),
        ),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            VaultError::Denied(format!("the machine's identity service refuses ({shown})").into())
        }
        _ => VaultError::Unavailable(
            format!("the machine's identity service gives no token now ({shown})").into(),
        ),
    }
}

/// What `az` printed, of which only a code is shown.
pub(super) fn of_cli(printed: &str) -> VaultError {
    let code = printed.split("AADSTS").nth(1).and_then(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).take(9).collect();
        digits.parse::<u32>().ok()
    });
    if let Some(code) = code.filter(|code| !PASSING.contains(code)) {
        return VaultError::Denied(
            format!("the Azure CLI gets no token: {} (AADSTS{code}); run `az login`", words(Some(code)))
                .into(),
        );
    }
    if printed.contains("az login") {
        return VaultError::Denied("nobody is logged in with the Azure CLI; run `az login`".into());
    }
    VaultError::Unavailable("the Azure CLI failed; `az account get-access-token` shows why".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(error: &VaultError) -> &'static str {
        match error {
            VaultError::Denied(_) => "denied",
            VaultError::Unavailable(_) => "unavailable",
            VaultError::Unusable(_) => "unusable",
        }
    }

    #[test]
    fn what_entra_answers_is_a_verdict_and_its_sentence_is_not_shown() {
        let body = |error: &str, code: u32| {
            format!(
                r#"{{"error":"{error}","error_description":"AADSTS{code}: canary\r\nTrace ID: x","error_codes":[{code}]}}"#
            )
        };
        for (status, body, expected, holds) in [
            (401, body("invalid_client", 7_000_215), "denied", "AADSTS7000215"),
            (401, body("invalid_client", 7_000_222), "denied", "has expired (AADSTS7000222)"),
            (400, body("unauthorized_client", 700_016), "denied", "client-id"),
            (400, body("invalid_request", 90_002), "denied", "tenant-id"),
            (400, body("invalid_grant", 123_456), "denied", "AADSTS123456"),
            (400, body("temporarily_unavailable", 90_033), "unavailable", "AADSTS90033"),
            (429, body("invalid_request", 90_055), "unavailable", "AADSTS90055"),
            (503, "busy canary".to_owned(), "unavailable", "status 503"),
            (403, "<html>canary</html>".to_owned(), "unavailable", "status 403"),
            (302, String::new(), "unavailable", "status 302"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = of_authority("login.microsoftonline.com", status, body.as_bytes());
            assert_eq!(verdict(&error), expected, "{error}");
            assert!(error.to_string().contains(holds), "{error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn what_the_cli_says_is_a_verdict() {
        for (printed, expected) in [
            ("ERROR: Please run 'az login' to setup account.", "denied"),
            ("ERROR: AADSTS700082: The refresh token has expired, canary", "denied"),
            ("ERROR: HTTPSConnectionPool canary", "unavailable"),
            ("", "unavailable"),
        ] {
            let error = of_cli(printed);
            assert_eq!(verdict(&error), expected, "{error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn our_own_cause_is_found_below_the_libraries() {
        use azure_core::error::ErrorKind;
        let own = || VaultError::Denied("own".into());
        let wrapped = azure_core::Error::new(ErrorKind::Other, own()).with_context("more");
        assert!(cause(&azure_core::Error::new(ErrorKind::Credential, wrapped)).is_some());
        let io = std::io::Error::other(own());
        assert!(cause(&azure_core::Error::with_error(ErrorKind::Credential, io, "x")).is_some());
        assert!(cause(&azure_core::Error::with_message(ErrorKind::Other, "x")).is_none());
    }
}
