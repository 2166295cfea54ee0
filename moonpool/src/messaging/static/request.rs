//! [`send_request`].

use std::rc::Rc;

use moonpool_foundation::network::peer::PeerHandle;
use moonpool_foundation::{
    Endpoint, NetworkAddress, NetworkProvider, TaskProvider, TimeProvider, UID,
};
use moonpool_traits::MessageCodec;
use serde::Serialize;

use super::core::{Admission, Core};
use super::envelope;
use super::flow_transport::FlowTransport;
use super::reply_future::ReplyFuture;
use crate::error::{NotSent, TransportError};

/// Sends a request and gives the future of its reply. It is sent now, not when the future is first
/// polled, and executed at most once.
///
/// The future always ends: with the reply, with the server's refusal, or with what the loss of the
/// connection says about the request's execution; see [`ReplyError`](super::ReplyError). There is no
/// deadline yet: a server that keeps its promise and its connection keeps the caller waiting.
///
/// The type of the reply is not checked against the server's. It may need naming:
///
/// ```
/// # use moonpool::{Endpoint, FlowTransport, JsonCodec, NetworkProvider, ReplyError, TaskProvider};
/// # use moonpool::{TimeProvider, send_request};
/// async fn length<N: NetworkProvider, T: TimeProvider, TP: TaskProvider>(
///     transport: &FlowTransport<N, T, TP>,
///     endpoint: &Endpoint,
/// ) -> Result<(), ReplyError> {
///     let length: u64 = send_request(transport, endpoint, "text".to_owned(), JsonCodec)?.await?;
///     assert_eq!(length, 4);
///     Ok(())
/// }
/// ```
///
/// # Errors
/// [`NotSent`] gives the request back: the queue is full, it is too large or has no encoding, the
/// address is none to send to, or the transport is shut down.
pub fn send_request<Req, Resp, N, T, TP, C>(
    transport: &FlowTransport<N, T, TP>,
    endpoint: &Endpoint,
    request: Req,
    codec: C,
) -> Result<ReplyFuture<Resp, C>, NotSent<Req>>
where
    Req: Serialize,
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
    C: MessageCodec,
{
    send_through(transport, endpoint, request, codec)
}

/// A transport to send through, whatever its providers are.
pub(crate) trait Outgoing {
    /// Its state.
    fn core(&self) -> &Rc<Core>;

    /// The peer for an address, opened if need be.
    ///
    /// # Errors
    /// As [`FlowTransport::get_or_open_peer`].
    fn peer(&self, address: &NetworkAddress) -> Result<PeerHandle, TransportError>;

    /// Sees to it that packets to this process itself are delivered.
    fn deliver_locally(&self);
}

impl<N, T, TP> Outgoing for FlowTransport<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    fn core(&self) -> &Rc<Core> {
        self.core()
    }

    fn peer(&self, address: &NetworkAddress) -> Result<PeerHandle, TransportError> {
        self.get_or_open_peer(address)
    }

    fn deliver_locally(&self) {
        self.start_local_delivery();
    }
}

pub(crate) fn send_through<Req, Resp, C>(
    transport: &dyn Outgoing,
    endpoint: &Endpoint,
    request: Req,
    codec: C,
) -> Result<ReplyFuture<Resp, C>, NotSent<Req>>
where
    Req: Serialize,
    C: MessageCodec,
{
    match send(transport, endpoint, &request, &codec) {
        Ok(reply_token) => Ok(ReplyFuture::new(
            transport.core().clone(),
            reply_token,
            endpoint.token,
            codec,
        )),
        Err(error) => Err(NotSent { request, error }),
    }
}

fn send<Req, C>(
    transport: &dyn Outgoing,
    endpoint: &Endpoint,
    request: &Req,
    codec: &C,
) -> Result<UID, TransportError>
where
    Req: Serialize,
    C: MessageCodec,
{
    let core = transport.core();
    let started = core.calls.borrow_mut().start();
    let reply_token = started.ok_or(TransportError::TooManyCalls)?;
    let sent = write(transport, endpoint, reply_token, request, codec);
    match sent {
        Ok(()) => {
            core.counters.requests_sent.add();
            Ok(reply_token)
        }
        Err(error) => {
            let forgotten = core.calls.borrow_mut().forget(reply_token);
            debug_assert!(
                forgotten.waker.is_none() && forgotten.sent.is_none(),
                "nobody has polled this call, and it was not sent"
            );
            Err(error)
        }
    }
}

fn write<Req, C>(
    transport: &dyn Outgoing,
    endpoint: &Endpoint,
    reply_token: UID,
    request: &Req,
    codec: &C,
) -> Result<(), TransportError>
where
    Req: Serialize,
    C: MessageCodec,
{
    let encode = |buffer: &mut bytes::BytesMut| {
        envelope::put_message_head(Some(reply_token), buffer);
        codec.encode_into(request, buffer)
    };
    let core = transport.core();
    if core.is_local(&endpoint.address) {
        if !core.is_open() {
            return Err(TransportError::Closed);
        }
        core.send_local(endpoint.token, Admission::WithinLimits, encode)?;
        transport.deliver_locally();
        return Ok(());
    }
    let peer = transport.peer(&endpoint.address)?;
    let packet = peer.send_reliable_with(endpoint.token, encode)?;
    core.calls
        .borrow_mut()
        .written(reply_token, peer.id(), packet);
    Ok(())
}
