//! What users of a peer see: ids, received packets, reports, and the sink that gets them.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::messaging::UID;
use crate::messaging::wire::{CHECKSUM_END, HEADER_SIZE, PacketHeader};

use super::frame::SEQUENCED_HEAD;
use super::handle::PeerHandle;
use super::tail::NOTED_BYTES;

/// Names a peer to the [`PeerSink`] it reports to. Whoever creates the peer chooses it; to the peer
/// it means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// Counts the reliable packets that one peer accepted: dense, increasing, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(u64);

impl PacketId {
    /// The first packet's id.
    pub const FIRST: Self = Self(1);

    /// The id with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The id after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What came of withdrawing a reliable packet. It is not reported any more by itself; its id can
/// still lie inside a range of a [`SessionEnded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// It surely was not delivered, and will not be.
    NotDelivered,
    /// Bytes of it were handed to a socket. If it did not arrive there, it never will.
    MaybeDelivered,
    /// The peer does not have it: it was acknowledged, reported or withdrawn before, or was never
    /// accepted; or, in plain mode, it is part of the next write.
    Unknown,
}

/// What became of the accepted reliable packets when a session ended, or, in plain mode, a
/// connection; or when packets ran out of patience or of a peer.
///
/// The ranges adjoin: `maybe_delivered.end == not_delivered.start`. Every id below
/// `maybe_delivered.start` was acknowledged or reported before; every id from `not_delivered.end`
/// on is still queued. Either range may be empty. Ids of packets that were withdrawn, by
/// [the peer](PeerSink::handle_withdrawn) or by [the user](PeerHandle::withdraw), can lie inside
/// a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnded {
    /// Surely not delivered: no byte of them was handed to a socket, at least not since the other
    /// end said that it did not have them. Dropped now.
    pub not_delivered: Range<PacketId>,
    /// Bytes of them were handed to a socket, and no acknowledgement came. In plain mode, which
    /// has no acknowledgements: everything written on the connection that ended.
    pub maybe_delivered: Range<PacketId>,
}

/// What became of the connection of a peer that dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionChange {
    /// There is a working connection: connected, and in acknowledged mode greeted.
    Opened,
    /// The working connection was lost. Not told when this end closed it in order.
    Lost,
    /// There was no working connection for [`failed_after`](super::PeerConfig::failed_after),
    /// although one was wanted, or the peer gave up. Told once, until there is one again.
    Failed,
}

/// Receives what a peer's connection brings.
///
/// Called from the peer's driver, with nothing of the peer borrowed: it may call back into any
/// handle, this peer's included, and may drop the peer. A peer that is dropped calls nothing more.
pub trait PeerSink {
    /// A packet arrived. It borrows the bytes that were read: keep them with
    /// [`ReceivedPacket::to_bytes`].
    fn handle_packet(&self, peer: &PeerHandle, packet: ReceivedPacket<'_>);

    /// A session ended, or, in plain mode, a connection; or packets were dropped without one. Losing
    /// a connection does not end a session. Also called if no packet was affected, since what was
    /// asked over the session is lost with it.
    fn handle_session_ended(&self, peer: &PeerHandle, ended: SessionEnded);

    /// A reliable packet was accepted before the other end had said that it takes `limit` bytes of
    /// payload only. It was taken out of the queue and surely not delivered.
    fn handle_withdrawn(&self, peer: &PeerHandle, id: PacketId, limit: u32) {
        let _ = (peer, id, limit);
    }

    /// The address that the peer dials is one of our own. These packets, given with their ids and in
    /// order, are all that it held; they are to be delivered here. The peer ends with that.
    fn handle_ours(&self, peer: &PeerHandle, packets: Vec<(PacketId, UID, Bytes)>) {
        let _ = (peer, packets);
    }

    /// Whether something is to come over the session, a reply for example. While it is, an
    /// acknowledged peer asks a silent other end for a sign of life, does not close for being idle,
    /// and, if it dials, replaces a lost connection although nothing is queued.
    fn expects_replies(&self, peer: &PeerHandle) -> bool {
        let _ = peer;
        false
    }

    /// How long those who wait for something over the session put up with there being no working
    /// connection, if that is longer than the configuration's patience. Asked while there is none.
    fn patience(&self, peer: &PeerHandle) -> Option<Duration> {
        let _ = peer;
        None
    }

    /// The connection of a peer that dials was made or lost, or could not be made for long.
    fn handle_connection(&self, peer: &PeerHandle, change: ConnectionChange) {
        let _ = (peer, change);
    }

    /// The peer is finished for good: closed, given up, or its accepted connection is gone.
    /// Nothing else is called after this.
    fn handle_finished(&self, peer: &PeerHandle);
}

/// A packet that has just been read. It borrows the block it was read into.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedPacket<'a> {
    /// Where it goes.
    pub token: UID,
    /// What it carries.
    pub payload: &'a [u8],
    /// Whether it was sent reliably, as far as the receiver can tell: in plain mode nothing is.
    pub reliable: bool,
    /// When it was handed out, in the time of the peer's provider: one reading of the clock serves
    /// all packets that are handed out together.
    pub received_at: Duration,
    block: &'a Bytes,
    /// Bytes of the memory that the block is part of.
    block_bytes: usize,
}

impl<'a> ReceivedPacket<'a> {
    /// `payload` has to be part of `block`.
    pub(super) fn new(
        token: UID,
        payload: &'a [u8],
        reliable: bool,
        block: &'a Bytes,
        block_bytes: usize,
    ) -> Self {
        Self {
            token,
            payload,
            reliable,
            received_at: Duration::ZERO,
            block,
            block_bytes,
        }
    }

    /// Received at this time.
    pub(super) fn at(self, received_at: Duration) -> Self {
        Self {
            received_at,
            ..self
        }
    }

    /// Bytes that are kept by whoever shares a part of it.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// The bytes that the packet's checksum covers, which end with the payload, and the checksum: it was
    /// verified when they had been read. `None` of a payload of fewer than [`NOTED_BYTES`].
    #[must_use]
    pub fn summed(&self) -> Option<(Bytes, u32)> {
        if self.payload.len() < NOTED_BYTES {
            return None;
        }
        // In a session, what is not reliable is in no frame of its.
        let front = if self.reliable {
            SEQUENCED_HEAD
        } else {
            HEADER_SIZE
        };
        let payload = self.payload.as_ptr().addr();
        let start = payload.checked_sub(self.block.as_ptr().addr() + front)?;
        let packet = self.block.get(start..start + front + self.payload.len())?;
        let header = PacketHeader::deserialize(packet).ok()?;
        let is_whole = usize::try_from(header.length) == Ok(packet.len());
        let summed = packet.get(CHECKSUM_END..)?;
        is_whole.then(|| (self.block.slice_ref(summed), header.checksum))
    }

    /// A part of the payload, shared.
    pub(super) fn share(&self, part: &[u8]) -> Bytes {
        if part.is_empty() {
            return Bytes::new();
        }
        self.block.slice_ref(part)
    }

    /// The payload, to keep. Shares the block it was read into, without a copy: for as long as it
    /// lives, so does the block, with whatever else arrived in the same read: 128 KiB and more. See
    /// [`KeptPayloads`](super::KeptPayloads) for what may be kept for long.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.share(self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::checksum::crc;
    use crate::messaging::{WellKnownToken, serialize_packet};

    /// What is known of the payload of a packet that others came with, if it is said to be there.
    fn summed(outer: UID, payload: &[u8], inner: usize, reliable: bool) -> Option<(Bytes, u32)> {
        let before = serialize_packet(UID::new(9, 9), b"before");
        let packet = serialize_packet(outer, payload);
        let block = Bytes::from([&before[..], &packet, &before].concat());
        let whole = &block[before.len()..before.len() + packet.len()];
        let payload = &whole[HEADER_SIZE + inner..];
        let received = ReceivedPacket::new(outer, payload, reliable, &block, block.len());
        received.summed().inspect(|(bytes, checksum)| {
            assert_eq!(bytes[..], whole[CHECKSUM_END..]);
            assert_eq!(*checksum, crc(bytes));
            assert_eq!(bytes.as_ptr_range().end, payload.as_ptr_range().end);
        })
    }

    #[test]
    fn the_checksum_of_a_packet_is_known_with_the_bytes_that_it_covers() {
        let large = vec![7; NOTED_BYTES];
        let prefix = SEQUENCED_HEAD - HEADER_SIZE;
        let framed = vec![7; NOTED_BYTES + prefix];
        let sequenced = WellKnownToken::Sequenced.token();
        assert!(summed(UID::new(1, 2), &large, 0, false).is_some());
        assert!(summed(sequenced, &framed, prefix, true).is_some());
        assert_eq!(summed(UID::new(1, 2), &large[1..], 0, false), None);
        // As no driver says it.
        assert_eq!(summed(UID::new(1, 2), &large, 0, true), None);
        assert_eq!(summed(sequenced, &framed, prefix, false), None);
    }
}
