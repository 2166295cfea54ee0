//! [`RequestStream`]: the requests of one endpoint, with the promises to answer them.

use std::fmt;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use futures_core::Stream;
use moonpool_foundation::{
    Endpoint, NetworkProvider, TaskProvider, TimeProvider, UID, WellKnownId,
};
use moonpool_traits::MessageCodec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::core::{Core, OnConflict};
use super::flow_transport::FlowTransport;
use super::net_notified_queue::{NetNotifiedQueue, QueueLimits, QueueStats, Reader};
use super::receivers::MessageReceiver;
use super::reply_future::ReplyFuture;
use super::reply_promise::ReplyPromise;
use super::reply_route::ReplyRoute;
use super::request::send_request;
use crate::error::{NotSent, RegisterError};

/// A typed, bounded queue of requests, each with the promise to answer it.
///
/// Usually made by [`FlowTransport::register_handler`]. Requests that are too many, do not decode,
/// or come after the stream is closed are answered by the stream itself. Dropping the stream ends
/// its registration; requests that it still holds become broken promises.
///
/// ```
/// use moonpool::{JsonCodec, NetworkProvider, RequestStream, TaskProvider, TimeProvider};
/// use moonpool::FlowTransport;
///
/// async fn serve<N: NetworkProvider, T: TimeProvider, TP: TaskProvider>(
///     transport: &FlowTransport<N, T, TP>,
///     stream: RequestStream<String, JsonCodec>,
/// ) {
///     while let Some((text, reply)) = stream.recv_with_transport(transport).await {
///         reply.send(text.len());
///     }
/// }
/// ```
pub struct RequestStream<Req, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    reader: Reader<Req, C>,
    registration: Option<Registration>,
    /// Set by `with_endpoint`: an endpoint elsewhere.
    remote: Option<Endpoint>,
}

struct Registration {
    core: Weak<Core>,
    token: UID,
}

impl<Req, C> RequestStream<Req, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    /// A stream that is not registered yet.
    #[must_use]
    pub fn new(codec: C) -> Self {
        Self::with_limits(codec, QueueLimits::default())
    }

    /// A stream with limits of its own that is not registered yet.
    #[must_use]
    pub fn with_limits(codec: C, limits: QueueLimits) -> Self {
        Self {
            reader: Reader::new(Rc::new(NetNotifiedQueue::with_limits(codec, limits))),
            registration: None,
            remote: None,
        }
    }

    /// Lets only those callers use the stream whom the transport's builder was told to accept; see
    /// [`verify`](super::FlowTransportBuilder::verify). Call it before the stream is registered.
    #[must_use]
    pub fn private(self) -> Self {
        self.queue().make_private();
        self
    }

    /// The client's side of a stream that somebody else serves: for
    /// [`get_reply`](Self::get_reply). It receives nothing.
    #[must_use]
    pub fn with_endpoint(endpoint: Endpoint, codec: C) -> Self {
        let mut stream = Self::new(codec);
        stream.close();
        stream.remote = Some(endpoint);
        stream
    }

    /// Where requests go: set once the stream is registered with a transport that has an address.
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.remote.or_else(|| self.queue().endpoint())
    }

    /// Registers the stream under a well-known token, for the life of the transport.
    ///
    /// # Errors
    /// `AlreadyRegistered`, `Reserved` for moonpool's own tokens, `Closed`.
    pub fn make_well_known_endpoint<N, T, TP>(
        &mut self,
        transport: &FlowTransport<N, T, TP>,
        token: impl Into<WellKnownId>,
    ) -> Result<(), RegisterError>
    where
        N: NetworkProvider,
        T: TimeProvider,
        TP: TaskProvider,
    {
        self.register(transport.core(), token.into().token(), OnConflict::Refuse)
    }

    /// Registers the stream under a token of the transport's choice, and gives the endpoint to
    /// send to whom it concerns.
    ///
    /// # Errors
    /// `NoAddress` if the transport has none, `Full`, `Closed`.
    pub fn make_dynamic_endpoint<N, T, TP>(
        &mut self,
        transport: &FlowTransport<N, T, TP>,
    ) -> Result<Endpoint, RegisterError>
    where
        N: NetworkProvider,
        T: TimeProvider,
        TP: TaskProvider,
    {
        self.deregister();
        let core = transport.core();
        let endpoint = core.register_dynamic(self.receiver())?;
        self.set_registered(core, endpoint.token);
        Ok(endpoint)
    }

    /// Waits for the next request; the response's type is inferred from the answer.
    ///
    /// # Cancel safety
    /// Dropping the future loses no request.
    pub(crate) async fn recv<Resp>(&self) -> Option<(Req, ReplyPromise<Resp, C>)> {
        let (request, route) = self.queue().recv_request().await?;
        Some((request, self.promise(route)))
    }

    pub(crate) fn try_recv<Resp>(&self) -> Option<(Req, ReplyPromise<Resp, C>)> {
        let (request, route) = self.queue().try_recv_request()?;
        Some((request, self.promise(route)))
    }

    /// Waits for the next request. `None` when the stream is closed and empty.
    ///
    /// The answer goes back on the connection the request came in on; the transport is named so
    /// that none has to be remembered behind the caller's back. The response's type is inferred
    /// from the answer, or named: `recv_with_transport::<_, _, _, Response>(&transport)`.
    ///
    /// # Cancel safety
    /// Dropping the future loses no request: several streams may be received from in one `select!`.
    pub async fn recv_with_transport<N, T, TP, Resp>(
        &self,
        _transport: &FlowTransport<N, T, TP>,
    ) -> Option<(Req, ReplyPromise<Resp, C>)>
    where
        N: NetworkProvider,
        T: TimeProvider,
        TP: TaskProvider,
    {
        self.recv().await
    }

    /// The next request, if one is there.
    pub fn try_recv_with_transport<N, T, TP, Resp>(
        &self,
        _transport: &FlowTransport<N, T, TP>,
    ) -> Option<(Req, ReplyPromise<Resp, C>)>
    where
        N: NetworkProvider,
        T: TimeProvider,
        TP: TaskProvider,
    {
        self.try_recv()
    }

    /// The requests as a `futures` stream that may outlive this handle.
    pub fn get_future(&self) -> FutureStream<Req, C> {
        FutureStream {
            reader: Reader::new(self.queue().clone()),
        }
    }

    /// Sends a request to this stream's endpoint, as a client.
    ///
    /// # Errors
    /// As [`send_request`]; `Closed` if the stream has no endpoint.
    pub fn get_reply<Resp, N, T, TP>(
        &self,
        transport: &FlowTransport<N, T, TP>,
        request: Req,
    ) -> Result<ReplyFuture<Resp, C>, NotSent<Req>>
    where
        Req: Serialize,
        N: NetworkProvider,
        T: TimeProvider,
        TP: TaskProvider,
    {
        match self.endpoint() {
            Some(endpoint) => {
                send_request(transport, &endpoint, request, self.queue().codec().clone())
            }
            None => Err(NotSent {
                request,
                error: crate::error::TransportError::Closed,
            }),
        }
    }

    /// Takes in no more requests; those that are queued can still be received. Later ones are
    /// answered with `EndpointNotFound`.
    pub fn close(&self) {
        self.queue().close();
    }

    /// Whether the stream is closed, by its owner, a replacement, or the transport's shutdown.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue().is_closed()
    }

    /// Number of queued requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue().len()
    }

    /// Whether no request is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue().is_empty()
    }

    /// What arrived so far.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        self.queue().stats()
    }

    pub(crate) fn register(
        &mut self,
        core: &Rc<Core>,
        token: UID,
        conflict: OnConflict,
    ) -> Result<(), RegisterError> {
        self.deregister();
        core.register(token, self.receiver(), conflict)?;
        self.set_registered(core, token);
        Ok(())
    }

    /// The stream's receiver was registered under this token: dropping the stream ends that.
    pub(crate) fn set_registered(&mut self, core: &Rc<Core>, token: UID) {
        self.registration = Some(Registration {
            core: Rc::downgrade(core),
            token,
        });
    }

    fn deregister(&mut self) {
        if let Some(Registration { core, token }) = self.registration.take()
            && let Some(core) = core.upgrade()
        {
            core.deregister(token, &self.receiver());
        }
    }

    fn queue(&self) -> &Rc<NetNotifiedQueue<Req, C>> {
        self.reader.queue()
    }

    pub(crate) fn receiver(&self) -> Rc<dyn MessageReceiver> {
        self.queue().clone()
    }

    fn promise<Resp>(&self, route: Option<ReplyRoute>) -> ReplyPromise<Resp, C> {
        ReplyPromise::new(route, self.queue().codec().clone())
    }
}

impl<Req, C> Drop for RequestStream<Req, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    fn drop(&mut self) {
        self.deregister();
        self.close();
    }
}

impl<Req, C> fmt::Debug for RequestStream<Req, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestStream")
            .field("queue", self.reader.queue())
            .finish_non_exhaustive()
    }
}

/// A request whose response type is not decided yet, as a `futures` stream gives it.
#[derive(Debug)]
#[must_use = "dropping it tells the caller that the promise is broken"]
pub struct Request<Req, C> {
    /// The request.
    pub message: Req,
    route: Option<ReplyRoute>,
    codec: C,
}

impl<Req, C> Request<Req, C> {
    /// The request and the promise to answer it.
    pub fn into_parts<Resp>(self) -> (Req, ReplyPromise<Resp, C>) {
        (self.message, ReplyPromise::new(self.route, self.codec))
    }
}

/// The requests of a [`RequestStream`] as a `futures` stream. It ends when the request stream is
/// closed or dropped, once it is empty.
pub struct FutureStream<Req, C> {
    reader: Reader<Req, C>,
}

impl<Req, C> Stream for FutureStream<Req, C>
where
    C: MessageCodec,
{
    type Item = Request<Req, C>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        poll_next(&mut self.reader, cx)
    }
}

impl<Req, C> fmt::Debug for FutureStream<Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FutureStream")
            .field("queue", self.reader.queue())
            .finish_non_exhaustive()
    }
}

impl<Req, C> Stream for RequestStream<Req, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    type Item = Request<Req, C>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        poll_next(&mut self.reader, cx)
    }
}

fn poll_next<Req, C: MessageCodec>(
    reader: &mut Reader<Req, C>,
    cx: &mut Context<'_>,
) -> Poll<Option<Request<Req, C>>> {
    reader.poll_request(cx).map(|received| {
        received.map(|(message, route)| Request {
            message,
            route,
            codec: reader.queue().codec().clone(),
        })
    })
}

#[cfg(test)]
mod tests;
