//! Where quickstart takes a token from: the environment, or a prompt that shows nothing.

use std::{env, io::IsTerminal};

use secrecy::SecretString;

/// The token for an organization: `AZURE_DEVOPS_PAT_CONTOSO`, or (where it is the only organization)
/// `AZURE_DEVOPS_PAT`, or what is typed at a prompt.
///
/// # Errors
/// No variable and no terminal to ask at, as a sentence.
pub fn token(organization: &str, only: bool) -> Result<SecretString, String> {
    let own = variable(organization);
    let variables = [Some(own.as_str()), only.then_some("AZURE_DEVOPS_PAT")];
    for variable in variables.into_iter().flatten() {
        match env::var(variable) {
            Ok(value) if !value.is_empty() => return Ok(trimmed(value)),
            Err(env::VarError::NotUnicode(_)) => return Err(format!("{variable} is not text")),
            _ => {}
        }
    }
    if !std::io::stdin().is_terminal() {
        let or = if only { "AZURE_DEVOPS_PAT or " } else { "" };
        return Err(format!(
            "no token for {organization}: set {or}{own}, or run this in a terminal, which asks for it"
        ));
    }
    rpassword::prompt_password(format!("Personal access token for {organization} (not shown): "))
        .map(trimmed)
        .map_err(|error| format!("no token for {organization}: {error}"))
}

/// `AZURE_DEVOPS_PAT_CONTOSO_2` for `contoso-2`.
fn variable(organization: &str) -> String {
    format!("AZURE_DEVOPS_PAT_{}", organization.to_ascii_uppercase().replace('-', "_"))
}

/// What was pasted often brings a line's end along.
fn trimmed(value: String) -> SecretString {
    let value = zeroize::Zeroizing::new(value);
    SecretString::from(value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organizations_variable_is_one_that_a_shell_can_set() {
        assert_eq!(variable("contoso"), "AZURE_DEVOPS_PAT_CONTOSO");
        assert_eq!(variable("contoso-2"), "AZURE_DEVOPS_PAT_CONTOSO_2");
    }
}
