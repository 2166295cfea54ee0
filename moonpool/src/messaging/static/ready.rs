//! [`FlowTransport::ready`].

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use moonpool_foundation::{Endpoint, NetworkProvider, TaskProvider, TimeProvider};

use super::flow_transport::FlowTransport;
use crate::error::TransportError;

impl<N, T, TP> FlowTransport<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    /// Waits until a call to the endpoint would not be refused at this end for want of room: with
    /// `QueueFull`, by the limits of the peer's queue or of this process's own, or with `TooManyCalls`.
    /// For those who would rather wait than shed load.
    ///
    /// Those who wait for the same limit have their turns in the order in which they came, and room for
    /// one wakes one. What is sent without waiting may still be faster: a call that is not made at
    /// once can be refused again. Nothing is said about the other end, which may be overloaded, or gone.
    ///
    /// ```
    /// # use moonpool::{Endpoint, FlowTransport, JsonCodec, NetworkProvider, ReplyError, TaskProvider};
    /// # use moonpool::{ReplyFuture, TimeProvider, send_request};
    /// async fn send_all<N: NetworkProvider, T: TimeProvider, TP: TaskProvider>(
    ///     transport: &FlowTransport<N, T, TP>,
    ///     endpoint: &Endpoint,
    ///     requests: Vec<u64>,
    /// ) -> Result<Vec<ReplyFuture<u64, JsonCodec>>, ReplyError> {
    ///     let mut calls = Vec::new();
    ///     for request in requests {
    ///         transport.ready(endpoint).await?;
    ///         calls.push(send_request(transport, endpoint, request, JsonCodec)?);
    ///     }
    ///     Ok(calls)
    /// }
    /// ```
    ///
    /// # Errors
    /// What a call would be refused with in any case: `Closed`, also if the transport is shut down
    /// meanwhile, `TlsNotSupported`, `NoDestination`, `PeerConfig`.
    ///
    /// # Cancel safety
    /// Dropping the future gives its turn to the next one who waits.
    pub async fn ready(&self, endpoint: &Endpoint) -> Result<(), TransportError> {
        let core = self.core();
        let mut closing = pin!(core.room.closing.until(|| core.check_open().err()));
        let mut room = pin!(self.wait_for_room(endpoint));
        poll_fn(|cx| match closing.as_mut().poll(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            // The end may have come without its turn: that is another one's, who has not looked.
            Poll::Pending => room.as_mut().poll(cx).map(|found| {
                found?;
                core.check_open()
            }),
        })
        .await
    }

    async fn wait_for_room(&self, endpoint: &Endpoint) -> Result<(), TransportError> {
        let core = self.core();
        loop {
            let has_call_room = || core.has_call_room().then_some(());
            core.room.calls.until(has_call_room).await;
            if core.is_local(&endpoint.address) {
                let has_local_room = || core.has_local_room().then_some(());
                core.room.local.until(has_local_room).await;
            } else {
                self.get_or_open_peer(&endpoint.address)?.ready().await?;
            }
            // It may have been taken while room was waited for there.
            if core.has_call_room() {
                return Ok(());
            }
        }
    }
}
