//! Whom a peer's address belongs to: local code asks for it, a newer process claims it, it turns out
//! to be our own.

use std::collections::VecDeque;
use std::time::Duration;

use crate::messaging::UID;
use crate::network::peer::error::ConnectionError;
use crate::network::peer::exchange::Exchange;
use crate::network::peer::frame::Frame;
use crate::network::peer::packet::PacketId;
use crate::network::peer::session_table::{MAX_HEIRS, Reach, Standing};

use super::liveness::SILENT_AFTER;
use super::{Contest, PeerState, Phase, Rest, Role};

impl PeerState {
    /// How far it has come, for who decides about a Hello.
    pub(in crate::network::peer) fn standing(&self) -> Standing {
        let reach = match self.phase {
            _ if self.closing.is_some() => Reach::Closing,
            Phase::Idle { .. } | Phase::Connecting { .. } => Reach::Unsent,
            Phase::Greeting { .. } => Reach::Greeting,
            Phase::Open { .. } => Reach::Open,
            Phase::Ending { .. } | Phase::Finished => Reach::Closing,
        };
        Standing {
            session: self.exchange.as_ref().and_then(Exchange::session),
            generation: self.exchange.as_ref().map_or(0, Exchange::generation),
            reach,
            dials: self.dials(),
        }
    }

    /// Local code asks for the address that an accepted session serves: the peer may dial it now.
    pub(in crate::network::peer) fn allow_dial(&mut self) {
        if self.role == Role::KeepSession {
            self.role = Role::DialLazily;
            if self.phase == Phase::DETACHED {
                self.phase = Phase::Idle {
                    not_before: Duration::ZERO,
                };
            }
        }
    }

    /// Whether it makes connections by itself.
    pub(in crate::network::peer) fn dials(&self) -> bool {
        matches!(self.role, Role::DialLazily | Role::DialEagerly)
    }

    /// Whether it has a connection that was accepted.
    pub(in crate::network::peer) fn is_accepted(&self) -> bool {
        self.is_accepted && self.is_open()
    }

    /// Another process says that this address is its own. The one that the connection leads to is
    /// asked for a sign of life; until it answers, new packets wait, unwritten.
    pub(in crate::network::peer) fn contest(&mut self, now: Duration) {
        if !self.is_open() {
            return;
        }
        self.contest = Some(Contest {
            asked_at: now,
            fails_at: now.saturating_add(SILENT_AFTER),
        });
        if let Some(exchange) = &mut self.exchange {
            exchange.ask(now);
        }
    }

    /// Whether the address is claimed by another process.
    pub(in crate::network::peer) fn is_contested(&self) -> bool {
        self.contest.is_some()
    }

    /// The connection is about to be closed here. Whether another peer takes over then: this one's
    /// session ends with it, and so does the peer.
    pub(in crate::network::peer) fn set_has_heir(&mut self, has_heir: bool) {
        self.has_heir = has_heir && self.closing.is_none();
    }

    /// The peer is about to dial: these processes have a working session with another peer, which
    /// claims the address.
    pub(in crate::network::peer) fn set_rivals(&mut self, rivals: impl Iterator<Item = UID>) {
        self.rivals.clear();
        self.rivals.extend(rivals);
    }

    /// Another peer, which claims the address, has a working session with this process again.
    pub(in crate::network::peer) fn add_rival(&mut self, rival: UID) {
        if matches!(self.phase, Phase::Greeting { .. })
            && self.rivals.len() < MAX_HEIRS
            && !self.rivals.contains(&rival)
        {
            self.rivals.push(rival);
        }
    }

    /// The dial was answered with a session that begins.
    ///
    /// # Errors
    /// `Superseded` if who answered has a working session with another peer: instead of the next
    /// dial, that one takes over. Nothing but the Hello was written yet, so nothing is lost.
    pub(super) fn check_rivals(&self) -> Result<(), ConnectionError> {
        let met = self.remote().incarnation;
        if met.is_some_and(|met| self.rivals.contains(&met)) {
            let generation = self.exchange.as_ref().map_or(0, Exchange::generation);
            return Err(ConnectionError::Superseded { generation });
        }
        Ok(())
    }

    pub(super) fn settle_contest(&mut self) {
        if let (Some(contest), Some(exchange)) = (self.contest, &self.exchange)
            && exchange.has_echoed_since(contest.asked_at)
        {
            self.contest = None;
        }
    }

    pub(super) fn handle_contest(&mut self, now: Duration) {
        if self.contest.is_some_and(|contest| contest.fails_at <= now) {
            let after = SILENT_AFTER;
            self.disconnect
                .get_or_insert(ConnectionError::Silent { after });
        }
    }

    /// The packets that were never written, of a peer that ended for the sake of another one, or
    /// because its address is our own. They are not this peer's any more.
    pub(in crate::network::peer) fn cede(&mut self) -> Option<VecDeque<Box<Frame>>> {
        std::mem::take(&mut self.is_ceding).then(|| self.outbox.cede())
    }

    /// There is nobody left to give them to.
    pub(in crate::network::peer) fn drop_ceded(&mut self) {
        if std::mem::take(&mut self.is_ceding) {
            let ended = self.end_packets(Rest::Dropped);
            self.report(ended);
        }
    }

    /// Takes another peer's packets in, behind its own and beyond its limits. Gives the ids that
    /// they had and that they have now.
    pub(in crate::network::peer) fn take_over(
        &mut self,
        frames: VecDeque<Box<Frame>>,
    ) -> Vec<(PacketId, PacketId)> {
        self.was_used = true;
        self.outbox.take_over(frames)
    }
}
