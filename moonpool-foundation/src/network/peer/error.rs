//! What a peer refuses, and why connections end.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use crate::messaging::{UID, WellKnownToken, WireError};

use super::config::PeerConfigError;
use super::packet::PacketId;

/// Why a peer did not take a packet, or cannot give one. A refused payload is given back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// As many packets or bytes wait as the configuration allows. Await `ready()`, or shed load.
    #[error("the peer's queue is full")]
    QueueFull {
        /// What was to be sent.
        payload: Bytes,
    },
    /// The payload is larger than this end, or the other one, takes. Split it, or raise the limit
    /// at both ends.
    #[error("payload of {size} bytes is too large, the limit is {limit}")]
    PayloadTooLarge {
        /// Bytes of the payload.
        size: usize,
        /// Bytes that it may have.
        limit: usize,
        /// What was to be sent.
        payload: Bytes,
    },
    /// The token is one of the sessions' own frames. Use another.
    #[error("token {token} is reserved for session frames")]
    ReservedToken {
        /// The token.
        token: UID,
        /// What was to be sent.
        payload: Bytes,
    },
    /// The peer is closed or closing, gave up, or was dropped. Make another one; the metrics'
    /// `last_error` says why.
    #[error("the peer is closed")]
    Closed {
        /// What was to be sent, if anything was.
        payload: Option<Bytes>,
    },
}

impl PeerError {
    /// What was to be sent.
    #[must_use]
    pub fn into_payload(self) -> Option<Bytes> {
        match self {
            Self::QueueFull { payload }
            | Self::PayloadTooLarge { payload, .. }
            | Self::ReservedToken { payload, .. } => Some(payload),
            Self::Closed { payload } => payload,
        }
    }
}

/// Why a packet that was to be encoded in place was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<E> {
    /// The encoder failed. Nothing was queued.
    #[error("the payload could not be encoded")]
    Encode(#[source] E),
    /// The encoder did more than to append to the buffer that it was given, which has the packet's
    /// front in it. Nothing was queued.
    #[error("the encoder changed what was in the buffer before")]
    BufferReplaced,
    /// The peer refused it.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

/// Why a connection, or an attempt to get one, ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// Connecting failed.
    #[error("cannot connect: {message}")]
    Connect {
        /// What kind of failure.
        kind: io::ErrorKind,
        /// What the operating system said.
        message: String,
    },
    /// Connecting and greeting took longer than allowed.
    #[error("no connection within {after:?}")]
    TimedOut {
        /// The time that was allowed.
        after: Duration,
    },
    /// A read or write failed: the other end is gone, or the network is.
    #[error("connection lost: {message}")]
    Lost {
        /// What kind of failure.
        kind: io::ErrorKind,
        /// What the operating system said.
        message: String,
    },
    /// Nothing arrived although packets were unacknowledged and the other end was asked for a sign of
    /// life: it is gone, or the network is.
    #[error("no packet for {after:?} after a ping")]
    Silent {
        /// How long it was waited for one.
        after: Duration,
    },
    /// The other end ended its half of the stream, without a Close frame.
    #[error("the other end ended the connection")]
    Ended,
    /// A packet is larger than what the transport's connections may still read into. The session
    /// goes on with the next connection.
    #[error("no memory for {bytes} more bytes of a packet: connections may hold {limit} together")]
    NoMemory {
        /// Bytes that reading it takes.
        bytes: usize,
        /// What all connections may hold.
        limit: usize,
    },
    /// The other end closed the session in order.
    #[error("the other end closed the session")]
    RemoteClosed,
    /// What arrived is not the packet format, or was changed on the way.
    #[error("bad packet")]
    Wire(#[from] WireError),
    /// What arrived is well-formed packets in an order, or of a kind, that the protocol forbids.
    #[error("protocol violation")]
    Protocol(#[from] ProtocolError),
    /// A packet that is to be written again is not what it was: its bytes changed in this process's memory.
    /// The session ends, since the other end would refuse them for ever.
    #[error("the bytes of packet {packet} changed after they were written")]
    Damaged {
        /// The first such packet.
        packet: PacketId,
    },
    /// The other end does not speak our version or mode. It is asked again every 60 s.
    #[error("the other end is incompatible: it speaks versions {version_min} to {version_max}")]
    Incompatible {
        /// The oldest version it speaks; 0 if it speaks none.
        version_min: u16,
        /// The newest.
        version_max: u16,
    },
    /// The other end has a newer connection of the same session.
    #[error("superseded by generation {generation}")]
    Superseded {
        /// The generation it has.
        generation: u64,
    },
    /// The address that was dialled leads back to this process. Its packets are delivered here.
    #[error("the address is one of our own")]
    Ourselves,
    /// `reconnect()` was called.
    #[error("dropped to reconnect")]
    Reconnect,
    /// `close()` was called, or the peer was dropped.
    #[error("closed")]
    Closed,
    /// Nothing was sent, received or expected for as long as the configuration says. The next packet
    /// makes a connection anew.
    #[error("closed because it was idle")]
    Idle,
    /// Too many attempts failed in a row.
    #[error("gave up after {failures} failed attempts")]
    GaveUp {
        /// How many.
        failures: u32,
    },
    /// The configuration cannot work.
    #[error("invalid configuration")]
    Config(#[from] PeerConfigError),
}

impl ConnectionError {
    pub(super) fn connect(error: &io::Error) -> Self {
        Self::Connect {
            kind: error.kind(),
            message: error.to_string(),
        }
    }

    pub(super) fn lost(error: &io::Error) -> Self {
        Self::Lost {
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}

/// What the other end did that the protocol forbids. The connection is dropped, and the session with
/// it: nothing that was agreed on can be relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A session frame is shorter or longer than its kind.
    #[error("a {frame:?} frame of {size} bytes")]
    FrameSize {
        /// The kind.
        frame: WellKnownToken,
        /// Bytes of its payload.
        size: usize,
    },
    /// A greeting does not begin with the magic letters: another protocol dialled this port.
    #[error("a {frame:?} frame without the magic letters")]
    Magic {
        /// The kind.
        frame: WellKnownToken,
    },
    /// A Hello was answered with a version that it did not offer.
    #[error("answered with version {version}, which was not offered")]
    UnknownVersion {
        /// The version.
        version: u16,
    },
    /// A Hello was answered with an outcome that does not exist.
    #[error("answered with the unknown outcome {code}")]
    UnknownOutcome {
        /// The code.
        code: u8,
    },
    /// A Hello was answered with an outcome that it did not ask for.
    #[error("answered with an outcome that was not asked for")]
    UnexpectedOutcome,
    /// The other end takes so little that it could not even be told what is wrong.
    #[error("payloads are limited to {limit} bytes, which is too little")]
    PayloadLimit {
        /// The limit.
        limit: u32,
    },
    /// An address is of no known family.
    #[error("an address of the unknown family {family}")]
    AddressFamily {
        /// The family.
        family: u8,
    },
    /// The first packet is no greeting: the other end is a bare peer, or another protocol.
    #[error("the first packet is to {token}, a greeting was expected")]
    NoHello {
        /// Where it is to.
        token: UID,
    },
    /// A greeting, or any session frame in plain mode, where none may be.
    #[error("an unexpected {frame:?} frame")]
    UnexpectedFrame {
        /// The kind.
        frame: WellKnownToken,
    },
    /// A sequence number beyond the one expected next: packets are missing.
    #[error("sequence number {sequence}, expected {expected}")]
    SequenceGap {
        /// The number.
        sequence: u64,
        /// The one expected next.
        expected: u64,
    },
    /// An acknowledgement of something that was not sent.
    #[error("acknowledgement of everything below {ack}, but only {sent} was sent")]
    AckOfUnsent {
        /// The acknowledgement.
        ack: u64,
        /// The last sequence number that was sent.
        sent: u64,
    },
    /// A session is to be resumed at a packet that was acknowledged before.
    #[error("resuming at {ack}, but everything below {acknowledged} was acknowledged")]
    AckTakenBack {
        /// What the other end expects next.
        ack: u64,
        /// What it expected next when it said so last.
        acknowledged: u64,
    },
    /// A packet with a session frame's token inside a sequenced packet.
    #[error("a session frame's token {token} inside a sequenced packet")]
    ReservedToken {
        /// The token.
        token: UID,
    },
}
