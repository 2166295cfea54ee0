//! The one timer of a peer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::time::TimeProvider;

pin_project! {
    /// One timer that is armed for the state's next deadline, and only anew when that changes.
    pub(super) struct Timer<T: TimeProvider> {
        time: T,
        deadline: Option<Duration>,
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

    /// Ready once `deadline` has passed; never, if there is none.
    pub(super) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        now: Duration,
        deadline: Option<Duration>,
    ) -> Poll<()> {
        let mut this = self.project();
        if *this.deadline != deadline {
            *this.deadline = deadline;
            let sleep = deadline.map(|at| this.time.sleep(at.saturating_sub(now)));
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
