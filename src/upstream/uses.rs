//! The credentials that are in use on one worker, so that an operator can cut the requests which use them.
//!
//! Nobody watches: a use is a place in a list of its worker. When a credential is cut, its uses are told one by one, and
//! the connections to Azure DevOps that they hold are closed at once, whether their clients read or not.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::sync::watch;

use super::pool::Connection;
use crate::listener::Lifeline;

/// The uses of one worker.
#[derive(Default)]
pub(super) struct Uses {
    list: RefCell<Vec<Weak<InUse>>>,
}

/// A credential that one request uses, from its first attempt to its end.
pub(super) struct InUse {
    uses: Rc<Uses>,
    /// Its place in the list.
    place: Cell<usize>,
    credential: RefCell<Arc<str>>,
    cut: Cell<bool>,
    /// Whom to wake: the task that waits for Azure DevOps, or for the client.
    waker: RefCell<Option<Waker>>,
    connection: RefCell<Option<Connection>>,
    /// The client's end, once it is being answered.
    client: RefCell<Option<Lifeline>>,
}

impl Uses {
    /// None yet. Told by `cuts`, from a task of its own, until nobody uses it any more.
    pub(super) fn watched(cuts: watch::Receiver<BTreeMap<Arc<str>, u64>>) -> Rc<Self> {
        let uses = Rc::<Self>::default();
        tokio::task::spawn_local(tell(Rc::downgrade(&uses), cuts));
        uses
    }

    /// A request begins to use a credential.
    pub(super) fn begin(self: &Rc<Self>, credential: &Arc<str>) -> Rc<InUse> {
        let mut list = self.list.borrow_mut();
        let in_use = Rc::new(InUse {
            uses: Rc::clone(self),
            place: Cell::new(list.len()),
            credential: RefCell::new(Arc::clone(credential)),
            cut: Cell::new(false),
            waker: RefCell::default(),
            connection: RefCell::default(),
            client: RefCell::default(),
        });
        list.push(Rc::downgrade(&in_use));
        in_use
    }

    fn cut(&self, credential: &str) {
        // Of those that are upgraded here none is the last: nothing leaves the list meanwhile.
        for in_use in self.list.borrow().iter().filter_map(Weak::upgrade) {
            if **in_use.credential.borrow() == *credential && !in_use.cut.replace(true) {
                drop(in_use.connection.take());
                if let Some(client) = in_use.client.take() {
                    client.cut();
                }
                if let Some(waker) = in_use.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}

/// Cuts what is to be cut.
async fn tell(uses: Weak<Uses>, mut cuts: watch::Receiver<BTreeMap<Arc<str>, u64>>) {
    let mut seen = cuts.borrow_and_update().clone();
    while cuts.changed().await.is_ok() {
        let Some(uses) = uses.upgrade() else { return };
        let now = cuts.borrow_and_update().clone();
        for (name, count) in &now {
            if seen.get(name) != Some(count) {
                uses.cut(name);
            }
        }
        seen = now;
    }
}

impl InUse {
    /// Another attempt, perhaps with another credential.
    pub(super) fn turn_to(&self, credential: &Arc<str>) {
        if *self.credential.borrow() != *credential {
            *self.credential.borrow_mut() = Arc::clone(credential);
        }
    }

    /// Whether it was cut.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// Ready once it is cut; else the task is woken when it is.
    pub(super) fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        if self.cut.get() {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// What a future gives, or `None` where it is cut first.
    pub(super) async fn or_cut<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| match self.poll_cut(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => future.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// From now on a client is being answered, which may not take what there is.
    pub(super) fn answers(&self, client: Lifeline) {
        *self.client.borrow_mut() = Some(client);
    }

    /// Holds the connection that the answer comes on, to close it when it is cut.
    pub(super) fn hold(&self, connection: Connection) {
        if !self.cut.get() {
            *self.connection.borrow_mut() = Some(connection);
        }
    }

    /// Gives the connection back, or to be closed.
    pub(super) fn release(&self) -> Option<Connection> {
        self.connection.take()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut list = self.uses.list.borrow_mut();
        let place = self.place.get();
        if place < list.len() {
            list.swap_remove(place);
        }
        if let Some(moved) = list.get(place).and_then(Weak::upgrade) {
            moved.place.set(place);
        }
    }
}
