//! A program that prints a token of the vault: no shell, a clean environment, a deadline, a cap.

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::time::timeout;
use zeroize::Zeroize as _;

use super::super::{
    VaultError,
    command::run::{self, Job},
    private::without_line_end,
    token::exposed,
};

/// For the program, from start to end.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where the program finds others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the program, which is the first of the words, and takes the one line that it prints.
///
/// # Errors
/// It does not start, does not end in time, fails, or prints what is no token. What it prints is never shown.
pub(super) async fn run(words: &[Arc<str>]) -> Result<SecretString, VaultError> {
    let Some(program) = words.first() else {
        return Err(VaultError::Denied("there is no token helper".into()));
    };
    let unavailable =
        |what: &str| VaultError::Unavailable(format!("the token helper {program} {what}").into());
    let unusable = |what: &str| VaultError::Unusable(format!("the token helper {program} {what}").into());
    let mut environment = vec![("PATH".to_owned(), PATH.to_owned().into())];
    if let Ok(home) = std::env::var("HOME") {
        environment.push(("HOME".to_owned(), home.into()));
    }
    let arguments = words.iter().map(|word| word.as_ref().to_owned()).collect();
    let ended = timeout(DEADLINE, run::run(Job { arguments, environment, input: None })).await;
    let Ok(ended) = ended else {
        return Err(unavailable(&format!("did not end within {} s", DEADLINE.as_secs())));
    };
    let mut ended = ended.map_err(|error| match error {
        VaultError::Unavailable(why) => unavailable(&format!("failed: {why}")),
        VaultError::Denied(why) | VaultError::Unusable(why) => unusable(&format!("is of no use: {why}")),
    })?;
    if !ended.status.success() {
        return Err(unavailable(&format!("failed ({})", ended.status)));
    }
    let text = String::from_utf8(std::mem::take(&mut *ended.output)).map_err(|error| {
        error.into_bytes().zeroize();
        unusable("printed what is not text")
    })?;
    let token = without_line_end(text);
    if exposed(&token).is_empty() || exposed(&token).contains(|c: char| !c.is_ascii_graphic()) {
        return Err(unusable("has to print a token of the vault, alone on one line"));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use rustix::process::Pid;

    use super::*;

    async fn sh(script: &str) -> Result<SecretString, VaultError> {
        run(&["/bin/sh".into(), "-c".into(), script.into()]).await
    }

    #[tokio::test]
    async fn a_token_alone_on_its_line_is_taken() {
        for (script, token) in [
            ("echo s.token", Some("s.token")),
            ("printf s.token", Some("s.token")),
            ("printf 's.token\\n\\n'", None),
            ("echo", None),
            ("true", None),
            ("echo canary token", None),
            ("printf 'canary\\377'", None),
            ("echo canary; exit 3", None),
            ("head -c 100000 /dev/zero", None),
            ("kill -9 $$", None),
        ] {
            match (sh(script).await, token) {
                (Ok(got), Some(token)) => assert_eq!(exposed(&got), token),
                (Err(error), None) => assert!(!error.to_string().contains("canary"), "{error}"),
                (other, _) => panic!("{script}: {other:?}"),
            }
        }
        let error = run(&["/nowhere/helper".into()]).await.unwrap_err();
        assert!(error.to_string().contains("can't be started"), "{error}");
    }

    #[tokio::test]
    async fn the_environment_is_clean_and_no_shell_reads_the_words() {
        let seen = run(&["/usr/bin/env".into()]).await;
        assert!(seen.is_err(), "two lines and more");
        let count = sh("[ -z \"$CARGO_MANIFEST_DIR$VAULT_ADDR\" ] && echo clean").await.unwrap();
        assert_eq!(exposed(&count), "clean");
        let word = run(&["/bin/echo".into(), "$(id);x".into()]).await.unwrap();
        assert_eq!(exposed(&word), "$(id);x");
    }

    #[tokio::test]
    async fn a_program_that_is_not_waited_for_dies_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", mark.display());
        let task = tokio::spawn(async move { sh(&script).await.map(drop) });
        let child = loop {
            if let Ok(pid) = std::fs::read_to_string(&mark) {
                break Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
            }
            tokio::task::yield_now().await;
        };
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        // Killed; its entry goes when its new parent looks.
        let stat = format!("/proc/{}/stat", child.as_raw_nonzero());
        for _ in 0..10_000 {
            match std::fs::read_to_string(&stat) {
                Ok(stat) if !stat.contains(") Z ") => tokio::task::yield_now().await,
                _ => return,
            }
        }
        panic!("the helper's child lives on");
    }
}
