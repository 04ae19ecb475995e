//! What went wrong, in the words of a vault: silence, or an answer.

use std::error::Error;

use aws_sdk_secretsmanager::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use http::StatusCode;

use crate::vault::{VaultError, network};

/// A sentence of patgate's own that passed through the SDK's errors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Told(pub(super) String);

/// Answers about the secret, or about what patgate may.
const ANSWERS: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "DecryptionFailure",
    "InvalidParameterException",
    "InvalidRequestException",
    "KMSAccessDeniedException",
    "ResourceNotFoundException",
    "ValidationException",
];

/// AWS did not know who asks: that says nothing of the secret.
const STRANGERS: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// What an error of the SDK means.
pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> VaultError
where
    E: Error + ProvideErrorMetadata + 'static,
{
    if let SdkError::ServiceError(answer) = error {
        let meta = answer.err().meta();
        return answered(meta.code(), meta.message(), answer.raw().status().as_u16());
    }
    if let Some(told) = told(error) {
        return VaultError::Unavailable(told.as_str().into());
    }
    match error {
        SdkError::TimeoutError(_) => VaultError::Unavailable("it took too long".into()),
        SdkError::ResponseError(_) => unclear(),
        other => VaultError::Unavailable(innermost(other).into()),
    }
}

/// As [`of`], for a write: AWS may quote the value that it did not like.
pub(super) fn without_words<E>(error: &SdkError<E, HttpResponse>) -> VaultError
where
    E: Error + ProvideErrorMetadata + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            answered(answer.err().meta().code(), None, answer.raw().status().as_u16())
        }
        other => of(other),
    }
}

/// What an answer means that is no success: by its code, and by its status where AWS gives none.
pub(super) fn answered(code: Option<&str>, message: Option<&str>, status: u16) -> VaultError {
    let Some(code) = code.map(plain).filter(|code| !code.is_empty()) else {
        return match StatusCode::from_u16(status) {
            Ok(status) if !status.is_success() => network::failure(status),
            _ => unclear(),
        };
    };
    let said = match message.map(plain).filter(|message| !message.is_empty()) {
        Some(message) => format!("{code}: {message}"),
        None => code.clone(),
    };
    if ANSWERS.contains(&code.as_str()) {
        return VaultError::Denied(said.into());
    }
    if STRANGERS.contains(&code.as_str()) {
        return VaultError::Unavailable(
            format!("AWS does not accept patgate's own credentials: {said}").into(),
        );
    }
    let throttled = ["Throttl", "TooManyRequests", "LimitExceeded"].iter().any(|part| code.contains(part));
    match StatusCode::from_u16(status) {
        Ok(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND))
            if !throttled =>
        {
            VaultError::Denied(format!("{said} ({status})").into())
        }
        _ => VaultError::Unavailable(said.into()),
    }
}

/// An answer that is nobody's whom patgate knows.
pub(super) fn unclear() -> VaultError {
    VaultError::Unavailable("its answer is not one of Secrets Manager".into())
}

/// The sentence of patgate's own that an error holds.
pub(super) fn told(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Told(text)) = error.downcast_ref() {
            return Some(text.clone());
        }
        next = error.source();
    }
    None
}

/// The cause of causes, in its own words.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    plain(&cause.to_string())
}

/// One line, and no long one.
fn plain(text: &str) -> String {
    const LONGEST: usize = 300;
    let line = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(error: &VaultError) -> &'static str {
        match error {
            VaultError::Unavailable(_) => "unavailable",
            VaultError::Denied(_) => "denied",
            VaultError::Unusable(_) => "unusable",
        }
    }

    #[test]
    fn an_answer_ends_a_value_and_silence_does_not() {
        for (code, status, expected) in [
            (Some("ResourceNotFoundException"), 400, "denied"),
            (Some("AccessDeniedException"), 400, "denied"),
            (Some("AccessDenied"), 403, "denied"),
            (Some("InvalidRequestException"), 400, "denied"),
            (Some("DecryptionFailure"), 400, "denied"),
            (Some("SomethingNewException"), 403, "denied"),
            (None, 403, "denied"),
            (None, 404, "denied"),
            (Some("ThrottlingException"), 400, "unavailable"),
            (Some("TooManyRequestsException"), 403, "unavailable"),
            (Some("InternalServiceError"), 500, "unavailable"),
            (Some("UnrecognizedClientException"), 400, "unavailable"),
            (Some("ExpiredTokenException"), 400, "unavailable"),
            (Some("SomethingNewException"), 400, "unavailable"),
            (None, 429, "unavailable"),
            (None, 503, "unavailable"),
            (None, 200, "unavailable"),
            (Some(""), 302, "unavailable"),
        ] {
            assert_eq!(kind(&answered(code, Some("words"), status)), expected, "{code:?} {status}");
        }
    }

    #[test]
    fn words_of_aws_are_one_short_line() {
        let said = answered(Some("AccessDeniedException"), Some(&"a\r\nb".repeat(1000)), 400).to_string();
        assert!(!said.contains(['\r', '\n']) && said.len() < 400, "{said}");
    }
}
