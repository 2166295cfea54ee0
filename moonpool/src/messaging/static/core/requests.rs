//! What becomes of requests that arrive: admitted, refused, cancelled.

use std::task::{Context, Poll};
use std::time::Duration;

use moonpool_foundation::network::peer::{PeerHandle, PeerId};
use moonpool_foundation::{UID, WellKnownToken};

use super::{Core, wake};
use crate::messaging::r#static::envelope::MessageHead;
use crate::messaging::r#static::peer_info::PeerInfo;
use crate::messaging::r#static::receivers::{Incoming, Packet};
use crate::messaging::r#static::reply_route::{ReplyRoute, Slot};

impl Core {
    /// Hands a message to its receiver, or answers why not.
    pub(super) fn handle_message<'a>(
        &self,
        token: UID,
        packet: &'a Packet<'a>,
        head: &'a MessageHead<'a>,
        body: &'a [u8],
    ) {
        let receiver = self.endpoints.borrow().get(&token).cloned();
        let Some(receiver) = receiver else {
            self.counters.endpoint_not_found.add();
            self.note_refusal("endpoint_not_found");
            return match head.reply_token {
                Some(_) => self
                    .refusal(packet, head)
                    .send_notice(self.notice_of_absence(token), token),
                None => tracing::debug!(%token, "a message came for a token without a receiver"),
            };
        };
        if receiver.is_private() && !self.is_authorized(packet) {
            self.counters.unauthorized.add();
            self.note_refusal("unauthorized");
            return match head.reply_token {
                Some(_) => self
                    .refusal(packet, head)
                    .send_notice(WellKnownToken::UnauthorizedEndpoint, token),
                None => tracing::debug!(%token, "a message came from a peer that may not send it"),
            };
        }
        let reply = match head.reply_token {
            None => None,
            Some(reply_token) => match self.reserve_slot(packet) {
                Some(slot) => Some(self.admit(reply_token, packet, head, slot)),
                None => {
                    self.counters.requests_refused.add();
                    self.note_refusal("overloaded");
                    let refusal = self.refusal(packet, head);
                    return refusal.send_notice(WellKnownToken::Overloaded, token);
                }
            },
        };
        self.counters.messages_received.add();
        receiver.receive(Incoming::new(token, packet, head, body, reply));
    }

    /// What the caller of a token without a receiver is told. While the transport shuts down, a token
    /// that another process may serve next is not missing: its caller is to come again, there or
    /// elsewhere. One that was allocated here will never be served again.
    fn notice_of_absence(&self, token: UID) -> WellKnownToken {
        if self.is_open() || self.endpoints.borrow().allocates(token) {
            WellKnownToken::EndpointNotFound
        } else {
            WellKnownToken::Overloaded
        }
    }

    /// Tells the metrics of a message that no handler gets.
    #[cfg(feature = "metrics")]
    pub(crate) fn note_refusal(&self, reason: &'static str) {
        self.instruments.refuse(reason);
    }

    /// Without the feature `metrics` nobody is told.
    #[cfg(not(feature = "metrics"))]
    #[inline]
    pub(crate) fn note_refusal(&self, _reason: &'static str) {}

    /// Whether the sender may use private endpoints. This process itself may.
    fn is_authorized(&self, packet: &Packet<'_>) -> bool {
        packet
            .peer()
            .is_none_or(|peer| self.verify.accepts(&PeerInfo::of(peer)))
    }

    fn reserve_slot(&self, packet: &Packet<'_>) -> Option<Slot> {
        match packet.peer() {
            Some(peer) => peer.reserve_answer().map(Slot::Of),
            None => {
                let in_use = self.local_slots.get();
                if in_use >= self.limits.local_answers {
                    return None;
                }
                self.local_slots.set(in_use + 1);
                Some(Slot::Local)
            }
        }
    }

    /// The local answer that a slot was for is sent.
    pub(crate) fn release_local_slot(&self) {
        self.local_slots
            .set(self.local_slots.get().saturating_sub(1));
    }

    fn admit(
        &self,
        reply_token: UID,
        packet: &Packet<'_>,
        head: &MessageHead<'_>,
        slot: Slot,
    ) -> ReplyRoute {
        let peer = packet.peer_id().unwrap_or_default();
        let answer_slot = match slot {
            Slot::Of(slot) => Some(slot),
            Slot::Local => None,
        };
        let is_known = self
            .open_requests
            .borrow_mut()
            .begin(peer, reply_token, answer_slot);
        let deadline = head
            .deadline
            .and_then(|remaining| self.received_at(packet).checked_add(remaining));
        let mut spare = self.spare_routes.borrow_mut();
        let asked = (reply_token, deadline);
        ReplyRoute::admitted(&mut spare, asked, packet, &self.this, (slot, is_known))
            .with_context(head)
    }

    /// When the packet came.
    fn received_at(&self, packet: &Packet<'_>) -> Duration {
        match packet {
            Packet::Remote { packet, .. } => packet.received_at,
            Packet::Local(_) => self.now(),
        }
    }

    fn refusal(&self, packet: &Packet<'_>, head: &MessageHead<'_>) -> ReplyRoute {
        let reply_token = head.reply_token.unwrap_or(UID::NIL);
        let mut spare = self.spare_routes.borrow_mut();
        ReplyRoute::refusal(&mut spare, reply_token, packet, &self.this)
    }

    /// A caller waits no more. `from` is its session; `None` is this process.
    pub(super) fn handle_cancellation(&self, from: Option<PeerId>, reply_token: UID) {
        let peer = from.unwrap_or_default();
        let cancelled = self.open_requests.borrow_mut().cancel(peer, reply_token);
        if let Some(waker) = cancelled {
            self.counters.cancellations_received.add();
            wake(waker);
        }
    }

    /// A session ended, or packets were dropped without that: if it did, nobody waits for answers to
    /// it any more.
    pub(super) fn handle_ended_session(&self, peer: &PeerHandle) {
        let slot = self.open_requests.borrow().slot_of(peer.id());
        if slot.is_some_and(|slot| !peer.is_current(slot)) {
            self.cancel_requests_of(peer.id());
        }
    }

    /// Nobody waits for answers to a peer's session any more.
    pub(super) fn cancel_requests_of(&self, peer: PeerId) {
        let wakers = self.open_requests.borrow_mut().end_session(peer);
        wakers.into_iter().for_each(|waker| waker.wake());
    }

    /// A request is answered.
    pub(crate) fn end_request(&self, peer: Option<PeerId>, reply_token: UID) {
        let peer = peer.unwrap_or_default();
        let waker = self.open_requests.borrow_mut().end(peer, reply_token);
        drop(waker);
    }

    pub(crate) fn is_cancelled(&self, peer: Option<PeerId>, reply_token: UID) -> bool {
        let peer = peer.unwrap_or_default();
        self.open_requests.borrow().is_cancelled(peer, reply_token)
    }

    pub(crate) fn poll_cancelled(
        &self,
        peer: Option<PeerId>,
        reply_token: UID,
        cx: &Context<'_>,
    ) -> Poll<()> {
        let peer = peer.unwrap_or_default();
        let (poll, replaced) =
            self.open_requests
                .borrow_mut()
                .poll_cancelled(peer, reply_token, cx.waker());
        drop(replaced);
        poll
    }
}
