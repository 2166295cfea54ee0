//! Whether the other end is there, and whether anybody still needs the peer.
//!
//! The rules descend from FoundationDB's `fdbrpc/FlowTransport.actor.cpp`: `connectionMonitor` (ping
//! while something is outstanding, close what is idle, the accepting end later than the dialling
//! one), `connectionKeeper` (an address has failed once it was unreachable for
//! `FAILURE_DETECTION_DELAY`).

use std::time::Duration;

use crate::network::peer::error::ConnectionError;
use crate::network::peer::packet::ConnectionChange;

use super::{EndStep, Event, PeerState, Phase, Role};

/// How long something is owed, without a packet from there, before the other end is asked.
const PING_AFTER: Duration = Duration::from_secs(1);

/// How long it has to show a sign of life.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(2);

/// Bytes of one growing packet within that time that are a sign of life too.
const SIGN_OF_LIFE_BYTES: usize = 64 * 1024;

/// What the peer is needed for, besides the packets it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::network::peer) struct Demand {
    /// Replies are expected over the session.
    pub(in crate::network::peer) replies: bool,
    /// Somebody wants to know whether the other end is there.
    pub(in crate::network::peer) watches: bool,
    /// A user holds a handle.
    pub(in crate::network::peer) references: bool,
}

/// When `handle_timeout` has to be called next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::network::peer) struct Timeouts {
    /// Something that a simulation has to wait for.
    pub(in crate::network::peer) ordinary: Option<Duration>,
    /// Keepalives for replies and watches, and the ends of what nobody misses.
    pub(in crate::network::peer) background: Option<Duration>,
}

/// For when the timer of each class is set: no later than its next deadline was when it was told.
/// `Duration::MAX`: it is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::network::peer) struct Alarms {
    pub(in crate::network::peer) ordinary: Duration,
    pub(in crate::network::peer) background: Duration,
}

impl Alarms {
    /// The earlier of the two.
    #[inline]
    pub(in crate::network::peer) fn first(self) -> Duration {
        self.ordinary.min(self.background)
    }

    pub(super) fn of(self, class: Class) -> Duration {
        match class {
            Class::Ordinary => self.ordinary,
            Class::Background => self.background,
        }
    }
}

impl Timeouts {
    pub(super) fn add(&mut self, class: Class, at: Option<Duration>) {
        let known = match class {
            Class::Ordinary => &mut self.ordinary,
            Class::Background => &mut self.background,
        };
        *known = [*known, at].into_iter().flatten().min();
    }
}

/// Whether a deadline keeps a simulation alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Ordinary,
    Background,
}

impl Class {
    pub(super) fn ordinary_if(condition: bool) -> Self {
        if condition {
            Self::Ordinary
        } else {
            Self::Background
        }
    }
}

/// Whether the other end of a connection is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Liveness {
    /// When the last complete packet arrived, or the connection opened.
    heard_at: Duration,
    /// Since when something is owed, as far as the driver noticed.
    owed_since: Option<Duration>,
    /// The ping that nothing followed, and when it is too late.
    fails_at: Option<Duration>,
    /// Bytes that arrived since, of a packet that is not complete.
    grown_bytes: usize,
}

impl Liveness {
    /// A connection opened.
    pub(super) fn opened(now: Duration) -> Self {
        Self {
            heard_at: now,
            ..Self::default()
        }
    }

    /// A complete packet arrived.
    pub(super) fn handle_packet(&mut self, now: Duration) {
        self.heard_at = now;
        self.fails_at = None;
    }

    /// Bytes arrived.
    pub(super) fn handle_read(&mut self, bytes: usize) {
        self.grown_bytes = self.grown_bytes.saturating_add(bytes);
    }

    /// When the other end is to be asked.
    fn ping_at(&self) -> Option<Duration> {
        let silent_since = self.owed_since?.max(self.heard_at);
        Some(silent_since.saturating_add(PING_AFTER))
    }

    fn await_sign_of_life(&mut self, now: Duration) {
        self.fails_at = Some(now.saturating_add(SILENT_AFTER));
        self.grown_bytes = 0;
    }
}

/// How long there has been no working connection although one is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Outage {
    /// There is a connection, or nobody wants one.
    #[default]
    None,
    Since(Duration),
    /// For so long that the other end counts as failed, until a connection works.
    Failed,
}

impl PeerState {
    /// What the peer is needed for now.
    pub(in crate::network::peer) fn set_demand(&mut self, demand: Demand) {
        self.demand = demand;
    }

    /// Packets that were written and not acknowledged.
    #[inline]
    pub(in crate::network::peer) fn unacknowledged(&self) -> usize {
        self.outbox.unacknowledged()
    }

    /// Asks for a sign of life while something is owed, and gives the connection up if none comes.
    pub(super) fn handle_silence(&mut self, now: Duration) {
        self.note_owed(now);
        let Liveness {
            fails_at,
            grown_bytes,
            ..
        } = self.liveness;
        match fails_at {
            None if self.liveness.ping_at().is_some_and(|at| at <= now) => {
                self.ask(now);
                self.liveness.await_sign_of_life(now);
            }
            Some(at) if at <= now && grown_bytes >= SIGN_OF_LIFE_BYTES => {
                self.liveness.await_sign_of_life(now);
            }
            Some(at) if at <= now => {
                let after = SILENT_AFTER;
                self.disconnect
                    .get_or_insert(ConnectionError::Silent { after });
            }
            None | Some(_) => {}
        }
        if self.is_pressed() {
            self.ask(now);
        }
    }

    fn ask(&mut self, now: Duration) {
        if let Some(exchange) = &mut self.exchange {
            exchange.ask(now);
        }
    }

    /// Whether written, unacknowledged packets take up so much of the queue that the other end is to
    /// acknowledge them at once, and was not asked for it yet.
    #[inline]
    pub(super) fn is_pressed(&self) -> bool {
        self.outbox.unacknowledged() > 0
            && self.outbox.is_half_unacknowledged()
            && self.exchange.as_ref().is_some_and(|it| !it.is_asking())
    }

    /// Notes since when something is owed.
    fn note_owed(&mut self, now: Duration) {
        let awaits = self.exchange.is_some() && (self.demand.replies || self.demand.watches);
        self.note_whether_owed(now, awaits || self.outbox.unacknowledged() > 0);
    }

    pub(super) fn note_whether_owed(&mut self, now: Duration, is_owed: bool) {
        if is_owed && self.is_open() {
            self.liveness.owed_since.get_or_insert(now);
        } else {
            self.liveness.owed_since = None;
            self.liveness.fails_at = None;
        }
    }

    /// When the other end is to be asked, or has been silent for too long.
    pub(super) fn add_keepalive(&mut self, now: Duration, timeouts: &mut Timeouts) {
        self.note_owed(now);
        let (class, at) = self.keepalive();
        timeouts.add(class, at);
    }

    /// The same, once it is noted whether anything is owed.
    pub(super) fn keepalive(&self) -> (Class, Option<Duration>) {
        let at = self.liveness.fails_at.or(self.liveness.ping_at());
        (Class::ordinary_if(self.outbox.unacknowledged() > 0), at)
    }

    /// Notes how long a connection has been wanted in vain. To be called before packets and sessions
    /// are given up for want of one: whoever is told of that may ask whether the address has failed.
    pub(super) fn handle_outage(&mut self, now: Duration) {
        let is_wanted = match self.phase {
            Phase::Idle { .. } => self.wants_connection(now),
            Phase::Connecting { .. } | Phase::Greeting { .. } => true,
            Phase::Open { .. } | Phase::Ending { .. } | Phase::Finished => false,
        };
        self.outage = match self.outage {
            Outage::Failed => return,
            _ if !is_wanted || !self.dials() => Outage::None,
            Outage::None => Outage::Since(now),
            Outage::Since(since) => Outage::Since(since),
        };
        if self.failure_deadline().is_some_and(|at| at <= now) {
            self.fail();
        }
    }

    /// The other end counts as failed from now on.
    pub(super) fn fail(&mut self) {
        if self.outage != Outage::Failed && self.dials() {
            self.outage = Outage::Failed;
            self.push_event(Event::Connection(ConnectionChange::Failed));
        }
    }

    /// When the other end counts as failed.
    pub(super) fn failure_deadline(&self) -> Option<Duration> {
        match self.outage {
            Outage::Since(since) => Some(since.saturating_add(self.config.failed_after)),
            Outage::None | Outage::Failed => None,
        }
    }

    /// Whether somebody could miss the peer if it closed.
    fn is_needed(&self) -> bool {
        let Demand {
            replies,
            watches,
            references,
        } = self.demand;
        replies || watches || references || self.owes() || self.closing.is_some()
    }

    /// When the peer closes, unless it is needed or used by then.
    pub(super) fn idle_deadline(&self) -> Option<Duration> {
        let idle_close = self.config.idle_close?;
        let margin = match (&self.phase, self.role) {
            _ if self.exchange.is_none() => return None,
            (Phase::Open { .. }, Role::Accept | Role::KeepSession) => idle_close / 5,
            (Phase::Open { .. } | Phase::Idle { .. }, Role::DialLazily | Role::DialEagerly) => {
                Duration::ZERO
            }
            _ => return None,
        };
        let since = self.used_at?.max(self.liveness.heard_at);
        Some(since.saturating_add(idle_close).saturating_add(margin))
    }

    /// Closes a peer that nobody used for long and nobody needs; one without a connection is finished. The accepting end waits a fifth
    /// longer than the dialling one, so that a request rarely crosses its Close.
    pub(super) fn handle_idleness(&mut self, now: Duration) {
        if self.used_at.is_none() || self.is_needed() {
            self.used_at = Some(now);
            self.end_goodbye();
        }
        if self.idle_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let cause = ConnectionError::Idle;
        if !self.is_open() {
            self.finish(cause);
            return;
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.lay_out_close(&mut self.outbox);
        }
        self.phase = Phase::Ending {
            step: EndStep::Flush,
            deadline: now.saturating_add(self.config.connect_timeout),
            cause,
        };
    }

    /// A peer that closes because it was idle is needed again: once it has said so to the other end,
    /// it does not wait for that.
    fn end_goodbye(&mut self) {
        if let Phase::Ending {
            step: EndStep::Linger,
            cause: ConnectionError::Idle,
            ..
        } = self.phase
        {
            self.disconnect.get_or_insert(ConnectionError::Idle);
        }
    }
}
