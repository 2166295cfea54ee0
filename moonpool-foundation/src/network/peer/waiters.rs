//! Tasks that wait for the same thing, and are forgotten when they stop waiting.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::wait::{self, WaitReason};

/// The wakers of the tasks that wait. One entry per waiting future, gone when the future is: what
/// it holds is bounded by what waits.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    wakers: Vec<(u64, Waker)>,
    next_key: u64,
}

impl Waiters {
    /// Wakes everyone who waits. No borrow is held while a waker runs.
    pub(super) fn wake_all(&self) {
        let mut woken = std::mem::take(&mut self.inner.borrow_mut().wakers);
        for (_, waker) in woken.drain(..) {
            waker.wake();
        }
        // The memory goes back for the next time, unless a wake has needed some meanwhile.
        let mut inner = self.inner.borrow_mut();
        if inner.wakers.capacity() == 0 {
            inner.wakers = woken;
        }
    }

    /// Waits until `check` gives something. `check` runs at each wake and must not wait itself.
    pub(super) fn until<T, F: FnMut() -> Option<T> + Unpin>(&self, check: F) -> Until<'_, F> {
        Until {
            waiters: self,
            check,
            key: None,
        }
    }

    fn register(&self, key: &mut Option<u64>, waker: &Waker) {
        let mut inner = self.inner.borrow_mut();
        let key = *key.get_or_insert_with(|| {
            inner.next_key += 1;
            inner.next_key
        });
        let known = inner.wakers.iter().position(|(known, _)| *known == key);
        let replaced = match known {
            Some(at) if inner.wakers[at].1.will_wake(waker) => None,
            Some(at) => Some(std::mem::replace(&mut inner.wakers[at].1, waker.clone())),
            None => {
                inner.wakers.push((key, waker.clone()));
                None
            }
        };
        drop(inner);
        drop(replaced);
    }

    fn forget(&self, key: u64) {
        let mut inner = self.inner.borrow_mut();
        let known = inner.wakers.iter().position(|(known, _)| *known == key);
        let forgotten = known.map(|at| inner.wakers.swap_remove(at));
        drop(inner);
        drop(forgotten);
    }
}

/// The future of [`Waiters::until`].
#[derive(Debug)]
pub(super) struct Until<'a, F> {
    waiters: &'a Waiters,
    check: F,
    key: Option<u64>,
}

impl<T, F: FnMut() -> Option<T> + Unpin> Future for Until<'_, F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let Some(found) = (self.check)() {
            return Poll::Ready(found);
        }
        let this = &mut *self;
        this.waiters.register(&mut this.key, cx.waker());
        wait::note(WaitReason::Message { token: None });
        Poll::Pending
    }
}

impl<F> Drop for Until<'_, F> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.waiters.forget(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_waiter_that_gives_up_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            let mut waiting = waiters.until(|| None::<()>);
            assert!(Pin::new(&mut waiting).poll(&mut cx).is_pending());
            assert!(Pin::new(&mut waiting).poll(&mut cx).is_pending());
            assert_eq!(waiters.inner.borrow().wakers.len(), 1);
        }
        assert!(waiters.inner.borrow().wakers.is_empty());
    }

    #[test]
    fn everyone_who_waits_is_asked_again() {
        let waiters = Waiters::default();
        let open = Cell::new(false);
        let mut cx = Context::from_waker(Waker::noop());
        let check = || open.get().then_some(5);
        let mut first = waiters.until(check);
        let mut second = waiters.until(check);
        assert!(Pin::new(&mut first).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut second).poll(&mut cx).is_pending());
        open.set(true);
        waiters.wake_all();
        assert_eq!(Pin::new(&mut first).poll(&mut cx), Poll::Ready(5));
        assert_eq!(Pin::new(&mut second).poll(&mut cx), Poll::Ready(5));
    }
}
