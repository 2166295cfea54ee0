//! [`PeerHandle`]: what callers hold, without type parameters.

mod answers;
mod turns;
mod watch;

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::messaging::{NetworkAddress, UID};
use crate::turns::Turns;

use super::error::{PeerError, SendError};
use super::frame::Frame;
use super::metrics::PeerMetrics;
use super::packet::{PacketId, PeerId, SessionEnded, Withdrawal};
use super::state::{Demand, EXPECTED_PAYLOAD, PeerState, Refusal};
use super::terms::{AnswerSlot, PacketTerms};
use super::waiters::Waiters;

pub(super) use turns::Changed;
pub use watch::PeerWatch;

/// Payloads up to this size are copied behind their header, so that they leave in one piece;
/// larger ones are written from where they are.
const COPY_LIMIT: usize = 1024;

/// A cheap, cloneable handle to a peer. It keeps the peer's state, not its connection: dropping the
/// [`Peer`](super::Peer) ends that, and handles then report [`PeerError::Closed`].
///
/// A peer does not close for being idle while a handle is held, unless it is an
/// [untracked](Self::untracked) one. A clone always counts.
pub struct PeerHandle(Rc<Shared>, Tracking);

/// Whether a handle counts as a use of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tracking {
    Tracked,
    Untracked,
}

struct Shared {
    id: PeerId,
    name: String,
    /// Where it dials, if not where its name says.
    target: RefCell<Option<String>>,
    state: RefCell<PeerState>,
    waker: Cell<Option<Waker>>,
    /// The driver runs, or is going to: it need not be woken.
    is_scheduled: Cell<bool>,
    /// What handles changed since the driver looked last.
    changed: Cell<Changed>,
    is_ready_wanted: Cell<bool>,
    has_ended: Cell<bool>,
    /// Handles that count as a use of the peer.
    references: Cell<usize>,
    watches: Cell<usize>,
    ready: Turns,
    ended: Waiters,
}

/// What became of a `close()`. What was lost is also reported to the peer's sink or inbox, unless
/// the peer was dropped in the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseOutcome {
    /// Every accepted packet was written and, in acknowledged mode, acknowledged.
    Complete,
    /// The grace expired, or the connection was lost: these packets were not, or may not have been,
    /// delivered.
    Incomplete(SessionEnded),
}

impl PeerHandle {
    pub(super) fn new(id: PeerId, name: String, state: PeerState) -> Self {
        let shared = Shared {
            id,
            name,
            target: RefCell::new(None),
            state: RefCell::new(state),
            waker: Cell::new(None),
            is_scheduled: Cell::new(false),
            changed: Cell::new(Changed::Nothing),
            is_ready_wanted: Cell::new(false),
            has_ended: Cell::new(false),
            references: Cell::new(1),
            watches: Cell::new(0),
            ready: Turns::default(),
            ended: Waiters::default(),
        };
        Self(Rc::new(shared), Tracking::Tracked)
    }

    /// A handle that does not keep an idle peer from closing: for whoever forgets the peer when it
    /// has [finished](super::PeerSink::handle_finished). Its clones do keep it.
    #[must_use]
    pub fn untracked(&self) -> Self {
        Self(Rc::clone(&self.0), Tracking::Untracked)
    }

    /// Asks the peer to find out whether the other end is there, until the watch is dropped: it
    /// connects and reconnects although nothing is queued, and asks a silent other end for a sign of
    /// life. What it finds is told to its [sink](super::PeerSink::handle_connection).
    pub fn watch(&self) -> PeerWatch {
        self.0.watches.set(self.0.watches.get() + 1);
        self.signal();
        PeerWatch(self.untracked())
    }

    /// What handles and watches need the peer for.
    pub(super) fn demand(&self, replies: bool) -> Demand {
        Demand {
            replies,
            watches: self.0.watches.get() > 0,
            references: self.0.references.get() > 0,
        }
    }

    /// The name that the peer's creator gave it.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.0.id
    }

    /// The address that is dialled, or that of the accepted stream's other end.
    #[must_use]
    pub fn peer_name(&self) -> &str {
        &self.0.name
    }

    /// Where it dials.
    pub(super) fn dial_target(&self) -> String {
        let target = self.0.target.borrow();
        target.clone().unwrap_or_else(|| self.0.name.clone())
    }

    /// Local code asks for this address, which an accepted session serves: from now on the peer
    /// replaces a lost connection by dialling it, with what it has to send. A peer that dials
    /// anyway is not affected.
    pub fn allow_dial(&self, address: &NetworkAddress) {
        if self.state().dials() {
            return;
        }
        self.0
            .target
            .replace(Some(address.socket_addr().to_string()));
        self.state().allow_dial();
        self.signal();
    }

    /// Whether the peer makes connections by itself.
    #[must_use]
    pub fn dials(&self) -> bool {
        self.state().dials()
    }

    /// Whether packets can flow, on a connection that the other end made.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.state().is_accepted()
    }

    /// Queues a packet that is delivered, or reported in a [`SessionEnded`]. Never waits.
    ///
    /// A payload of more than 1 KiB is not copied.
    ///
    /// # Errors
    /// [`PeerError`]; every variant gives the payload back.
    pub fn send_reliable(&self, token: UID, payload: Bytes) -> Result<PacketId, PeerError> {
        let (terms, size) = (PacketTerms::default(), payload.len());
        let begun = self
            .state()
            .begin_reliable(token, &terms, size, copied(size));
        let frame = filled(begun, payload)?;
        self.push_reliable(frame)
    }

    /// Queues a packet that is written once if there is a connection, and dropped and counted if
    /// there is none or it ends first. Never waits.
    ///
    /// # Errors
    /// [`PeerError`]; every variant gives the payload back.
    pub fn send_unreliable(&self, token: UID, payload: Bytes) -> Result<(), PeerError> {
        let size = payload.len();
        let begun = self.state().begin_unreliable(token, size, copied(size));
        let frame = filled(begun, payload)?;
        self.push_unreliable(frame)
    }

    /// [`send_reliable`](Self::send_reliable), with the payload encoded straight into the frame.
    /// `encode` appends to the buffer it is given, which holds the packet's front already. If it fails,
    /// or does anything else with the buffer, nothing is queued.
    ///
    /// # Errors
    /// [`SendError::Encode`] with what `encode` gave, [`SendError::BufferReplaced`],
    /// [`SendError::Peer`] if the peer refuses; it may do so before `encode` is called, and then there
    /// is no payload to give back.
    pub fn send_reliable_with<E>(
        &self,
        token: UID,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<PacketId, SendError<E>> {
        self.send_reliable_under(token, PacketTerms::default(), encode)
    }

    /// [`send_reliable_with`](Self::send_reliable_with), with a time after which the packet is of no
    /// use, or against another limit.
    ///
    /// # Errors
    /// As [`send_reliable_with`](Self::send_reliable_with); `Closed` also for an answer whose session
    /// has ended.
    pub fn send_reliable_under<E>(
        &self,
        token: UID,
        terms: PacketTerms,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<PacketId, SendError<E>> {
        self.send_reliable_parts(token, terms, in_one_part(encode))
    }

    /// [`send_reliable_under`](Self::send_reliable_under), with the payload in two parts: what `encode`
    /// appends to the buffer, and behind it the bytes that it gives, which are written from where
    /// they are.
    ///
    /// # Errors
    /// As [`send_reliable_under`](Self::send_reliable_under).
    pub fn send_reliable_parts<E>(
        &self,
        token: UID,
        terms: PacketTerms,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
    ) -> Result<PacketId, SendError<E>> {
        let begun = self
            .state()
            .begin_reliable(token, &terms, 0, EXPECTED_PAYLOAD);
        let frame = self.encode(token, begun, encode)?;
        Ok(self.push_reliable(frame)?)
    }

    /// [`send_unreliable`](Self::send_unreliable), with the payload encoded straight into the frame.
    ///
    /// # Errors
    /// As [`send_reliable_with`](Self::send_reliable_with).
    pub fn send_unreliable_with<E>(
        &self,
        token: UID,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), SendError<E>> {
        let begun = self.state().begin_unreliable(token, 0, EXPECTED_PAYLOAD);
        let frame = self.encode(token, begun, in_one_part(encode))?;
        Ok(self.push_unreliable(frame)?)
    }

    /// Takes a reliable packet back. One that was not laid out for a write yet vanishes; of one that
    /// was, an empty frame with its number remains, so that those behind it are not held up.
    pub fn withdraw(&self, id: PacketId) -> Withdrawal {
        let withdrawn = self.state().withdraw(id);
        self.signal();
        withdrawn
    }

    /// Whether a slot can still be used: its session has not ended.
    #[must_use]
    pub fn is_current(&self, slot: AnswerSlot) -> bool {
        self.state().is_current(slot)
    }

    /// Waits until a reliable packet can be accepted. Those who wait have their turns in the order in
    /// which they came. A sender that did not wait may be faster: a send that follows can still be
    /// refused.
    ///
    /// # Errors
    /// [`PeerError::Closed`] once nothing more is accepted.
    ///
    /// # Cancel safety
    /// Dropping the future gives its turn to the next one who waits.
    pub async fn ready(&self) -> Result<(), PeerError> {
        self.0.ready.until(|| self.check_ready()).await
    }

    fn check_ready(&self) -> Option<Result<(), PeerError>> {
        let state = self.state();
        if state.is_closed() {
            return Some(Err(PeerError::Closed { payload: None }));
        }
        if state.accepts_reliable() {
            return Some(Ok(()));
        }
        self.0.is_ready_wanted.set(true);
        None
    }

    /// Drops the connection, or the attempt to get one. A peer that dials then dials at once, also
    /// if it was waiting for its backoff. One that was accepted ends, unless it carries a session
    /// that is kept: then it waits for the other end to come back.
    pub fn reconnect(&self) {
        self.state().request_reconnect();
        self.signal();
    }

    /// Stops accepting packets, delivers those that were accepted, says goodbye and ends the peer's
    /// task; after `grace` it ends whatever is left, also in the middle of connecting. Answers to
    /// what arrived are accepted until then: it waits for those that have a slot.
    ///
    /// Resolves when the task has ended. Several closes may wait; the earliest deadline counts.
    ///
    /// # Cancel safety
    /// The close goes on when the future is dropped.
    pub async fn close(&self, grace: Duration) -> CloseOutcome {
        self.start_close(grace);
        let has_ended = || self.0.has_ended.get().then_some(());
        self.0.ended.until(has_ended).await;
        match self.state().undelivered() {
            None => CloseOutcome::Complete,
            Some(ended) => CloseOutcome::Incomplete(ended),
        }
    }

    /// Begins a [`close`](Self::close) without waiting for it.
    pub fn start_close(&self, grace: Duration) {
        self.state().request_close(grace);
        self.signal();
        self.0.ready.wake_first();
    }

    /// The peer's gauges and counters now.
    #[must_use]
    pub fn metrics(&self) -> PeerMetrics {
        self.state().metrics()
    }

    /// Whether packets can flow: connected, and in acknowledged mode greeted.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state().is_open()
    }

    /// Since when there is no working connection: the last one was lost then, or the first one was
    /// dialled. `None` while there is one, and before one was ever wanted.
    #[must_use]
    pub fn unconnected_since(&self) -> Option<Duration> {
        self.state().unconnected_since()
    }

    /// Whether the peer has ended for good, or is about to without doing anything more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state().is_finished()
    }

    /// The incarnation that the other end said last in its greeting.
    #[must_use]
    pub fn remote_incarnation(&self) -> Option<UID> {
        self.state().remote().incarnation
    }

    /// The canonical listening address that the other end said last in its greeting. A claim: it
    /// is not checked, and must not be dialled for that alone.
    #[must_use]
    pub fn remote_address(&self) -> Option<NetworkAddress> {
        self.state().remote().address
    }

    /// The largest payload, in bytes, that both ends take, as far as is known yet.
    #[must_use]
    pub fn peer_max_payload(&self) -> u32 {
        self.state().max_payload()
    }

    /// A packet with the payload that `encode` writes, and what it gives behind that.
    #[inline]
    fn encode<E>(
        &self,
        token: UID,
        begun: Result<Box<Frame>, Refusal>,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
    ) -> Result<Box<Frame>, SendError<E>> {
        let mut frame = match begun {
            Ok(frame) => frame,
            Err(refusal) => return Err(SendError::Peer(refusal.into_error(Bytes::new()))),
        };
        // The encoder sees the front: an empty buffer would have to be split off and put together
        // again, for each packet.
        let error = match encode(frame.head()) {
            Ok(tail) if frame.is_intact(token) => {
                frame.set_body(tail);
                return Ok(frame);
            }
            Ok(_) => SendError::BufferReplaced,
            Err(error) => SendError::Encode(error),
        };
        self.state().end_packet(frame);
        Err(error)
    }

    fn push_reliable(&self, frame: Box<Frame>) -> Result<PacketId, PeerError> {
        let pushed = self.state().send_reliable(frame);
        match pushed {
            Ok(id) => {
                self.signal_changed(Changed::Packets);
                Ok(id)
            }
            // It was refused after it was encoded.
            Err((refusal, frame)) => Err(refusal.into_error(frame.into_payload())),
        }
    }

    fn push_unreliable(&self, frame: Box<Frame>) -> Result<(), PeerError> {
        let pushed = self.state().send_unreliable(frame);
        match pushed {
            Ok(()) => {
                self.signal_changed(Changed::Packets);
                Ok(())
            }
            Err((refusal, frame)) => Err(refusal.into_error(frame.into_payload())),
        }
    }

    /// The state. Held for one call at a time: never across a callback, a wake or a provider.
    #[inline]
    pub(super) fn state(&self) -> RefMut<'_, PeerState> {
        self.0.state.borrow_mut()
    }

    /// Wakes the first one who waits for room, if there is some.
    pub(super) fn wake_ready(&self) {
        if self.0.is_ready_wanted.get() && self.check_ready().is_some() {
            self.0.is_ready_wanted.set(false);
            self.0.ready.wake_first();
        }
    }

    /// The peer was dropped: nothing more is accepted.
    pub(super) fn handle_dropped(&self) {
        self.state().handle_dropped();
        self.0.ready.wake_first();
    }

    /// The driver is gone, in whatever way.
    pub(super) fn handle_driver_ended(&self) {
        self.handle_dropped();
        self.0.has_ended.set(true);
        // A waker would keep the task's memory for as long as the handle lives.
        drop(self.0.waker.take());
        self.0.ended.wake_all();
    }
}

/// Bytes of a payload of this size that are copied.
fn copied(size: usize) -> usize {
    if size <= COPY_LIMIT { size } else { 0 }
}

/// A packet with this payload, of which a large one is not copied.
fn filled(begun: Result<Box<Frame>, Refusal>, payload: Bytes) -> Result<Box<Frame>, PeerError> {
    match begun {
        Err(refusal) => Err(refusal.into_error(payload)),
        Ok(mut frame) => {
            if payload.len() <= COPY_LIMIT {
                frame.head().extend_from_slice(&payload);
            } else {
                frame.set_body(payload);
            }
            Ok(frame)
        }
    }
}

/// An encoder that gives nothing but what it appends.
fn in_one_part<E>(
    encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
) -> impl FnOnce(&mut BytesMut) -> Result<Bytes, E> {
    |buffer| encode(buffer).map(|()| Bytes::new())
}

impl Clone for PeerHandle {
    fn clone(&self) -> Self {
        self.0.references.set(self.0.references.get() + 1);
        Self(Rc::clone(&self.0), Tracking::Tracked)
    }
}

impl Drop for PeerHandle {
    fn drop(&mut self) {
        if self.1 == Tracking::Tracked {
            self.0.references.set(self.0.references.get() - 1);
        }
    }
}

impl fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerHandle")
            .field("id", &self.0.id)
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}
