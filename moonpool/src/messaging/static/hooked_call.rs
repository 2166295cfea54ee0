//! [`HookedCall`]: a call inside of its transport's middleware.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};

use super::call::start_call;
use super::call_table::Outcome;
use super::core::Core;
use super::middleware::{CallChain, OutgoingCall, ReplyBody};
use super::reply_error::ReplyError;
use super::request::Outgoing;
use super::retrying::Retrying;

type BoxedFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// How far the network's part of the call has come.
#[derive(Debug)]
struct Progress {
    /// It is being made: it ends by itself at the deadline.
    is_running: Cell<bool>,
    attempt: Cell<u32>,
}

/// See the [module's documentation](self).
pub(crate) struct HookedCall {
    /// `None` once the outcome was given.
    chain: Option<BoxedFuture<Result<ReplyBody, ReplyError>>>,
    /// Until the deadline. `None` once it has passed, and if there is none.
    timer: Option<BoxedFuture<()>>,
    is_overdue: bool,
    progress: Rc<Progress>,
}

impl HookedCall {
    /// Nothing of it runs before the first poll. The call's deadline is fixed.
    pub(crate) fn new(transport: &dyn Outgoing, chain: &CallChain, call: OutgoingCall) -> Self {
        let progress = Rc::new(Progress {
            is_running: Cell::new(false),
            attempt: Cell::new(1),
        });
        let timer = call.remaining().map(|remaining| transport.pause(remaining));
        let tail = Tail(progress.clone());
        let next = chain.start(tail);
        Self {
            chain: Some(Box::pin(next.run(call))),
            timer,
            is_overdue: false,
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
            return Poll::Ready(outcome.map(|body| body.0));
        }
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            self.timer = None;
            self.is_overdue = true;
        }
        if self.is_overdue && !self.progress.is_running.get() {
            self.chain = None;
            return Poll::Ready(Err(ReplyError::Timeout));
        }
        Poll::Pending
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
                let started = start_call(transport.outgoing(), &endpoint, &options, put(&body));
                drop(transport);
                started?.await
            }
        }
    }
}

fn put(
    body: &Bytes,
) -> impl FnOnce(&mut bytes::BytesMut) -> Result<(), moonpool_traits::CodecError> {
    move |buffer| {
        buffer.put_slice(body);
        Ok(())
    }
}

/// The call is being made, until this is dropped.
struct Running<'a>(&'a Cell<bool>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
