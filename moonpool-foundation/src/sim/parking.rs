//! Who waits for something of the world is woken by it later.

use std::task::Waker;

use super::connections::Asked;
use super::context;
use super::executor::Executor;
use super::task_entry::TaskEntry;
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
        let polled = self.polled_task(waker);
        if let (None, Some(key)) = (&place, polled) {
            context::check_not_entered();
            *place = Some(Waiter::Task(key));
            self.note(key, |entry| entry.note(reason()));
            return Asked::Noted;
        }
        match place {
            Some(kept) => self.park_again(kept, waker, |entry| entry.note(reason())),
            None => Asked::Park,
        }
    }

    /// As [`park`](Self::park), of whom is kept already: a task takes another's place at once.
    pub(super) fn park_again<T>(
        &mut self,
        kept: &mut Waiter,
        waker: &Waker,
        note: impl FnOnce(&mut TaskEntry),
    ) -> Asked<T> {
        match (kept, self.polled_task(waker)) {
            (Waiter::Task(kept), Some(polled)) => {
                *kept = polled;
                self.note(polled, note);
                Asked::Noted
            }
            (Waiter::Other(kept), _) if kept.will_wake(waker) => Asked::Parked,
            // A waker is neither cloned nor dropped while the world is borrowed.
            (Waiter::Task(_), None) | (Waiter::Other(_), _) => Asked::Park,
        }
    }
}
