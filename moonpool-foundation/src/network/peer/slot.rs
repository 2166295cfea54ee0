//! Where a connection waits for the driver of the session that it carries on.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::driver::Connection;
use super::packet::PeerId;
use super::session::Hello;

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

/// A place for one connection that said Hello. A newer one replaces it.
pub(super) struct Slot<S> {
    waiting: RefCell<Option<(Connection<S>, Hello)>>,
}

impl<S> Slot<S> {
    pub(super) fn new(connection: Connection<S>, hello: Hello) -> Self {
        Self {
            waiting: RefCell::new(Some((connection, hello))),
        }
    }

    pub(super) fn put(&self, connection: Connection<S>, hello: Hello) {
        let replaced = self.waiting.replace(Some((connection, hello)));
        drop(replaced);
    }

    pub(super) fn take(&self) -> Option<(Connection<S>, Hello)> {
        self.waiting.take()
    }

    pub(super) fn is_filled(&self) -> bool {
        self.waiting.borrow().is_some()
    }
}

/// Who knows of an accepted session.
pub(super) trait Keeper {
    fn handle_detached(&self, peer: PeerId);
    fn forget(&self, peer: PeerId);
}

/// An accepted session's entry with its keeper: gone when the session's driver is, in whatever way.
pub(super) struct Kept {
    pub(super) keeper: Weak<dyn Keeper>,
    pub(super) peer: PeerId,
}

impl Kept {
    pub(super) fn handle_detached(&self) {
        if let Some(keeper) = self.keeper.upgrade() {
            keeper.handle_detached(self.peer);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.upgrade() {
            keeper.forget(self.peer);
        }
    }
}
