//! One run of a program: started, listened to within bounds, and ended with all that it started.

use std::{
    io,
    os::fd::AsFd as _,
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use secrecy::SecretString;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, Interest, unix::AsyncFd},
    process::{Child, ChildStderr, ChildStdout, Command},
};
use zeroize::Zeroizing;

use crate::vault::{VaultError, token::exposed};

/// The most that a program may print, in bytes.
pub(super) const MOST: usize = 64 * 1024;

/// What is kept of its standard error, in bytes.
const COMPLAINT: usize = 1024;

/// What is to be started.
pub(in crate::vault) struct Job {
    /// The program first, by its absolute path.
    pub(in crate::vault) arguments: Vec<String>,
    /// All that it gets; a later one of the same name counts.
    pub(in crate::vault) environment: Vec<(String, SecretString)>,
    /// For standard input; less than a pipe holds (4 KiB at least).
    pub(in crate::vault) input: Option<Zeroizing<Vec<u8>>>,
}

/// How it ended.
pub(in crate::vault) struct Ended {
    pub(in crate::vault) status: ExitStatus,
    /// What it printed.
    pub(in crate::vault) output: Zeroizing<Vec<u8>>,
    /// The beginning of its standard error,
    pub(super) complaint: Zeroizing<Vec<u8>>,
    /// and how long that was in all.
    pub(super) complained: usize,
}

/// Runs it to its end. Dropped before, everything that it started is killed.
pub(in crate::vault) async fn run(job: Job) -> Result<Ended, VaultError> {
    let mut group = Group::start(&job).map_err(|error| failed("can't be started", &error))?;
    let (mut stdout, mut stderr) = (group.child.stdout.take(), group.child.stderr.take());
    let mut heard = Heard::new();
    let ended = group.watch().map_err(|error| failed("can't be watched", &error))?;
    let exit = async { ended.readable().await.map(drop) };
    tokio::select! {
        // What it has written before its end is in the pipes then, whoever else holds them.
        biased;
        exit = exit => exit.map_err(|error| failed("can't be watched", &error))?,
        silent = heard.listen(stdout.as_mut(), stderr.as_mut()) => {
            silent?;
            // It has closed both; now it ends, or the caller's deadline comes.
            ended.readable().await.map(drop).map_err(|error| failed("can't be watched", &error))?;
        }
    }
    group.kill();
    heard.rest(stdout.as_ref(), stderr.as_ref())?;
    let status = group.reap().await.map_err(|error| failed("can't be waited for", &error))?;
    Ok(Ended { status, output: heard.output, complaint: heard.complaint, complained: heard.complained })
}

fn failed(what: &str, error: &io::Error) -> VaultError {
    VaultError::Unavailable(format!("the program {what}: {error}").into())
}

/// A program and all that it starts, unless that leaves the group.
struct Group {
    child: Child,
    /// `None` once it has been waited for: the number may be another's by then.
    id: Option<Pid>,
}

impl Group {
    fn start(job: &Job) -> io::Result<Self> {
        let (program, arguments) = job.arguments.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir("/").process_group(0);
        command.envs(job.environment.iter().map(|(name, value)| (name, exposed(value))));
        command.stdin(if job.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let (Some(stdin), Some(input)) = (child.stdin.take(), &job.input) {
            // It fits into the pipe. A program that does not read it says so by its answer.
            let _ = rustix::io::write(&stdin, input);
        }
        Ok(Self { child, id })
    }

    #[expect(
        deprecated,
        reason = "what replaces it is unsafe for descriptors of others; an `OwnedFd` is its own"
    )]
    /// Becomes readable when the program has ended, but leaves it to be waited for: until then its number is nobody
    /// else's.
    fn watch(&self) -> io::Result<AsyncFd<std::os::fd::OwnedFd>> {
        let id = self.id.ok_or(io::ErrorKind::NotFound)?;
        let handle = pidfd_open(id, PidfdFlags::empty())?;
        AsyncFd::with_interest(handle, Interest::READABLE)
    }

    fn kill(&self) {
        if let Some(id) = self.id {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }

    async fn reap(mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.id = None;
        status
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // tokio waits for the child later, wherever it is dropped.
        self.kill();
    }
}

/// What was heard so far.
struct Heard {
    output: Zeroizing<Vec<u8>>,
    complaint: Zeroizing<Vec<u8>>,
    complained: usize,
}

impl Heard {
    fn new() -> Self {
        // Room for all of it: a buffer that grows leaves a copy behind.
        let buffer = |room| Zeroizing::new(Vec::with_capacity(room));
        Self { output: buffer(MOST + 1), complaint: buffer(COMPLAINT), complained: 0 }
    }

    /// Until both are closed.
    async fn listen(
        &mut self,
        stdout: Option<&mut ChildStdout>,
        stderr: Option<&mut ChildStderr>,
    ) -> Result<(), VaultError> {
        let Self { output, complaint, complained } = self;
        let printed = async {
            let Some(stdout) = stdout else { return Ok(()) };
            let mut piece = Zeroizing::new([0_u8; 4096]);
            while let Some(bytes) = read(stdout, &mut *piece).await {
                take(output, bytes)?;
            }
            Ok(())
        };
        let complained = async {
            let Some(stderr) = stderr else { return Ok(()) };
            let mut piece = Zeroizing::new([0_u8; 4096]);
            while let Some(bytes) = read(stderr, &mut *piece).await {
                note(complaint, complained, bytes);
            }
            Ok(())
        };
        tokio::try_join!(printed, complained).map(drop)
    }

    /// What is in the pipes, without waiting for those who still hold them.
    fn rest(&mut self, stdout: Option<&ChildStdout>, stderr: Option<&ChildStderr>) -> Result<(), VaultError> {
        let mut piece = Zeroizing::new([0_u8; 4096]);
        if let Some(stdout) = stdout {
            while let Ok(count @ 1..) = rustix::io::read(stdout.as_fd(), &mut *piece) {
                take(&mut self.output, piece.get(..count).unwrap_or_default())?;
            }
        }
        // Somebody who left the group may go on writing for ever.
        for _ in 0..MOST / 4096 {
            let Some(stderr) = stderr else { break };
            let Ok(count @ 1..) = rustix::io::read(stderr.as_fd(), &mut *piece) else { break };
            note(&mut self.complaint, &mut self.complained, piece.get(..count).unwrap_or_default());
        }
        Ok(())
    }
}

async fn read<'a>(from: &mut (impl AsyncRead + Unpin), piece: &'a mut [u8]) -> Option<&'a [u8]> {
    match from.read(piece).await {
        Ok(count @ 1..) => piece.get(..count),
        _ => None,
    }
}

fn take(output: &mut Vec<u8>, bytes: &[u8]) -> Result<(), VaultError> {
    if output.len() + bytes.len() > MOST {
        let why: Arc<str> = format!("the program printed more than {MOST} bytes").into();
        return Err(VaultError::Unusable(why));
    }
    output.extend_from_slice(bytes);
    Ok(())
}

fn note(complaint: &mut Vec<u8>, complained: &mut usize, bytes: &[u8]) {
    *complained = complained.saturating_add(bytes.len());
    let room = COMPLAINT.saturating_sub(complaint.len()).min(bytes.len());
    complaint.extend_from_slice(bytes.get(..room).unwrap_or_default());
}
