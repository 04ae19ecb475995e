//! How long the body of a request is, in one way only.
//!
//! hyper lets `Transfer-Encoding: gzip, chunked`, a doubled one and more like it pass, and its client would
//! send on what it is given. So neither header is ever copied: what goes up is framed anew.

use http::{HeaderMap, Version, header, request::Parts};

use super::action::has_no_body;
use crate::refusal::Refusal;

/// What the head says of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// As many as come before its end: chunked, or HTTP/2 without a length.
    Streamed,
}

impl Framing {
    /// Reads it from a request's head.
    ///
    /// # Errors
    /// `framing`
    pub fn read(head: &Parts) -> Result<Self, Refusal> {
        let has_no_body = has_no_body(&head.method);
        let chunked = is_chunked(&head.headers)?;
        let length = length(&head.headers)?;
        let framing = match (chunked, length) {
            (true, Some(_)) => return Err(Refusal::Framing),
            (true, None) => Self::Streamed,
            (false, Some(length)) => Self::Length(length),
            // HTTP/2 has frames instead.
            (false, None) if head.version == Version::HTTP_2 && !has_no_body => Self::Streamed,
            (false, None) => Self::None,
        };
        match framing {
            Self::None | Self::Length(0) if has_no_body => Ok(Self::None),
            _ if has_no_body => Err(Refusal::Framing),
            // A method that has a body has an empty one then, and says so.
            Self::None => Ok(Self::Length(0)),
            framing => Ok(framing),
        }
    }
}

fn is_chunked(headers: &HeaderMap) -> Result<bool, Refusal> {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(Refusal::Framing),
    }
}

/// Several equal lengths are one (RFC 9110, section 8.6).
fn length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let text = value.to_str().map_err(|_| Refusal::Framing)?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Refusal::Framing);
        }
        let value = text.parse().map_err(|_| Refusal::Framing)?;
        if length.replace(value).is_some_and(|other: u64| other != value) {
            return Err(Refusal::Framing);
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;

    const BAD: Result<Framing, Refusal> = Err(Refusal::Framing);

    fn read(method: &Method, lines: &[&'static str], is_http2: bool) -> Result<Framing, Refusal> {
        let mut head = http::Request::new(()).into_parts().0;
        head.method = method.clone();
        head.version = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            let name = if name == "te" { header::TRANSFER_ENCODING } else { header::CONTENT_LENGTH };
            head.headers.append(name, HeaderValue::from_static(value));
        }
        Framing::read(&head)
    }

    #[test]
    fn a_length_that_can_be_told_in_two_ways_is_refused() {
        for lines in [
            &["te: ,chunked"] as &[&str],
            &["te: gzip, chunked"],
            &["te: chunked, chunked"],
            &["te: chunked", "te: chunked"],
            &["te: identity", "te: chunked"],
            &["te: identity"],
            &["te: xchunked"],
            &["te: chunked", "cl: 3"],
            &["te: chunked;q=1"],
            &["cl: 3", "cl: 4"],
            &["cl: 3, 3"],
            &["cl: +3"],
            &["cl: -1"],
            &["cl: 0x3"],
            &["cl: "],
            &["cl: 18446744073709551616"],
        ] {
            assert_eq!(read(&Method::POST, lines, false), BAD, "{lines:?}");
        }
    }

    #[test]
    fn a_body_on_a_method_that_has_none_is_refused() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            for lines in [&["cl: 1"], &["te: chunked"]] {
                assert_eq!(read(&method, lines, false), BAD, "{method} {lines:?}");
            }
            assert_eq!(read(&method, &["cl: 0"], false), Ok(Framing::None));
            assert_eq!(read(&method, &[], true), Ok(Framing::None));
        }
    }

    #[test]
    fn one_length_is_kept() {
        for (lines, framing) in [
            (&["cl: 3"] as &[&str], Framing::Length(3)),
            (&["cl: 3", "cl: 3"], Framing::Length(3)),
            (&["te: Chunked"], Framing::Streamed),
            (&[], Framing::Length(0)),
        ] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                assert_eq!(read(&method, lines, false), Ok(framing), "{method} {lines:?}");
            }
        }
        assert_eq!(read(&Method::POST, &[], true), Ok(Framing::Streamed));
    }
}
