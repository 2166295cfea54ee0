//! The state of a transport and what it does with arriving packets: everything that needs no
//! provider, and so no type parameter.
//!
//! Who owns whom: the [`FlowTransport`](super::FlowTransport) owns the core; the core owns peers,
//! receivers and local packets. Drivers, receivers and routes for answers refer back weakly, so
//! nothing keeps itself alive. Promises, futures and streams in users' hands may outlive the
//! transport; they find a closed core.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use moonpool_foundation::network::peer::{
    PacketId, PeerHandle, PeerId, PeerSink, ReceivedPacket, SessionEnded,
};
use moonpool_foundation::wait::{self, WaitReason};
use moonpool_foundation::{Endpoint, NetworkAddress, UID, WellKnownId, WellKnownToken};
use moonpool_traits::CodecError;

use super::call_table::{Arrival, CallTable, Outcome};
use super::endpoint_map::{EndpointMap, FIRST_USER_ID, InvalidToken};
use super::envelope::{Envelope, EnvelopeError, MessageHead};
use super::local_queue::LocalQueue;
use super::peer_table::PeerTable;
use super::receivers::{EndpointNotFoundReceiver, Incoming, MessageReceiver, Packet};
use super::reply_error::ReplyError;
use super::reply_route::ReplyRoute;
use super::stats::{Counters, TransportStats};
use crate::error::{RegisterError, TransportError};

/// Receivers that every transport registers for itself.
const BUILT_IN_ENDPOINTS: usize = 1;

/// What a core is made with.
pub(crate) struct CoreParams {
    pub(crate) incarnation: UID,
    /// The upper half of the tokens of dynamic endpoints.
    pub(crate) endpoint_nonce: u64,
    /// The upper half of reply tokens.
    pub(crate) call_nonce: u64,
    pub(crate) limits: Limits,
}

/// Bounds of what the core holds or passes to itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) payload_bytes: usize,
    pub(crate) local_packets: usize,
    pub(crate) local_bytes: usize,
}

/// How far the transport has come in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    /// Nothing new begins; answers may still leave.
    Closing,
    Closed,
}

/// Whether the local queue's limits apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// For requests and one-way messages.
    WithinLimits,
    /// For answers: there is at most one per admitted request, and its caller waits for it.
    Always,
}

/// What to do about a receiver that has the token already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnConflict {
    Replace,
    Refuse,
}

/// See the [module's documentation](self).
pub(crate) struct Core {
    this: Weak<Core>,
    pub(crate) incarnation: UID,
    /// Where others reach this process; messages to it are delivered locally.
    pub(crate) address: Cell<Option<NetworkAddress>>,
    /// What is bound, be it an address that others can dial or not.
    pub(crate) listening: Cell<Option<NetworkAddress>>,
    phase: Cell<Phase>,
    endpoints: RefCell<EndpointMap>,
    pub(crate) calls: RefCell<CallTable>,
    pub(crate) peers: RefCell<PeerTable>,
    local: RefCell<LocalQueue>,
    /// Starts the task that empties it.
    start_local: RefCell<Option<Rc<dyn Fn()>>>,
    /// Further addresses that turned out to lead here.
    own_addresses: RefCell<BTreeSet<(IpAddr, u16)>>,
    limits: Limits,
    pub(crate) counters: Counters,
}

impl Core {
    pub(crate) fn new(params: CoreParams) -> Rc<Self> {
        Rc::new_cyclic(|this: &Weak<Core>| {
            let mut endpoints = EndpointMap::with_nonce(params.endpoint_nonce);
            let core = this.clone();
            let not_found = Rc::new(EndpointNotFoundReceiver { core });
            endpoints.insert_well_known(WellKnownToken::EndpointNotFound, not_found);
            debug_assert_eq!(endpoints.len(), BUILT_IN_ENDPOINTS);
            Self {
                this: this.clone(),
                incarnation: params.incarnation,
                address: Cell::new(None),
                listening: Cell::new(None),
                phase: Cell::new(Phase::Open),
                endpoints: RefCell::new(endpoints),
                calls: RefCell::new(CallTable::new(params.call_nonce)),
                peers: RefCell::new(PeerTable::new()),
                local: RefCell::default(),
                start_local: RefCell::default(),
                own_addresses: RefCell::default(),
                limits: params.limits,
                counters: Counters::default(),
            }
        })
    }

    /// What peers report to.
    pub(crate) fn sink(&self) -> Rc<dyn PeerSink> {
        let core = self.this.clone();
        Rc::new(TransportSink { core })
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.phase.get() == Phase::Closed
    }

    pub(crate) fn is_local(&self, address: &NetworkAddress) -> bool {
        let is_canonical = self
            .address
            .get()
            .is_some_and(|own| own.ip == address.ip && own.port == address.port);
        is_canonical || self.is_own_address(address)
    }

    fn is_own_address(&self, address: &NetworkAddress) -> bool {
        let own = self.own_addresses.borrow();
        !own.is_empty() && own.contains(&(address.ip, address.port))
    }

    pub(crate) fn set_local_starter(&self, start: impl Fn() + 'static) {
        self.start_local.replace(Some(Rc::new(start)));
    }

    // Registration.

    /// Registers under a chosen token.
    pub(crate) fn register(
        &self,
        token: UID,
        receiver: Rc<dyn MessageReceiver>,
        conflict: OnConflict,
    ) -> Result<(), RegisterError> {
        self.check_registration(token)?;
        if conflict == OnConflict::Refuse && self.endpoints.borrow().get(&token).is_some() {
            return Err(RegisterError::AlreadyRegistered { token });
        }
        let inserted = self
            .endpoints
            .borrow_mut()
            .insert_at(token, receiver.clone());
        if let Some(replaced) = inserted? {
            tracing::warn!(%token, "an endpoint's receiver is replaced; the old one is closed");
            replaced.handle_closed();
        }
        receiver.handle_registered(token, self.endpoint(token));
        Ok(())
    }

    /// Registers under a token of the map's choice.
    pub(crate) fn register_dynamic(
        &self,
        receiver: Rc<dyn MessageReceiver>,
    ) -> Result<Endpoint, RegisterError> {
        if !self.is_open() {
            return Err(RegisterError::Closed);
        }
        let address = self.address.get().ok_or(RegisterError::NoAddress)?;
        let token = self.endpoints.borrow_mut().insert(receiver.clone());
        if !token.is_valid() {
            return Err(RegisterError::Full);
        }
        let endpoint = Endpoint::new(address, token);
        receiver.handle_registered(token, Some(endpoint));
        Ok(endpoint)
    }

    /// Registers under adjacent tokens of the map's choice, and gives the first one's endpoint.
    pub(crate) fn register_dynamic_run(
        &self,
        receivers: Vec<Rc<dyn MessageReceiver>>,
    ) -> Result<Endpoint, RegisterError> {
        if !self.is_open() {
            return Err(RegisterError::Closed);
        }
        let address = self.address.get().ok_or(RegisterError::NoAddress)?;
        let inserted = self.endpoints.borrow_mut().insert_run(receivers.clone());
        let base = Endpoint::new(address, inserted.ok_or(RegisterError::Full)?);
        for (index, receiver) in (0..).zip(receivers) {
            let endpoint = base.adjusted(index);
            receiver.handle_registered(endpoint.token, Some(endpoint));
        }
        Ok(base)
    }

    /// Ends a registration, if it is still this receiver's. Well-known ones stay.
    pub(crate) fn deregister(&self, token: UID, receiver: &Rc<dyn MessageReceiver>) {
        let removed = {
            let mut endpoints = self.endpoints.borrow_mut();
            let own = endpoints
                .get(&token)
                .is_some_and(|found| Rc::ptr_eq(found, receiver));
            if own { endpoints.remove(&token) } else { None }
        };
        drop(removed);
    }

    /// Ends whatever registration the token has.
    pub(crate) fn remove_endpoint(&self, token: &UID) -> bool {
        let removed = self.endpoints.borrow_mut().remove(token);
        if let Some(receiver) = &removed {
            receiver.handle_closed();
        }
        removed.is_some()
    }

    fn endpoint(&self, token: UID) -> Option<Endpoint> {
        let address = self.address.get()?;
        Some(Endpoint::new(address, token))
    }

    fn check_registration(&self, token: UID) -> Result<(), RegisterError> {
        if !self.is_open() {
            return Err(RegisterError::Closed);
        }
        if WellKnownId::of(token).is_some_and(|id| id.get() < FIRST_USER_ID) {
            return Err(RegisterError::Reserved { token });
        }
        if self.calls.borrow().owns(token) || !token.is_valid() {
            return Err(InvalidToken::Allocated { token }.into());
        }
        Ok(())
    }

    // Arrivals.

    /// Hands one packet to its receiver or its call.
    pub(crate) fn dispatch(&self, token: UID, packet: Packet<'_>) {
        match Envelope::decode(packet.payload()) {
            Ok(Envelope::Message { head, body }) => self.handle_message(token, packet, head, body),
            Ok(Envelope::Reply { outcome, .. }) => {
                let outcome = outcome.map(|body| packet.share_tail(body.len()));
                self.end_call(token, packet.peer_id(), outcome);
            }
            Err(error) => self.handle_undecodable(token, &error),
        }
    }

    fn handle_message<'a>(
        &self,
        token: UID,
        packet: Packet<'a>,
        head: MessageHead<'a>,
        body: &'a [u8],
    ) {
        let reply = head
            .reply_token
            .map(|reply_token| ReplyRoute::new(reply_token, &packet, self.this.clone()));
        let receiver = self.endpoints.borrow().get(&token).cloned();
        match (receiver, reply) {
            (Some(receiver), reply) => {
                self.counters.messages_received.add();
                receiver.receive(Incoming::new(token, packet, head, body, reply));
            }
            (None, Some(reply)) => {
                self.counters.endpoint_not_found.add();
                reply.send_endpoint_not_found(token);
            }
            (None, None) => {
                self.counters.endpoint_not_found.add();
                tracing::debug!(%token, "a message came for a token without a receiver");
            }
        }
    }

    /// Counts a packet that is no envelope. It is dropped: there is nowhere to say so.
    pub(crate) fn handle_undecodable(&self, token: UID, error: &EnvelopeError) {
        match error {
            EnvelopeError::UnsupportedVersion { .. } => self.counters.unsupported_versions.add(),
            _ => self.counters.undecodable.add(),
        }
        tracing::debug!(%token, %error, "a packet was dropped");
    }

    /// Gives a call its outcome, if it waits for one from there.
    pub(crate) fn end_call(&self, token: UID, from: Option<PeerId>, outcome: Outcome) {
        let arrival = self.calls.borrow_mut().reply(token, from, outcome);
        match arrival {
            Arrival::Ended(waker) => {
                self.counters.replies_received.add();
                wake(waker);
            }
            Arrival::Late => self.counters.replies_late.add(),
        }
    }

    /// Gives a call up, and takes its request back as far as that can be done.
    pub(crate) fn forget_call(&self, token: UID) {
        let forgotten = self.calls.borrow_mut().forget(token);
        drop(forgotten.waker);
        let Some((peer, packet)) = forgotten.sent else {
            return;
        };
        let handle = self.peers.borrow().handle(peer).cloned();
        if let Some(handle) = handle {
            let withdrawn = handle.withdraw(packet);
            tracing::trace!(%token, ?withdrawn, "a call was given up");
        }
    }

    // What peers report.

    fn handle_session_ended(&self, peer: PeerId, ended: &SessionEnded) {
        loop {
            let next = self.calls.borrow_mut().end_next_of_session(peer, ended);
            match next {
                Some(waker) => wake(waker),
                None => return,
            }
        }
    }

    fn handle_withdrawn(&self, peer: PeerId, packet: PacketId) {
        let waker = self
            .calls
            .borrow_mut()
            .end_packet(peer, packet, ReplyError::PayloadTooLarge);
        wake(waker);
    }

    /// A peer's other end is gone; its successor has a session already. What was not written goes
    /// there, and so do the calls that wait for it.
    pub(crate) fn handle_passed_over(
        &self,
        from: PeerId,
        to: &PeerHandle,
        packets: &[(PacketId, PacketId)],
    ) {
        self.calls.borrow_mut().move_calls(from, to.id(), packets);
        let address = self.peers.borrow_mut().pass_over(from, to);
        if let Some(address) = address {
            to.allow_dial(&address);
        }
    }

    /// A peer's address leads back here: its packets are delivered locally, now and from now on.
    fn handle_ours(&self, peer: &PeerHandle, packets: Vec<(PacketId, UID, Bytes)>) {
        if let Ok(address) = peer.peer_name().parse::<NetworkAddress>() {
            tracing::debug!(%address, "this address is our own");
            let mut own = self.own_addresses.borrow_mut();
            own.insert((address.ip, address.port));
        }
        self.calls.borrow_mut().keep_calls_of(peer.id());
        let mut waker = None;
        for (_, token, payload) in packets {
            // Beyond the limits, if need be: they were accepted.
            let woken = self.local.borrow_mut().push(token, payload);
            waker = waker.or(woken);
        }
        wake(waker);
        let start = self.start_local.borrow().clone();
        if let Some(start) = start {
            start();
        }
    }

    pub(crate) fn handle_finished(&self, peer: PeerId) {
        self.end_calls_of(peer);
        let removed = self.peers.borrow_mut().remove(peer);
        drop(removed);
    }

    fn end_calls_of(&self, peer: PeerId) {
        loop {
            let next = self.calls.borrow_mut().end_next_of_peer(peer);
            match next {
                Some(waker) => wake(waker),
                None => return,
            }
        }
    }

    // Messages to this process itself.

    /// Queues a packet for the local task.
    pub(crate) fn send_local(
        &self,
        token: UID,
        admission: Admission,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), CodecError>,
    ) -> Result<(), TransportError> {
        self.admit_local(admission)?;
        let mut packet = BytesMut::new();
        encode(&mut packet)?;
        let (size, limit) = (packet.len(), self.limits.payload_bytes);
        if size > limit {
            return Err(TransportError::PayloadTooLarge { size, limit });
        }
        let waker = self.local.borrow_mut().push(token, packet.freeze());
        wake(waker);
        Ok(())
    }

    fn admit_local(&self, admission: Admission) -> Result<(), TransportError> {
        if self.is_closed() {
            return Err(TransportError::Closed);
        }
        let local = self.local.borrow();
        let full =
            local.len() >= self.limits.local_packets || local.bytes() >= self.limits.local_bytes;
        if full && admission == Admission::WithinLimits {
            return Err(TransportError::QueueFull);
        }
        Ok(())
    }

    /// One turn of the local task: hands over what was queued before it, so that what receivers
    /// send meanwhile waits for the next turn and other tasks get theirs.
    pub(crate) fn poll_local(&self, cx: &mut Context<'_>) -> Poll<()> {
        let queued = self.local.borrow().len();
        for _ in 0..queued {
            let next = self.local.borrow_mut().pop();
            let Some((token, packet)) = next else {
                break;
            };
            self.dispatch(token, Packet::Local(&packet));
        }
        if self.is_closed() {
            return Poll::Ready(());
        }
        if self.local.borrow().len() > 0 {
            cx.waker().wake_by_ref();
        } else {
            let replaced = self.local.borrow_mut().wait(cx.waker());
            drop(replaced);
            wait::note(WaitReason::Message { token: None });
        }
        Poll::Pending
    }

    // The end.

    /// Stops what begins here: sends, registrations, connections. Streams end once they are empty.
    pub(crate) fn begin_close(&self) {
        if self.phase.get() < Phase::Closing {
            self.phase.set(Phase::Closing);
        }
        let receivers = self.endpoints.borrow_mut().drain();
        for receiver in receivers {
            receiver.handle_closed();
        }
    }

    /// Ends everything: peers at once, calls with what is known of them, the local task.
    pub(crate) fn finish_close(&self) {
        self.begin_close();
        self.phase.set(Phase::Closed);
        let peers = self.peers.borrow_mut().drain();
        drop(peers);
        let wakers = self.calls.borrow_mut().end_all();
        wakers.into_iter().for_each(Waker::wake);
        let local = self.local.borrow_mut().clear();
        wake(local);
    }

    /// Counters, and the gauges that need no provider.
    pub(crate) fn stats(&self) -> TransportStats {
        let mut stats = self.counters.snapshot();
        let peers = self.peers.borrow();
        stats.peers = peers.dialling();
        stats.incoming_sessions = peers.len() - peers.dialling();
        stats.incoming_connections = peers.accepted_connections();
        stats.tasks = peers.len();
        for peer in peers.handles() {
            let metrics = peer.metrics();
            stats.queued_packets +=
                metrics.reliable_queued + metrics.unacknowledged + metrics.unreliable_queued;
            stats.queued_bytes += metrics.reliable_bytes + metrics.unreliable_bytes;
        }
        stats.endpoints = self
            .endpoints
            .borrow()
            .len()
            .saturating_sub(BUILT_IN_ENDPOINTS);
        stats.pending_calls = self.calls.borrow().waiting();
        let local = self.local.borrow();
        stats.local_packets = local.len();
        stats.local_bytes = local.bytes();
        stats
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Where peers report. Weak, because the core owns the peers.
struct TransportSink {
    core: Weak<Core>,
}

impl PeerSink for TransportSink {
    fn handle_packet(&self, peer: &PeerHandle, packet: ReceivedPacket<'_>) {
        if let Some(core) = self.core.upgrade() {
            core.dispatch(packet.token, Packet::Remote { peer, packet });
        }
    }

    fn handle_session_ended(&self, peer: &PeerHandle, ended: SessionEnded) {
        if let Some(core) = self.core.upgrade() {
            core.handle_session_ended(peer.id(), &ended);
        }
    }

    fn handle_ours(&self, peer: &PeerHandle, packets: Vec<(PacketId, UID, Bytes)>) {
        if let Some(core) = self.core.upgrade() {
            core.handle_ours(peer, packets);
        }
    }

    fn expects_replies(&self, peer: &PeerHandle) -> bool {
        let core = self.core.upgrade();
        core.is_some_and(|core| core.calls.borrow().has_calls_of(peer.id()))
    }

    fn handle_withdrawn(&self, peer: &PeerHandle, id: PacketId, _limit: u32) {
        if let Some(core) = self.core.upgrade() {
            core.handle_withdrawn(peer.id(), id);
        }
    }

    fn handle_finished(&self, peer: &PeerHandle) {
        if let Some(core) = self.core.upgrade() {
            core.handle_finished(peer.id());
        }
    }
}
