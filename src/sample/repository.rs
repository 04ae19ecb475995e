//! The repositories that a sample organisation begins with, made by the real git.

use std::{
    ffi::OsStr,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// Three commits, a branch and a tag. The dates are fixed, so every machine gets the same object names.
const HISTORY: &str = include_str!("repository/history.txt");

/// Makes `web/web.git` and `payroll/payroll.git`, where they are not there yet.
pub(super) fn prepare(repositories: &Path) -> Result<(), String> {
    for name in ["web", "payroll"] {
        let path = repositories.join(name).join(format!("{name}.git"));
        if path.exists() {
            continue;
        }
        create(&path)?;
        fast_import(&path)?;
    }
    Ok(())
}

/// Makes an empty bare repository that a sample organisation serves for fetch and push, if it lies under
/// its `repositories/{project}/{repository}.git`.
///
/// # Errors
/// What git said, or that there is no git.
pub fn create(path: &Path) -> Result<(), String> {
    run(git().args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(path))?;
    for (key, value) in [
        ("http.receivepack", "true"),
        ("http.uploadpack", "true"),
        ("uploadpack.allowFilter", "true"),
        ("receive.advertisePushOptions", "true"),
        ("receive.autogc", "false"),
        ("gc.auto", "0"),
    ] {
        run(git().arg("--git-dir").arg(path).args(["config", key, value]))?;
    }
    Ok(())
}

fn fast_import(path: &Path) -> Result<(), String> {
    let mut command = git();
    command.arg("--git-dir").arg(path).args(["fast-import", "--quiet"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where git has ended already, its own words below say why.
        let _ = stdin.write_all(HISTORY.as_bytes());
    }
    verdict(child.wait_with_output())
}

fn git() -> Command {
    isolated("git")
}

/// A program with an environment of its own: no configuration of this machine or user reaches it, and no
/// secret of this process.
pub(super) fn isolated(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for variable in ["PATH", "TMPDIR", "GIT_EXEC_PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(variable) {
            command.env(variable, value);
        }
    }
    command
}

fn run(command: &mut Command) -> Result<(), String> {
    verdict(command.stdin(Stdio::null()).output())
}

fn verdict(ended: std::io::Result<std::process::Output>) -> Result<(), String> {
    let output = ended.map_err(|error| format!("can't be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
