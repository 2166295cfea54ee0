//! The task that looks at calls when their time has come: one per transport that has called, with
//! one timer.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Weak;
use std::task::Poll;

use moonpool_foundation::TimeProvider;
use moonpool_foundation::wait::{self, WaitReason};

use super::call_table::Look;
use super::core::Core;

/// Runs until the transport is closed or gone.
///
/// The timer stays armed when the call that it was armed for ends: by then others have come, whose
/// deadlines are later. So it fires once per deadline that it was armed for, not once per call.
pub(crate) async fn run<T: TimeProvider>(core: Weak<Core>, time: T) {
    let mut sleep = pin!(None::<T::Sleep>);
    let mut armed = None::<Look>;
    poll_fn(|cx| {
        loop {
            let Some(core) = core.upgrade() else {
                return Poll::Ready(());
            };
            if core.is_closed() {
                return Poll::Ready(());
            }
            let now = time.now();
            core.end_due_calls(now);
            let next = core.next_look();
            if armed != next {
                armed = next;
                sleep.set(next.map(|look| {
                    let left = look.at.saturating_sub(now);
                    if look.is_certain {
                        time.sleep(left)
                    } else {
                        time.background_sleep(left)
                    }
                }));
            }
            let polled = match sleep.as_mut().as_pin_mut() {
                Some(sleep) => sleep.poll(cx),
                None => {
                    wait::note(WaitReason::Message { token: None });
                    Poll::Pending
                }
            };
            if polled.is_pending() {
                drop(core.await_look(armed, cx.waker()));
                return Poll::Pending;
            }
            armed = None;
        }
    })
    .await;
}
