//! Which headers may pass, up and down.

use http::HeaderMap;

/// What of an answer's head may reach a client.
#[must_use]
pub fn down(headers: &HeaderMap) -> HeaderMap {
    headers.clone()
}
