//! [`Turns`]: tasks that wait for room, first come, first served.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::wait::{self, WaitReason};

/// Those who wait for the same thing, in the order in which they came. Only the first one looks
/// whether it is there; when it has it, or stops waiting, the next one's turn comes. So room that
/// appears wakes one task, however many wait, and nobody is overtaken by another one who waits.
///
/// It holds an entry per waiting future, gone when the future is.
#[derive(Debug, Default)]
pub struct Turns {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By number; the numbers ascend.
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

impl Turns {
    /// Wakes whoever is first. To be called, with nothing borrowed, when what is waited for may have
    /// come.
    pub fn wake_first(&self) {
        let first = self
            .inner
            .borrow()
            .waiting
            .first_key_value()
            .map(|(_, waker)| waker.clone());
        if let Some(first) = first {
            first.wake();
        }
    }

    /// Number of futures that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.borrow().waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for a turn in which `check` gives something. It must not wait itself.
    ///
    /// # Cancel safety
    /// Dropping the future gives the turn to the next one.
    pub fn until<T, F: FnMut() -> Option<T> + Unpin>(&self, check: F) -> Turn<'_, F> {
        Turn {
            turns: self,
            check,
            number: None,
        }
    }

    fn is_first(&self, number: Option<u64>) -> bool {
        let inner = self.inner.borrow();
        let first = inner.waiting.first_key_value().map(|(first, _)| *first);
        first.is_none() || first == number
    }

    fn register(&self, number: &mut Option<u64>, waker: &Waker) {
        let mut inner = self.inner.borrow_mut();
        let number = *number.get_or_insert(inner.next);
        inner.next = inner.next.max(number + 1);
        let known = inner.waiting.get(&number);
        let replaced = match known.is_some_and(|known| known.will_wake(waker)) {
            true => None,
            false => inner.waiting.insert(number, waker.clone()),
        };
        drop(inner);
        drop(replaced);
    }

    fn leave(&self, number: u64) {
        let was_first = self.is_first(Some(number));
        let left = self.inner.borrow_mut().waiting.remove(&number);
        drop(left);
        if was_first {
            self.wake_first();
        }
    }
}

/// The future of [`Turns::until`].
#[derive(Debug)]
#[must_use = "it waits when it is awaited"]
pub struct Turn<'a, F> {
    turns: &'a Turns,
    check: F,
    number: Option<u64>,
}

impl<T, F: FnMut() -> Option<T> + Unpin> Future for Turn<'_, F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        if this.turns.is_first(this.number)
            && let Some(found) = (this.check)()
        {
            if let Some(number) = this.number.take() {
                this.turns.leave(number);
            }
            return Poll::Ready(found);
        }
        this.turns.register(&mut this.number, cx.waker());
        wait::note(WaitReason::Message { token: None });
        Poll::Pending
    }
}

impl<F> Drop for Turn<'_, F> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.turns.leave(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(room: &Cell<usize>) -> Option<()> {
        room.set(room.get().checked_sub(1)?);
        Some(())
    }

    #[test]
    fn room_for_one_wakes_one_and_goes_to_who_came_first() {
        let (turns, room) = (Turns::default(), Cell::new(0));
        let wakes: [Arc<Counting>; 3] = Default::default();
        let wakers = wakes.clone().map(Waker::from);
        let mut waiting: Vec<_> = (0..3).map(|_| turns.until(|| take(&room))).collect();
        for (turn, waker) in waiting.iter_mut().zip(&wakers) {
            let mut cx = Context::from_waker(waker);
            assert!(Pin::new(turn).poll(&mut cx).is_pending());
        }
        let woken = || wakes.each_ref().map(|wake| wake.0.load(Ordering::Relaxed));
        room.set(1);
        turns.wake_first();
        assert_eq!(woken(), [1, 0, 0]);
        let mut polls = |at: usize| {
            let mut cx = Context::from_waker(&wakers[at]);
            Pin::new(&mut waiting[at]).poll(&mut cx).is_ready()
        };
        assert!(
            !polls(2) && !polls(1),
            "there is room, but not for them yet"
        );
        assert!(polls(0));
        assert_eq!(woken(), [1, 1, 0], "the next one's turn has come");
        assert!(!polls(1) && !polls(2));
        let mut late = turns.until(|| take(&room));
        room.set(1);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            Pin::new(&mut late).poll(&mut cx).is_pending(),
            "others wait"
        );
        drop(waiting.remove(1));
        assert_eq!(woken(), [1, 1, 1], "who gives up gives the turn on");
        drop(waiting);
        assert!(Pin::new(&mut late).poll(&mut cx).is_ready());
        assert!(turns.is_empty());
    }
}
