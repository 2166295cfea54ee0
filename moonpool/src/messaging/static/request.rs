//! [`send_request`].

use moonpool_foundation::{Endpoint, NetworkProvider, TaskProvider, TimeProvider};
use moonpool_traits::MessageCodec;
use serde::Serialize;

use super::flow_transport::FlowTransport;
use super::reply_future::ReplyFuture;
use crate::error::NotSent;

/// Sends a request and gives the future of its reply. It is sent now, not when the future is first
/// polled, and executed at most once.
///
/// The future always ends: with the reply, with the server's refusal, with what the loss of the
/// connection says about the request's execution, or with the transport's default deadline, 10 s; see
/// [`ReplyError`](super::ReplyError). [`FlowTransport::call`] takes options.
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
    transport.call(endpoint, request, codec).send()
}
