//! [`MessageReceiver`], what it is given, and the receivers that every transport has.

use std::cell::RefCell;
use std::fmt;
use std::rc::Weak;

use bytes::Bytes;
use moonpool_foundation::network::peer::{KeptPayloads, PeerHandle, PeerId, ReceivedPacket};
use moonpool_foundation::{Endpoint, UID};

use moonpool_traits::SHARED_BYTES;

use super::core::Core;
use super::envelope::{self, MessageHead};
use super::reply_error::ReplyError;
use super::reply_route::ReplyRoute;

/// Of the memory that a message was read into, no more than this part may be something else, if what is
/// decoded is to share it.
const UNUSED_PART: usize = 8;

/// Takes the messages of one endpoint, as bytes.
///
/// Called while nothing of the transport is borrowed: it may register, send and call at any depth.
/// It should be quick; whatever else arrived on the same connection waits for it.
pub trait MessageReceiver {
    /// A message arrived. If it is a request and its route for an answer is dropped unused, the
    /// caller gets [`ReplyError::BrokenPromise`].
    fn receive(&self, packet: Incoming<'_>);

    /// Whether the endpoint takes many messages, as opposed to one reply.
    fn is_stream(&self) -> bool {
        true
    }

    /// Whether only those may send to it whom the transport's builder was told to accept; see
    /// [`verify`](super::FlowTransportBuilder::verify). Asked before each message.
    fn is_private(&self) -> bool {
        false
    }

    /// The receiver was registered, under `endpoint` if its transport has an address.
    fn handle_registered(&self, token: UID, endpoint: Option<Endpoint>) {
        let _ = (token, endpoint);
    }

    /// The registration ended without the receiver's doing: another one took its token, or the
    /// transport shut down.
    fn handle_closed(&self) {}
}

/// A packet on its way to its receiver, from a connection or from this process.
#[derive(Clone, Copy)]
pub(crate) enum Packet<'a> {
    Remote {
        peer: &'a PeerHandle,
        packet: &'a ReceivedPacket<'a>,
    },
    Local(&'a Bytes),
}

impl<'a> Packet<'a> {
    pub(crate) fn payload(&self) -> &'a [u8] {
        match self {
            Self::Remote { packet, .. } => packet.payload,
            Self::Local(bytes) => bytes,
        }
    }

    /// The last `length` bytes of the payload, to keep: shared with what was read, not copied.
    pub(crate) fn share_tail(&self, length: usize) -> Bytes {
        let whole = match self {
            Self::Remote { packet, .. } => packet.to_bytes(),
            Self::Local(bytes) => (*bytes).clone(),
        };
        whole.slice(whole.len().saturating_sub(length)..)
    }

    /// The same, of what may be kept for long: it is copied if it is a small part of what was read.
    #[cold]
    pub(crate) fn keep_tail(&self, length: usize, kept: &RefCell<KeptPayloads>) -> Bytes {
        match self {
            Self::Remote { packet, .. } => {
                let front = packet.payload.len().saturating_sub(length);
                let tail = packet.payload.get(front..).unwrap_or_default();
                kept.borrow_mut().keep(packet, tail)
            }
            Self::Local(_) => self.share_tail(length),
        }
    }

    pub(crate) fn peer(&self) -> Option<&'a PeerHandle> {
        match self {
            Self::Remote { peer, .. } => Some(peer),
            Self::Local(_) => None,
        }
    }

    pub(crate) fn peer_id(&self) -> Option<PeerId> {
        self.peer().map(PeerHandle::id)
    }
}

/// A message for a [`MessageReceiver`], with the route for an answer if it is a request.
pub struct Incoming<'a> {
    token: UID,
    packet: &'a Packet<'a>,
    head: &'a MessageHead<'a>,
    body: &'a [u8],
    reply: Option<ReplyRoute>,
}

impl<'a> Incoming<'a> {
    pub(crate) fn new(
        token: UID,
        packet: &'a Packet<'a>,
        head: &'a MessageHead<'a>,
        body: &'a [u8],
        reply: Option<ReplyRoute>,
    ) -> Self {
        Self {
            token,
            packet,
            head,
            body,
            reply,
        }
    }

    /// The endpoint's token that the message was sent to.
    #[must_use]
    pub fn token(&self) -> UID {
        self.token
    }

    /// The codec's bytes.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.body
    }

    /// The codec's bytes, to keep. They share the block that was read, without a copy, and keep all of
    /// it: up to 128 KiB, or the largest packet in it.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.packet.share_tail(self.body.len())
    }

    /// The connection the message came on; `None` if it came from this process.
    #[must_use]
    pub fn peer(&self) -> Option<&'a PeerHandle> {
        self.packet.peer()
    }

    /// What else the sender said about the message.
    #[must_use]
    pub fn head(&self) -> &MessageHead<'a> {
        self.head
    }

    /// The codec's bytes, if they may be shared by what is decoded from them, and the bytes of memory
    /// that live as long: they are many, and make up most of it.
    pub(crate) fn to_share(&self) -> Option<(Bytes, usize)> {
        if self.body.len() < SHARED_BYTES {
            return None;
        }
        let memory = match &self.packet {
            Packet::Remote { packet, .. } => packet.block_bytes(),
            Packet::Local(bytes) => bytes.len(),
        };
        let unused = memory.saturating_sub(self.body.len());
        (unused <= memory / UNUSED_PART).then(|| (self.to_bytes(), memory))
    }

    /// Bytes of the whole message: the codec's, and what precedes them.
    pub(crate) fn size(&self) -> usize {
        self.packet.payload().len()
    }

    /// The codec's bytes, and the route for an answer if the message is a request.
    #[must_use]
    pub fn into_parts(self) -> (&'a [u8], Option<ReplyRoute>) {
        (self.body, self.reply)
    }

    /// The route alone, which is large: it is moved once, to where it stays.
    #[inline]
    pub(crate) fn into_reply(self) -> Option<ReplyRoute> {
        self.reply
    }
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("token", &self.token)
            .field("payload_bytes", &self.body.len())
            .field("is_request", &self.reply.is_some())
            .finish_non_exhaustive()
    }
}

/// Behind `WellKnownToken::EndpointNotFound`, `UnauthorizedEndpoint` and `Overloaded`: another process says what is
/// wrong with the tokens that requests went to. The body is, for each of them, the request's reply
/// token, then that token.
pub(crate) struct NoticeReceiver {
    pub(crate) core: Weak<Core>,
    /// How the request's call ends.
    pub(crate) error: ReplyError,
}

impl MessageReceiver for NoticeReceiver {
    fn receive(&self, packet: Incoming<'_>) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        let pairs = match envelope::token_pairs(packet.payload()) {
            Ok(pairs) => pairs,
            Err(error) => return core.handle_undecodable(packet.token(), &error),
        };
        for (reply_token, endpoint_token) in pairs {
            tracing::debug!(%endpoint_token, error = %self.error, "a request was refused");
            let from = packet.packet.peer_id();
            let asked = core.end_call(reply_token, from, Err(self.error.clone()));
            // What nobody asked about, nobody is to be told.
            if asked == Some(endpoint_token)
                && let (ReplyError::EndpointNotFound, Some(peer)) = (&self.error, packet.peer())
            {
                core.handle_not_found(peer, endpoint_token);
            }
        }
    }
}

/// Behind `WellKnownToken::Ping`: answers with this start of the process, and with what it was sent.
pub(crate) struct PingReceiver {
    pub(crate) incarnation: UID,
}

impl MessageReceiver for PingReceiver {
    fn receive(&self, packet: Incoming<'_>) {
        let (payload, reply) = packet.into_parts();
        if let Some(reply) = reply {
            reply.send_with(|buffer| {
                envelope::put_token(self.incarnation, buffer);
                buffer.extend_from_slice(payload);
                Ok(Bytes::new())
            });
        }
    }
}
