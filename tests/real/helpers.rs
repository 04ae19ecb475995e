//! Secrets from the real programs that keep them, and a rotation that is really killed.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::support::{PAT, free_address, patgate, text};

/// A configuration with one vault and one credential.
fn configuration(vault: &str, secret: &str) -> String {
    let address = free_address();
    format!(
        "public-url = \"http://{address}\"\n[[listen]]\naddress = \"{address}\"\n[audit]\nfolder = \"audit\"\n\
         [vault.v]\ntype = \"command\"\ndeadline = \"30s\"\n{vault}\n\
         [credential.web]\nvault = \"v\"\nsecret = {secret}\norganizations = [\"contoso\"]\n\
         [client.here]\naddresses = [\"127.0.0.1\"]\n\
         [[rule]]\nname = \"r\"\nclients = [\"here\"]\npaths = [\"/contoso/**\"]\nallow = [\"GET\"]\ncredential = \"web\"\n"
    )
}

fn test(folder: &Path, configuration: &str) -> String {
    fs::write(folder.join("patgate.toml"), configuration).unwrap();
    let mut command = patgate();
    command.args(["vault", "test", "--config"]).arg(folder.join("patgate.toml"));
    let output = command.output().unwrap();
    let said = text(&output);
    assert!(!said.contains(PAT), "{said}");
    assert_eq!(output.status.code(), Some(if said.contains(": ok,") { 0 } else { 69 }), "{said}");
    said
}

fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    output
}

#[test]
#[ignore = "needs pass and gpg"]
fn pass_gives_the_first_line() {
    let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
    let home = folder.path().display().to_string();
    let with_home = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("HOME", &home).env("PATH", "/usr/bin:/bin");
        command
    };
    let key = [
        "--batch",
        "--passphrase",
        "",
        "--quick-generate-key",
        "patgate@example.com",
        "default",
        "default",
        "never",
    ];
    run(&mut with_home("gpg", &key), "");
    run(&mut with_home("pass", &["init", "patgate@example.com"]), "");
    run(
        &mut with_home("pass", &["insert", "--multiline", "ado/web"]),
        &format!("{PAT}\nurl: dev.azure.com\n"),
    );

    let environment = format!("environment = {{ HOME = \"{home}\" }}");
    let first_line = format!("command = [\"pass\", \"show\"]\nformat = \"first-line\"\n{environment}");
    let said = test(folder.path(), &configuration(&first_line, "\"ado/web\""));
    assert!(said.starts_with("web: ok, from vault v: "), "{said}");
    let said = test(folder.path(), &configuration(&environment, "[\"pass\", \"show\", \"ado/web\"]"));
    assert!(said.contains("white space"), "{said}");
    let said = test(folder.path(), &configuration(&first_line, "\"ado/none\""));
    assert!(said.contains("pass ended with exit code 1"), "{said}");
    let _ = with_home("gpgconf", &["--kill", "all"]).status();
}

#[test]
#[ignore = "needs git's cache helper, which stays in the background"]
fn gits_cache_gives_the_password_until_it_forgets() {
    let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
    let socket = folder.path().join("s/socket");
    let helper = format!("credential.helper=cache --timeout 600 --socket {}", socket.display());
    let git = |arguments: &[&str], input: &str| {
        let mut git = Command::new("git");
        git.args(["-c", &helper, "credential"]).args(arguments);
        run(git.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", folder.path()), input)
    };
    git(&["approve"], &format!("protocol=https\nhost=dev.azure.com\nusername=me\npassword={PAT}\n\n"));
    let vault = format!(
        "command = [\"git\", \"-c\", \"{helper}\", \"credential\", \"fill\"]\nformat = \"git-credential\"\n\
         denied-exit-codes = [128]\nenvironment = {{ HOME = \"{}\" }}",
        folder.path().display()
    );
    let configuration = configuration(&vault, "\"https://dev.azure.com/contoso\"");
    let said = test(folder.path(), &configuration);
    assert!(said.starts_with("web: ok, from vault v: "), "{said}");
    git(&["reject"], "protocol=https\nhost=dev.azure.com\n\n");
    let said = test(folder.path(), &configuration);
    assert!(said.contains("the vault refused: git ended with exit code 128"), "{said}");
    let _ = Command::new("git").args(["credential-cache", "--socket"]).arg(&socket).arg("exit").status();
}

#[test]
#[ignore = "needs script, which gives it a terminal"]
fn a_terminal_is_not_read_by_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let seal = "vault seal --vault v.sealed --new-key --from-stdin web";
    let command = format!("{} {seal}", env!("CARGO_BIN_EXE_patgate"));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).current_dir(folder.path());
    let output = script.stdin(Stdio::null()).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("--from-stdin does not read a terminal"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made");
}

/// Killed before each of the system calls that change a file, one run each.
#[test]
#[ignore = "needs strace"]
fn a_rotation_that_is_killed_leaves_a_key_that_opens_the_vault() {
    let mut killed = 0;
    for call in ["openat", "write", "fsync", "rename", "unlink"] {
        for nth in 1..60 {
            let folder = tempfile::tempdir().unwrap();
            let vault = |arguments: &[&str], input: &str| {
                run(patgate().arg("vault").args(arguments).current_dir(folder.path()), input)
            };
            vault(&["seal", "--vault", "v.sealed", "--new-key", "--from-stdin", "web"], PAT);
            let inject = format!("inject={call}:signal=KILL:when={nth}");
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
            strace.arg(env!("CARGO_BIN_EXE_patgate")).args(["vault", "rotate-key", "--vault", "v.sealed"]);
            let status = strace.current_dir(folder.path()).output().unwrap().status;
            let listed = vault(&["list", "--vault", "v.sealed"], "");
            assert!(text(&listed).starts_with("web  version 1"), "{call} {nth}: {}", text(&listed));
            vault(&["rotate-key", "--vault", "v.sealed"], "");
            vault(&["list", "--vault", "v.sealed"], "");
            let left = fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(left, 2, "{call} {nth}: something is left behind");
            if status.success() {
                break;
            }
            killed += 1;
        }
    }
    assert!(killed >= 15, "{killed}");
    println!("killed {killed} times");
}
