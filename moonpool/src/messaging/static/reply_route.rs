//! [`ReplyRoute`]: the way back for one request.

use std::fmt;
use std::rc::Weak;
use std::time::Duration;

use bytes::BytesMut;
use moonpool_foundation::network::peer::PeerHandle;
use moonpool_foundation::{UID, WellKnownToken};
use moonpool_traits::{CodecError, MessageCodec};
use serde::Serialize;

use super::core::{Admission, Core};
use super::envelope;
use super::receivers::Packet;
use super::reply_error::ReplyError;
use crate::error::TransportError;

/// Where the answer to one request goes: back on the session the request came in on, never
/// elsewhere, since a caller may be behind NAT and an address that it claims is not to be dialled.
///
/// It is used up by answering. Dropping it unanswered sends [`ReplyError::BrokenPromise`], so that
/// no caller waits for ever. [`ReplyPromise`](super::ReplyPromise) is the typed form.
pub struct ReplyRoute {
    token: UID,
    way: Way,
    core: Weak<Core>,
}

enum Way {
    Peer(PeerHandle),
    Local,
    /// Answered: nothing is left to do on drop.
    Used,
}

impl ReplyRoute {
    pub(crate) fn new(token: UID, packet: &Packet<'_>, core: Weak<Core>) -> Self {
        let way = match packet {
            Packet::Remote { peer, .. } => Way::Peer((*peer).clone()),
            Packet::Local(_) => Way::Local,
        };
        Self { token, way, core }
    }

    /// Answers. If the value cannot be encoded the caller gets [`ReplyError::Serialization`], if it
    /// is too large [`ReplyError::ReplyTooLarge`].
    pub fn send<T, C>(self, value: &T, codec: &C)
    where
        T: Serialize + ?Sized,
        C: MessageCodec,
    {
        self.send_with(|buffer| codec.encode_into(value, buffer));
    }

    /// Answers that there is no answer. Choose the variant by what the caller may conclude from it:
    /// it cannot tell your `ConnectionFailed` from its own transport's.
    pub fn send_error(mut self, error: &ReplyError) {
        self.send_error_once(error);
    }

    /// Answers that nobody is registered under `missing`.
    pub(crate) fn send_endpoint_not_found(mut self, missing: UID) {
        let reply_token = self.token;
        let sent = self.write(WellKnownToken::EndpointNotFound.token(), |buffer| {
            envelope::put_message_head(None, buffer);
            envelope::put_token(reply_token, buffer);
            envelope::put_token(missing, buffer);
            Ok(())
        });
        self.settle(sent);
    }

    /// Answers with what `encode` writes. If it fails, or writes too much, the caller is told so.
    pub(crate) fn send_with(
        mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), CodecError>,
    ) {
        let sent = self.write(self.token, |buffer| {
            envelope::put_reply_head(buffer);
            encode(buffer)
        });
        match sent {
            Err(TransportError::Codec(error)) => {
                tracing::warn!(%error, "a reply could not be encoded");
                self.send_error_once(&ReplyError::serialization("reply", &error));
            }
            Err(TransportError::PayloadTooLarge { size, limit }) => {
                tracing::warn!(size, limit, "a reply is too large");
                self.send_error_once(&ReplyError::ReplyTooLarge);
            }
            sent => self.settle(sent),
        }
    }

    fn send_error_once(&mut self, error: &ReplyError) {
        let mut sent = self.write_error(error);
        if let Err(TransportError::PayloadTooLarge { .. }) = sent {
            // An application's text; the library's own are short.
            sent = self.write_error(&ReplyError::ReplyTooLarge);
        }
        self.settle(sent);
    }

    fn write_error(&self, error: &ReplyError) -> Result<(), TransportError> {
        self.write(self.token, |buffer| {
            envelope::put_reply_error(error, buffer);
            Ok(())
        })
    }

    fn write(
        &self,
        token: UID,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), CodecError>,
    ) -> Result<(), TransportError> {
        match &self.way {
            Way::Peer(peer) => {
                peer.send_reliable_with(token, encode)?;
                Ok(())
            }
            Way::Local => match self.core.upgrade() {
                Some(core) => core.send_local(token, Admission::Always, encode),
                None => Err(TransportError::Closed),
            },
            Way::Used => Ok(()),
        }
    }

    /// Ends the route. An answer that cannot be queued takes the session with it: its caller would
    /// wait for ever, and after the end of the session it knows where it stands.
    fn settle(&mut self, sent: Result<(), TransportError>) {
        let way = std::mem::replace(&mut self.way, Way::Used);
        let core = self.core.upgrade();
        match sent {
            Ok(()) => {
                if let Some(core) = core {
                    core.counters.replies_sent.add();
                }
            }
            Err(error) => {
                if let Some(core) = core {
                    core.counters.replies_dropped.add();
                }
                tracing::debug!(token = %self.token, %error, "an answer was dropped");
                if let (TransportError::QueueFull, Way::Peer(peer)) = (error, way) {
                    peer.start_close(Duration::ZERO);
                }
            }
        }
    }
}

impl Drop for ReplyRoute {
    fn drop(&mut self) {
        if !matches!(self.way, Way::Used) {
            if let Some(core) = self.core.upgrade() {
                core.counters.broken_promises.add();
            }
            self.send_error_once(&ReplyError::BrokenPromise);
        }
    }
}

impl fmt::Debug for ReplyRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match &self.way {
            Way::Peer(peer) => peer.peer_name(),
            Way::Local => "local",
            Way::Used => "used",
        };
        f.debug_struct("ReplyRoute")
            .field("token", &self.token)
            .field("way", &way)
            .finish_non_exhaustive()
    }
}
