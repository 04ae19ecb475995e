//! The environment chooses no authority.

use std::ffi::OsString;

/// Variables that libraries read an authority from, in lower case.
const AUTHORITIES: &[(&str, &str)] = &[
    ("https_proxy", "name the proxy in [outbound] proxy"),
    ("http_proxy", "name the proxy in [outbound] proxy"),
    ("all_proxy", "name the proxy in [outbound] proxy"),
    ("azure_authority_host", "name addresses in the vault's section"),
    ("aws_endpoint_url", "name addresses in the vault's section"),
];

/// One sentence for each variable that would choose where something is reached.
///
/// An authority comes from the configuration alone, so that whoever can set a variable can't send a credential
/// elsewhere. Values are never shown: a proxy's URL may hold a password. Empty variables count as unset.
pub fn environment_problems(vars: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let mut problems: Vec<String> = vars
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, _)| {
            let name = name.to_string_lossy().into_owned();
            let lower = name.to_ascii_lowercase();
            let (_, right) = AUTHORITIES
                .iter()
                .find(|(known, _)| lower == *known || (*known == "aws_endpoint_url" && lower.starts_with(known)))?;
            Some(format!(
                "the environment variable {name} would choose where requests go; unset it for patgate, and {right}"
            ))
        })
        .collect();
    problems.sort();
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(vars: &[(&str, &str)]) -> Vec<String> {
        environment_problems(vars.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn a_variable_that_chooses_an_authority_is_named() {
        for name in [
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "ALL_PROXY",
            "all_proxy",
            "AWS_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_SECRETS_MANAGER",
            "AZURE_AUTHORITY_HOST",
        ] {
            let problems = problems(&[(name, "http://user:hunter2@elsewhere")]);
            assert_eq!(problems.len(), 1, "{name}");
            assert!(problems[0].contains(name) && !problems[0].contains("hunter2"), "{problems:?}");
        }
    }

    #[test]
    fn other_and_empty_variables_are_let_be() {
        assert!(
            problems(&[("PATH", "/bin"), ("NO_PROXY", "x"), ("HTTPS_PROXY", ""), ("MY_HTTPS_PROXY", "x")])
                .is_empty()
        );
    }
}
