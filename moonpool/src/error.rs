//! What a transport refuses: to be built, to register, to send.
//!
//! How a request that *was* sent ends without its reply is [`ReplyError`](crate::ReplyError).

use std::fmt;
use std::io;

use moonpool_foundation::network::peer::{PeerConfigError, PeerError, SendError};
use moonpool_foundation::{NetworkAddress, UID};
use moonpool_traits::CodecError;

use crate::messaging::{InvalidToken, ReplyError};

/// Why a transport could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// `build_listening()` without an address to listen on. Give one with `local_address()`; a
    /// client that nobody calls needs none and uses `build()`.
    #[error("no local address to listen on: call local_address() first, or build() for a client")]
    MissingLocalAddress,
    /// The address cannot be bound: it is in use, or not this host's. Choose another; port 0 takes
    /// a free one.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: NetworkAddress,
        /// What the operating system said.
        source: io::Error,
    },
    /// The address asks for TLS, which this version does not have. Nothing is sent in clear text
    /// instead.
    #[error("TLS is not supported, {address} asks for it")]
    TlsNotSupported {
        /// The address.
        address: NetworkAddress,
    },
    /// The limits and times for peers make no sense together.
    #[error("the peer configuration is invalid: {0}")]
    PeerConfig(#[from] PeerConfigError),
}

/// Why a receiver was not registered. The receiver is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Somebody is registered under the token. Drop that stream first, or use another token.
    #[error("{token} is registered already")]
    AlreadyRegistered {
        /// The token.
        token: UID,
    },
    /// The token is one of moonpool's own. Users have well-known ids 16 to 63.
    #[error("{token} is reserved for moonpool itself")]
    Reserved {
        /// The token.
        token: UID,
    },
    /// The token cannot be chosen.
    #[error(transparent)]
    InvalidToken(#[from] InvalidToken),
    /// The transport has no address under which an endpoint could be reached.
    #[error("the transport has no address, so it has no endpoints")]
    NoAddress,
    /// All 2^32 places are taken.
    #[error("no room for another endpoint")]
    Full,
    /// The transport is shut down.
    #[error("the transport is shut down")]
    Closed,
}

/// Why a message was not sent. No byte of it left, and it will not be sent later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// As many packets or bytes wait for the peer, or for this process itself, as the configuration
    /// allows. Wait for [`FlowTransport::ready`](crate::FlowTransport::ready), or shed load.
    #[error("the queue to the peer is full")]
    QueueFull,
    /// The message is larger than this end, or the other one, takes. Split it, or raise the limit
    /// at both ends.
    #[error("message of {size} bytes is too large, the limit is {limit}")]
    PayloadTooLarge {
        /// Bytes of the encoded message, its envelope included.
        size: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// The message has no encoding. Sending it again will fail again.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The address asks for TLS, which this version does not have. Nothing is sent in clear text
    /// instead.
    #[error("TLS is not supported, {address} asks for it")]
    TlsNotSupported {
        /// The address.
        address: NetworkAddress,
    },
    /// `0.0.0.0`, `::` or port 0, which can be listened on but not sent to.
    #[error("{address} is no address to send to")]
    NoDestination {
        /// The address.
        address: NetworkAddress,
    },
    /// The token is one of the sessions' own frames. Use another.
    #[error("{token} is reserved for session frames")]
    ReservedToken {
        /// The token.
        token: UID,
    },
    /// As many calls wait as the builder's `max_pending_calls` allows. Wait for replies, or shed
    /// load.
    #[error("too many calls wait for their replies")]
    TooManyCalls,
    /// A call has more than 64 pairs of metadata, or more than 8 KiB of them and of trace state. Put
    /// into the message what belongs to it.
    #[error("the metadata is larger than 64 pairs or 8 KiB")]
    MetadataTooLarge,
    /// The limits and times for peers that the transport was built with make no sense together: it
    /// can send nothing. `build_listening()` refuses them; `build()` cannot fail, so every attempt to
    /// send says it. Correct the configuration.
    #[error("the peer configuration is invalid: {0}")]
    PeerConfig(#[source] PeerConfigError),
    /// The transport has no address that an answer to a promise could be sent to. Build one that
    /// listens, or ask with a request: its reply needs no address.
    #[error("the transport has no address, so nobody could answer its promise")]
    NoAddress,
    /// The transport, or its peer for the address, is shut down.
    #[error("the transport is shut down")]
    Closed,
}

impl From<SendError<CodecError>> for TransportError {
    fn from(error: SendError<CodecError>) -> Self {
        match error {
            SendError::Encode(error) => Self::Codec(error),
            SendError::BufferReplaced => Self::Codec(CodecError::encode(
                "the codec changed what was in the buffer before",
            )),
            SendError::Peer(error) => error.into(),
            _ => Self::Closed,
        }
    }
}

impl From<PeerError> for TransportError {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::QueueFull { .. } => Self::QueueFull,
            PeerError::PayloadTooLarge { size, limit, .. } => Self::PayloadTooLarge { size, limit },
            PeerError::ReservedToken { token, .. } => Self::ReservedToken { token },
            _ => Self::Closed,
        }
    }
}

/// For callers that treat "not sent" and "sent without a reply" alike: `send_request(..)?.await?`
/// in a function that gives a [`ReplyError`]. Each variant becomes one that is surely not executed,
/// save a message without encoding, which becomes `Serialization`.
impl From<TransportError> for ReplyError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::QueueFull | TransportError::TooManyCalls => Self::Overloaded,
            TransportError::PayloadTooLarge { .. } | TransportError::MetadataTooLarge => {
                Self::PayloadTooLarge
            }
            TransportError::Codec(error) => Self::serialization("request", &error),
            TransportError::ReservedToken { .. } => Self::EndpointNotFound,
            TransportError::TlsNotSupported { .. }
            | TransportError::NoDestination { .. }
            | TransportError::PeerConfig(_)
            | TransportError::NoAddress
            | TransportError::Closed => Self::ConnectionFailed,
        }
    }
}

/// A request that was not sent, given back with the reason.
///
/// `?` turns it into a [`TransportError`] or a [`ReplyError`] and drops the request.
pub struct NotSent<Req> {
    /// The request.
    pub request: Req,
    /// Why it was not sent.
    pub error: TransportError,
}

impl<Req> fmt::Debug for NotSent<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotSent")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<Req> fmt::Display for NotSent<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request not sent: {}", self.error)
    }
}

impl<Req> std::error::Error for NotSent<Req> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<Req> From<NotSent<Req>> for TransportError {
    fn from(not_sent: NotSent<Req>) -> Self {
        not_sent.error
    }
}

impl<Req> From<NotSent<Req>> for ReplyError {
    fn from(not_sent: NotSent<Req>) -> Self {
        not_sent.error.into()
    }
}
