//! What a read, a write, a delivery or a drop meets by chance.

use super::clogs::ClogSide;
use super::connections::{ConnectionId, Side};
use super::faults::{CloseDirection, Ending, RandomClose};
use super::world::World;

/// How often a connection that writes draws whether its processes part.
const PARTITION_DRAWS_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// What an operation meets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meets {
    Goes(Goes),
    /// Its direction is clogged: it waits.
    Clog,
    /// Its connection is gone: it fails with `ConnectionReset`.
    Reset,
}

/// An operation that succeeds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goes {
    /// How many bytes it moves.
    pub(super) bytes: usize,
    /// How its connection is closed by it.
    closes: Option<(CloseDirection, Ending)>,
}

impl World {
    /// A read of up to `available` bytes that are there.
    pub(super) fn meet_read(&mut self, id: ConnectionId, side: Side, available: usize) -> Meets {
        if self.may_clog(id, side, ClogSide::Read) {
            let on = self.occasion(id);
            if let Some(lasts) = self.faults.read_clog(on, &mut self.digest) {
                self.set_clog(id, side, ClogSide::Read, lasts);
                return Meets::Clog;
            }
        }
        self.meet_close(id, side, |world| {
            let on = world.occasion(id);
            world.faults.partial_read(available, on, &mut world.digest)
        })
    }

    /// A write of `offered` bytes, for `room` of which there is room.
    pub(super) fn meet_write(
        &mut self,
        id: ConnectionId,
        side: Side,
        offered: usize,
        room: usize,
    ) -> Meets {
        let on = self.occasion(id);
        if self.may_clog(id, side, ClogSide::Write)
            && let Some(lasts) = self.faults.write_clog(on, &mut self.digest)
        {
            self.set_clog(id, side, ClogSide::Write, lasts);
            return Meets::Clog;
        }
        if let Some(lasts) = self.faults.cut(on, &mut self.digest) {
            self.set_cut(id, lasts);
        }
        self.meet_partition(id, side);
        self.meet_close(id, side, |world| {
            let digest = &mut world.digest;
            world.faults.partial_write(offered, room, on, digest)
        })
    }

    fn may_clog(&mut self, id: ConnectionId, side: Side, clogs: ClogSide) -> bool {
        self.network
            .connections
            .get_mut(id)
            .is_some_and(|connection| connection.end(side).clog(clogs).may_clog())
    }

    fn meet_partition(&mut self, id: ConnectionId, side: Side) {
        if !self.faults.partitions() {
            return;
        }
        let next = self.after(PARTITION_DRAWS_EVERY);
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        if self.clock < connection.next_partition_draw {
            return;
        }
        connection.next_partition_draw = next;
        let from = connection.end(side).owner.id;
        let to = connection.end(side.other()).owner.id;
        self.maybe_partition(from, to);
    }

    fn meet_close(
        &mut self,
        id: ConnectionId,
        side: Side,
        bytes: impl FnOnce(&mut Self) -> usize,
    ) -> Meets {
        let on = self.occasion(id);
        let closes = match self.faults.random_close(on, &mut self.digest) {
            Some(RandomClose::Explicit) => {
                self.reset_explicitly(id, side);
                return Meets::Reset;
            }
            Some(RandomClose::Quiet(direction, ending)) => Some((direction, ending)),
            None => None,
        };
        let bytes = bytes(self);
        Meets::Goes(Goes { bytes, closes })
    }

    /// Closes what an operation of `side` that has succeeded is to close.
    pub(super) fn close_after(&mut self, id: ConnectionId, side: Side, goes: Goes) {
        if let Some((direction, ending)) = goes.closes {
            self.close_directions(id, side, direction, ending);
        }
    }

    /// Whether a dropped stream sends RST where it would send FIN.
    pub(super) fn resets_for_fin(&mut self, id: ConnectionId, side: Side) -> bool {
        let on = self.occasion(id);
        let is_spared = self.network.connections.get(id).is_none_or(|connection| {
            connection.is_stable() || connection.pipes[side.index()].has_ended()
        });
        !is_spared && self.faults.resets(on, &mut self.digest)
    }

    /// Flips bits of the next `count` bytes to be delivered: different ones, unless there are too few.
    pub(super) fn flip_bits(&mut self, id: ConnectionId, from: Side, count: usize) {
        let on = self.occasion(id);
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        if connection.is_stable() || self.faults.spares_bits() {
            return;
        }
        let flips = self.faults.bit_flips(on, &mut self.digest);
        let mut flipped = [u64::MAX; 32];
        for slot in 0..flipped.len().min(flips as usize) {
            let bit = self.faults.flipped_bit(8 * count as u64, &mut self.digest);
            if !flipped[..slot].contains(&bit) {
                flipped[slot] = bit;
                connection.pipe(from).flip_bit(bit);
            }
        }
        if flips > 0 {
            self.notice(id, "delivers flipped bits");
        }
    }
}
