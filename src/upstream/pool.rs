//! Connections that wait for their next request. One pool a worker; a connection never changes thread, and holds
//! nothing of whoever used it: the credential travels in each request's head alone. hyper keeps the buffer of that
//! head, and with it a token that was replaced; so a connection ends soon after any token that it has carried.

use std::{
    cell::{Cell, RefCell},
    rc::{self, Rc},
    sync::{self, Arc},
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::supply::Up;
use crate::vault::Token;

/// The most connections that wait, all hosts together.
const MOST: usize = 256;

/// The longest that one waits: shorter than Azure DevOps' own patience, so that it is seldom found dead.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at those that wait.
const ROUND: Duration = Duration::from_secs(5);

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
    /// The tokens that its buffers may still hold.
    carried: Vec<sync::Weak<Token>>,
}

impl Connection {
    /// A new one, with the task that drives it.
    pub(super) fn new(place: Place, sender: SendRequest<Up>, task: AbortHandle) -> Self {
        Self { place, sender, task, used: false, carried: Vec::new() }
    }

    /// Notes that a request is about to be sent with this token.
    pub(super) fn carry(&mut self, token: &Arc<Token>) {
        if !self.carried.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(token))) {
            self.carried.push(Arc::downgrade(token));
        }
    }

    /// Whether it may serve again: it is open, and every token that it has carried is still in use.
    fn is_sound(&self) -> bool {
        !self.sender.is_closed() && self.carried.iter().all(|token| token.strong_count() > 0)
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
        waiting.retain(|one| one.connection.is_sound());
        let at = waiting.iter().rposition(|one| {
            one.connection.place == place
                && one.connection.sender.is_ready()
                && one.since.elapsed() < PATIENCE
        })?;
        Some(waiting.remove(at).connection)
    }

    /// Takes back a connection whose request was sent whole and whose answer was read to its end.
    pub(super) fn give_back(self: &Rc<Self>, mut connection: Connection) {
        if !connection.is_sound() {
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

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Closes what was opened under another configuration.
    pub(super) fn keep_only(&self, generation: u64) {
        self.waiting.borrow_mut().retain(|one| one.connection.place.generation == generation);
    }
}

/// Closes what waited too long, or carried a token that is no more, until nothing waits.
async fn sweep(pool: rc::Weak<Pool>) {
    loop {
        sleep(ROUND).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut waiting = pool.waiting.borrow_mut();
        waiting.retain(|one| one.since.elapsed() < PATIENCE && one.connection.is_sound());
        if waiting.is_empty() {
            pool.swept.set(false);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, pause};

    use super::*;
    use crate::upstream::rig::{self, HOST, Rig};
    use crate::vault::{FingerprintKey, Scheme};

    fn place(generation: u64) -> Place {
        Place { host: HOST, generation }
    }

    #[test]
    fn the_last_one_back_is_the_first_one_out_and_old_ones_are_closed() {
        rig::run(async {
            let rig = Rig::new().await;
            let (network, connector) = rig.network();
            let mut streams = Vec::new();
            for _ in 0..3 {
                let opened = network.connection(&connector, HOST, true);
                let (connection, stream) = tokio::join!(opened, rig.accept());
                streams.push(stream.unwrap());
                pause();
                advance(Duration::from_secs(25)).await;
                network.pool.give_back(connection.ok().unwrap());
                tokio::task::yield_now().await;
                tokio::time::resume();
            }
            assert!(network.pool.take(place(2)).is_none(), "another configuration's");
            assert!(network.pool.take(Place { host: "pkgs.dev.azure.com", generation: 1 }).is_none());
            let newest = network.pool.take(place(1)).unwrap();
            assert_eq!(network.pool.waiting.borrow().last().unwrap().since.elapsed().as_secs(), 25);
            network.pool.give_back(newest);
            pause();
            // Without a request: the sweeper closes them, and ends.
            tokio::time::sleep(PATIENCE * 2).await;
            assert_eq!(network.pool.len(), 0);
            assert!(!network.pool.swept.get());
        });
    }

    #[test]
    fn a_connection_ends_with_any_token_that_it_has_carried() {
        rig::run(async {
            let rig = Rig::new().await;
            let (network, connector) = rig.network();
            let token = |value: &str| {
                let key = FingerprintKey::new(&[1; 32]);
                Arc::new(Token::new(value.to_owned().into(), Scheme::Basic, &key).unwrap())
            };
            let (kept, replaced) = (token("kept"), token("replaced"));
            let mut streams = Vec::new();
            for carried in [vec![&kept], vec![&kept, &replaced, &kept], vec![&replaced]] {
                let opened = network.connection(&connector, HOST, true);
                let (connection, stream) = tokio::join!(opened, rig.accept());
                streams.push(stream.unwrap());
                let mut connection = connection.ok().unwrap();
                for token in carried {
                    connection.carry(token);
                }
                network.pool.give_back(connection);
            }
            assert_eq!(network.pool.len(), 3);
            drop(replaced);
            pause();
            tokio::time::sleep(ROUND * 2).await;
            assert_eq!(network.pool.len(), 1, "without a request");
            let mut connection = network.pool.take(place(1)).unwrap();
            connection.carry(&token("gone-at-once"));
            network.pool.give_back(connection);
            assert_eq!(network.pool.len(), 0);
        });
    }

    #[test]
    fn their_number_is_bounded_and_a_new_configuration_closes_them() {
        rig::run(async {
            let rig = Rig::new().await;
            let (network, connector) = rig.network();
            let mut streams = Vec::new();
            for _ in 0..3 {
                let opened = network.connection(&connector, HOST, true);
                let (connection, stream) = tokio::join!(opened, rig.accept());
                streams.push(stream.unwrap());
                network.pool.give_back(connection.ok().unwrap());
            }
            network.pool.keep_only(1);
            assert_eq!(network.pool.len(), 3);
            network.pool.keep_only(2);
            assert_eq!(network.pool.len(), 0);
        });
    }
}
