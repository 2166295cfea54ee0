//! [`Call`]: a request with options.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use moonpool_foundation::network::peer::{Expiry, PacketTerms};
use moonpool_foundation::{Endpoint, NetworkProvider, TaskProvider, TimeProvider, UID};
use moonpool_traits::{CodecError, MessageCodec, SHARED_BYTES};
use serde::Serialize;

use super::call_record::CallRecord;
use super::call_table::CallTerms;
use super::call_terms::earlier;
use super::core::{Admission, Core};
use super::envelope::{self, DEADLINE_OFFSET, Extras, MessageHead, Metadata, TraceContext};
use super::flow_transport::FlowTransport;
use super::hooked_call::HookedCall;
use super::method_name::MethodName;
use super::middleware::OutgoingCall;
use super::reply_error::ReplyError;
use super::reply_future::{PendingCall, ReplyFuture, Work};
use super::reply_promise::ReplyPromise;
use super::request::Outgoing;
use super::retry::RetryPolicy;
use super::retrying::Retrying;
use crate::error::{NotSent, TransportError};
use crate::observability::NOT_SENT;

/// A request that is about to be sent. Made by [`FlowTransport::call`]; nothing happens before
/// [`send`](Self::send).
///
/// ```
/// # use std::time::Duration;
/// # use moonpool::{Endpoint, FlowTransport, JsonCodec, NetworkProvider, ReplyError, TaskProvider};
/// # use moonpool::{ReplyPromise, TimeProvider};
/// /// Asks another service on behalf of a caller: for as long as that waits, but 2 s at most.
/// async fn length<N: NetworkProvider, T: TimeProvider, TP: TaskProvider>(
///     transport: &FlowTransport<N, T, TP>,
///     endpoint: &Endpoint,
///     caller: &ReplyPromise<u64, JsonCodec>,
/// ) -> Result<u64, ReplyError> {
///     transport
///         .call(endpoint, "text".to_owned(), JsonCodec)
///         .timeout(Duration::from_secs(2))
///         .within(caller)
///         .metadata("tenant", "blue")
///         .send()?
///         .await
/// }
/// ```
#[must_use = "a call does nothing until it is sent"]
pub struct Call<'a, Req, C> {
    transport: &'a dyn Outgoing,
    endpoint: Endpoint,
    request: Req,
    codec: C,
    options: CallOptions,
}

/// What a call is given beside its request.
#[derive(Clone, Debug)]
pub(crate) struct CallOptions {
    /// `None`: no deadline of its own.
    timeout: Option<Duration>,
    /// That of the request on whose behalf it is made.
    deadline: Option<Duration>,
    patience: Option<Duration>,
    /// How it is made again.
    retry: Option<RetryPolicy>,
    /// Made when something is added.
    extras: Option<Box<Extras>>,
    name: Option<MethodName>,
}

impl CallOptions {
    /// The transport's defaults.
    pub(crate) fn of(transport: &dyn Outgoing) -> Self {
        Self {
            timeout: transport.default_timeout(),
            deadline: None,
            patience: transport.default_patience(),
            retry: None,
            extras: None,
            name: None,
        }
    }

    pub(crate) fn named(self, name: MethodName) -> Self {
        let name = Some(name);
        Self { name, ..self }
    }

    pub(crate) fn name(&self) -> Option<MethodName> {
        self.name
    }

    /// What the call takes over from the request on whose behalf it is made.
    pub(crate) fn inherit<Resp, D>(&mut self, promise: &ReplyPromise<Resp, D>) {
        self.end_by(promise.deadline());
        if let Some(trace) = promise.trace_context()
            && self.trace().is_none()
        {
            self.extras().inherit_trace(&trace);
        }
    }

    pub(crate) fn trace(&self) -> Option<TraceContext<'_>> {
        self.extras.as_deref().and_then(Extras::trace)
    }

    /// Whether what was added may travel.
    pub(crate) fn extras_fit(&self) -> bool {
        self.extras.as_deref().is_none_or(Extras::fits)
    }

    pub(crate) fn metadata(&self) -> Metadata<'_> {
        let extras = self.extras.as_deref();
        extras.map(Extras::metadata).unwrap_or_default()
    }

    pub(crate) fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = Some(patience);
    }

    pub(crate) fn end_by(&mut self, deadline: Option<Duration>) {
        self.deadline = earlier(self.deadline, deadline);
    }

    pub(crate) fn set_retry(&mut self, policy: RetryPolicy) {
        self.retry = Some(policy);
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    pub(crate) fn retry_policy(&self) -> Option<RetryPolicy> {
        self.retry
    }

    /// From now on the deadline stands, and no attempt begins it anew.
    pub(crate) fn fix_deadline(&mut self, now: Duration) {
        let own = self.timeout.take();
        self.end_by(own.and_then(|timeout| now.checked_add(timeout)));
    }

    pub(crate) fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }
}

impl<N, T, TP> FlowTransport<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    /// A request to `endpoint`, for options and then [`send`](Call::send). What
    /// [`send_request`](super::send_request) sends has the same defaults.
    pub fn call<Req, C>(&self, endpoint: &Endpoint, request: Req, codec: C) -> Call<'_, Req, C>
    where
        Req: Serialize,
        C: MessageCodec,
    {
        Call {
            transport: self,
            endpoint: *endpoint,
            request,
            codec,
            options: CallOptions::of(self),
        }
    }
}

impl<Req, C> Call<'_, Req, C> {
    /// How long the call may take, from [`send`](Self::send) on; 10 s by default. Then it ends with
    /// [`ReplyError::Timeout`], or with [`ReplyError::ConnectionFailed`] if no byte of the request was
    /// handed to a socket by then, and the request is not sent any more. Zero ends it at once, unsent;
    /// `Duration::MAX` and `None` let it wait for ever, save for what ends it otherwise: a session's
    /// end, a connection that cannot be made.
    ///
    /// What remains of the time travels with the request, so that the server can see it
    /// ([`ReplyPromise::remaining`]) and stop. The server learns it when the request arrives: it may
    /// outlive the caller's deadline by the time that the request was on its way, so no lease may
    /// rest on it.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.options.set_timeout(timeout.into());
        self
    }

    /// Ends the call no later than the request that it is made on behalf of: at the earlier of that
    /// one's deadline and the call's own. And passes on that request's
    /// [trace context](ReplyPromise::trace_context), unless the call is given one of its own: without
    /// its state if that, with the metadata given before, is more than may travel.
    pub fn within<Resp, D>(mut self, promise: &ReplyPromise<Resp, D>) -> Self {
        self.options.inherit(promise);
        self
    }

    /// How long there may be no working connection before the call ends with `ConnectionFailed`, if
    /// the request was surely not sent, or `MaybeDelivered`: the patience of the transport's
    /// [`PeerConfig`](crate::PeerConfig), 3 s, by default. It counts from the latest of the call, the
    /// loss of the last connection and the first attempt to make one. The deadline stands: a call
    /// that is to be more patient than that needs a later one as well.
    ///
    /// While there is a connection no call ends for want of patience. With `Duration::ZERO` one that
    /// finds none ends at once, as `ConnectionFailed`, and one that loses its own within 50 ms: for who
    /// has somebody else to ask. The attempt to connect that it began goes on for 3 s, so the next call
    /// may find a connection; [`get_or_open_peer`](FlowTransport::get_or_open_peer) keeps one.
    ///
    /// A session is kept for 60 s without a connection: a request that was written to it does not
    /// outlast that.
    pub fn unless_failed_for(mut self, patience: Duration) -> Self {
        self.options.set_patience(patience);
        self
    }

    /// Makes the call again when it ends without an answer: executed at least once if it succeeds,
    /// and maybe more often. For idempotent requests only.
    ///
    /// Another attempt follows `ConnectionFailed`, `MaybeDelivered`, `BrokenPromise` and
    /// `Overloaded`: at whoever serves the endpoint then, also a new incarnation if the token is
    /// well-known or an interface's, whether the old one died or was shut down: one that shuts down
    /// answers `Overloaded`. A dynamic endpoint is not found there, nor is a method that does not
    /// exist, and that ends the call; see [`RetryPolicy::while_not_found`]. Every other outcome ends it, and so does its deadline,
    /// which holds for all attempts together; the patience is each one's own. If no attempt can begin
    /// in time, the call ends at once with what the last one gave.
    ///
    /// An outcome that says "surely not executed" is given only if it is true of every attempt,
    /// `MaybeDelivered` otherwise.
    ///
    /// The encoded request is kept until the call ends. Attempts are made as the future is polled.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.set_retry(policy);
        self
    }

    /// Adds a pair that the server finds in [`ReplyPromise::metadata`]. Pairs keep their order, and
    /// keys may repeat. At most 64 pairs and 8 KiB, 6 bytes for each pair's lengths and the trace
    /// context's state included: [`send`](Self::send) refuses more.
    pub fn metadata(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.options.extras().push(key, value.as_ref());
        self
    }

    /// The W3C trace context that the server finds in [`ReplyPromise::trace_context`]. Its state
    /// counts against the limit of the metadata.
    pub fn trace_context(mut self, trace: &TraceContext<'_>) -> Self {
        self.options.extras().set_trace(trace);
        self
    }
}

impl<Req, C> Call<'_, Req, C>
where
    Req: Serialize,
    C: MessageCodec,
{
    /// Sends the request, now, and gives the future of its reply; see
    /// [`send_request`](super::send_request). On a transport with
    /// [middleware](super::CallMiddleware) it is only encoded now, and leaves when the middleware
    /// lets it, as the future is polled.
    ///
    /// # Errors
    /// [`NotSent`] gives the request back: as for [`send_request`](super::send_request), and
    /// `MetadataTooLarge`.
    pub fn send<Resp>(self) -> Result<ReplyFuture<Resp, C>, NotSent<Req>> {
        let Self {
            transport,
            endpoint,
            request,
            codec,
            options,
        } = self;
        send(transport, &endpoint, options, request, codec)
    }
}

impl<Req, C> fmt::Debug for Call<'_, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("endpoint", &self.endpoint)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Sends a request, or gives it back.
pub(crate) fn send<Req, Resp, C>(
    transport: &dyn Outgoing,
    endpoint: &Endpoint,
    options: CallOptions,
    request: Req,
    codec: C,
) -> Result<ReplyFuture<Resp, C>, NotSent<Req>>
where
    Req: Serialize,
    C: MessageCodec,
{
    let core = transport.core();
    let record = CallRecord::begin(core, endpoint, options.name());
    let started = {
        let _entered = record.span().enter();
        if options.retry.is_none() && transport.middleware().is_empty() {
            let encode = |buffer: &mut BytesMut| codec.encode_shared(&request, buffer);
            start_call_of(core, transport, endpoint, &options, encode).map(Work::Once)
        } else {
            start(transport, endpoint, options, &request, &codec)
        }
    };
    match started {
        Ok(work) => Ok(ReplyFuture::new(work, record, endpoint.token, codec)),
        Err(error) => {
            record.end_as(NOT_SENT);
            Err(NotSent { request, error })
        }
    }
}

/// Sends a request in the way that its options and the transport's middleware ask for.
#[inline(never)]
fn start<Req, C>(
    transport: &dyn Outgoing,
    endpoint: &Endpoint,
    mut options: CallOptions,
    request: &Req,
    codec: &C,
) -> Result<Work, TransportError>
where
    Req: Serialize,
    C: MessageCodec,
{
    let chain = transport.middleware();
    options.fix_deadline(transport.core().now());
    let body = codec.encode(request)?.freeze();
    if !chain.is_empty() {
        transport.core().check_open()?;
        let call = OutgoingCall {
            core: transport.core().clone(),
            endpoint: *endpoint,
            options,
            body,
        };
        let hooked = HookedCall::new(transport, chain, call);
        return Ok(Work::Hooked(Box::new(hooked)));
    }
    let policy = options.retry.unwrap_or_default();
    let (call, retrying) = Retrying::start(transport, *endpoint, options, policy, body)?;
    Ok(Work::Retrying(call, Box::new(retrying)))
}

/// Starts a call and sends its request.
pub(crate) fn start_call(
    transport: &dyn Outgoing,
    endpoint: &Endpoint,
    options: &CallOptions,
    encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, CodecError>,
) -> Result<PendingCall, TransportError> {
    start_call_of(transport.core(), transport, endpoint, options, encode)
}

#[inline]
fn start_call_of(
    core: &Rc<Core>,
    transport: &dyn Outgoing,
    endpoint: &Endpoint,
    options: &CallOptions,
    encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, CodecError>,
) -> Result<PendingCall, TransportError> {
    if !options.extras_fit() {
        return Err(TransportError::MetadataTooLarge);
    }
    let started = core.now();
    let own = options
        .timeout
        .and_then(|timeout| started.checked_add(timeout));
    let terms = CallTerms {
        token: endpoint.token,
        started,
        deadline: earlier(own, options.deadline),
        patience: options.patience,
    };
    if !core.keeps_deadlines.get() {
        transport.keep_deadline(&terms);
    }
    let token = core.start_call(terms).ok_or(TransportError::TooManyCalls)?;
    let call = PendingCall::new(core.clone(), token, terms.token);
    if terms.deadline.is_some_and(|deadline| deadline <= started) {
        core.counters.calls_timed_out.add();
        // It is not sent at all.
        let error = ReplyError::ConnectionFailed;
        let waker = core.calls.borrow_mut().fail(token, error);
        debug_assert!(waker.is_none(), "nobody has polled this call");
        return Ok(call);
    }
    let head = MessageHead {
        reply_token: Some(token),
        deadline: terms.deadline.map(|deadline| deadline - started),
        trace: options.trace(),
        metadata: options.metadata(),
    };
    write_request(core, transport, endpoint, terms.deadline, token, |buffer| {
        envelope::put_head(&head, buffer);
        encode(buffer)
    })?;
    core.counters.requests_sent.add();
    Ok(call)
}

/// Writes a request's body that is encoded already. A large one is shared.
pub(crate) fn put_body(
    body: &Bytes,
) -> impl FnOnce(&mut BytesMut) -> Result<Bytes, CodecError> + use<> {
    let body = body.clone();
    move |buffer| {
        if body.len() >= SHARED_BYTES {
            return Ok(body);
        }
        buffer.extend_from_slice(&body);
        Ok(Bytes::new())
    }
}

#[inline]
fn write_request(
    core: &Core,
    transport: &dyn Outgoing,
    endpoint: &Endpoint,
    deadline: Option<Duration>,
    reply_token: UID,
    write: impl FnOnce(&mut BytesMut) -> Result<Bytes, CodecError>,
) -> Result<(), TransportError> {
    if core.is_local(&endpoint.address) {
        core.check_open()?;
        let packet = core.send_local(endpoint.token, Admission::WithinLimits, write)?;
        transport.deliver_locally();
        core.calls.borrow_mut().queued_locally(reply_token, packet);
        return Ok(());
    }
    let peer = transport.peer(&endpoint.address)?;
    let terms = PacketTerms {
        expiry: deadline.map(|at| Expiry {
            at,
            remaining_offset: Some(DEADLINE_OFFSET),
        }),
        ..PacketTerms::default()
    };
    let packet = peer.send_reliable_parts(endpoint.token, terms, write)?;
    core.calls
        .borrow_mut()
        .written(reply_token, peer.id(), packet);
    Ok(())
}
