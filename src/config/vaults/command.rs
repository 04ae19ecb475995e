//! `type = "command"`: a program that prints a secret.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use http::{Uri, uri::Scheme};

use super::{
    super::{
        VaultSource,
        disk::{self, Base},
        parse::{Fields, Item},
        suggest,
        text::shown,
    },
    program,
};

/// The longest argument, and how many, in bytes: more is no name of a secret.
const LONGEST: usize = 4096;
const MOST: usize = 64;

const FORMATS: &[&str] = &["plain", "first-line", "json#FIELD", "git-credential"];

/// A program that prints a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandVault {
    /// What each list of arguments begins with, a program first, by its absolute path. Empty: a credential's `secret` is
    /// the whole list.
    pub command: Vec<Arc<str>>,
    /// Variables that it gets.
    pub environment: BTreeMap<Arc<str>, Arc<str>>,
    /// Variables that it gets, each from a file that nobody else may read. Absolute paths.
    pub environment_files: BTreeMap<Arc<str>, PathBuf>,
    /// Variables of patgate's own that it gets, where they are set.
    pub pass_environment: Vec<Arc<str>>,
    /// What it prints.
    pub format: CommandFormat,
    /// Exit codes that mean "there is no such secret", or "you may not". Others mean that it can't be told now.
    pub denied_exit_codes: Vec<u8>,
    /// Whether the first line of its standard error may stand in messages.
    pub show_errors: bool,
    /// How many run at once. Default 4.
    pub at_once: usize,
}

/// What a program prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandFormat {
    /// The secret, perhaps with a line's end.
    Plain,
    /// The secret on the first line, and whatever else below it.
    FirstLine,
    /// A JSON object; the secret is in this field, through these objects.
    Json(Vec<Arc<str>>),
    /// Git's protocol for credential helpers: what is wanted goes to standard input, `password=` is printed.
    GitCredential,
}

pub(super) fn read(fields: &Fields<'_>, base: &Base) -> Option<VaultSource> {
    let command = fields.optional("command").map(|item| arguments(&item, true, base));
    let environment = variables(fields.optional("environment"), |item| {
        let value = item.string()?;
        if holds_a_secret(&item.key) {
            item.problem(
                "a secret never stands here; write its value into a file, and name that in `environment-files`",
            );
            return None;
        }
        Some(Arc::from(value))
    });
    let environment_files = variables(fields.optional("environment-files"), |item| {
        let path = base.path(item)?;
        let there = disk::readable(item, &path, "name a file that holds the variable's value");
        disk::private(item, &path);
        there.then_some(path)
    });
    let pass_environment = fields.optional("pass-environment").and_then(|item| {
        let items = item.array("name variables of patgate's environment, such as [\"HOME\"]")?;
        whole(items.iter().map(|item| variable(item, item.string()?)).collect())
    });
    let format = match fields.optional("format") {
        Some(item) => format(&item),
        None => Some(CommandFormat::Plain),
    };
    let denied_exit_codes = fields.optional("denied-exit-codes").and_then(|item| {
        let items = item.array("write exit codes, such as [44]")?;
        let code = |item: &Item<'_>| item.count(1..=255).and_then(|code| u8::try_from(code).ok());
        whole(items.iter().map(code).collect())
    });
    let show_errors = fields.optional("show-errors").and_then(|item| item.boolean());
    let at_once = fields.optional("at-once").and_then(|item| item.count(1..=64));
    if format == Some(CommandFormat::GitCredential) && command.is_none() {
        fields.absence(
            "has no command; for format = \"git-credential\" write one, such as command = [\"git\", \"credential\", \
             \"fill\"]",
        );
    }
    Some(VaultSource::Command(CommandVault {
        command: match command {
            Some(command) => command?,
            None => Vec::new(),
        },
        environment,
        environment_files,
        pass_environment: pass_environment.unwrap_or_default(),
        format: format?,
        denied_exit_codes: denied_exit_codes.unwrap_or_default(),
        show_errors: show_errors.unwrap_or_default(),
        at_once: at_once.and_then(|count| usize::try_from(count).ok()).unwrap_or(4),
    }))
}

/// What `secret` says, as the vault keeps it: a JSON array of the arguments that follow the vault's own, or the URL that
/// is asked for. No message shows it: somebody may have written the secret itself.
pub(super) fn secret(item: &Item<'_>, vault: &CommandVault, base: &Base) -> Option<Arc<str>> {
    if vault.format == CommandFormat::GitCredential {
        return item.check(url(item.string()?)).map(Arc::from);
    }
    let whole = vault.command.is_empty();
    let list = if item.is_array() {
        arguments(item, whole, base)?
    } else if whole {
        item.problem(
            "is not a list of arguments; write one, such as [\"pass\", \"show\", \"ado/web\"], or write what they all \
             begin with as `command` of the vault",
        );
        return None;
    } else {
        vec![argument(item)?]
    };
    let list: Vec<&str> = list.iter().map(|argument| &**argument).collect();
    serde_json::to_string(&list).ok().map(Arc::from)
}

/// A list of arguments. `whole`: the first one is the program.
fn arguments(item: &Item<'_>, whole: bool, base: &Base) -> Option<Vec<Arc<str>>> {
    let items = item.array("write a list of arguments, such as [\"op\", \"read\"]")?;
    if items.len() > MOST {
        item.problem(format!("has more than {MOST} arguments; shorten it"));
        return None;
    }
    let one = |(n, item): (usize, &Item<'_>)| {
        let text = argument(item)?;
        if n > 0 || !whole {
            return Some(text);
        }
        let path = program::program(item, base)?;
        match path.to_str() {
            Some(path) => Some(path.into()),
            None => item.check(Err("leads below a folder whose name is not UTF-8; move the program".into())),
        }
    };
    self::whole(items.iter().enumerate().map(one).collect())
}

/// All of them, once each was looked at and its problems noted.
fn whole<T>(items: Vec<Option<T>>) -> Option<Vec<T>> {
    items.into_iter().collect()
}

fn argument(item: &Item<'_>) -> Option<Arc<str>> {
    let text = item.string()?;
    if text.len() > LONGEST || text.contains('\0') {
        item.problem(format!("can't be an argument; write at most {LONGEST} bytes without a NUL"));
        return None;
    }
    Some(text.into())
}

fn format(item: &Item<'_>) -> Option<CommandFormat> {
    let text = item.string()?;
    if let Some(path) = text.strip_prefix("json#") {
        if path.is_empty() || path.split('.').any(str::is_empty) {
            item.problem(
                "names no field; write \"json#accessToken\", or \"json#login.password\" for one in an object",
            );
            return None;
        }
        return Some(CommandFormat::Json(path.split('.').map(Arc::from).collect()));
    }
    match text {
        "plain" => Some(CommandFormat::Plain),
        "first-line" => Some(CommandFormat::FirstLine),
        "git-credential" => Some(CommandFormat::GitCredential),
        "json" => {
            item.check(Err("names no field; write \"json#FIELD\", such as \"json#accessToken\"".into()))
        }
        other => {
            let instead = suggest::instead(other, FORMATS);
            item.check(Err(format!("\"{}\" is no format; {instead}", shown(other))))
        }
    }
}

fn variables<T>(item: Option<Item<'_>>, value: impl Fn(&Item<'_>) -> Option<T>) -> BTreeMap<Arc<str>, T> {
    let table = item.and_then(|item| item.table("write { NAME = \"value\" }"));
    let entries = table.map(|table| table.entries()).unwrap_or_default();
    let pair = |(name, item): (&str, Item<'_>)| {
        let (name, value) = (variable(&item, name), value(&item));
        Some((name?, value?))
    };
    entries.into_iter().filter_map(pair).collect()
}

/// Whether a variable is called like those that hold a secret.
fn holds_a_secret(key: &str) -> bool {
    const ENDINGS: &[&str] = &[
        "TOKEN",
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "SECRET",
        "SECRET_KEY",
        "ACCESS_KEY",
        "API_KEY",
        "SESSION",
        "PAT",
    ];
    let name = key.rsplit('.').next().unwrap_or_default().to_ascii_uppercase();
    ENDINGS.iter().any(|ending| {
        name.strip_suffix(ending).is_some_and(|before| before.is_empty() || before.ends_with('_'))
    })
}

fn variable(item: &Item<'_>, name: &str) -> Option<Arc<str>> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !plain || name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        item.problem("is no name of an environment variable; write letters, digits and _, such as HOME");
        return None;
    }
    Some(name.into())
}

/// A URL that git's protocol can ask for.
fn url(text: &str) -> Result<String, String> {
    let right = "write the URL that git would use, such as \"https://dev.azure.com/contoso\"";
    let uri: Uri = text.parse().map_err(|_| format!("is no URL; {right}"))?;
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    if uri.scheme() != Some(&Scheme::HTTPS) || uri.host().is_none_or(str::is_empty) {
        return Err(format!("is no https URL; {right}"));
    }
    if uri.query().is_some() || user.is_some_and(|user| user.contains(':') || user.is_empty()) {
        return Err(format!("holds more than a user name, a host and a path; {right}"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_holds_a_secret_is_known_by_its_name() {
        for (key, holds) in [
            ("vault.a.environment.OP_SERVICE_ACCOUNT_TOKEN", true),
            ("vault.a.environment.BW_SESSION", true),
            ("vault.a.environment.password", true),
            ("vault.a.environment.OP_SERVICE_ACCOUNT_TOKEN_FILE", false),
            ("vault.a.environment.PASSWORD_STORE_DIR", false),
            ("vault.a.environment.XPAT", false),
            ("vault.a.environment.HOME", false),
        ] {
            assert_eq!(holds_a_secret(key), holds, "{key}");
        }
    }

    #[test]
    fn only_what_git_can_ask_for_is_a_url() {
        for (text, right) in [
            ("https://dev.azure.com", true),
            ("https://dev.azure.com/contoso/web/_git/web", true),
            ("https://contoso@dev.azure.com/contoso", true),
            ("http://dev.azure.com", false),
            ("dev.azure.com", false),
            ("https://", false),
            ("https://user:canary@dev.azure.com", false),
            ("https://@dev.azure.com", false),
            ("https://dev.azure.com/?x=1", false),
            ("https://dev.azure.com/a\nhost=evil", false),
            ("", false),
        ] {
            let read = url(text);
            assert_eq!(read.is_ok(), right, "{text}: {read:?}");
            assert!(!read.err().is_some_and(|why| why.contains("canary")), "{text}");
        }
    }
}
