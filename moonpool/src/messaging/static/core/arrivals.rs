//! Where packets go.

use moonpool_foundation::UID;

use super::Core;
use crate::messaging::r#static::envelope::usual::{self, Usual};
use crate::messaging::r#static::envelope::{Envelope, EnvelopeError};
use crate::messaging::r#static::kept_bodies::KeptBody;
use crate::messaging::r#static::receivers::Packet;
use crate::messaging::r#static::reply_error::ReplyError;

impl Core {
    /// Hands one packet to its receiver or its call.
    pub(crate) fn dispatch(&self, token: UID, packet: &Packet<'_>) {
        match Usual::decode(packet.payload()) {
            Some(Usual::Request {
                reply_token,
                remaining,
                body,
            }) => {
                let head = usual::request(reply_token, remaining);
                self.handle_message(token, packet, &head, body);
            }
            Some(Usual::Reply { body }) => self.handle_reply(token, packet, Ok(body)),
            None => self.dispatch_unusual(token, packet),
        }
    }

    /// The same, for what is neither a usual request nor a usual reply.
    #[inline(never)]
    fn dispatch_unusual(&self, token: UID, packet: &Packet<'_>) {
        match Envelope::decode(packet.payload()) {
            Ok(Envelope::Message { head, body }) => self.handle_message(token, packet, &head, body),
            Ok(Envelope::Reply { outcome, .. }) => {
                let outcome = outcome.map_err(ReplyError::into_outcome);
                self.handle_reply(token, packet, outcome);
            }
            Ok(Envelope::Cancellation { reply_token }) => {
                self.handle_cancellation(packet.peer_id(), reply_token);
            }
            Ok(Envelope::PromiseAnswer { outcome, .. }) => {
                let outcome = outcome.map(|body| self.keep(packet, body));
                self.end_promise(token, outcome.map_err(ReplyError::into_outcome));
            }
            Err(error) => self.handle_undecodable(token, &error),
        }
    }

    #[inline]
    fn handle_reply(&self, token: UID, packet: &Packet<'_>, outcome: Result<&[u8], ReplyError>) {
        let outcome = outcome.map(|body| self.keep(packet, body));
        let from = packet.peer_id();
        let endpoint_token = self.end_call(token, from, outcome);
        if let (Some(from), Some(endpoint_token)) = (from, endpoint_token) {
            self.handle_found(from, endpoint_token);
        }
    }

    /// The body of an answer, for whoever takes it.
    #[inline]
    fn keep(&self, packet: &Packet<'_>, body: &[u8]) -> KeptBody {
        let copied = self.kept_bodies.borrow_mut().copy(body);
        copied.unwrap_or_else(|| KeptBody::Shared(packet.keep_tail(body.len(), &self.kept)))
    }

    /// Counts a packet that is no envelope. It is dropped: there is nowhere to say so.
    pub(crate) fn handle_undecodable(&self, token: UID, error: &EnvelopeError) {
        match error {
            EnvelopeError::UnsupportedVersion { .. } => self.counters.unsupported_versions.add(),
            _ => self.counters.undecodable.add(),
        }
        tracing::debug!(%token, %error, "a packet was dropped");
    }
}
