//! Helpers that do what helpers do on bad days.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::timeout;

use super::*;
use crate::{
    clock,
    config::{CommandFormat, CommandVault},
    vault::token::exposed,
};

const CANARY: &str = "canary-of-the-helper";

fn vault(change: impl FnOnce(&mut CommandVault)) -> Command {
    let mut config = CommandVault {
        command: Vec::new(),
        environment: BTreeMap::default(),
        environment_files: BTreeMap::default(),
        pass_environment: Vec::new(),
        format: CommandFormat::Plain,
        denied_exit_codes: vec![44],
        show_errors: false,
        at_once: 4,
    };
    change(&mut config);
    Command::new(&config)
}

/// The arguments of a script, as a configuration keeps them.
fn script(text: &str) -> String {
    serde_json::to_string(&["/bin/sh", "-c", text, "helper"]).unwrap()
}

async fn read(source: &Command, text: &str) -> Result<Fetched, VaultError> {
    timeout(Duration::from_secs(20), source.fetch(&script(text))).await.expect("the read hangs")
}

fn value(fetched: &Fetched) -> &str {
    exposed(&fetched.value)
}

/// Whether a process is there, and more than a zombie.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['R', 'S', 'D', 'T']))
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = clock::now() + Duration::from_secs(20);
    while !holds() {
        assert!(clock::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_there(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))
}

#[tokio::test]
async fn what_is_printed_is_the_secret() {
    for (format, text, expected) in [
        (CommandFormat::Plain, "printf canary", "canary"),
        (CommandFormat::Plain, "echo canary", "canary"),
        (CommandFormat::Plain, "printf 'canary\\r\\n'", "canary"),
        (CommandFormat::FirstLine, "printf 'canary\\nurl: x\\n'", "canary"),
        (CommandFormat::Json(vec!["token".into()]), "echo '{\"token\":\"canary\"}'", "canary"),
        (CommandFormat::Plain, "exec 2>&-; sleep 0.05; echo canary", "canary"),
        (CommandFormat::Plain, "echo canary; exec 1>&-; exec 2>&-; sleep 0.05", "canary"),
    ] {
        let source = vault(|config| config.format = format);
        assert_eq!(value(&read(&source, text).await.unwrap()), expected, "{text}");
    }
}

#[tokio::test]
async fn each_bad_ending_has_its_verdict_and_shows_nothing() {
    let big = "head -c 10000000 /dev/zero | tr '\\0' a";
    for (text, verdict, part) in [
        (format!("echo {CANARY} >&2; exit 1"), "unavailable", "sh ended with exit code 1; its 21 bytes"),
        (format!("echo {CANARY}; exit 3"), "unavailable", "exit code 3, and no word"),
        (format!("echo {CANARY} >&2; exit 44"), "denied", "exit code 44"),
        (format!("echo {CANARY}; kill -9 $$"), "unavailable", "signal: 9"),
        (format!("echo {CANARY}; kill -SEGV $$"), "unavailable", "signal: 11"),
        (big.to_owned(), "unusable", "more than 65536 bytes"),
        (format!("{big} >&2; exit 1"), "unavailable", "its 10000000 bytes"),
        (format!("printf '{CANARY}\\377\\376'"), "unusable", "not text"),
        ("exec /no/such/program".to_owned(), "unavailable", "exit code 127"),
    ] {
        let error = read(&vault(|_| ()), &text).await.err().unwrap_or_else(|| panic!("{text}: a value"));
        let (found, why) = match &error {
            VaultError::Unavailable(why) => ("unavailable", why),
            VaultError::Denied(why) => ("denied", why),
            VaultError::Unusable(why) => ("unusable", why),
        };
        assert_eq!(found, verdict, "{text}: {why}");
        assert!(why.contains(part), "{text}: {why}");
        assert!(!why.contains("canary") && !why.contains("aaaa"), "{why}");
    }
}

#[tokio::test]
async fn what_a_secret_is_called_is_no_program_by_accident() {
    let source = vault(|_| ());
    for name in ["", "absent", "[]", "[1]", "{\"a\":1}", "[\"a\", [\"b\"]]"] {
        assert!(matches!(source.fetch(name).await, Err(VaultError::Denied(_))), "{name}");
    }
    let error = source.fetch("[\"/no/such/program\"]").await.err().unwrap();
    assert!(matches!(&error, VaultError::Unavailable(why) if why.contains("can't be started")), "{error}");
}

#[tokio::test]
async fn the_first_line_of_standard_error_is_shown_where_that_is_wanted() {
    let source = vault(|config| config.show_errors = true);
    let error = read(&source, "printf 'no session\\033[31m\\nsecond' >&2; exit 1").await.err().unwrap();
    assert!(error.to_string().ends_with("exit code 1: no session[31m"), "{error}");
}

#[tokio::test]
async fn a_helper_that_hangs_dies_with_all_that_it_started_when_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let pids = [folder.path().join("child"), folder.path().join("grandchild")];
    let [child, grandchild] = [0, 1].map(|n| pids[n].display());
    let text = format!("echo $$ > {child}; (sh -c 'echo $$ > {grandchild}; sleep 600' & wait); sleep 600");
    let source = vault(|_| ());
    let name = script(&text);
    let hung = async {
        let fetch = source.fetch(&name);
        tokio::select! {
            _ = fetch => panic!("it does not hang"),
            () = until("the helper does not start", || pids.iter().all(|pid| is_there(pid))) => {}
        }
    };
    hung.await;
    for pid in &pids {
        let pid = std::fs::read_to_string(pid).unwrap();
        until("a process is left", || !lives(&pid)).await;
    }
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_neither_delays_the_answer_nor_outlives_it() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let text = format!(
        "sh -c 'echo $$ > {pid}; sleep 600' & while [ ! -s {pid} ]; do :; done; echo canary",
        pid = pid.display()
    );
    let started = clock::now();
    let fetched = read(&vault(|_| ()), &text).await.unwrap();
    assert_eq!(value(&fetched), "canary");
    assert!(clock::now().saturating_duration_since(started) < Duration::from_secs(10));
    let pid = std::fs::read_to_string(pid).unwrap();
    until("the grandchild is left", || !lives(&pid)).await;
}

#[tokio::test]
async fn one_that_left_the_group_and_goes_on_writing_does_not_hang_the_read() {
    let text = "setsid sh -c 'n=0; while [ $n -lt 300 ]; do echo noise >&2 || exit; n=$((n+1)); sleep 0.01; done' & echo canary";
    assert_eq!(value(&read(&vault(|_| ()), text).await.unwrap()), "canary");
}

#[tokio::test]
async fn it_gets_the_environment_that_is_named_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("token");
    std::fs::write(&secret, "from-a-file\n").unwrap();
    rustix::fs::chmod(&secret, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let source = vault(|config| {
        config.environment.insert("CHOSEN".into(), "value".into());
        config.environment_files.insert("FILED".into(), secret.clone());
        config.pass_environment = vec!["CARGO_MANIFEST_DIR".into(), "NO_SUCH_VARIABLE_AT_ALL".into()];
        config.format = CommandFormat::Plain;
    });
    let all =
        read(&source, "env -u PWD -u SHLVL -u OLDPWD -u _ | sort | cut -d= -f1 | tr '\\n' ,").await.unwrap();
    assert_eq!(value(&all), "CARGO_MANIFEST_DIR,CHOSEN,FILED,LANG,PATH,");
    let chosen = read(&source, "echo $CHOSEN/$FILED/$PATH").await.unwrap();
    assert_eq!(value(&chosen), format!("value/from-a-file/{PATH}"));
    assert_eq!(value(&read(&source, "pwd").await.unwrap()), "/");
    assert_eq!(value(&read(&source, "cat; echo end").await.unwrap()), "end", "standard input is empty");

    std::fs::remove_file(&secret).unwrap();
    let error = read(&source, "echo canary").await.err().unwrap();
    assert!(matches!(&error, VaultError::Unavailable(why) if why.contains("no file")), "{error}");
}

#[tokio::test]
async fn it_gets_no_file_that_patgate_has_open() {
    let open = tempfile::NamedTempFile::new().unwrap();
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let here = links.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|to| to == open.path());
    assert!(here, "this process has it");
    let text = format!("ls -l /proc/self/fd | grep -c '{}' || :", open.path().display());
    assert_eq!(value(&read(&vault(|_| ()), &text).await.unwrap()), "0");
}

#[tokio::test]
async fn no_more_run_at_once_than_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("running");
    let text = format!("mkdir {0} || exit 1; sleep 0.02; rmdir {0}; echo canary", mark.display());
    let source = vault(|config| config.at_once = 1);
    let name = script(&text);
    let all = futures_util::future::join_all((0..5).map(|_| source.fetch(&name))).await;
    assert!(all.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_prefix_stands_before_what_the_secret_says() {
    let prefix = ["/bin/sh", "-c", "echo \"$1/$2\"", "helper"];
    let source = vault(|config| config.command = prefix.map(Arc::from).to_vec());
    let fetched = source.fetch("[\"one\",\"$(id) ; two\"]").await.unwrap();
    assert_eq!(value(&fetched), "one/$(id) ; two", "no shell reads it");
}

#[tokio::test]
async fn git_is_asked_in_its_own_words() {
    let answering = "cat > \"$0\"; echo password=canary; echo password_expiry_utc=1800000000";
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked");
    let git = |text: &str| {
        let command = ["/bin/sh", "-c", text, asked.to_str().unwrap()].map(Arc::from).to_vec();
        vault(|config| {
            config.command = command;
            config.format = CommandFormat::GitCredential;
        })
    };
    let url = "https://me@dev.azure.com/contoso";
    let fetched = git(answering).fetch(url).await.unwrap();
    assert_eq!(value(&fetched), "canary");
    assert_eq!(fetched.facts.expires.unwrap().as_second(), 1_800_000_000);
    let said = std::fs::read_to_string(&asked).unwrap();
    assert_eq!(said, "protocol=https\nhost=dev.azure.com\npath=contoso\nusername=me\n\n");
    for deaf in ["exit 0", "exec 0<&-; exit 0"] {
        assert!(matches!(git(deaf).fetch(url).await, Err(VaultError::Denied(_))), "{deaf}");
    }
    assert!(matches!(git("exit 0").fetch("absent").await, Err(VaultError::Denied(_))));
}

/// git itself, with a helper of its own that keeps passwords in a file.
#[tokio::test]
async fn gits_own_helper_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    std::fs::write(&store, "https://me:canary%2Fpat@dev.azure.com\n").unwrap();
    let git: PathBuf = ["/usr/bin/git", "/usr/local/bin/git", "/bin/git"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("git is installed");
    let helper = format!("credential.helper=store --file={}", store.display());
    let command = [git.to_str().unwrap(), "-c", &helper, "credential", "fill"].map(Arc::from).to_vec();
    let source = vault(|config| {
        config.command = command;
        config.format = CommandFormat::GitCredential;
        config.environment.insert("GIT_CONFIG_NOSYSTEM".into(), "1".into());
        config.environment.insert("HOME".into(), "/".into());
        config.denied_exit_codes = vec![128];
    });
    let fetched = source.fetch("https://dev.azure.com/contoso").await.unwrap();
    assert_eq!(value(&fetched), "canary/pat");
    let unknown = source.fetch("https://other.example/contoso").await;
    assert!(matches!(unknown, Err(VaultError::Denied(_))), "git asks nobody else");
}

#[tokio::test]
async fn debug_shows_no_variable() {
    let source = vault(|config| {
        config.environment.insert("TOKEN".into(), CANARY.into());
    });
    assert!(!format!("{source:?}").contains(CANARY));
}
