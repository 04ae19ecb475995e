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
    pub(super) fn watched(mut cuts: watch::Receiver<BTreeMap<Arc<str>, u64>>) -> Rc<Self> {
        let uses = Rc::<Self>::default();
        // What was cut before this moment, and not before the task's first: there may be uses by then.
        let seen = cuts.borrow_and_update().clone();
        tokio::task::spawn_local(tell(Rc::downgrade(&uses), cuts, seen));
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
async fn tell(
    uses: Weak<Uses>,
    mut cuts: watch::Receiver<BTreeMap<Arc<str>, u64>>,
    mut seen: BTreeMap<Arc<str>, u64>,
) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::upstream::rig;

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    #[test]
    fn only_the_uses_of_a_credential_that_is_cut_are_cut_in_whatever_order_others_end() {
        rig::run(async {
            let (sender, cuts) = watch::channel(BTreeMap::new());
            let uses = Uses::watched(cuts);
            let mut all: Vec<_> = (0..9).map(|n| uses.begin(&name(["web", "docs", "ops"][n % 3]))).collect();
            for gone in [8, 0, 3] {
                all.remove(gone);
            }
            all[1].turn_to(&name("web"));
            let waiting: Vec<_> = all.iter().map(|one| one.or_cut(std::future::pending::<()>())).collect();
            sender.send_modify(|cuts| {
                cuts.insert(name("web"), 1);
            });
            for (one, waiting) in all.iter().zip(waiting) {
                let cut = **one.credential.borrow() == *"web";
                let ended = timeout(Duration::from_millis(if cut { 60_000 } else { 20 }), waiting).await;
                assert_eq!((ended.is_ok(), one.is_cut()), (cut, cut), "{}", one.credential.borrow());
            }
            assert_eq!(all.iter().filter(|one| one.is_cut()).count(), 3);
            let later = uses.begin(&name("web"));
            sender.send_modify(|cuts| {
                cuts.insert(name("docs"), 1);
            });
            let docs = all.iter().find(|one| **one.credential.borrow() == *"docs").unwrap();
            assert!(docs.or_cut(std::future::pending::<()>()).await.is_none());
            assert!(!later.is_cut(), "what began after a cut is none of it");
            drop((all, later));
            assert!(uses.list.borrow().is_empty());
        });
    }

    #[test]
    fn what_is_done_is_given_and_what_is_cut_is_not() {
        rig::run(async {
            let uses = Rc::<Uses>::default();
            let one = uses.begin(&name("web"));
            assert_eq!(one.or_cut(async { 7 }).await, Some(7));
            uses.cut("web");
            assert_eq!(one.or_cut(async { 7 }).await, None);
        });
    }
}
