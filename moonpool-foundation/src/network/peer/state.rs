//! A peer's decisions, without I/O: when to dial, greet, write, back off, give up, close.
//!
//! The driver tells what happened (`handle_*`), asks what to do (`poll_*`) and does it. Nothing
//! here has a clock, a socket or a source of randomness: `now` and random draws are arguments.

mod address;
mod answers;
mod connection;
mod ending;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod liveness;
mod schedule;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::messaging::UID;

use super::backoff::Backoff;
use super::config::PeerConfig;
use super::error::ConnectionError;
use super::exchange::{Exchange, Remote};
#[cfg(feature = "metrics")]
use super::instruments::Counted;
use super::metrics::PeerMetrics;
use super::outbox::Outbox;
use super::packet::{ConnectionChange, PacketId, SessionEnded, Withdrawal};
use super::session::{SessionIdentity, SessionMode};

/// How long an incompatible peer is left alone.
const INCOMPATIBLE_PROBE: Duration = Duration::from_secs(60);

pub(super) use liveness::{Alarms, Demand, Timeouts};
pub(super) use sending::{EXPECTED_PAYLOAD, Refusal};

use ending::Rest;
use liveness::{Liveness, Outage};

/// How long a session is kept after its last connection.
const SESSION_KEPT: Duration = Duration::from_secs(60);

/// How long a lazy dialler that lost its connection still counts as used, if nothing is queued.
const RECENT_USE: Duration = Duration::from_secs(3);

/// Reports that wait for the driver before no more packets are withdrawn.
const MAX_EVENTS: usize = 1024;

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Wait for bytes, for room to write, for a handle, or for `poll_timeout`.
    Wait,
    /// Make a connection, then call `handle_connected` or `handle_closed`.
    Connect,
    /// Drop the connection or the attempt and call `handle_closed` with this.
    Disconnect(ConnectionError),
    /// End this end's half of the stream, then call `handle_shutdown`.
    Shutdown,
    /// Drop everything and end.
    Finish,
}

/// What users are to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    SessionEnded(SessionEnded),
    Withdrawn { id: PacketId, limit: u32 },
    Connection(ConnectionChange),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Dials at once and always again.
    DialEagerly,
    /// Dials when something is owed, and while something was sent recently.
    DialLazily,
    /// Ends with its connection.
    Accept,
    /// Was accepted, outlives its connections, and waits for the next one to be attached. It becomes
    /// one that dials when local code asks for the address that it serves.
    KeepSession,
}

/// A session's last working connection.
#[derive(Clone, Copy, Debug)]
struct LastConnection {
    lost_at: Duration,
    /// Whether it left something behind that waits: packets that were not acknowledged, or replies
    /// that are expected.
    is_missed: bool,
}

/// A newer process claims the other end's address, and the other end was asked whether it lives.
/// New packets wait until that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Contest {
    asked_at: Duration,
    fails_at: Duration,
}

/// What a connection that was accepted does to the peer it is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    /// It carries the session on.
    Resume,
    /// It begins a session of this name. An older one is over.
    Begin(UID),
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// No connection. None is made before this time.
    Idle {
        not_before: Duration,
    },
    /// A connection is being made.
    Connecting {
        deadline: Duration,
    },
    /// There is a connection, and the first packet is awaited.
    Greeting {
        deadline: Duration,
    },
    /// Packets flow.
    Open {
        since: Duration,
    },
    /// Last frames leave, then the stream ends.
    Ending {
        step: EndStep,
        deadline: Duration,
        cause: ConnectionError,
    },
    Finished,
}

impl Phase {
    /// No connection, and none is ever made from this end.
    const DETACHED: Self = Self::Idle {
        not_before: Duration::MAX,
    };
}

/// How far the end of a connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndStep {
    /// What is laid out is being written.
    Flush,
    /// This end's half of the stream is being ended.
    Shutdown,
    /// The other end's half is awaited: dropping the stream earlier could reset it, and lose
    /// what is on its way.
    Linger,
}

/// A `close()` that was asked for.
#[derive(Debug)]
struct Closing {
    /// Given since the driver ran last.
    grace: Option<Duration>,
    deadline: Option<Duration>,
    /// Whether the other end was asked what it has received.
    asked: bool,
}

/// The whole state of one peer.
#[derive(Debug)]
pub(super) struct PeerState {
    config: PeerConfig,
    role: Role,
    phase: Phase,
    outbox: Outbox,
    /// In acknowledged mode.
    exchange: Option<Exchange>,
    backoff: Backoff,
    failures: u32,
    closing: Option<Closing>,
    disconnect: Option<ConnectionError>,
    /// A handle sent something since the driver ran last.
    was_used: bool,
    used_until: Duration,
    /// Of those who wait for something, if it is longer than the configuration's.
    longer_patience: Option<Duration>,
    /// When the last working connection was lost, or the first one was dialled.
    unconnected_since: Option<Duration>,
    /// When it was used, or needed, last, apart from what arrived. `None`: it is new.
    used_at: Option<Duration>,
    demand: Demand,
    liveness: Liveness,
    outage: Outage,
    /// The connection was not dialled from here.
    is_accepted: bool,
    /// While there is a connection.
    contest: Option<Contest>,
    /// Should the connection end now, another peer takes over.
    has_heir: bool,
    /// Processes that claim the address and have a working session with another peer.
    rivals: Vec<UID>,
    /// It ended, and its packets go elsewhere.
    is_ceding: bool,
    /// While a session has no connection.
    last_connection: Option<LastConnection>,
    /// Every deadline of the connection was told since it opened.
    is_timed: bool,
    events: VecDeque<Event>,
    /// What `close()` could not deliver.
    undelivered: Option<SessionEnded>,
    metrics: PeerMetrics,
}

impl PeerState {
    /// A peer that dials.
    pub(super) fn dialling(config: PeerConfig, mode: SessionMode) -> Self {
        let role = match mode {
            SessionMode::Plain => Role::DialEagerly,
            SessionMode::Acknowledged(_) => Role::DialLazily,
        };
        Self::new(
            config,
            mode,
            role,
            Phase::Idle {
                not_before: Duration::ZERO,
            },
        )
    }

    /// A peer on a connection that was accepted.
    pub(super) fn accepted(config: PeerConfig, mode: SessionMode, now: Duration) -> Self {
        let phase = match mode {
            SessionMode::Plain => Phase::Open { since: now },
            SessionMode::Acknowledged(_) => Phase::Greeting {
                deadline: now.saturating_add(config.connect_timeout),
            },
        };
        let mut state = Self::new(config, mode, Role::Accept, phase);
        state.metrics.connections = u64::from(mode == SessionMode::Plain);
        state
    }

    /// A peer of a session that is accepted, to which connections are attached.
    pub(super) fn of_session(config: PeerConfig, identity: SessionIdentity) -> Self {
        let mode = SessionMode::Acknowledged(identity);
        Self::new(config, mode, Role::KeepSession, Phase::DETACHED)
    }

    fn new(config: PeerConfig, mode: SessionMode, role: Role, phase: Phase) -> Self {
        let exchange = match mode {
            SessionMode::Plain => None,
            SessionMode::Acknowledged(identity) => {
                Some(Exchange::new(identity, config.max_payload_bytes))
            }
        };
        let mut state = Self {
            role,
            phase,
            outbox: Outbox::new(&config, exchange.is_some()),
            exchange,
            backoff: Backoff::new(&config),
            failures: 0,
            closing: None,
            disconnect: None,
            was_used: false,
            used_until: Duration::ZERO,
            longer_patience: None,
            unconnected_since: None,
            used_at: None,
            demand: Demand::default(),
            liveness: Liveness::default(),
            outage: Outage::None,
            is_accepted: false,
            contest: None,
            has_heir: false,
            rivals: Vec::new(),
            is_ceding: false,
            last_connection: None,
            is_timed: false,
            events: VecDeque::new(),
            undelivered: None,
            metrics: PeerMetrics::default(),
            config,
        };
        if let Err(error) = state.config.validate() {
            state.metrics.last_error = Some(error.into());
            state.phase = Phase::Finished;
        }
        state
    }

    /// Takes a reliable packet back.
    pub(super) fn withdraw(&mut self, id: PacketId) -> Withdrawal {
        self.outbox.withdraw(id)
    }

    /// How long somebody waits for a connection, if that is longer than the configuration says.
    pub(super) fn set_patience(&mut self, longer: Option<Duration>) {
        self.longer_patience = longer;
    }

    /// Since when there is no working connection. `None`: there is one, or none was ever wanted.
    pub(super) fn unconnected_since(&self) -> Option<Duration> {
        self.unconnected_since
    }

    /// `reconnect()` was called.
    pub(super) fn request_reconnect(&mut self) {
        match &mut self.phase {
            Phase::Idle { not_before } => {
                *not_before = Duration::ZERO;
                self.was_used = true;
            }
            Phase::Connecting { .. } | Phase::Greeting { .. } | Phase::Open { .. } => {
                self.disconnect.get_or_insert(ConnectionError::Reconnect);
            }
            Phase::Ending { .. } | Phase::Finished => {}
        }
    }

    /// `close()` was called. Of several graces the one that ends first counts.
    pub(super) fn request_close(&mut self, grace: Duration) {
        let closing = self.closing.get_or_insert(Closing {
            grace: None,
            deadline: None,
            asked: false,
        });
        closing.grace = Some(closing.grace.map_or(grace, |known| known.min(grace)));
    }

    fn push_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// What users are to be told next.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn wants_connection(&self, now: Duration) -> bool {
        match self.role {
            Role::Accept | Role::KeepSession => false,
            _ if self.owes() => true,
            _ if self.closing.is_some() => false,
            Role::DialEagerly => true,
            Role::DialLazily => self.demand.watches || self.is_in_use(now),
        }
    }

    /// Whether a connection is wanted for more than to know whether there can be one.
    fn is_in_use(&self, now: Duration) -> bool {
        self.owes()
            || self.demand.replies
            || now < self.used_until
            || self.role == Role::DialEagerly
    }

    /// Whether packets are held that another connection can deliver.
    fn owes(&self) -> bool {
        self.outbox.has_queued() || self.outbox.owes()
    }

    fn patience(&self) -> Option<Duration> {
        match self.role {
            Role::Accept | Role::KeepSession => None,
            Role::DialEagerly | Role::DialLazily => {
                let patience = self.config.patience?;
                Some(patience.max(self.longer_patience.unwrap_or_default()))
            }
        }
    }

    fn close_deadline(&self) -> Option<Duration> {
        self.closing.as_ref()?.deadline
    }

    /// Whether packets can flow.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Whether packets could flow on the connection that there is; and why it ends, if it does so in
    /// order.
    pub(super) fn connection_end(&self) -> (bool, Option<ConnectionError>) {
        match &self.phase {
            Phase::Ending { cause, .. } => (true, Some(cause.clone())),
            phase => (matches!(phase, Phase::Open { .. }), None),
        }
    }

    /// Whether nothing more is accepted.
    pub(super) fn is_closed(&self) -> bool {
        self.closing.is_some() || self.is_finished()
    }

    /// Whether not even what the other end is owed is accepted.
    fn has_said_goodbye(&self) -> bool {
        let is_ending = self.closing.is_some() && self.is_ending();
        is_ending || self.is_finished()
    }

    /// Whether it waits for a connection to be attached.
    pub(super) fn is_detached(&self) -> bool {
        self.role == Role::KeepSession && matches!(self.phase, Phase::Idle { .. })
    }

    /// Whether the driver has nothing more to do.
    pub(super) fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// Whether what arrives is of no interest any more.
    #[inline]
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }

    pub(super) fn remote(&self) -> Remote {
        self.exchange
            .as_ref()
            .map(Exchange::remote)
            .unwrap_or_default()
    }

    /// The largest payload that both ends take, as far as is known.
    pub(super) fn max_payload(&self) -> u32 {
        let own = self.config.max_payload_bytes;
        let remote = self.exchange.as_ref().and_then(Exchange::remote_limit);
        remote.map_or(own, |remote| own.min(remote))
    }

    /// How many connections became usable.
    pub(super) fn connections(&self) -> u64 {
        self.metrics.connections
    }

    /// The counters alone.
    #[cfg(feature = "metrics")]
    pub(super) fn counted(&self) -> Counted {
        let outbox = self.outbox.counters;
        let (metrics, exchange) = (&self.metrics, self.exchange.as_ref());
        Counted {
            packets_sent: outbox.packets_sent,
            packets_resent: outbox.packets_resent,
            packets_received: metrics.packets_received,
            bytes_sent: outbox.bytes_sent,
            bytes_received: metrics.bytes_received,
            connection_attempts: metrics.connection_attempts,
            connections: metrics.connections,
            reconnects: metrics.reconnects,
            connection_failures: metrics.connection_failures,
            protocol_errors: metrics.protocol_errors,
            unreliable_dropped: outbox.unreliable_dropped,
            not_delivered: outbox.not_delivered,
            maybe_delivered: outbox.maybe_delivered,
            round_trips: exchange.map_or(0, |exchange| exchange.round_trips),
            round_trip: exchange.and_then(|exchange| exchange.round_trip),
        }
    }

    pub(super) fn metrics(&self) -> PeerMetrics {
        let counters = self.outbox.counters;
        let (unreliable_queued, unreliable_bytes) = self.outbox.unreliable();
        PeerMetrics {
            reliable_queued: self.outbox.reliable_queued(),
            reliable_bytes: self.outbox.reliable_bytes(),
            unacknowledged: self.outbox.unacknowledged(),
            answer_slots: self.outbox.answer_slots(),
            unreliable_queued,
            unreliable_bytes,
            packets_sent: counters.packets_sent,
            packets_resent: counters.packets_resent,
            bytes_sent: counters.bytes_sent,
            unreliable_dropped: counters.unreliable_dropped,
            not_delivered: counters.not_delivered,
            maybe_delivered: counters.maybe_delivered,
            round_trip: self
                .exchange
                .as_ref()
                .and_then(|exchange| exchange.round_trip),
            ..self.metrics.clone()
        }
    }
}
