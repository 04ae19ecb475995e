use std::time::Duration;

use clap::Parser;

use super::{
    test::{as_json, as_text},
    *,
};
use crate::{
    audit::Event,
    config::{Credential, CredentialSource},
    vault::{
        FingerprintKey,
        sealed::Sealed,
        trial::{Record, try_credential},
    },
};

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

fn parse(line: &str) -> Result<Command, clap::Error> {
    Line::try_parse_from(std::iter::once("vault").chain(line.split(' '))).map(|line| line.command)
}

fn seal(line: &str, secret: &str) -> Result<String, Failure> {
    let Ok(Command::Seal(seal)) = parse(line) else { panic!("{line}") };
    let mut out = Vec::new();
    seal::run(&seal, |_| Ok(secret.to_owned().into()), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// What a command other than `seal` and `test` prints.
fn said(line: &str) -> Result<String, Failure> {
    let mut out = Vec::new();
    match parse(line).unwrap_or_else(|error| panic!("{error}")) {
        Command::List(list) => list::run(&list, &mut out)?,
        Command::Remove(remove) => remove::run(&remove, &mut out)?,
        Command::RotateKey(rotate) => rotate_key::run(&rotate, &mut out)?,
        Command::NewKey(new_key) => new_key::run(&new_key, &mut out)?,
        Command::Recipients(recipients) => recipients::run(&recipients, &mut out)?,
        other => panic!("{other:?}"),
    }
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_secret_is_never_an_argument_and_a_vault_has_one_key() {
    for (line, right) in [
        ("seal --vault v web", true),
        ("seal --vault v --key k --new-key web", true),
        ("seal --vault v --passphrase-file p web", true),
        ("seal --vault v --from-stdin --expires 2099-12-31 web", true),
        ("seal --vault v --expires tomorrow web", false),
        ("seal --vault v web secret", false),
        ("seal --vault v --key k --passphrase-file p web", false),
        ("seal --vault v --key-credential c --new-key web", false),
        ("seal web", false),
        ("list --vault v --json", true),
        ("remove --vault v web", true),
        ("remove --vault v", false),
        ("rotate-key --vault v --key k --keep-old-key o", true),
        ("rotate-key --vault v --passphrase-file p", false),
        ("recipients list --vault v --json", true),
        ("recipients add --vault v --note n age1x", true),
        ("recipients add --vault v", false),
        ("test --config c a b --json", true),
        ("test", false),
    ] {
        assert_eq!(parse(line).is_ok(), right, "{line}");
    }
}

#[test]
fn every_command_has_examples_and_its_exit_codes_in_its_help() {
    use clap::CommandFactory as _;
    fn all(command: &clap::Command) -> Vec<clap::Command> {
        let own: Vec<_> = command.get_subcommands().cloned().collect();
        if own.is_empty() { vec![command.clone()] } else { own.iter().flat_map(all).collect() }
    }
    let commands = all(&Line::command());
    assert_eq!(commands.len(), 9);
    for mut command in commands {
        let help = command.render_help().to_string();
        for part in ["Examples:", "Exit", "69", "78"] {
            assert!(help.contains(part), "{}: {part}", command.get_name());
        }
    }
}

#[test]
fn sealing_makes_a_key_only_when_told_to_and_only_for_a_new_vault() {
    let folder = tempfile::tempdir().unwrap();
    let vault = folder.path().join("vault.age");
    let line = |rest: &str| format!("seal --vault {} {rest}", vault.display());
    let Err(Failure(CONFIG, why)) = seal(&line("web"), "canary") else { panic!("no key") };
    assert!(why.contains("--new-key"), "{why}");
    let Err(Failure(CONFIG, why)) = seal(&line("--new-key --expires 2020-01-01 web"), "canary") else {
        panic!("past")
    };
    assert!(why.contains("is past"), "{why}");
    assert!(seal(&line("--new-key web"), "canary").unwrap().contains("vault.key is the new key"));
    let said = seal(&line("--new-key other"), "canary").unwrap();
    assert!(!said.contains("new key") && !said.contains("canary"), "{said}");
    std::fs::remove_file(vault.with_extension("key")).unwrap();
    let Err(Failure(CONFIG, why)) = seal(&line("--new-key web"), "canary") else { panic!("lost key") };
    assert!(why.contains("would not open it"), "{why}");
}

#[test]
fn what_is_no_token_is_not_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("seal --vault {} --new-key web", folder.path().join("vault.age").display());
    let long = "canary".repeat(2000);
    for secret in ["", "canary canary", "canary\n", "{\"canary\":1}", "canäry", "canary\0", &long] {
        let Err(Failure(CONFIG, why)) = seal(&line, secret) else { panic!("{secret:?}") };
        assert!(why.starts_with("the secret is not usable: ") && !why.contains("canary"), "{why}");
    }
}

#[test]
fn a_list_has_names_and_moments_but_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let vault = folder.path().join("vault.age");
    let line = |rest: &str| format!("seal --vault {} --new-key {rest}", vault.display());
    seal(&line("web"), "canary").unwrap();
    seal(&line("--expires 2099-12-31 api"), "canary").unwrap();
    seal(&line("web"), "canary-new").unwrap();
    let list = said(&format!("list --vault {}", vault.display())).unwrap();
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[0].starts_with("api  version 2, sealed 20"), "{list}");
    assert!(lines[0].ends_with(", expires 2099-12-31T00:00:00Z"), "{list}");
    assert!(lines[1].starts_with("web  version 3, sealed 20"), "{list}");
    assert!(lines[1].ends_with(", with a previous value"), "{list}");
    let json = said(&format!("list --vault {} --json", vault.display())).unwrap();
    let web: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&web["name"], &web["version"], &web["previous"]["version"]),
        (&"web".into(), &3.into(), &1.into())
    );
    assert!(!list.contains("canary") && !json.contains("canary"));
}

#[test]
fn what_is_removed_is_gone_and_what_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let vault = folder.path().join("vault.age");
    let Err(Failure(CONFIG, why)) = said(&format!("list --vault {}", vault.display())) else {
        panic!("none")
    };
    assert!(why.contains("vault.key"), "{why}");
    seal(&format!("seal --vault {} --new-key web", vault.display()), "canary").unwrap();
    let Err(Failure(CONFIG, why)) = said(&format!("remove --vault {} wep", vault.display())) else {
        panic!("another name")
    };
    assert!(why.ends_with("holds no secret named wep; there are: web"), "{why}");
    said(&format!("remove --vault {} web", vault.display())).unwrap();
    assert_eq!(said(&format!("list --vault {}", vault.display())).unwrap(), "");
}

#[test]
fn recipients_are_added_listed_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (vault, other) = (folder.path().join("vault.age"), folder.path().join("other.age"));
    seal(&format!("seal --vault {} --new-key web", vault.display()), "canary").unwrap();
    let new_key = format!("new-key {}", other.with_extension("key").display());
    let made = said(&new_key).unwrap();
    let public = made.trim().rsplit(' ').next().unwrap();
    let Err(Failure(CONFIG, why)) = said(&new_key) else { panic!("another one") };
    assert!(why.contains("not overwritten"), "{why}");
    let place = format!("--vault {}", vault.display());
    said(&format!("recipients add {place} --note recovery {public}")).unwrap();
    let list = said(&format!("recipients list {place}")).unwrap();
    assert!(list.contains("(the key that opened it now)"), "{list}");
    assert!(list.contains(&format!("{public}  recovery\n")), "{list}");
    let opened = format!("list {place} --key {}", other.with_extension("key").display());
    assert!(said(&opened).is_ok());
    assert!(said(&format!("rotate-key {place}")).unwrap().contains("has a new key"));
    said(&format!("recipients remove {place} {public}")).unwrap();
    let Err(Failure(CONFIG, why)) = said(&opened) else { panic!("removed") };
    assert!(why.contains("does not open"), "{why}");
    let json = said(&format!("recipients list {place} --json")).unwrap();
    assert_eq!(json.lines().count(), 1);
    assert!(json.contains("\"own\":true"), "{json}");
}

struct Journal(std::sync::Mutex<Vec<String>>);

impl Record for Journal {
    fn record(
        &self,
        event: Event,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        self.0.lock().unwrap().push(format!("{event:?}"));
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn a_test_says_how_a_secret_looks_and_records_the_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault.age");
    let token = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst";
    let line = format!("seal --vault {} --new-key --expires 2099-12-31 web", path.display());
    seal(&line, token).unwrap();
    let key = SealedKey::File(path.with_extension("key"));
    let vault = Sealed::open(&path, &key).unwrap();
    let journal = Journal(std::sync::Mutex::default());
    let fingerprints = FingerprintKey::random().unwrap();
    for (secret, says, ends, outcome) in [
        (
            "web",
            "web: ok, from vault local: Azure DevOps PAT, older form",
            ", version 1, expired on 2020-02-01",
            "read",
        ),
        ("none", "web: FAILED", "holds no secret named none", "denied"),
    ] {
        let credential = Credential {
            name: "web".into(),
            source: CredentialSource::Vault { vault: "local".into(), secret: secret.into() },
            organizations: vec!["contoso".into()],
            owner: None,
            expires: "2020-02-01T00:00:00Z".parse().ok(),
            previous_grace: std::time::Duration::ZERO,
            rotate: None,
        };
        let tried =
            try_credential(&vault, Duration::from_secs(5), &credential, &fingerprints, &journal).await;
        let (text, json) = (as_text(&credential, &tried), as_json(&credential, &tried).to_string());
        assert!(text.starts_with(says) && text.ends_with(ends), "{text}");
        let events = std::mem::take(&mut *journal.0.lock().unwrap());
        assert!(
            events.len() == 1 && events[0].contains("\"test\"") && events[0].contains(outcome),
            "{events:?}"
        );
        for said in [&text, &json, &events[0]] {
            assert!(!said.contains(token), "{said}");
        }
    }
}
