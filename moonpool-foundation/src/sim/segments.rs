//! How segments travel: sent, split and joined, held, sent again, given up, delivered in order.

use std::time::Duration;

use super::breakage::{Breakage, UNACKNOWLEDGED_LIMIT};
use super::clock::SimInstant;
use super::connections::{Connection, ConnectionId, EndState, Side};
use super::event::Queued;
use super::faults::{Segmentation, Travel};
use super::links::Obstacle;
use super::pipe::{Carries, Segment, Waits};
use super::wakes::Waiter;
use super::world::{Event, World, class_of_traffic, wake};

impl World {
    /// Sends accepted bytes: in one segment, in two, or with those under way.
    pub(super) fn send_bytes(&mut self, id: ConnectionId, from: Side, bytes: usize) {
        if !self.faults.splits_writes() {
            self.send(id, from, Carries::Bytes(bytes));
            return;
        }
        let on = self.occasion(id);
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let can_join = connection.pipe(from).can_be_joined();
        if connection.is_stable() {
            self.send(id, from, Carries::Bytes(bytes));
            return;
        }
        let drawn = self
            .faults
            .segmentation(bytes, can_join, on, &mut self.digest);
        match drawn {
            Segmentation::Whole => self.send(id, from, Carries::Bytes(bytes)),
            Segmentation::Split(at) => {
                self.send(id, from, Carries::Bytes(at));
                self.send(id, from, Carries::Bytes(bytes - at));
            }
            Segmentation::Joined => self.join(id, from, bytes),
        }
    }

    /// When a segment of `from` arrives that is sent now; never, if it is lost too often.
    fn arrival(&mut self, id: ConnectionId, from: Side, carries: Carries) -> SimInstant {
        let on = self.occasion(id);
        let Some(connection) = self.network.connections.get_mut(id) else {
            return SimInstant::NEVER;
        };
        let way = &connection.pipe(from).way;
        let travel = match carries {
            // Nobody sends a RST again.
            Carries::Reset => Travel::Arrives(self.faults.segment_nanos(way, on, &mut self.digest)),
            Carries::Bytes(_) | Carries::Fin => self.faults.travel(way, on, &mut self.digest),
        };
        match travel {
            Travel::Arrives(nanos) => self.clock.after_nanos(nanos),
            Travel::Lost(delay) => {
                self.give_up_after(id, from, delay);
                SimInstant::NEVER
            }
        }
    }

    /// Puts a segment behind those under way.
    pub(super) fn send(&mut self, id: ConnectionId, from: Side, carries: Carries) {
        if carries == Carries::Reset || self.faults.loses_segments() {
            let earliest = self.arrival(id, from, carries);
            self.send_to_arrive(id, from, carries, earliest);
            return;
        }
        self.send_plainly(id, from, carries);
    }

    /// As [`send`](Self::send), of what cannot be lost: the common case, in one look at the connection.
    #[inline]
    pub(super) fn send_plainly(&mut self, id: ConnectionId, from: Side, carries: Carries) {
        let on = self.occasion(id);
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let pipe = &mut connection.pipes[from.index()];
        let nanos = self.faults.segment_nanos(&pipe.way, on, &mut self.digest);
        let earliest = self.clock.after_nanos(nanos);
        let at = earliest.max(pipe.last_arrival.next());
        if at == SimInstant::NEVER || !pipe.segments.is_empty() {
            self.send_to_arrive(id, from, carries, earliest);
            return;
        }
        pipe.last_arrival = at;
        pipe.segments.push_back(Segment { at, carries });
        let class = class_of_traffic(self.only_drivers_ran, self.clock, at);
        let arrives = Queued::segment(id, from);
        pipe.event = Some(self.events.push(at, class, arrives));
        pipe.waits_for = Waits::Arrival;
    }

    fn send_to_arrive(
        &mut self,
        id: ConnectionId,
        from: Side,
        carries: Carries,
        earliest: SimInstant,
    ) {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let pipe = connection.pipe(from);
        let at = earliest.max(pipe.last_arrival.next());
        pipe.last_arrival = at;
        let first = pipe.segments.is_empty();
        pipe.segments.push_back(Segment { at, carries });
        if first {
            self.await_first_segment(id, from, at);
        }
    }

    /// Lets bytes travel in the last segment under way, which waits for them.
    fn join(&mut self, id: ConnectionId, from: Side, bytes: usize) {
        let arrival = self.arrival(id, from, Carries::Bytes(bytes));
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let pipe = connection.pipe(from);
        let Some(last) = pipe.segments.back_mut() else {
            return;
        };
        if let Carries::Bytes(before) = last.carries {
            last.carries = Carries::Bytes(before + bytes);
        }
        let at = last.at.max(arrival);
        last.at = at;
        pipe.last_arrival = at;
        if pipe.segments.len() == 1 {
            if let Some(event) = pipe.event.take() {
                self.events.remove(event);
            }
            self.await_first_segment(id, from, at);
        }
    }

    pub(super) fn await_first_segment(&mut self, id: ConnectionId, from: Side, at: SimInstant) {
        if at == SimInstant::NEVER {
            self.set_waits(id, from, Waits::Nothing);
            return;
        }
        let arrives = Event::Segment {
            connection: id,
            from,
        };
        let event = self.schedule(at, arrives);
        if let Some(connection) = self.network.connections.get_mut(id) {
            let pipe = connection.pipe(from);
            pipe.event = Some(event);
            pipe.waits_for = Waits::Arrival;
        }
    }

    fn set_waits(&mut self, id: ConnectionId, from: Side, waits: Waits) {
        if let Some(connection) = self.network.connections.get_mut(id) {
            connection.pipe(from).waits_for = waits;
        }
    }

    /// The reader has made room: the sender's side learns of it a moment later.
    pub(super) fn resume(&mut self, id: ConnectionId, from: Side) {
        let on = self.occasion(id);
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let way = &connection.pipe(from).way;
        let nanos = self.faults.window_nanos(way, on, &mut self.digest);
        let at = self.clock.after_nanos(nanos);
        self.await_first_segment(id, from, at);
    }

    /// What was held of `from` is sent again.
    pub(super) fn go_on(&mut self, id: ConnectionId, from: Side) {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let pipe = connection.pipe(from);
        if pipe.waits_for != Waits::Release {
            return;
        }
        let way = pipe.way;
        if let Some(first) = pipe.segments.front().map(|segment| segment.at) {
            let on = self.occasion(id);
            let nanos = self.faults.window_nanos(&way, on, &mut self.digest);
            let at = first.max(self.clock.after_nanos(nanos));
            self.await_first_segment(id, from, at);
        }
    }

    /// Whether what arrives now is held: by a cut of its connection, or by what stands between its
    /// processes.
    pub(super) fn is_held(&mut self, id: ConnectionId, from: Side) -> bool {
        let obstacle = self.obstacle_for(id, from);
        let Some(connection) = self.network.connections.get_mut(id) else {
            return false;
        };
        let is_cut = connection.cut.is_some();
        if obstacle.is_none() && !is_cut {
            return false;
        }
        let pipe = connection.pipe(from);
        pipe.waits_for = Waits::Release;
        if obstacle.is_some() {
            self.list_held(id, from);
        }
        if obstacle == Some(Obstacle::Partition) {
            self.expect_acknowledgement(id, from);
        }
        true
    }

    /// Nothing acknowledges what `from` sent: it gives up in the end.
    fn expect_acknowledgement(&mut self, id: ConnectionId, from: Side) {
        let waits = self
            .network
            .connections
            .get_mut(id)
            .is_some_and(|connection| {
                let pipe = connection.pipe(from);
                let first = pipe.segments.front().map(|segment| segment.carries);
                !pipe.has_timeout() && first != Some(Carries::Reset)
            });
        if waits {
            self.give_up_after(id, from, UNACKNOWLEDGED_LIMIT);
        }
    }

    fn give_up_after(&mut self, id: ConnectionId, from: Side, delay: Duration) {
        let event = Event::GiveUp {
            connection: id,
            from,
        };
        let event = self.schedule(self.after(delay), event);
        if let Some(connection) = self.network.connections.get_mut(id)
            && let Some(before) = connection.pipe(from).set_timeout(event)
        {
            self.events.remove(before);
        }
    }

    /// The sender has waited long enough: its socket fails. The other end hears nothing of it, unless
    /// it sends.
    pub(super) fn give_up(&mut self, id: ConnectionId, from: Side) {
        if let Some(connection) = self.network.connections.get_mut(id) {
            connection.pipe(from).take_timeout();
        }
        self.notice(id, "times out: bytes stayed unacknowledged");
        self.break_end(id, from, Breakage::TimedOut);
    }

    /// `from` hears that what it sent has arrived.
    pub(super) fn acknowledge(&mut self, id: ConnectionId, from: Side) {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let pipe = connection.pipe(from);
        pipe.unacknowledged = 0;
        if !pipe.is_doomed()
            && pipe.waits_for != Waits::Release
            && let Some(event) = pipe.take_timeout()
        {
            self.events.remove(event);
        }
        let waits = connection.end(from).writer.take();
        self.wake_if(waits);
    }

    /// The acknowledgement of `count` delivered bytes sets out.
    fn send_acknowledgement(&mut self, id: ConnectionId, from: Side, count: usize) {
        if self.obstacle_for(id, from.other()) == Some(Obstacle::Partition) {
            if let Some(connection) = self.network.connections.get_mut(id) {
                connection.pipe(from).unacknowledged += count;
            }
            self.list_held(id, from);
            self.expect_acknowledgement(id, from);
        } else {
            self.acknowledge(id, from);
        }
    }

    /// The first segment of `from` arrives: bytes for a reader with room, with nothing in the way,
    /// as nearly always. False if it is not so plain.
    #[inline]
    fn deliver_plainly(&mut self, id: ConnectionId, from: Side) -> bool {
        if self.network.links.has_blocks() {
            return false;
        }
        let room = self.faults.receive_buffer_bytes();
        let spares_bits = self.faults.spares_bits();
        let Some(connection) = self.network.connections.get_mut(id) else {
            return false;
        };
        let is_plain = connection.cut.is_none() && (spares_bits || connection.is_stable());
        let [sender, receiver] = Connection::both_ends(&mut connection.ends, from);
        let pipe = &mut connection.pipes[from.index()];
        let Some(Carries::Bytes(count)) = pipe.segments.front().map(|segment| segment.carries)
        else {
            return false;
        };
        let fits = pipe.delivered == 0 || pipe.delivered + count <= room;
        if !is_plain || !fits || receiver.state != EndState::Open || pipe.has_timeout() {
            return false;
        }
        pipe.event = None;
        pipe.deliver_bytes(count, &mut self.digest);
        pipe.unacknowledged = 0;
        pipe.segments.pop_front();
        match receiver.reader.take() {
            Some(Waiter::Task(key)) => self.executor.make_ready(key),
            Some(Waiter::Other(waker)) => self.wakes.push(waker),
            None => {}
        }
        if let Some(waiter) = sender.writer.take() {
            wake(&mut self.executor, &mut self.wakes, waiter);
        }
        if let Some(at) = pipe.segments.front().map(|next| next.at) {
            self.await_first_segment(id, from, at.max(self.clock.next()));
        }
        true
    }

    /// The first segment of `from` arrives.
    #[inline]
    pub(super) fn deliver_segment(&mut self, id: ConnectionId, from: Side) {
        if !self.deliver_plainly(id, from) {
            self.deliver_with_care(id, from);
        }
    }

    /// The first segment of `from` arrives, and something may be in its way.
    #[inline(never)]
    fn deliver_with_care(&mut self, id: ConnectionId, from: Side) {
        let room = self.faults.receive_buffer_bytes();
        if let Some(connection) = self.network.connections.get_mut(id) {
            connection.pipe(from).event = None;
        }
        if self.is_held(id, from) {
            return;
        }
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let receiver = connection.end(from.other()).state;
        let half_open = connection.half_open;
        let pipe = connection.pipe(from);
        let Some(segment) = pipe.segments.front().copied() else {
            return;
        };
        match segment.carries {
            Carries::Bytes(_) if receiver == EndState::Closed => {
                self.refuse_bytes(id, from);
                return;
            }
            // A socket that failed by itself is gone: its host answers what still comes by RST.
            Carries::Bytes(_) | Carries::Fin
                if matches!(receiver, EndState::Reset(_)) && !half_open =>
            {
                self.refuse_bytes(id, from);
                return;
            }
            Carries::Bytes(_) | Carries::Fin if receiver != EndState::Open => {
                self.swallow(id, from);
                return;
            }
            // A segment larger than the whole buffer is let in when the buffer is empty.
            Carries::Bytes(count) if pipe.delivered > 0 && pipe.delivered + count > room => {
                pipe.waits_for = Waits::Room;
                if pipe.ends_with_reset() {
                    self.deliver_reset(id, from.other());
                }
                return;
            }
            Carries::Bytes(count) => {
                self.flip_bits(id, from, count);
                self.deliver_bytes(id, from, count);
            }
            Carries::Fin => self.deliver_fin(id, from),
            Carries::Reset => {
                self.deliver_reset(id, from.other());
                return;
            }
        }
        self.await_next_segment(id, from);
    }

    fn deliver_bytes(&mut self, id: ConnectionId, from: Side, count: usize) {
        if let Some(connection) = self.network.connections.get_mut(id) {
            let pipe = connection.pipe(from);
            pipe.deliver_bytes(count, &mut self.digest);
            pipe.segments.pop_front();
            let waits = connection.end(from.other()).reader.take();
            self.wake_if(waits);
        }
        self.send_acknowledgement(id, from, count);
    }

    fn deliver_fin(&mut self, id: ConnectionId, from: Side) {
        if let Some(connection) = self.network.connections.get_mut(id) {
            let pipe = connection.pipe(from);
            pipe.ended = true;
            pipe.segments.pop_front();
            let waits = connection.end(from.other()).reader.take();
            self.wake_if(waits);
        }
        self.send_acknowledgement(id, from, 0);
    }

    fn await_next_segment(&mut self, id: ConnectionId, from: Side) {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        match connection.pipe(from).segments.front().map(|next| next.at) {
            Some(at) => self.await_first_segment(id, from, at.max(self.clock.next())),
            None => self.forget_if_over(id),
        }
    }
}
