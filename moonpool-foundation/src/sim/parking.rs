//! Who waits for something of the world is woken by it later.

use std::task::Waker;

use super::connections::Asked;
use super::context;
use super::executor::Executor;
use super::wakes::Waiter;
use crate::wait::WaitReason;

impl Executor {
    /// Lets `place` wake whoever asks with `waker`, if that can be done at once: of the polled task. What
    /// that waits for is noted then.
    #[inline]
    pub(super) fn park<T>(
        &mut self,
        place: &mut Option<Waiter>,
        waker: &Waker,
        reason: impl FnOnce() -> WaitReason,
    ) -> Asked<T> {
        match (&mut *place, self.polled_task(waker)) {
            (None, Some(polled)) => {
                context::check_not_entered();
                *place = Some(Waiter::Task(polled));
                self.note(polled, |entry| entry.note_with(reason));
                Asked::Noted
            }
            // A task takes another's place at once.
            (Some(Waiter::Task(kept)), Some(polled)) => {
                *kept = polled;
                self.note(polled, |entry| entry.note_with(reason));
                Asked::Noted
            }
            (Some(Waiter::Other(kept)), _) if kept.will_wake(waker) => Asked::Parked,
            // A waker is neither cloned nor dropped while the world is borrowed.
            (None | Some(_), _) => Asked::Park,
        }
    }
}
