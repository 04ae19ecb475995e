use clap::Parser;

use super::*;
use crate::{audit::Event, config::CredentialSource};

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
    run_seal(&seal, |_| Ok(secret.to_owned().into()), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_secret_is_never_an_argument_and_a_vault_has_one_key() {
    for (line, right) in [
        ("seal --vault v web", true),
        ("seal --vault v --key k --new-key web", true),
        ("seal --vault v --passphrase-file p web", true),
        ("seal --vault v web secret", false),
        ("seal --vault v --key k --passphrase-file p web", false),
        ("seal --vault v --key-credential c --new-key web", false),
        ("seal web", false),
        ("list --vault v --json", true),
        ("test --config c a b --json", true),
        ("test", false),
    ] {
        assert_eq!(parse(line).is_ok(), right, "{line}");
    }
}

#[test]
fn sealing_makes_a_key_only_when_told_to_and_only_for_a_new_vault() {
    let folder = tempfile::tempdir().unwrap();
    let vault = folder.path().join("vault.age");
    let line = |rest: &str| format!("seal --vault {} {rest}", vault.display());
    let Err(Failure(CONFIG, why)) = seal(&line("web"), "canary") else { panic!("no key") };
    assert!(why.contains("--new-key"), "{why}");
    assert!(seal(&line("--new-key web"), "canary").unwrap().contains("vault.key is the new key"));
    let said = seal(&line("--new-key other"), "canary").unwrap();
    assert!(!said.contains("new key") && !said.contains("canary"), "{said}");
    std::fs::remove_file(vault.with_extension("key")).unwrap();
    let Err(Failure(CONFIG, why)) = seal(&line("--new-key web"), "canary") else { panic!("lost key") };
    assert!(why.contains("would not open it"), "{why}");
}

#[test]
fn a_list_has_names_alone() {
    let folder = tempfile::tempdir().unwrap();
    let vault = folder.path().join("vault.age");
    for name in ["web", "api"] {
        seal(&format!("seal --vault {} --new-key {name}", vault.display()), "canary").unwrap();
    }
    for (flag, expected) in [("", "api\nweb\n"), (" --json", "\"api\"\n\"web\"\n")] {
        let Ok(Command::List(list)) = parse(&format!("list --vault {}{flag}", vault.display())) else {
            panic!("list")
        };
        let mut out = Vec::new();
        run_list(&list, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
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
    seal(&format!("seal --vault {} --new-key web", path.display()), token).unwrap();
    let key = SealedKey::File(path.with_extension("key"));
    let vault = Sealed::open(&path, &key).unwrap();
    let journal = Journal(std::sync::Mutex::default());
    let fingerprints = FingerprintKey::random().unwrap();
    for (secret, says, outcome) in [
        ("web", "web: ok, from vault local: Azure DevOps PAT, older form", "read"),
        ("none", "web: FAILED", "denied"),
    ] {
        let credential = Credential {
            name: "web".into(),
            source: CredentialSource::Vault { vault: "local".into(), secret: secret.into() },
            organizations: vec!["contoso".into()],
            owner: None,
            expires: "2020-02-01T00:00:00Z".parse().ok(),
            previous_grace: std::time::Duration::ZERO,
        };
        let tried =
            try_credential(&vault, Duration::from_secs(5), &credential, &fingerprints, &journal).await;
        let (text, json) = (as_text(&credential, &tried), as_json(&credential, &tried));
        assert!(text.starts_with(says), "{text}");
        let good = tried.is_ok();
        assert_eq!(text.ends_with(", expired on 2020-02-01"), good, "{text}");
        assert_eq!(json.contains("\"expires\":\"2020-02-01T00:00:00Z\""), good, "{json}");
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
