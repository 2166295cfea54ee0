//! [`Retrying`]: what a call needs to be made again, which its future does as it is polled.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use moonpool_foundation::Endpoint;

use super::call::{CallOptions, put_body, start_call};
use super::call_table::Outcome;
use super::reply_error::ReplyError;
use super::reply_future::PendingCall;
use super::request::Outgoing;
use super::retry::{Attempts, Next, RetryPolicy};
use crate::error::TransportError;

/// See the [module's documentation](self).
pub(crate) struct Retrying {
    endpoint: Endpoint,
    /// The deadline among them is that of all attempts together.
    options: CallOptions,
    /// The encoded request.
    body: Bytes,
    attempts: Attempts,
    /// Before another attempt. A box per pause: calls that succeed have none.
    pause: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Retrying {
    /// Makes the first attempt.
    pub(crate) fn start(
        transport: &dyn Outgoing,
        endpoint: Endpoint,
        options: CallOptions,
        policy: RetryPolicy,
        body: Bytes,
    ) -> Result<(PendingCall, Self), TransportError> {
        let retrying = Self {
            endpoint,
            options,
            body,
            attempts: Attempts::new(policy),
            pause: None,
        };
        let call = retrying.attempt(transport)?;
        Ok((call, retrying))
    }

    /// Whether it waits to make another attempt.
    pub(crate) fn is_pausing(&self) -> bool {
        self.pause.is_some()
    }

    /// The number of the attempt that is being made, or that the pause is for; from 1.
    pub(crate) fn attempt_number(&self) -> u32 {
        self.attempts.number()
    }

    fn attempt(&self, transport: &dyn Outgoing) -> Result<PendingCall, TransportError> {
        start_call(
            transport,
            &self.endpoint,
            &self.options,
            put_body(&self.body),
        )
    }

    /// Polls the call, and makes it again as the policy has it.
    pub(crate) fn poll(&mut self, call: &mut PendingCall, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            let failure = match &mut self.pause {
                Some(pause) => {
                    std::task::ready!(pause.as_mut().poll(cx));
                    self.pause = None;
                    self.resend(call)
                }
                None => match std::task::ready!(Pin::new(&mut *call).poll(cx)) {
                    Ok(reply) => return Poll::Ready(Ok(reply)),
                    Err(error) => Some(error),
                },
            };
            if let Some(error) = failure
                && let Some(end) = self.handle_failure(call, error)
            {
                return Poll::Ready(Err(end));
            }
        }
    }

    /// Makes another attempt; gives why there is none.
    fn resend(&self, call: &mut PendingCall) -> Option<ReplyError> {
        let Some(transport) = call.core().transport() else {
            return Some(ReplyError::ConnectionFailed);
        };
        match self.attempt(transport.outgoing()) {
            Ok(again) => {
                *call = again;
                None
            }
            Err(error) => Some(error.into()),
        }
    }

    /// Begins the pause before another attempt, or gives the call's outcome.
    fn handle_failure(&mut self, call: &PendingCall, error: ReplyError) -> Option<ReplyError> {
        let core = call.core();
        let transport = core.transport().filter(|_| core.is_open());
        let Some(transport) = transport else {
            return Some(self.attempts.outcome(error));
        };
        let transport = transport.outgoing();
        let deadline = self.options.deadline();
        let remaining: Option<Duration> =
            deadline.map(|deadline| deadline.saturating_sub(core.now()));
        match self.attempts.next(error, remaining, transport.jitter()) {
            Next::End(outcome) => Some(outcome),
            Next::After(delay) => {
                tracing::trace!(endpoint = %self.endpoint.token, ?delay, "a call is made again");
                self.pause = Some(transport.pause(delay));
                None
            }
        }
    }
}
