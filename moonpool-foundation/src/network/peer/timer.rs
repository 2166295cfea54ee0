//! The one timer of a peer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::time::TimeProvider;

use super::state::Timeouts;

pin_project! {
    /// The timer of one class of deadlines. It is armed for the next one, or an earlier one that there
    /// was: most deadlines move on with every packet, and a timer that fires early is cheaper than one
    /// that is armed anew each time.
    struct Alarm<S> {
        at: Option<Duration>,
        #[pin]
        sleep: Option<S>,
    }
}

impl<S: Future<Output = ()>> Alarm<S> {
    fn new() -> Self {
        Self {
            at: None,
            sleep: None,
        }
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        next: Option<Duration>,
        sleep_until: impl FnOnce(Duration) -> S,
    ) -> Poll<()> {
        let mut this = self.project();
        let is_early_enough = match (*this.at, next) {
            (Some(armed), Some(next)) => armed <= next,
            (None, None) => true,
            _ => false,
        };
        if !is_early_enough {
            *this.at = next;
            this.sleep.set(next.map(sleep_until));
        }
        let Some(sleep) = this.sleep.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        if sleep.poll(cx).is_pending() {
            return Poll::Pending;
        }
        *this.at = None;
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

    /// Ready once one of the deadlines has passed, and perhaps earlier; never, if there is none.
    pub(super) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        now: Duration,
        timeouts: Timeouts,
    ) -> Poll<()> {
        let this = self.project();
        let time = this.time;
        let ordinary = this.ordinary.poll(cx, timeouts.ordinary, |at| {
            time.sleep(at.saturating_sub(now))
        });
        let background = this.background.poll(cx, timeouts.background, |at| {
            time.background_sleep(at.saturating_sub(now))
        });
        if ordinary.is_ready() || background.is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
