//! The signals that patgate listens to.

use std::{io, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that patgate listens to.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user: Signal,
}

/// What a signal says.
pub(super) enum Told {
    Stop(&'static str),
    Reload,
    /// Read all credentials again.
    Refresh,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.hang_up.recv() => Told::Reload,
            _ = self.user.recv() => Told::Refresh,
        }
    }

    /// Waits for `time`, or for one more signal to stop. Gives whether there was one.
    pub(super) async fn or_wait(&mut self, time: Duration) -> bool {
        let again = async { while !matches!(self.next().await, Told::Stop(_)) {} };
        tokio::time::timeout(time, again).await.is_ok()
    }
}
