//! `[[expect]]`: tests of the rules.

use std::sync::Arc;

use http::{Method, uri::PathAndQuery};

use super::{Expect, parse::Fields, suggest, text::shown, units, vaults::Named};

/// `[[expect]]` of all files.
pub(super) fn expects(files: &[Fields<'_>], rules: &Named<()>) -> Vec<Expect> {
    let mut expects = Vec::new();
    for fields in files.iter().flat_map(|file| file.listed("expect")) {
        let from = fields.required("from", "write from = \"10.20.1.4\"");
        let from = from.and_then(|item| item.check(units::address(item.string()?)));
        let request = fields.required("request", "write request = \"GET /contoso/_apis/projects\"");
        let request = request.and_then(|item| item.check(request_line(item.string()?)));
        let allowed = fields.required("is", "write is = \"allowed\" or \"refused\"").and_then(|item| {
            match item.string()? {
                "allowed" => Some(true),
                "refused" => Some(false),
                other => {
                    let instead = suggest::instead(other, &["allowed", "refused"]);
                    item.check(Err(format!("\"{}\" is no verdict; {instead}", shown(other))))
                }
            }
        });
        let rule = fields.optional("rule").and_then(|item| {
            let name = item.string()?;
            rules.find("rule", &item, name).map(|()| Arc::from(name))
        });
        let place = fields.place();
        fields.finish();
        let (Some(from), Some((method, target)), Some(allowed)) = (from, request, allowed) else { continue };
        expects.push(Expect { from, method, target, allowed, rule, place });
    }
    expects
}

fn request_line(text: &str) -> Result<(Method, String), String> {
    let right = "write a method and a target, such as GET /contoso/_apis/projects";
    let (method, target) =
        text.split_once(' ').ok_or_else(|| format!("\"{}\" is no request; {right}", shown(text)))?;
    let method = Some(method)
        .filter(|method| !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase()))
        .and_then(|method| Method::from_bytes(method.as_bytes()).ok())
        .ok_or_else(|| format!("\"{}\" is no method; {right}", shown(method)))?;
    let sound = target.starts_with('/')
        && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && target.parse::<PathAndQuery>().is_ok();
    if sound {
        return Ok((method, target.into()));
    }
    Err(format!("\"{}\" is no target as a client sends it; percent-encode it, and {right}", shown(target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_method_and_a_target() {
        let (method, target) = request_line("GET /contoso/_apis/projects?api-version=7.1").unwrap();
        assert_eq!((method, target.as_str()), (Method::GET, "/contoso/_apis/projects?api-version=7.1"));
        for text in
            ["GET", "GET  /contoso", "get /contoso", "GET contoso", "GET /a b", "GET /a#b", "GET /ä", " /a"]
        {
            assert!(request_line(text).is_err(), "{text}");
        }
    }
}
