//! The one timer of a peer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::time::TimeProvider;

/// When a timer is to fire, and whether it is worth keeping a simulation alive for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    pub(super) at: Duration,
    pub(super) is_background: bool,
}

pin_project! {
    /// One timer that is armed for the state's next deadline, or an earlier one that it had: most
    /// deadlines move on with every packet, and a timer that fires early is cheaper than one that
    /// is armed anew each time.
    pub(super) struct Timer<T: TimeProvider> {
        time: T,
        deadline: Option<Deadline>,
        #[pin]
        sleep: Option<T::Sleep>,
    }
}

impl<T: TimeProvider> Timer<T> {
    pub(super) fn new(time: T) -> Self {
        Self {
            time,
            deadline: None,
            sleep: None,
        }
    }

    /// Ready once `deadline` has passed, and perhaps earlier; never, if there is none.
    pub(super) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        now: Duration,
        deadline: Option<Deadline>,
    ) -> Poll<()> {
        let mut this = self.project();
        let is_early_enough = match (*this.deadline, deadline) {
            (Some(armed), Some(next)) => {
                armed.at <= next.at && armed.is_background == next.is_background
            }
            (None, None) => true,
            _ => false,
        };
        if !is_early_enough {
            *this.deadline = deadline;
            let sleep = deadline.map(|deadline| {
                let duration = deadline.at.saturating_sub(now);
                if deadline.is_background {
                    this.time.background_sleep(duration)
                } else {
                    this.time.sleep(duration)
                }
            });
            this.sleep.set(sleep);
        }
        let Some(sleep) = this.sleep.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        if sleep.poll(cx).is_pending() {
            return Poll::Pending;
        }
        *this.deadline = None;
        this.sleep.set(None);
        Poll::Ready(())
    }
}
