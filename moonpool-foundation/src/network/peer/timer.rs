//! The one timer of a peer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::time::TimeProvider;

use super::state::{Alarms, Timeouts};

pin_project! {
    /// The timer of one class of deadlines. It is armed for the next one, or an earlier one that there
    /// was: most deadlines move on, or come and go, with every packet, and a timer that fires early,
    /// or for nothing, is cheaper than one that is armed anew each time.
    struct Alarm<S> {
        // `Duration::MAX`: it is not set.
        at: Duration,
        // Whom the sleep wakes: it is asked again only by another task, or once its time has come.
        waker: Option<Waker>,
        #[pin]
        sleep: Option<S>,
    }
}

impl<S: Future<Output = ()>> Alarm<S> {
    fn new() -> Self {
        Self {
            at: Duration::MAX,
            waker: None,
            sleep: None,
        }
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        now: Duration,
        next: Option<Duration>,
        sleep_until: impl FnOnce(Duration) -> S,
    ) -> Poll<()> {
        let mut this = self.project();
        if let Some(next) = next.filter(|next| next < this.at) {
            *this.at = next;
            *this.waker = None;
            this.sleep.set(Some(sleep_until(next)));
        }
        let is_registered = this
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()));
        if is_registered && now < *this.at {
            return Poll::Pending;
        }
        let Some(sleep) = this.sleep.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        if sleep.poll(cx).is_pending() {
            if !is_registered {
                *this.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        *this.at = Duration::MAX;
        *this.waker = None;
        this.sleep.set(None);
        Poll::Ready(())
    }
}

pin_project! {
    /// The timer of a peer: two in one, because only one of them keeps a simulation alive.
    pub(super) struct Timer<T: TimeProvider> {
        time: T,
        #[pin]
        ordinary: Alarm<T::Sleep>,
        #[pin]
        background: Alarm<T::Sleep>,
    }
}

impl<T: TimeProvider> Timer<T> {
    pub(super) fn new(time: T) -> Self {
        Self {
            time,
            ordinary: Alarm::new(),
            background: Alarm::new(),
        }
    }

    /// What it is set for.
    pub(super) fn alarms(&self) -> Alarms {
        Alarms {
            ordinary: self.ordinary.at,
            background: self.background.at,
        }
    }

    /// Ready once one of the deadlines has passed, and perhaps earlier; never, if there is none.
    pub(super) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        now: Duration,
        timeouts: Timeouts,
    ) -> Poll<()> {
        let this = self.project();
        let time = this.time;
        let ordinary = this.ordinary.poll(cx, now, timeouts.ordinary, |at| {
            time.sleep(at.saturating_sub(now))
        });
        let background = this.background.poll(cx, now, timeouts.background, |at| {
            time.background_sleep(at.saturating_sub(now))
        });
        if ordinary.is_ready() || background.is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
