//! [`send_request`].

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use moonpool_foundation::network::peer::PeerHandle;
use moonpool_foundation::{Endpoint, NetworkAddress, NetworkProvider, TaskProvider, TimeProvider};
use moonpool_traits::MessageCodec;
use serde::Serialize;

use super::call_table::CallTerms;
use super::core::Core;
use super::flow_transport::FlowTransport;
use super::middleware::CallChain;
use super::reply_future::ReplyFuture;
use crate::error::{NotSent, TransportError};

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

    /// Makes sure that somebody ends the call when its time has come.
    fn keep_deadline(&self, terms: &CallTerms);

    /// How long a call may take, unless it says otherwise.
    fn default_timeout(&self) -> Option<Duration>;

    /// How long a call puts up with there being no connection, unless it says otherwise.
    fn default_patience(&self) -> Option<Duration>;

    /// The pause before another attempt.
    fn pause(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()>>>;

    /// What is around its calls.
    fn middleware(&self) -> &CallChain;

    /// Random bits for its length.
    fn jitter(&self) -> u64;
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

    fn keep_deadline(&self, terms: &CallTerms) {
        let has_end = terms.deadline.is_some() || terms.patience.is_some();
        if has_end && self.core().is_open() {
            self.start_keeping_deadlines();
        }
    }

    fn default_timeout(&self) -> Option<Duration> {
        self.default_timeout
    }

    fn default_patience(&self) -> Option<Duration> {
        self.peer_config.patience
    }

    fn pause(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(self.time_and_task().0.sleep(duration))
    }

    fn middleware(&self) -> &CallChain {
        &self.call_chain
    }

    fn jitter(&self) -> u64 {
        self.time_and_task().1.internal_random()
    }
}
