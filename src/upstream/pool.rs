//! Connections that wait for their next request. One pool a worker; a connection never changes thread, and holds
//! nothing of whoever used it: the credential travels in each request's head alone.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::supply::Up;

/// The most connections that wait, all hosts together.
const MOST: usize = 256;

/// The longest that one waits: shorter than Azure DevOps' own patience, so that it is seldom found dead.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a connection leads: never used for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the closed list.
    pub(super) host: &'static str,
    /// Of the [`super::connect::Connector`] that opened it.
    pub(super) generation: u64,
}

/// A connection in somebody's hands. Dropped, it is cut at once, whatever is under way on it.
pub(super) struct Connection {
    place: Place,
    pub(super) sender: SendRequest<Up>,
    task: AbortHandle,
    /// Whether it has carried a request before, and so may have died while it waited.
    pub(super) used: bool,
}

impl Connection {
    /// A new one, with the task that drives it.
    pub(super) fn new(place: Place, sender: SendRequest<Up>, task: AbortHandle) -> Self {
        Self { place, sender, task, used: false }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Waiting {
    connection: Connection,
    since: Instant,
}

/// See the module.
#[derive(Default)]
pub(super) struct Pool {
    /// In the order in which they came back.
    waiting: RefCell<Vec<Waiting>>,
    swept: Cell<bool>,
}

impl Pool {
    /// The connection that was used last: it is the warmest, and the others may grow old.
    pub(super) fn take(&self, place: Place) -> Option<Connection> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|one| !one.connection.sender.is_closed());
        let at = waiting.iter().rposition(|one| {
            one.connection.place == place
                && one.connection.sender.is_ready()
                && one.since.elapsed() < PATIENCE
        })?;
        Some(waiting.remove(at).connection)
    }

    /// Takes back a connection whose request was sent whole and whose answer was read to its end.
    pub(super) fn give_back(self: &Rc<Self>, mut connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        connection.used = true;
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= MOST {
            waiting.remove(0);
        }
        waiting.push(Waiting { connection, since: Instant::now() });
        if !self.swept.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }

    /// Closes what was opened under another configuration.
    pub(super) fn keep_only(&self, generation: u64) {
        self.waiting.borrow_mut().retain(|one| one.connection.place.generation == generation);
    }
}

/// Closes what waited too long, until nothing waits.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(PATIENCE / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut waiting = pool.waiting.borrow_mut();
        waiting.retain(|one| one.since.elapsed() < PATIENCE && !one.connection.sender.is_closed());
        if waiting.is_empty() {
            pool.swept.set(false);
            return;
        }
    }
}
