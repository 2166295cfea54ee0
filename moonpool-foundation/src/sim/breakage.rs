//! How connections break from outside: cut in the middle of a byte stream, or left half open by a
//! host that is gone without a word. A hole in a stream is not among it: what dies with bytes under
//! way dies by RST or by a time-out.

use std::time::Duration;

use super::connections::{ConnectionId, EndState, Side};
use super::process::ProcessId;
use super::world::{Event, World};
use crate::chaos::{FaultKind, FaultTarget};

/// How long a sender's kernel keeps sending to a host that does not answer.
pub(super) const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(15);

/// What a socket fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breakage {
    /// `ConnectionReset`, or `BrokenPipe` after the other end's FIN.
    Reset,
    /// `TimedOut`: bytes stayed unacknowledged.
    TimedOut,
}

impl Breakage {
    /// For digests.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Reset => 0,
            Self::TimedOut => 1,
        }
    }
}

/// Why an end of a connection is closed, as its own socket knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// Both of its directions are open.
    #[default]
    None,
    /// A direction ended by FIN, which it received or sent; the other may still be open.
    Graceful,
    /// By RST, which it received or sent, or with its host.
    Aborted,
    /// Its bytes stayed unacknowledged for too long.
    TimedOut,
}

/// A connection of the simulated network, to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimConnection {
    pub(super) id: ConnectionId,
    pub(super) dialer: ProcessId,
    pub(super) acceptor: ProcessId,
}

impl SimConnection {
    /// The process that connected.
    #[must_use]
    pub fn dialer(&self) -> ProcessId {
        self.dialer
    }

    /// The process that listened.
    #[must_use]
    pub fn acceptor(&self) -> ProcessId {
        self.acceptor
    }
}

impl World {
    /// The connections of which an end is open.
    pub(super) fn sim_connections(&self) -> Vec<SimConnection> {
        let connections = self.network.connections.iter();
        let open = connections.filter(|(_, connection)| {
            let mut ends = connection.ends.iter();
            ends.any(|end| end.state == EndState::Open)
        });
        open.map(|(id, connection)| SimConnection {
            id,
            dialer: connection.ends[Side::Dialer.index()].owner.id,
            acceptor: connection.ends[Side::Acceptor.index()].owner.id,
        })
        .collect()
    }

    /// Breaks both ends by RST. Of the segment under way in each direction a part arrives first, so
    /// that the stream ends at any byte.
    pub(super) fn abort_connection(&mut self, id: ConnectionId) {
        for from in [Side::Dialer, Side::Acceptor] {
            let Some(connection) = self.network.connections.get_mut(id) else {
                return;
            };
            let is_open = connection.end(from.other()).state == EndState::Open;
            let pipe = connection.pipe(from);
            let first = pipe.first_bytes();
            if is_open && first > 0 {
                let arrives = self.faults.cut_point(first, &mut self.digest);
                pipe.deliver_bytes(arrives, &mut self.digest);
            }
            self.discard_under_way(id, from);
        }
        for to in [Side::Dialer, Side::Acceptor] {
            self.break_end(id, to, Breakage::Reset);
        }
    }

    /// `crashed` is gone without a word: the other end's bytes are swallowed and it hears nothing,
    /// until its socket fails after `error_delay`.
    pub(super) fn crash_end(&mut self, id: ConnectionId, crashed: Side, error_delay: Duration) {
        let target = FaultTarget::Connection(id.number());
        if !self.fault_fires(FaultKind::HalfOpen, target) {
            return;
        }
        if let Some(connection) = self.network.connections.get_mut(id) {
            connection.half_open = true;
        }
        self.discard_under_way(id, crashed);
        self.discard_under_way(id, crashed.other());
        self.break_end(id, crashed, Breakage::Reset);
        let breakage = self.faults.half_open_error(&mut self.digest);
        self.break_later(id, crashed.other(), breakage, error_delay);
    }

    /// An end falls silent with its host: what it has sent so far still arrives.
    pub(super) fn silence_end(&mut self, id: ConnectionId, side: Side) {
        let in_vain = self
            .network
            .connections
            .get_mut(id)
            .is_some_and(|connection| {
                let other = connection.end(side.other()).state;
                other == EndState::Open && !connection.pipe(side.other()).is_idle()
            });
        self.discard_under_way(id, side.other());
        if in_vain {
            self.break_later(id, side.other(), Breakage::TimedOut, UNACKNOWLEDGED_LIMIT);
        }
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let end = connection.end(side);
        let waits = [end.reader.take(), end.writer.take()];
        let event = end.reset_event.take();
        if end.state == EndState::Open {
            end.state = EndState::Silent;
        } else {
            end.state = EndState::Closed;
        }
        let [reader, writer] = waits;
        self.wake_if(reader);
        self.wake_if(writer);
        if let Some(event) = event {
            self.events.remove(event);
        }
        self.forget_if_over(id);
    }

    /// The host of a silent end is up again and knows nothing of it: it answers by RST what comes,
    /// and what was sent in vain is being sent again.
    pub(super) fn revive_host(&mut self, process: ProcessId) {
        for (id, side) in self.ends_of(process) {
            let Some(connection) = self.network.connections.get_mut(id) else {
                continue;
            };
            let end = connection.end(side);
            if end.state != EndState::Silent {
                continue;
            }
            end.state = EndState::Closed;
            let waits = connection.end(side.other()).reset_event.take();
            if let Some(event) = waits {
                self.events.remove(event);
                self.send_reset(id, side);
            }
            self.forget_if_over(id);
        }
    }

    /// Bytes or a FIN reached an end that neither takes nor answers them: the sender keeps trying,
    /// and gives up in the end.
    pub(super) fn swallow(&mut self, id: ConnectionId, from: Side) {
        self.discard_under_way(id, from);
        if let Some(connection) = self.network.connections.get_mut(id) {
            // The send buffer is taken as drained: a writer must not wait on a clock of its own.
            let waits = connection.end(from).writer.take();
            self.wake_if(waits);
        }
        self.break_later(id, from, Breakage::TimedOut, UNACKNOWLEDGED_LIMIT);
        self.forget_if_over(id);
    }

    /// Lets the socket of `to` fail after `delay`, unless it is broken or due to fail already.
    pub(super) fn break_later(
        &mut self,
        id: ConnectionId,
        to: Side,
        breakage: Breakage,
        delay: Duration,
    ) {
        let is_due = self
            .network
            .connections
            .get_mut(id)
            .is_some_and(|connection| {
                let end = connection.end(to);
                end.state == EndState::Open && end.reset_event.is_none()
            });
        if !is_due {
            return;
        }
        let event = Event::Break {
            connection: id,
            to,
            breakage,
        };
        let event = self.schedule(self.after(delay), event);
        if let Some(connection) = self.network.connections.get_mut(id) {
            connection.end(to).reset_event = Some(event);
        }
    }

    /// All ends that `process` owns or owned.
    pub(super) fn ends_of(&self, process: ProcessId) -> Vec<(ConnectionId, Side)> {
        let mut ends = Vec::new();
        for (id, connection) in self.network.connections.iter() {
            for side in [Side::Dialer, Side::Acceptor] {
                if connection.ends[side.index()].owner.id == process {
                    ends.push((id, side));
                }
            }
        }
        ends
    }
}
