//! [`ReplyFuture`].

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_core::FusedFuture;
use moonpool_foundation::UID;
use moonpool_foundation::wait::{self, WaitReason};
use moonpool_traits::MessageCodec;
use serde::de::DeserializeOwned;

use super::call_record::CallRecord;
use super::call_table::{Outcome, Polled};
use super::core::Core;
use super::hooked_call::HookedCall;
use super::kept_bodies::KeptBody;
use super::reply_error::ReplyError;
use super::retrying::Retrying;

/// A call that was started: its reply's bytes, when they come. Dropping it gives the call up.
pub(crate) struct PendingCall {
    core: Rc<Core>,
    /// `None` once the outcome was given.
    reply_token: Option<UID>,
    /// Where the request went: for reports of what a task waits on.
    endpoint_token: UID,
}

impl PendingCall {
    pub(crate) fn new(core: Rc<Core>, reply_token: UID, endpoint_token: UID) -> Self {
        Self {
            core,
            reply_token: Some(reply_token),
            endpoint_token,
        }
    }

    pub(crate) fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// Whether its outcome is still to be given.
    fn is_waiting(&self) -> bool {
        self.reply_token.is_some()
    }
}

impl Future for PendingCall {
    type Output = Outcome;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = &mut *self;
        let Some(reply_token) = this.reply_token else {
            return Poll::Pending;
        };
        let polled = this.core.calls.borrow_mut().poll(reply_token, cx.waker());
        let outcome = match polled {
            Polled::Waiting { replaced } => {
                drop(replaced);
                wait::note(WaitReason::Reply {
                    token: this.endpoint_token,
                });
                return Poll::Pending;
            }
            Polled::Ready(outcome) => outcome,
            // The call ends before its future forgets it, so this is not reached; if it were,
            // nothing would be known of the request.
            Polled::Unknown => Err(ReplyError::MaybeDelivered),
        };
        this.reply_token = None;
        Poll::Ready(outcome)
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if let Some(reply_token) = self.reply_token.take() {
            self.core.forget_call(reply_token);
        }
    }
}

/// The reply to one request, when it comes.
///
/// # Errors
/// [`ReplyError`] says how the call ended otherwise, and whether it may have been executed.
///
/// # Cancel safety
/// Polling it in a `select!` by reference loses nothing. Dropping it gives the call up: a request
/// that was not written yet never is, one that was is not written again on another connection, the
/// server is told that nobody waits ([`ReplyPromise::cancelled`](super::ReplyPromise::cancelled)),
/// and the reply is dropped when it comes. What the server executed by then stands.
///
/// Once it is ready it stays pending for ever, as `is_terminated` says.
#[must_use = "dropping it gives the call up"]
pub struct ReplyFuture<Resp, C> {
    work: Work,
    record: CallRecord,
    endpoint_token: UID,
    codec: C,
    response: PhantomData<fn() -> Resp>,
}

/// How the call is made.
pub(crate) enum Work {
    Once(PendingCall),
    /// It is made again.
    Retrying(PendingCall, Box<Retrying>),
    /// Middleware is around it.
    Hooked(Box<HookedCall>),
}

impl Work {
    /// What the reply was kept in is not needed any more.
    #[inline]
    fn take_back(&self, body: KeptBody) {
        if let Self::Once(call) = self {
            call.core.kept_bodies.borrow_mut().take_back(body);
        }
    }

    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>, record: &CallRecord) -> Poll<Outcome> {
        match self {
            Self::Once(call) => Pin::new(call).poll(cx),
            Self::Retrying(..) | Self::Hooked(_) => self.poll_attempts(cx, record),
        }
    }

    #[inline(never)]
    fn poll_attempts(&mut self, cx: &mut Context<'_>, record: &CallRecord) -> Poll<Outcome> {
        let (polled, attempt) = match self {
            Self::Once(call) => (Pin::new(call).poll(cx), None),
            Self::Retrying(call, retrying) => {
                let polled = retrying.poll(call, cx);
                // The last failure counts as the end of an attempt, not as the beginning of one.
                let is_failure = matches!(polled, Poll::Ready(Err(_)));
                (polled, (!is_failure).then(|| retrying.attempt_number()))
            }
            Self::Hooked(hooked) => (hooked.poll(cx), Some(hooked.attempt_number())),
        };
        if let Some(attempt) = attempt {
            record.note_attempt(attempt);
        }
        polled
    }

    fn is_waiting(&self) -> bool {
        match self {
            Self::Once(call) => call.is_waiting(),
            Self::Retrying(call, retrying) => call.is_waiting() || retrying.is_pausing(),
            Self::Hooked(hooked) => hooked.is_waiting(),
        }
    }
}

impl<Resp, C> ReplyFuture<Resp, C> {
    pub(crate) fn new(work: Work, record: CallRecord, endpoint_token: UID, codec: C) -> Self {
        Self {
            work,
            record,
            endpoint_token,
            codec,
            response: PhantomData,
        }
    }
}

/// Nothing in it is ever pinned, whatever the codec is.
impl<Resp, C> Unpin for ReplyFuture<Resp, C> {}

impl<Resp, C> Future for ReplyFuture<Resp, C>
where
    Resp: DeserializeOwned,
    C: MessageCodec,
{
    type Output = Result<Resp, ReplyError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let _entered = this.record.span().enter();
        let outcome = std::task::ready!(this.work.poll(cx, &this.record));
        let decoded = outcome.and_then(|body| {
            let decoded = body.decode(&this.codec);
            this.work.take_back(body);
            decoded.map_err(|error| ReplyError::serialization("reply", &error))
        });
        this.record.end(decoded.as_ref().map(|_| ()));
        Poll::Ready(decoded)
    }
}

impl<Resp, C> FusedFuture for ReplyFuture<Resp, C>
where
    Resp: DeserializeOwned,
    C: MessageCodec,
{
    fn is_terminated(&self) -> bool {
        !self.work.is_waiting()
    }
}

impl<Resp, C> fmt::Debug for ReplyFuture<Resp, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyFuture")
            .field("endpoint_token", &self.endpoint_token)
            .field("is_waiting", &self.work.is_waiting())
            .finish_non_exhaustive()
    }
}
