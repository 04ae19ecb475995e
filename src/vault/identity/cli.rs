//! Runs `az` for the library: of the environment only what it needs, a deadline, a cap, and no process left behind.

use std::{
    env,
    ffi::OsStr,
    io,
    process::{Output, Stdio},
    time::Duration,
};

use azure_identity::Executor;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::timeout,
};

use super::refusal;
use crate::vault::VaultError;

/// `az` starts slowly.
const DEADLINE: Duration = Duration::from_mins(1);

/// The most that is read of what it prints, in bytes.
const MOST: u64 = 64 * 1024;

/// What `az` needs to find itself, its login and its way.
const VARIABLES: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "AZURE_CONFIG_DIR",
    "AZURE_CLOUD_NAME",
    "REQUESTS_CA_BUNDLE",
];

/// The Azure CLI.
#[derive(Debug)]
pub(super) struct Az;

#[async_trait::async_trait]
impl Executor for Az {
    async fn run(&self, program: &OsStr, arguments: &[&OsStr]) -> io::Result<Output> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear();
        command.envs(VARIABLES.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command.env("AZURE_CORE_NO_COLOR", "true").env("AZURE_CORE_COLLECT_TELEMETRY", "false");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let _group = Group(child.id());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = async { tokio::try_join!(read(stdout), read(stderr), child.wait()) };
        let ended = timeout(DEADLINE, ended).await;
        let late = || unavailable("the Azure CLI took too long");
        let (stdout, stderr, status) = ended.map_err(|_| late())??;
        if status.success() {
            return Ok(Output { status, stdout, stderr });
        }
        if status.code() == Some(127) {
            return Err(unavailable("there is no Azure CLI (`az`) in PATH"));
        }
        Err(io::Error::other(refusal::of_cli(&String::from_utf8_lossy(&stderr))))
    }
}

fn unavailable(text: &str) -> io::Error {
    io::Error::other(VaultError::Unavailable(text.into()))
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 * 1024);
    if let Some(from) = from {
        from.take(MOST).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The shell that the library starts, and the `az` below it.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str) -> io::Result<Output> {
        Az.run(OsStr::new("/bin/sh"), &[OsStr::new("-c"), OsStr::new(script)]).await
    }

    #[tokio::test]
    async fn it_sees_little_of_the_environment_and_is_read_to_a_cap() {
        let seen = String::from_utf8(run("env").await.unwrap().stdout).unwrap();
        for line in seen.lines().filter(|line| !line.starts_with("PWD=") && !line.starts_with("_=")) {
            let name = line.split('=').next().unwrap();
            assert!(
                VARIABLES.contains(&name) || name.starts_with("AZURE_CORE_") || name == "SHLVL",
                "{line}"
            );
        }
        let much = run("head -c 1000000 /dev/zero; true").await;
        assert!(much.map_or(0, |output| output.stdout.len()) <= 64 * 1024);
    }

    #[tokio::test]
    async fn what_is_not_there_and_what_is_not_logged_in_is_said() {
        let absent = run("exec no-such-program").await.unwrap_err().to_string();
        assert!(absent.contains("no Azure CLI"), "{absent}");
        let out =
            run("echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1").await.unwrap_err();
        assert!(out.to_string().contains("nobody is logged in"), "{out}");
    }

    #[tokio::test]
    async fn whoever_stops_waiting_leaves_no_process_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let mut running = Box::pin(run(&script));
        let pid = loop {
            let waited = timeout(Duration::from_millis(20), &mut running).await;
            assert!(waited.is_err(), "it ended by itself");
            if let Ok(text) = std::fs::read_to_string(&file)
                && let Ok(pid) = text.trim().parse::<i32>()
            {
                break Pid::from_raw(pid).unwrap();
            }
        };
        drop(running);
        for _ in 0..500 {
            if !alive(pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{pid:?} is still there");
    }

    /// A process whose parent is gone may stay as a zombie for a while.
    fn alive(pid: Pid) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        state.is_ok_and(|state| !state.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    }
}
