//! The short way through a turn that only moves packets.

use std::time::Duration;

use super::Driver;
use crate::network::peer::handle::Changed;
use crate::network::peer::state::Alarms;
use crate::task::TaskProvider;
use crate::time::TimeProvider;

impl<T: TimeProvider, TP: TaskProvider> Driver<T, TP> {
    /// Whether the last turn left nothing to decide, and nothing has changed but what the stream may
    /// bring and what is to be written. `begins`: it is the first question of the turn.
    #[inline]
    pub(super) fn is_settled(&self, now: Duration, begins: bool) -> bool {
        let mut state = self.handle.state();
        if begins {
            state.begin_turn();
        }
        let is_settled = now < self.settled_until.get()
            && match self.handle.changed() {
                Changed::Nothing => true,
                Changed::Packets => state.handle_queued(now),
                Changed::Anything => false,
            };
        if is_settled {
            self.handle.take_changed();
        }
        is_settled
    }

    /// The short way to [`must_wait`](Self::must_wait), for turns that only moved packets: whether
    /// there is nothing to do but wait for the stream, for handles, and for the alarms that are set
    /// already. `is_owed`: something was written and not acknowledged.
    pub(super) fn can_rest(&self, now: Duration, is_owed: bool, alarms: Alarms) -> bool {
        if self.handle.is_awaited() {
            return false;
        }
        // What was written is owed, whoever else waits for the other end.
        let is_owed =
            is_owed || self.handle.is_watched() || self.receiver.expects_replies(&self.handle);
        let mut state = self.handle.state();
        let is_all = match self.handle.changed() {
            Changed::Nothing => true,
            Changed::Packets => state.handle_queued(now),
            Changed::Anything => false,
        };
        if !is_all || !state.can_rest(now, is_owed, alarms) {
            return false;
        }
        drop(state);
        self.rest();
        true
    }

    pub(super) fn rest(&self) {
        self.handle.end_turn();
        #[cfg(feature = "metrics")]
        self.guard.publish();
    }
}
