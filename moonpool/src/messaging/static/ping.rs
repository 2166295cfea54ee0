//! [`FlowTransport::ping`].

use std::time::Duration;

use bytes::Bytes;
use moonpool_foundation::{
    Endpoint, NetworkAddress, NetworkProvider, TaskProvider, TimeProvider, UID, WellKnownToken,
};

use super::call::{CallOptions, start_call};
use super::envelope;
use super::flow_transport::FlowTransport;
use super::reply_error::ReplyError;

/// What a transport elsewhere answers to a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PingReply {
    /// Tells that start of the process from all others.
    pub incarnation: UID,
    /// From sending the ping to having the answer, queues and a connection that had to be made
    /// included.
    pub round_trip: Duration,
    /// What was sent.
    pub payload: Bytes,
}

impl<N, T, TP> FlowTransport<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    /// Asks the transport at an address for a sign of life. Every transport answers, without its
    /// service having to do anything: it says that the process is there, not that it is well.
    ///
    /// # Errors
    /// As for any call with the transport's defaults: [`ReplyError::ConnectionFailed`],
    /// [`ReplyError::Timeout`], ..
    ///
    /// # Cancel safety
    /// Dropping the future gives the ping up.
    pub async fn ping(&self, address: NetworkAddress) -> Result<PingReply, ReplyError> {
        self.ping_with(address, &[]).await
    }

    /// [`ping`](Self::ping), with bytes that come back.
    ///
    /// # Errors
    /// As [`ping`](Self::ping), and [`ReplyError::PayloadTooLarge`].
    ///
    /// # Cancel safety
    /// As [`ping`](Self::ping).
    pub async fn ping_with(
        &self,
        address: NetworkAddress,
        payload: &[u8],
    ) -> Result<PingReply, ReplyError> {
        let endpoint = Endpoint::new(address, WellKnownToken::Ping.token());
        let options = CallOptions::of(self);
        let sent = self.core().now();
        let call = start_call(self, &endpoint, &options, |buffer| {
            buffer.extend_from_slice(payload);
            Ok(Bytes::new())
        })?;
        let reply = call.await?.into_bytes();
        let round_trip = self.core().now().saturating_sub(sent);
        let incarnation = envelope::leading_token(&reply)
            .map_err(|error| ReplyError::serialization("ping", &error))?;
        Ok(PingReply {
            incarnation,
            round_trip,
            payload: reply.slice(envelope::TOKEN_BYTES..),
        })
    }
}
