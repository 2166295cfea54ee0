//! What becomes of what peers report: packets, connections, the ends of sessions and of peers.

use std::rc::Weak;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use moonpool_foundation::network::peer::{
    ConnectionChange, PacketId, PeerHandle, PeerId, PeerSink, ReceivedPacket, SessionEnded,
};
use moonpool_foundation::{NetworkAddress, UID};

use super::{Core, wake};
use crate::messaging::r#static::receivers::Packet;
use crate::messaging::r#static::reply_error::ReplyError;

impl Core {
    pub(super) fn handle_session_ended(&self, peer: &PeerHandle, ended: &SessionEnded) {
        self.end_calls_of_session(peer.id(), ended);
        self.handle_ended_session(peer);
    }

    pub(super) fn handle_withdrawn(&self, peer: PeerId, packet: PacketId) {
        let waker = self
            .calls
            .borrow_mut()
            .end_packet(peer, packet, ReplyError::PayloadTooLarge);
        self.wake_caller(waker);
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
            let destination = (address.ip, address.port);
            let mut failures = self.failures.borrow_mut();
            let woken = failures.handle_finished(destination, from);
            drop(failures);
            woken.into_iter().for_each(Waker::wake);
            self.handle_serving(&address, to);
        }
    }

    /// A peer's address leads back here: its packets are delivered locally, now and from now on.
    pub(super) fn handle_ours(&self, peer: &PeerHandle, packets: Vec<(PacketId, UID, Bytes)>) {
        if let Ok(address) = peer.peer_name().parse::<NetworkAddress>() {
            tracing::debug!(%address, "this address is our own");
            let mut own = self.own_addresses.borrow_mut();
            own.insert((address.ip, address.port));
        }
        let mut waker = None;
        let mut numbers = Vec::with_capacity(packets.len());
        for (id, token, payload) in packets {
            let mut local = self.local.borrow_mut();
            numbers.push((id, local.next_number()));
            // Beyond the limits, if need be: they were accepted.
            waker = waker.or(local.push(token, payload));
        }
        self.calls.borrow_mut().keep_calls_of(peer.id(), &numbers);
        wake(waker);
        let start = self.start_local.borrow().clone();
        if let Some(start) = start {
            start();
        }
    }

    pub(crate) fn handle_finished(&self, peer: PeerId) {
        self.end_calls_of(peer);
        self.cancel_requests_of(peer);
        let removed = self.peers.borrow_mut().remove(peer);
        if let Some(destination) = removed.as_ref().and_then(|entry| entry.destination) {
            let woken = self
                .failures
                .borrow_mut()
                .handle_finished(destination, peer);
            woken.into_iter().for_each(Waker::wake);
        }
        drop(removed);
    }

    /// A peer's connection was made or lost, or its address has failed.
    pub(super) fn handle_connection(&self, peer: &PeerHandle, change: ConnectionChange) {
        let Some(destination) = self.peers.borrow().destination(peer.id()) else {
            return;
        };
        let woken = self.failures.borrow_mut().handle_change(
            destination,
            peer.id(),
            change,
            peer.remote_incarnation(),
        );
        woken.into_iter().for_each(Waker::wake);
    }

    /// From now on this peer serves an address that local code asked for.
    pub(crate) fn handle_serving(&self, address: &NetworkAddress, peer: &PeerHandle) {
        let destination = (address.ip, address.port);
        let mut failures = self.failures.borrow_mut();
        failures.handle_peer(destination, peer.id());
        drop(failures);
        if peer.is_connected() {
            self.handle_connection(peer, ConnectionChange::Opened);
        }
    }

    /// The process that a peer dials answered a request to the token.
    #[inline]
    pub(crate) fn handle_found(&self, peer: PeerId, token: UID) {
        if self.failures.borrow().missing() != 0 {
            self.forget_missing(peer, token);
        }
    }

    #[cold]
    fn forget_missing(&self, peer: PeerId, token: UID) {
        if let Some(destination) = self.peers.borrow().destination(peer) {
            self.failures.borrow_mut().handle_found(destination, token);
        }
    }

    /// The process that a peer dials has no receiver for the token.
    pub(crate) fn handle_not_found(&self, peer: &PeerHandle, token: UID) {
        let destination = self.peers.borrow().destination(peer.id());
        if let (Some(destination), Some(incarnation)) = (destination, peer.remote_incarnation()) {
            self.failures
                .borrow_mut()
                .handle_not_found(destination, token, incarnation);
        }
    }
}

/// Where peers report. Weak, because the core owns the peers.
pub(super) struct TransportSink {
    pub(super) core: Weak<Core>,
}

impl PeerSink for TransportSink {
    fn handle_packet(&self, peer: &PeerHandle, packet: ReceivedPacket<'_>) {
        if let Some(core) = self.core.upgrade() {
            let token = packet.token;
            let packet = &packet;
            core.dispatch(token, &Packet::Remote { peer, packet });
        }
    }

    fn handle_session_ended(&self, peer: &PeerHandle, ended: SessionEnded) {
        if let Some(core) = self.core.upgrade() {
            core.handle_session_ended(peer, &ended);
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

    fn patience(&self, peer: &PeerHandle) -> Option<Duration> {
        let core = self.core.upgrade()?;
        core.calls.borrow().patience_with(peer.id())
    }

    fn handle_connection(&self, peer: &PeerHandle, change: ConnectionChange) {
        if let Some(core) = self.core.upgrade() {
            core.handle_connection(peer, change);
        }
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
