//! [`MethodCall`]: a call of an interface's method that is not sent yet, and whom it goes to.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use moonpool_foundation::{Endpoint, NetworkProvider, TaskProvider, TimeProvider};
use moonpool_traits::MessageCodec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{self, CallOptions};
use super::envelope::TraceContext;
use super::flow_transport::FlowTransport;
use super::method_name::MethodName;
use super::one_way::{self, Delivery};
use super::reply_error::ReplyError;
use super::reply_future::ReplyFuture;
use super::reply_promise::ReplyPromise;
use super::request::Outgoing;
use super::retry::RetryPolicy;
use crate::error::NotSent;

/// Where an interface's client sends to. For `define_interface!` alone.
#[doc(hidden)]
#[derive(Clone)]
pub struct Target<C> {
    transport: Rc<dyn Outgoing>,
    base: Endpoint,
    codec: C,
}

impl<C> fmt::Debug for Target<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl<C: MessageCodec> Target<C> {
    pub fn new<N, T, TP>(transport: &Rc<FlowTransport<N, T, TP>>, base: Endpoint, codec: C) -> Self
    where
        N: NetworkProvider,
        T: TimeProvider,
        TP: TaskProvider,
    {
        let transport: Rc<dyn Outgoing> = transport.clone();
        Self {
            transport,
            base,
            codec,
        }
    }

    #[must_use]
    pub fn base(&self) -> Endpoint {
        self.base
    }

    pub fn call<Req, Resp>(
        &self,
        method: u64,
        name: MethodName,
        request: Req,
    ) -> MethodCall<Req, Resp, C> {
        MethodCall {
            options: CallOptions::of(&*self.transport).named(name),
            transport: self.transport.clone(),
            endpoint: self.base.adjusted(method),
            request,
            codec: self.codec.clone(),
            response: PhantomData,
        }
    }
}

/// A call that is made by awaiting it, or by [`send`](Self::send); or a message that is
/// [told](Self::tell), and not answered.
#[must_use = "nothing is sent before it is awaited, or `send` or `tell` is called"]
pub struct MethodCall<Req, Resp, C> {
    transport: Rc<dyn Outgoing>,
    endpoint: Endpoint,
    request: Req,
    codec: C,
    options: CallOptions,
    response: PhantomData<fn() -> Resp>,
}

/// Options, as those of [`Call`](super::Call).
impl<Req, Resp, C> MethodCall<Req, Resp, C> {
    /// See [`Call::timeout`](super::Call::timeout).
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.options.set_timeout(timeout.into());
        self
    }

    /// See [`Call::within`](super::Call::within).
    pub fn within<Other, D>(mut self, promise: &ReplyPromise<Other, D>) -> Self {
        self.options.inherit(promise);
        self
    }

    /// See [`Call::unless_failed_for`](super::Call::unless_failed_for).
    pub fn unless_failed_for(mut self, patience: Duration) -> Self {
        self.options.set_patience(patience);
        self
    }

    /// See [`Call::retry`](super::Call::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.set_retry(policy);
        self
    }

    /// See [`Call::metadata`](super::Call::metadata).
    pub fn metadata(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.options.extras().push(key, value.as_ref());
        self
    }

    /// See [`Call::trace_context`](super::Call::trace_context).
    pub fn trace_context(mut self, trace: &TraceContext<'_>) -> Self {
        self.options.extras().set_trace(trace);
        self
    }
}

impl<Req, Resp, C> MethodCall<Req, Resp, C>
where
    Req: Serialize,
    C: MessageCodec,
{
    /// Sends the request now, and gives the future of its reply.
    ///
    /// # Errors
    /// As [`send_request`](super::send_request).
    pub fn send(self) -> Result<ReplyFuture<Resp, C>, NotSent<Req>> {
        call::send(
            &*self.transport,
            &self.endpoint,
            self.options,
            self.request,
            self.codec,
        )
    }

    /// Sends the request as a one-way message: at most once, in order with the calls to the same
    /// server. Nobody answers it, and nobody learns whether it arrived: `Ok` says that it was taken. It
    /// waits for a connection as long as the transport's peers have patience, 3 s by default. The method's
    /// handler gets it as any other, with a promise of which
    /// [`expects_answer`](ReplyPromise::expects_answer) is false.
    ///
    /// Of the call's options the metadata and the trace context travel, for a
    /// [`MessageReceiver`](super::MessageReceiver) to see; the others have no meaning here, and there is no
    /// middleware around it.
    ///
    /// # Errors
    /// [`NotSent`] gives the request back: as [`send`](Self::send), but for `TooManyCalls`.
    pub fn tell(self) -> Result<(), NotSent<Req>> {
        self.tell_by(Delivery::Reliable)
    }

    /// [`tell`](Self::tell), but dropped if there is no working connection at this moment, which opens
    /// one, and lost with the connection that it goes on; it may overtake what is reliable. `Ok` is given
    /// for a message that is dropped, too. For what is soon repeated. To the own process it is as `tell`.
    ///
    /// # Errors
    /// As [`tell`](Self::tell).
    pub fn tell_unreliable(self) -> Result<(), NotSent<Req>> {
        self.tell_by(Delivery::Unreliable)
    }

    fn tell_by(self, delivery: Delivery) -> Result<(), NotSent<Req>> {
        let (transport, codec) = (&*self.transport, &self.codec);
        let options = &self.options;
        one_way::tell(
            transport,
            &self.endpoint,
            options,
            self.request,
            codec,
            delivery,
        )
    }
}

impl<Req, Resp, C> IntoFuture for MethodCall<Req, Resp, C>
where
    Req: Serialize,
    Resp: DeserializeOwned,
    C: MessageCodec,
{
    type Output = Result<Resp, ReplyError>;
    type IntoFuture = MethodFuture<Resp, C>;

    /// Sends the request. What keeps it from being sent is the future's outcome.
    fn into_future(self) -> Self::IntoFuture {
        MethodFuture(match self.send() {
            Ok(reply) => Sent::Waiting(reply),
            Err(not_sent) => Sent::Refused(Some(not_sent.into())),
        })
    }
}

impl<Req, Resp, C> fmt::Debug for MethodCall<Req, Resp, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MethodCall")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// The outcome of a [`MethodCall`] that was awaited. Dropping it gives the call up, as dropping a
/// [`ReplyFuture`] does.
#[must_use = "dropping it gives the call up"]
#[derive(Debug)]
pub struct MethodFuture<Resp, C>(Sent<Resp, C>);

#[derive(Debug)]
enum Sent<Resp, C> {
    Waiting(ReplyFuture<Resp, C>),
    /// `None` once it was told.
    Refused(Option<ReplyError>),
}

impl<Resp, C> Future for MethodFuture<Resp, C>
where
    Resp: DeserializeOwned,
    C: MessageCodec,
{
    type Output = Result<Resp, ReplyError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Sent::Waiting(reply) => Pin::new(reply).poll(cx),
            Sent::Refused(error) => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
        }
    }
}
