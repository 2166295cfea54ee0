//! Between the handles and the driver: what they changed, and that it has to look.

use std::task::Context;

use super::PeerHandle;

/// What handles changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::network::peer) enum Changed {
    Nothing,
    /// Packets were queued: they are to be written.
    Packets,
    /// Everything is to be decided anew.
    Anything,
}

impl PeerHandle {
    /// Something changed that the driver has to look at.
    pub(in crate::network::peer) fn signal(&self) {
        self.signal_changed(Changed::Anything);
    }

    pub(super) fn signal_changed(&self, what: Changed) {
        self.0.changed.set(self.0.changed.get().max(what));
        if self.0.is_scheduled.replace(true) {
            return;
        }
        // It is left where it is: the driver knows it the next time, and need not clone it.
        match self.0.waker.take() {
            Some(waker) => {
                waker.wake_by_ref();
                if !self.0.has_ended.get() {
                    self.0.waker.set(Some(waker));
                }
            }
            // The driver was not polled yet: it will look by itself.
            None => self.0.is_scheduled.set(false),
        }
    }

    /// The driver begins to look at everything. Whether the same task did so the last time.
    #[inline]
    pub(in crate::network::peer) fn begin_turn(&self, cx: &Context<'_>) -> bool {
        self.0.is_scheduled.set(true);
        let known = self.0.waker.take();
        let is_known = known
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()));
        if is_known {
            self.0.waker.set(known);
        } else {
            self.0.waker.set(Some(cx.waker().clone()));
        }
        is_known
    }

    /// What handles changed since the last [`take_changed`](Self::take_changed).
    #[inline]
    pub(in crate::network::peer) fn changed(&self) -> Changed {
        self.0.changed.get()
    }

    /// What handles changed since the last call.
    #[inline]
    pub(in crate::network::peer) fn take_changed(&self) -> Changed {
        self.0.changed.replace(Changed::Nothing)
    }

    /// Whether a watch asks for the other end.
    #[inline]
    pub(in crate::network::peer) fn is_watched(&self) -> bool {
        self.0.watches.get() > 0
    }

    /// The driver is about to wait, and has looked at everything: from now on it has to be woken.
    #[inline]
    pub(in crate::network::peer) fn end_turn(&self) {
        self.0.changed.set(Changed::Nothing);
        self.0.is_scheduled.set(false);
    }

    /// Whether somebody waits for room.
    #[inline]
    pub(in crate::network::peer) fn is_awaited(&self) -> bool {
        self.0.is_ready_wanted.get()
    }
}
