//! How receivers and request streams are registered with a transport.

use std::rc::Rc;

use moonpool_foundation::{
    Endpoint, NetworkProvider, TaskProvider, TimeProvider, UID, WellKnownId,
};
use moonpool_traits::MessageCodec;
use serde::de::DeserializeOwned;

use super::core::OnConflict;
use super::flow_transport::FlowTransport;
use super::receivers::MessageReceiver;
use super::request_stream::RequestStream;
use crate::error::RegisterError;

impl<N, T, TP> FlowTransport<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    /// Registers a receiver under a well-known token, for the life of the transport.
    ///
    /// # Errors
    /// `AlreadyRegistered`, `Reserved` for moonpool's own tokens, `Closed`.
    pub fn add_well_known_endpoint(
        &self,
        token: impl Into<WellKnownId>,
        receiver: Rc<dyn MessageReceiver>,
    ) -> Result<(), RegisterError> {
        let token = token.into().token();
        self.core().register(token, receiver, OnConflict::Refuse)
    }

    /// Registers a receiver under a token of the transport's choice. Nobody else can know it: send
    /// the endpoint to whom it concerns. It is never used again after its removal, nor by a later
    /// start of the process.
    ///
    /// # Errors
    /// `NoAddress` if the transport has none, `Full`, `Closed`.
    pub fn add_endpoint(
        &self,
        receiver: Rc<dyn MessageReceiver>,
    ) -> Result<Endpoint, RegisterError> {
        self.core().register_dynamic(receiver)
    }

    /// Ends the registration under a token and closes its receiver. False if there was none, or if
    /// it is well-known: those last as long as the transport.
    pub fn remove_endpoint(&self, token: &UID) -> bool {
        self.core().remove_endpoint(token)
    }

    /// Registers a stream of requests under a token of the caller's choice, usually a constant that
    /// clients know too.
    ///
    /// A stream that has the token already is closed and replaced: its receiver gets what is queued
    /// and then `None`. If the token cannot be had at all (it is moonpool's own, or the transport
    /// is shut down), the given stream is closed from the start.
    /// [`try_register_handler`](Self::try_register_handler) gives errors instead.
    ///
    /// The type of the codec is inferred: `register_handler::<PingRequest, _>(token, JsonCodec)`.
    pub fn register_handler<Req, C>(&self, token: UID, codec: C) -> RequestStream<Req, C>
    where
        Req: DeserializeOwned + 'static,
        C: MessageCodec,
    {
        self.register_stream(RequestStream::new(codec), token)
    }

    fn register_stream<Req, C>(
        &self,
        mut stream: RequestStream<Req, C>,
        token: UID,
    ) -> RequestStream<Req, C>
    where
        Req: DeserializeOwned + 'static,
        C: MessageCodec,
    {
        if let Err(error) = stream.register(self.core(), token, OnConflict::Replace) {
            tracing::error!(%token, %error, "a handler is not registered; its stream is closed");
            stream.close();
        }
        stream
    }

    /// As [`register_handler`](Self::register_handler), for the method with this index of an
    /// interface: the token is `UID::new(interface_id, method_index)`, and is given back.
    ///
    /// The interface id `u64::MAX` marks well-known tokens: its stream is closed from the start.
    pub fn register_handler_at<Req, C>(
        &self,
        interface_id: u64,
        method_index: u64,
        codec: C,
    ) -> (RequestStream<Req, C>, UID)
    where
        Req: DeserializeOwned + 'static,
        C: MessageCodec,
    {
        let token = UID::new(interface_id, method_index);
        if UID::interface(interface_id, method_index).is_err() {
            tracing::error!(%token, "an interface id is reserved; its stream is closed");
            let stream = RequestStream::new(codec);
            stream.close();
            return (stream, token);
        }
        (self.register_handler(token, codec), token)
    }

    /// As [`register_handler`](Self::register_handler), for callers whom the builder's
    /// [`verify`](super::FlowTransportBuilder::verify) accepts. Others get
    /// [`ReplyError::Unauthorized`](super::ReplyError::Unauthorized), and nothing of their requests
    /// is decoded.
    pub fn register_private_handler<Req, C>(&self, token: UID, codec: C) -> RequestStream<Req, C>
    where
        Req: DeserializeOwned + 'static,
        C: MessageCodec,
    {
        self.register_stream(RequestStream::new(codec).private(), token)
    }

    /// Registers a stream of requests under a token that nobody has.
    ///
    /// # Errors
    /// `AlreadyRegistered`, `Reserved`, `InvalidToken`, `Closed`; the stream that has the token is
    /// not disturbed.
    pub fn try_register_handler<Req, C>(
        &self,
        token: UID,
        codec: C,
    ) -> Result<RequestStream<Req, C>, RegisterError>
    where
        Req: DeserializeOwned + 'static,
        C: MessageCodec,
    {
        let mut stream = RequestStream::new(codec);
        stream.register(self.core(), token, OnConflict::Refuse)?;
        Ok(stream)
    }
}
