//! [`ReplyRoute`]: the way back for one request.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use moonpool_foundation::network::peer::{
    Account, AnswerSlot, Expiry, PacketTerms, PeerHandle, PeerId,
};
use moonpool_foundation::wait::{self, WaitReason};
use moonpool_foundation::{Endpoint, NetworkAddress, UID, WellKnownToken, sometimes_assert};
use moonpool_traits::{CodecError, MessageCodec};
use serde::Serialize;

use super::answer_sizes::AnswerSizes;
use super::core::{Admission, Core};
use super::envelope::{self, MessageHead, Metadata, RequestContext, TraceContext};
use super::peer_info::PeerInfo;
use super::receivers::Packet;
use super::reply_error::ReplyError;
use crate::error::TransportError;

/// Where the answer to one request goes: back on the session the request came in on, never
/// elsewhere, since a caller may be behind NAT and an address that it claims is not to be dialled.
/// That of an [embedded promise](super::EmbeddedPromise) that was bound goes to the promise's
/// address.
///
/// It is used up by answering. Dropping it unanswered sends [`ReplyError::BrokenPromise`], so that
/// no caller waits for ever. [`ReplyPromise`](super::ReplyPromise) is the typed form.
///
/// What it knows is in a box, which goes from one request to the next: a request is moved several times
/// on its way to its handler, and its route with it.
pub struct ReplyRoute(Option<Box<Route>>);

/// A route's contents. `None` in its place: it is used up.
struct Route {
    token: UID,
    way: Way,
    core: Weak<Core>,
    /// Room for the answer; none for a refusal.
    slot: Option<Slot>,
    /// Whether the transport knows the request by its reply token.
    is_registered: bool,
    deadline: Option<Duration>,
    context: Option<Box<RequestContext>>,
    /// Of the stream that the request was taken from.
    sizes: Option<Rc<Cell<AnswerSizes>>>,
}

/// Boxes of routes that were used, for the next ones: as many as there were routes at one time.
#[derive(Default)]
#[expect(
    clippy::vec_box,
    reason = "the boxes are what is kept: they move, the routes do not"
)]
pub(crate) struct SpareRoutes(Vec<Box<Route>>);

impl SpareRoutes {
    /// A route of the transport whose boxes these are.
    #[inline]
    fn route(&mut self, token: UID, way: Way, core: &Weak<Core>) -> Box<Route> {
        match self.0.pop() {
            Some(mut route) => {
                route.token = token;
                route.way = way;
                route
            }
            None => Box::new(Route::new(token, way, core.clone())),
        }
    }

    #[inline]
    fn take_back(&mut self, mut route: Box<Route>) {
        route.slot = None;
        route.is_registered = false;
        route.deadline = None;
        route.context = None;
        route.sizes = None;
        self.0.push(route);
    }
}

enum Way {
    Peer(PeerHandle),
    Local,
    /// To the process that made an embedded promise, over whatever session leads there. Boxed, since
    /// few routes are of promises.
    Promise(Box<NetworkAddress>),
    /// Of a spare route.
    Used,
}

/// Room for one answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot {
    /// In the session of a peer.
    Of(AnswerSlot),
    /// In this process.
    Local,
}

impl Route {
    fn new(token: UID, way: Way, core: Weak<Core>) -> Self {
        Self {
            token,
            way,
            core,
            slot: None,
            is_registered: false,
            deadline: None,
            context: None,
            sizes: None,
        }
    }

    fn is_cancelled(&self) -> bool {
        let Some(core) = self.core.upgrade() else {
            return true;
        };
        let is_overdue = self.deadline.is_some_and(|deadline| deadline <= core.now());
        is_overdue || (self.is_registered && core.is_cancelled(self.peer(), self.token))
    }

    fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<()> {
        match self.core.upgrade() {
            Some(core) if self.is_registered => core.poll_cancelled(self.peer(), self.token, cx),
            Some(_) => Poll::Pending,
            None => Poll::Ready(()),
        }
    }

    fn peer(&self) -> Option<PeerId> {
        match &self.way {
            Way::Peer(peer) => Some(peer.id()),
            Way::Local | Way::Promise(_) | Way::Used => None,
        }
    }

    fn peer_name(&self) -> &str {
        match &self.way {
            Way::Peer(peer) => peer.peer_name(),
            Way::Local => "local",
            Way::Promise(_) => "promise",
            Way::Used => "used",
        }
    }

    fn write_error(&self, error: &ReplyError) -> Result<(), TransportError> {
        let is_promise = self.is_promise();
        self.write(self.token, |buffer| {
            if is_promise {
                envelope::put_promise_answer_error(error, buffer);
            } else {
                envelope::put_reply_error(error, buffer);
            }
            Ok(Bytes::new())
        })
    }

    fn is_promise(&self) -> bool {
        matches!(self.way, Way::Promise(_))
    }

    fn write(
        &self,
        token: UID,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, CodecError>,
    ) -> Result<(), TransportError> {
        match &self.way {
            Way::Peer(peer) => {
                peer.send_reliable_parts(token, self.terms(), encode)?;
                Ok(())
            }
            Way::Local => match self.core.upgrade() {
                Some(core) => {
                    core.send_local(token, Admission::Always, encode)?;
                    Ok(())
                }
                None => Err(TransportError::Closed),
            },
            Way::Promise(address) => match self.core.upgrade() {
                Some(core) => core.answer_promise(address, token, encode),
                None => Err(TransportError::Closed),
            },
            Way::Used => Ok(()),
        }
    }

    /// An answer is of no use after its request's deadline.
    fn terms(&self) -> PacketTerms {
        PacketTerms {
            expiry: self.deadline.map(|at| Expiry {
                at,
                remaining_offset: None,
            }),
            account: match self.slot {
                Some(Slot::Of(slot)) => Account::Answer(slot),
                Some(Slot::Local) | None => Account::Refusal,
            },
        }
    }

    /// An answer was sent or not. A refusal that has no room takes the session with it: its caller would
    /// wait until its deadline, and after the end of the session it knows where it stands.
    fn settle(mut self: Box<Self>, sent: Result<(), TransportError>) {
        let peer = self.peer();
        let way = std::mem::replace(&mut self.way, Way::Used);
        let core = self.core.upgrade();
        if let Some(core) = &core {
            if self.is_registered {
                core.end_request(peer, self.token);
            }
            if let Some(Slot::Local) = self.slot {
                core.release_local_slot();
            }
        }
        match sent {
            Ok(()) => {
                if let Some(core) = &core {
                    core.counters.replies_sent.add();
                }
            }
            Err(error) => self.handle_unsent(way, &error, core.as_deref()),
        }
        if let Some(core) = core {
            core.spare_routes.borrow_mut().take_back(self);
        }
    }

    #[cold]
    fn handle_unsent(&self, way: Way, error: &TransportError, core: Option<&Core>) {
        if let Some(core) = core {
            core.counters.replies_dropped.add();
        }
        tracing::debug!(token = %self.token, %error, "an answer was dropped");
        let Way::Peer(peer) = way else {
            return;
        };
        if let Some(Slot::Of(slot)) = self.slot {
            peer.release_answer(slot);
        }
        if let TransportError::QueueFull = error {
            peer.start_close(Duration::ZERO);
        }
    }
}

impl ReplyRoute {
    /// For a request that was admitted, and is known by its reply token or not.
    #[inline]
    pub(crate) fn admitted(
        spare: &mut SpareRoutes,
        (token, deadline): (UID, Option<Duration>),
        packet: &Packet<'_>,
        core: &Weak<Core>,
        (slot, is_registered): (Slot, bool),
    ) -> Self {
        let mut route = spare.route(token, way_back(packet), core);
        route.slot = Some(slot);
        route.deadline = deadline;
        route.is_registered = is_registered;
        Self(Some(route))
    }

    /// For a request that is not.
    pub(crate) fn refusal(
        spare: &mut SpareRoutes,
        token: UID,
        packet: &Packet<'_>,
        core: &Weak<Core>,
    ) -> Self {
        Self(Some(spare.route(token, way_back(packet), core)))
    }

    /// For a promise that came inside a message.
    pub(crate) fn promised(endpoint: &Endpoint, core: Weak<Core>) -> Self {
        let way = Way::Promise(Box::new(endpoint.address));
        let token = endpoint.token;
        let route = match core.upgrade() {
            // It goes there when it was used.
            Some(alive) => alive.spare_routes.borrow_mut().route(token, way, &core),
            None => Box::new(Route::new(token, way, core)),
        };
        Self(Some(route))
    }

    #[inline]
    pub(crate) fn with_context(mut self, head: &MessageHead<'_>) -> Self {
        if let Some(context) = RequestContext::of(head)
            && let Some(route) = &mut self.0
        {
            route.context = Some(Box::new(context));
        }
        self
    }

    /// When the caller stops waiting, in the time of this transport's provider; see
    /// [`ReplyPromise::deadline`](super::ReplyPromise::deadline).
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.0.as_ref()?.deadline
    }

    /// What remains until the deadline; zero once it has passed, `None` if there is none.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let route = self.0.as_ref()?;
        let deadline = route.deadline?;
        let core = route.core.upgrade();
        let now = core.map_or(deadline, |core| core.now());
        Some(deadline.saturating_sub(now))
    }

    /// The caller's metadata.
    #[must_use]
    pub fn metadata(&self) -> Metadata<'_> {
        self.context()
            .map_or_else(Metadata::default, RequestContext::metadata)
    }

    /// The caller's trace context.
    #[must_use]
    pub fn trace_context(&self) -> Option<TraceContext<'_>> {
        self.context()?.trace()
    }

    fn context(&self) -> Option<&RequestContext> {
        self.0.as_ref()?.context.as_deref()
    }

    /// Whether the caller waits no more: it gave up, its deadline has passed, or the session is
    /// over.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_none_or(|route| route.is_cancelled())
    }

    /// Waits until the caller is known to wait no more; see
    /// [`ReplyPromise::cancelled`](super::ReplyPromise::cancelled).
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn cancelled(&self) {
        poll_fn(|cx| {
            let polled = match &self.0 {
                Some(route) => route.poll_cancelled(cx),
                None => Poll::Ready(()),
            };
            if polled.is_pending() {
                wait::note(WaitReason::Message { token: None });
            }
            polled
        })
        .await;
    }

    /// The request's turn has come, in a stream whose answers had these sizes. False: its caller's
    /// session may not hold one more. Who does not read what it asked for is not worth the work of
    /// making more.
    pub(crate) fn begin(&mut self, sizes: &Rc<Cell<AnswerSizes>>) -> bool {
        let Some(route) = &mut self.0 else {
            return true;
        };
        if let (Way::Peer(peer), Some(Slot::Of(slot))) = (&route.way, route.slot) {
            let Some(slot) = peer.begin_answer(slot, sizes.get().expected()) else {
                return false;
            };
            route.slot = Some(Slot::Of(slot));
            route.sizes = Some(Rc::clone(sizes));
        }
        true
    }

    /// Tells the metrics that no handler gets the request.
    pub(crate) fn note_refusal(&self, reason: &'static str) {
        if let Some(core) = self.0.as_ref().and_then(|route| route.core.upgrade()) {
            core.note_refusal(reason);
        }
    }

    pub(crate) fn peer_info(&self) -> Option<PeerInfo<'_>> {
        match &self.0.as_ref()?.way {
            Way::Peer(peer) => Some(PeerInfo::of(peer)),
            Way::Local | Way::Promise(_) | Way::Used => None,
        }
    }

    pub(crate) fn peer_name(&self) -> &str {
        self.0.as_ref().map_or("used", |route| route.peer_name())
    }

    /// Answers. If the value cannot be encoded the caller gets [`ReplyError::Serialization`], if it
    /// is too large [`ReplyError::ReplyTooLarge`].
    pub fn send<T, C>(self, value: &T, codec: &C)
    where
        T: Serialize + ?Sized,
        C: MessageCodec,
    {
        self.send_with(|buffer| codec.encode_shared(value, buffer));
    }

    /// Answers that there is no answer, with the error as it is. Choose the variant by what the caller
    /// may conclude from it: it cannot tell your `ConnectionFailed` from its own transport's.
    pub fn send_error(mut self, error: &ReplyError) {
        self.send_error_once(error);
    }

    /// Answers with a message to one of the built-in receivers: what is wrong with the token that
    /// the request went to. Those of one burst share messages.
    pub(crate) fn send_notice(mut self, receiver: WellKnownToken, token: UID) {
        let Some(route) = &self.0 else {
            return;
        };
        let reply_token = route.token;
        // An answer that has a slot is to use it.
        if let (Way::Peer(peer), None) = (&route.way, route.slot)
            && peer.extend_refusal(
                receiver.token(),
                &envelope::token_pair_bytes(reply_token, token),
            )
        {
            return self.settle(Ok(()));
        }
        let sent = route.write(receiver.token(), |buffer| {
            envelope::put_message_head(None, buffer);
            buffer.extend_from_slice(&envelope::token_pair_bytes(reply_token, token));
            Ok(Bytes::new())
        });
        self.settle(sent);
    }

    /// Answers with what `encode` writes. If it fails, or writes too much, the caller is told so.
    pub(crate) fn send_with(
        mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, CodecError>,
    ) {
        let Some(route) = &self.0 else {
            return;
        };
        let is_promise = route.is_promise();
        let mut size = 0;
        let sent = route.write(route.token, |buffer| {
            let before = buffer.len();
            if is_promise {
                envelope::put_promise_answer_head(buffer);
            } else {
                envelope::put_reply_head(buffer);
            }
            let tail = encode(buffer)?;
            size = buffer.len() - before + tail.len();
            Ok(tail)
        });
        if let (Ok(()), Some(sizes)) = (&sent, &route.sizes) {
            sizes.set(sizes.get().with(size));
        }
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
        let Some(route) = &self.0 else {
            return;
        };
        let mut sent = route.write_error(error);
        if let Err(TransportError::PayloadTooLarge { .. }) = sent {
            // An application's text; the library's own are short.
            sent = route.write_error(&ReplyError::ReplyTooLarge);
        }
        self.settle(sent);
    }

    /// Ends the route. An answer that was admitted always has room.
    #[inline]
    fn settle(&mut self, sent: Result<(), TransportError>) {
        if let Some(route) = self.0.take() {
            route.settle(sent);
        }
    }
}

impl Drop for ReplyRoute {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            self.break_promise();
        }
    }
}

impl ReplyRoute {
    #[cold]
    fn break_promise(&mut self) {
        if let Some(core) = self.0.as_ref().and_then(|route| route.core.upgrade()) {
            core.counters.broken_promises.add();
        }
        sometimes_assert!(broken_promise_detected, true, "it was dropped unanswered");
        self.send_error_once(&ReplyError::BrokenPromise);
    }
}

/// An answer goes back to where its packet came from.
#[inline]
fn way_back(packet: &Packet<'_>) -> Way {
    match packet {
        Packet::Remote { peer, .. } => Way::Peer((*peer).clone()),
        Packet::Local(_) => Way::Local,
    }
}

impl fmt::Debug for ReplyRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyRoute")
            .field("token", &self.0.as_ref().map(|route| route.token))
            .field("way", &self.peer_name())
            .finish_non_exhaustive()
    }
}
