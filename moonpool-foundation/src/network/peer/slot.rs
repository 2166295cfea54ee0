//! Where a connection waits for the driver of the session that it carries on.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::driver::Connection;
use super::packet::PeerId;
use super::read_memory::ReadMemory;

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub(super) struct Permit(Rc<Cell<usize>>);

impl Permit {
    pub(super) fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What waits for a peer's driver.
enum Waiting<S> {
    Nothing,
    /// A connection to which the peer's state is attached already.
    Connection(Connection<S>),
    /// Nothing, but the connection that the driver has is not the state's any more.
    Fenced,
}

/// A place for one connection that said Hello. A newer one replaces it. Whoever fills it attaches
/// the state in the same breath, and the driver looks here before it looks at anything else.
pub(super) struct Slot<S> {
    waiting: RefCell<Waiting<S>>,
}

impl<S> Default for Slot<S> {
    fn default() -> Self {
        Self {
            waiting: RefCell::new(Waiting::Nothing),
        }
    }
}

impl<S> Slot<S> {
    pub(super) fn put(&self, connection: Connection<S>) {
        let replaced = self.waiting.replace(Waiting::Connection(connection));
        drop(replaced);
    }

    /// The driver is to drop its connection, and gets no other.
    pub(super) fn fence(&self) {
        let replaced = self.waiting.replace(Waiting::Fenced);
        drop(replaced);
    }

    pub(super) fn take(&self) -> Option<Connection<S>> {
        match self.waiting.replace(Waiting::Nothing) {
            Waiting::Connection(connection) => Some(connection),
            Waiting::Nothing | Waiting::Fenced => None,
        }
    }

    #[inline]
    pub(super) fn is_filled(&self) -> bool {
        !matches!(*self.waiting.borrow(), Waiting::Nothing)
    }
}

/// Who knows of the peers of a transport.
pub(super) trait Keeper {
    fn handle_detached(&self, peer: PeerId);
    fn handle_answered(&self, peer: PeerId);
    fn prepare_close(&self, peer: PeerId);
    fn prepare_dial(&self, peer: PeerId) -> bool;
    fn pass_over(&self, peer: PeerId);
    fn forget(&self, peer: PeerId);
}

/// A peer's entry with its keeper: gone when the peer's driver is, in whatever way.
pub(super) struct Kept {
    pub(super) keeper: Weak<dyn Keeper>,
    pub(super) peer: PeerId,
    /// What the connections of the transport read into.
    pub(super) reads: Rc<ReadMemory>,
}

impl Kept {
    /// The session lost its connection.
    pub(super) fn handle_detached(&self) {
        self.tell(|keeper, peer| keeper.handle_detached(peer));
    }

    /// The peer's own Hello was answered.
    pub(super) fn handle_answered(&self) {
        self.tell(|keeper, peer| keeper.handle_answered(peer));
    }

    /// The peer is about to lose its connection.
    pub(super) fn prepare_close(&self) {
        self.tell(|keeper, peer| keeper.prepare_close(peer));
    }

    /// The peer is about to dial. True: another one takes over instead.
    pub(super) fn prepare_dial(&self) -> bool {
        let keeper = self.keeper.upgrade();
        keeper.is_some_and(|keeper| keeper.prepare_dial(self.peer))
    }

    /// The peer ended; its address passes over.
    pub(super) fn pass_over(&self) {
        self.tell(|keeper, peer| keeper.pass_over(peer));
    }

    fn tell(&self, what: fn(&dyn Keeper, PeerId)) {
        if let Some(keeper) = self.keeper.upgrade() {
            what(&*keeper, self.peer);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.tell(|keeper, peer| keeper.forget(peer));
    }
}
