//! The end of all trouble on the network: see [`World::heal_network`].

use super::clock::SimInstant;
use super::clogs::ClogSide;
use super::connections::{ConnectionId, Side};
use super::world::World;

impl World {
    /// From now on nothing goes wrong on the network by chance. What has gone wrong ends: obstacles,
    /// cuts and clogs are lifted, pairs that were disconnected can connect, delays of single
    /// connections are gone, lost segments and connects that nobody answered are sent again soon.
    /// What is broken stays broken.
    pub(crate) fn heal_network(&mut self) {
        self.faults.heal();
        self.take_all_down();
        let ids: Vec<ConnectionId> = self.network.connections.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.restore_connection(id);
            for side in [Side::Dialer, Side::Acceptor] {
                self.unclog(id, side, ClogSide::Read);
                self.unclog(id, side, ClogSide::Write);
                self.hasten(id, side);
            }
        }
        self.retry_connects();
    }

    /// What is under way arrives as if it were sent now.
    fn hasten(&mut self, id: ConnectionId, from: Side) {
        let on = self.occasion(id);
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let pipe = connection.pipe(from);
        pipe.way.set_delay(std::time::Duration::ZERO);
        if pipe.segments.is_empty() || pipe.is_stalled() {
            return;
        }
        let way = pipe.way;
        let nanos = self.faults.segment_nanos(&way, on, &mut self.digest);
        let soon = self.clock.after_nanos(nanos);
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let pipe = connection.pipe(from);
        let mut at = soon;
        for segment in pipe.segments.iter_mut() {
            segment.at = segment.at.min(at);
            at = at.next();
        }
        let first = pipe.segments.front().map_or(soon, |segment| segment.at);
        pipe.last_arrival = pipe
            .segments
            .back()
            .map_or(SimInstant::ZERO, |segment| segment.at);
        let stale = [pipe.event.take(), pipe.take_timeout()];
        for event in stale.into_iter().flatten() {
            self.events.remove(event);
        }
        self.await_first_segment(id, from, first.max(self.clock.next()));
    }
}
