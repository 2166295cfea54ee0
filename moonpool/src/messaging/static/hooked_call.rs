//! [`HookedCall`]: a call inside of its transport's middleware.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::call::{put_body, start_call};
use super::call_table::Outcome;
use super::core::Core;
use super::kept_bodies::KeptBody;
use super::middleware::{CallChain, OutgoingCall, ReplyBody};
use super::reply_error::ReplyError;
use super::request::Outgoing;
use super::retrying::Retrying;

/// How long after its deadline a call may go on that is with the network. It ends by itself at the
/// deadline, and needs this long at most to say so, unless a link has stopped polling it.
const LAST_WORD: Duration = Duration::from_millis(100);

type BoxedFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// How far the network's part of the call has come.
#[derive(Debug)]
struct Progress {
    /// It is being made: it ends by itself at the deadline.
    is_running: Cell<bool>,
    attempt: Cell<u32>,
}

/// What ends the call from outside.
enum Ending {
    /// It has no deadline.
    Never,
    AtDeadline(BoxedFuture<()>),
    /// The deadline has passed; this is the end of the last word.
    Overdue(BoxedFuture<()>),
}

/// See the [module's documentation](self).
pub(crate) struct HookedCall {
    /// `None` once the outcome was given.
    chain: Option<BoxedFuture<Result<ReplyBody, ReplyError>>>,
    ending: Ending,
    core: Rc<Core>,
    progress: Rc<Progress>,
}

impl HookedCall {
    /// Nothing of it runs before the first poll. The call's deadline is fixed.
    pub(crate) fn new(transport: &dyn Outgoing, chain: &CallChain, call: OutgoingCall) -> Self {
        let progress = Rc::new(Progress {
            is_running: Cell::new(false),
            attempt: Cell::new(1),
        });
        let ending = match call.remaining() {
            Some(remaining) => Ending::AtDeadline(transport.pause(remaining)),
            None => Ending::Never,
        };
        let core = call.core.clone();
        let tail = Tail(progress.clone());
        let next = chain.start(tail);
        Self {
            chain: Some(Box::pin(next.run(call))),
            ending,
            core,
            progress,
        }
    }

    pub(crate) fn attempt_number(&self) -> u32 {
        self.progress.attempt.get()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.chain.is_some()
    }

    /// The chain goes first, so that a link may still look at an outcome that comes with the
    /// deadline; but it may not wait after that.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(chain) = &mut self.chain else {
            return Poll::Pending;
        };
        if let Poll::Ready(outcome) = chain.as_mut().poll(cx) {
            self.chain = None;
            return Poll::Ready(outcome.map(|body| KeptBody::Shared(body.0)));
        }
        if self.poll_end(cx).is_pending() {
            return Poll::Pending;
        }
        self.chain = None;
        Poll::Ready(Err(ReplyError::Timeout))
    }

    /// Ready once the chain has to go.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Ending::AtDeadline(timer) = &mut self.ending {
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // With its transport the call ended, and there is no timer.
            let transport = self.core.transport();
            let Some(transport) = transport.filter(|_| self.progress.is_running.get()) else {
                return Poll::Ready(());
            };
            self.ending = Ending::Overdue(transport.outgoing().pause(LAST_WORD));
        }
        match &mut self.ending {
            Ending::Overdue(_) if !self.progress.is_running.get() => Poll::Ready(()),
            Ending::Overdue(last_word) => last_word.as_mut().poll(cx),
            Ending::Never | Ending::AtDeadline(_) => Poll::Pending,
        }
    }
}

/// The end of the chain: the network.
#[derive(Debug)]
pub(crate) struct Tail(Rc<Progress>);

impl Tail {
    pub(crate) async fn run(self, call: OutgoingCall) -> Outcome {
        self.0.is_running.set(true);
        let _running = Running(&self.0.is_running);
        let core: Rc<Core> = call.core.clone();
        let transport = core.transport().ok_or(ReplyError::ConnectionFailed)?;
        let OutgoingCall {
            endpoint,
            options,
            body,
            ..
        } = call;
        match options.retry_policy() {
            Some(policy) => {
                let started =
                    Retrying::start(transport.outgoing(), endpoint, options, policy, body);
                // Weak while it waits: a call keeps no transport.
                drop(transport);
                let (mut pending, mut retrying) = started?;
                poll_fn(|cx| {
                    let polled = retrying.poll(&mut pending, cx);
                    if !matches!(polled, Poll::Ready(Err(_))) {
                        self.0.attempt.set(retrying.attempt_number());
                    }
                    polled
                })
                .await
            }
            None => {
                let started =
                    start_call(transport.outgoing(), &endpoint, &options, put_body(&body));
                drop(transport);
                started?.await
            }
        }
    }
}

/// The call is being made, until this is dropped.
struct Running<'a>(&'a Cell<bool>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
