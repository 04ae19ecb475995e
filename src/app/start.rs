//! Why patgate did not start, and with which exit code it says so.

use std::io;

use crate::{admin::socket::SocketError, audit, config::Problems, listener::sockets, state};

/// Why patgate did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The environment would choose where secrets go.
    #[error("{}", .0.join("\n"))]
    Environment(Vec<String>),
    /// A vault can't be set up.
    #[error("{0}")]
    Vault(String),
    /// A rotation can't be set up.
    #[error("{0}")]
    Rotation(String),
    /// An address can't be listened on.
    #[error("{0}")]
    Bind(#[from] sockets::BindError),
    /// The admin socket can't be opened.
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// What operators changed can't be read.
    #[error("{0}")]
    State(#[from] state::OpenError),
    /// The audit can't be opened.
    #[error("{0}")]
    Audit(#[from] audit::OpenError),
    /// The first record can't be written.
    #[error("{0}")]
    Unrecorded(#[from] audit::Unavailable),
    /// The system refuses a thread, a signal handler, a runtime.
    #[error("the system refuses what patgate needs: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// The exit code, after `sysexits.h`; documented in the README.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Environment(_)
            | Self::Vault(_)
            | Self::Rotation(_)
            | Self::Socket(SocketError::Occupied(_) | SocketError::OpenFolder(..))
            | Self::State(state::OpenError::Broken(..)) => 78,
            Self::Bind(_) | Self::Socket(SocketError::InUse(_)) => 69,
            Self::Audit(audit::OpenError::InUse(..)) | Self::State(state::OpenError::InUse(..)) => 75,
            Self::Audit(audit::OpenError::Altered(..)) => 65,
            Self::Audit(_) | Self::Unrecorded(_) | Self::Socket(_) | Self::State(_) => 73,
            Self::System(_) => 71,
        }
    }
}
