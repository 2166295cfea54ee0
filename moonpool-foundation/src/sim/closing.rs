//! Connections that are closed from outside: by chance, while somebody reads or writes, or by a test.
//!
//! TCP's contract is kept: a direction in which bytes are pending ends by RST, never by FIN.

use super::breakage::Breakage;
use super::connections::{ConnectionId, EndState, Side};
use super::faults::{CloseDirection, Ending};
use super::world::World;

impl World {
    /// Ends directions of a connection, as `side` sees them. A FIN becomes a RST where bytes are
    /// pending.
    pub(super) fn close_directions(
        &mut self,
        id: ConnectionId,
        side: Side,
        direction: CloseDirection,
        ending: Ending,
    ) {
        let senders: &[Side] = match direction {
            CloseDirection::Send => &[side],
            CloseDirection::Receive => &[side.other()],
            CloseDirection::Both => &[side, side.other()],
        };
        let is_quiet = |world: &mut Self, from: Side| {
            let connection = world.network.connections.get_mut(id);
            connection.is_some_and(|connection| connection.pipe(from).is_idle())
        };
        if ending == Ending::Fin && senders.iter().all(|from| is_quiet(self, *from)) {
            for from in senders {
                self.finish(id, *from);
            }
            self.notice(id, "ends by FIN, from outside");
            return;
        }
        match direction {
            CloseDirection::Both => self.abort_connection(id),
            CloseDirection::Receive => self.reset_from(id, side),
            CloseDirection::Send => self.reset_from(id, side.other()),
        }
    }

    /// The end of `side` is gone: it is told at once, and the other by a RST that travels.
    pub(super) fn reset_from(&mut self, id: ConnectionId, side: Side) {
        self.break_end(id, side, Breakage::Reset);
        self.send_reset(id, side);
        self.notice(id, "is reset from outside");
    }

    /// An operation of `side` fails with `ConnectionReset`, which its end is told by that.
    pub(super) fn reset_explicitly(&mut self, id: ConnectionId, side: Side) {
        self.reset_from(id, side);
        if let Some(connection) = self.network.connections.get_mut(id) {
            let end = connection.end(side);
            if matches!(end.state, EndState::Reset(_)) {
                end.state = EndState::Reset(None);
            }
        }
    }
}
