//! What stops a connection for a while and keeps its data: clogs of an end's reads or writes, and
//! cuts of the whole connection.

use std::time::Duration;

use super::connections::{ConnectionId, EndState, Side};
use super::events::EventKey;
use super::world::{Event, World};
use crate::chaos::{FaultKind, FaultTarget};

/// The direction of a clog, as its end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClogSide {
    /// The end is given nothing to read.
    Read,
    /// The end cannot write.
    Write,
}

impl ClogSide {
    /// For digests.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
        }
    }
}

/// Whether an end reads or writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Clog {
    #[default]
    Open,
    /// Until this event.
    Until(EventKey),
    /// It was lifted just now: the operation that waited for that is not clogged again.
    Lifted,
}

impl Clog {
    pub(super) fn is_clogged(self) -> bool {
        matches!(self, Self::Until(_))
    }

    /// Whether chance may clog the next operation. Asked once for each.
    pub(super) fn may_clog(&mut self) -> bool {
        std::mem::take(self) != Self::Lifted
    }

    pub(super) fn event(self) -> Option<EventKey> {
        match self {
            Self::Until(event) => Some(event),
            Self::Open | Self::Lifted => None,
        }
    }
}

impl World {
    /// Clogs an end by call.
    pub(super) fn clog(&mut self, id: ConnectionId, side: Side, clogs: ClogSide, lasts: Duration) {
        let kind = match clogs {
            ClogSide::Read => FaultKind::ReadClog,
            ClogSide::Write => FaultKind::WriteClog,
        };
        if self.fault_fires(kind, FaultTarget::Connection(id.number())) {
            self.set_clog(id, side, clogs, lasts);
        }
    }

    /// An end that is clogged already is clogged anew.
    pub(super) fn set_clog(
        &mut self,
        id: ConnectionId,
        side: Side,
        clogs: ClogSide,
        lasts: Duration,
    ) {
        let is_open = self
            .network
            .connections
            .get(id)
            .is_some_and(|connection| connection.ends[side.index()].state == EndState::Open);
        if !is_open {
            return;
        }
        let event = Event::Unclog {
            connection: id,
            side,
            clogs,
        };
        let event = self.schedule(self.after(lasts), event);
        if let Some(connection) = self.network.connections.get_mut(id) {
            let clog = connection.end(side).clog(clogs);
            let before = std::mem::replace(clog, Clog::Until(event));
            if let Some(before) = before.event() {
                self.events.remove(before);
            }
        }
        self.notice(id, "is clogged");
    }

    /// A clog's time is over, or it is lifted.
    pub(super) fn unclog(&mut self, id: ConnectionId, side: Side, clogs: ClogSide) {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let end = connection.end(side);
        let Clog::Until(event) = *end.clog(clogs) else {
            return;
        };
        *end.clog(clogs) = Clog::Lifted;
        let waits = match clogs {
            ClogSide::Read => end.reader.take(),
            ClogSide::Write => end.writer.take(),
        };
        self.events.remove(event);
        self.wake_if(waits);
        self.notice(id, "is no longer clogged");
    }

    pub(super) fn is_clogged(&self, id: ConnectionId, side: Side, clogs: ClogSide) -> bool {
        self.network.connections.get(id).is_some_and(|connection| {
            let end = &connection.ends[side.index()];
            match clogs {
                ClogSide::Read => end.read_clog.is_clogged(),
                ClogSide::Write => end.write_clog.is_clogged(),
            }
        })
    }

    /// Cuts a connection by call.
    pub(super) fn cut_connection(&mut self, id: ConnectionId, lasts: Duration) {
        if self.fault_fires(FaultKind::Cut, FaultTarget::Connection(id.number())) {
            self.set_cut(id, lasts);
        }
    }

    /// From now on nothing arrives in either direction, for so long; one that is cut is cut anew.
    pub(super) fn set_cut(&mut self, id: ConnectionId, lasts: Duration) {
        if self.network.connections.get(id).is_none() {
            return;
        }
        let event = self.schedule(self.after(lasts), Event::Restore(id));
        if let Some(connection) = self.network.connections.get_mut(id)
            && let Some(before) = connection.cut.replace(event)
        {
            self.events.remove(before);
        }
        self.notice(id, "is cut");
    }

    /// A cut's time is over, or it is lifted.
    pub(super) fn restore_connection(&mut self, id: ConnectionId) {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let Some(event) = connection.cut.take() else {
            return;
        };
        self.events.remove(event);
        self.notice(id, "is restored");
        for from in [Side::Dialer, Side::Acceptor] {
            self.go_on(id, from);
        }
    }
}
