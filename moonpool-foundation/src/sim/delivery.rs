//! How bytes move: written into a send buffer, carried as segments in order, delivered to the
//! reader, ended by FIN or RST. TCP's contract holds throughout: no hole, no reordering, FIN after
//! all accepted bytes, and a RST that tells itself from an end.

use std::io;
use std::task::Waker;
use std::time::Duration;

use tokio::io::ReadBuf;

use super::breakage::Breakage;
use super::connections::{Asked, ConnectionId, EndState, Side};
use super::io_faults::Meets;
use super::pipe::{Carries, Outgoing, Segment, Sender};
use super::wakes::Waiter;
use super::world::World;
use crate::wait::WaitReason;

impl World {
    /// Reads into `buffer`: bytes, or nothing at the end. It waits for `reason`.
    #[inline]
    pub(crate) fn read(
        &mut self,
        (id, side): (ConnectionId, Side),
        buffer: &mut ReadBuf<'_>,
        waker: &Waker,
        reason: impl FnOnce() -> WaitReason,
    ) -> Asked<io::Result<()>> {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return Asked::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let wanted = buffer.remaining();
        if wanted == 0 {
            return Asked::Ready(Ok(()));
        }
        let is_stable = connection.is_stable();
        let end = &mut connection.ends[side.index()];
        let pipe = &mut connection.pipes[side.other().index()];
        let is_clogged = end.read_clog.is_clogged();
        if is_clogged || pipe.delivered == 0 {
            if !is_clogged && let Some(ended) = end.read_end(pipe.ended) {
                return Asked::Ready(ended);
            }
            return self.executor.park(&mut end.reader, waker, reason);
        }
        let available = pipe.delivered.min(wanted);
        if self.faults.meets_reads() && !is_stable {
            return self.read_faultily(id, side, available, buffer);
        }
        pipe.read(available, buffer);
        if pipe.is_stalled() {
            self.resume(id, side.other());
        }
        Asked::Ready(Ok(()))
    }

    /// A read that a fault may meet.
    fn read_faultily(
        &mut self,
        id: ConnectionId,
        side: Side,
        available: usize,
        buffer: &mut ReadBuf<'_>,
    ) -> Asked<io::Result<()>> {
        let goes = match self.meet_read(id, side, available) {
            Meets::Goes(goes) => goes,
            Meets::Reset => {
                return Asked::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            Meets::Clog => return Asked::Park,
        };
        if let Some(connection) = self.network.connections.get_mut(id) {
            let pipe = connection.pipe(side.other());
            pipe.read(goes.bytes, buffer);
            if pipe.is_stalled() {
                self.resume(id, side.other());
            }
        }
        self.close_after(id, side, goes);
        Asked::Ready(Ok(()))
    }

    /// A wait if a read would be one.
    #[inline]
    pub(crate) fn await_bytes(
        &mut self,
        (id, side): (ConnectionId, Side),
        waker: &Waker,
        reason: impl FnOnce() -> WaitReason,
    ) -> Asked<()> {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return Asked::Ready(());
        };
        let pipe = connection.pipe(side.other());
        let is_empty = pipe.delivered == 0 && !pipe.ended;
        let end = connection.end(side);
        if !is_empty || matches!(end.state, EndState::Reset(_)) {
            return Asked::Ready(());
        }
        self.executor.park(&mut end.reader, waker, reason)
    }

    /// Accepts as many of the bytes as the send buffer has room for. It waits for `reason`.
    #[inline]
    pub(crate) fn write(
        &mut self,
        (id, side): (ConnectionId, Side),
        bytes: impl Outgoing,
        waker: &Waker,
        reason: impl FnOnce() -> WaitReason,
    ) -> Asked<io::Result<usize>> {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return Asked::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let is_stable = connection.is_stable();
        let end = &mut connection.ends[side.index()];
        let pipe = &mut connection.pipes[side.index()];
        if let Some(failed) = end.write_end(pipe.sender) {
            return Asked::Ready(Err(failed.into()));
        }
        let offered = bytes.count();
        if offered == 0 {
            return Asked::Ready(Ok(0));
        }
        let accepted = offered.min(pipe.room());
        if accepted == 0 || end.write_clog.is_clogged() {
            return self.executor.park(&mut end.writer, waker, reason);
        }
        if self.faults.is_calm() {
            pipe.accept(accepted, bytes);
            self.send_plainly(id, side, Carries::Bytes(accepted));
            return Asked::Ready(Ok(accepted));
        }
        if self.faults.meets_writes() && !is_stable {
            return self.write_faultily(id, side, bytes, accepted);
        }
        pipe.accept(accepted, bytes);
        self.send_bytes(id, side, accepted);
        Asked::Ready(Ok(accepted))
    }

    /// A write that a fault may meet.
    fn write_faultily(
        &mut self,
        id: ConnectionId,
        side: Side,
        bytes: impl Outgoing,
        accepted: usize,
    ) -> Asked<io::Result<usize>> {
        let goes = match self.meet_write(id, side, bytes.count(), accepted) {
            Meets::Goes(goes) => goes,
            Meets::Reset => {
                return Asked::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            Meets::Clog => return Asked::Park,
        };
        if let Some(connection) = self.network.connections.get_mut(id) {
            connection.pipe(side).accept(goes.bytes, bytes);
        }
        self.send_bytes(id, side, goes.bytes);
        self.close_after(id, side, goes);
        Asked::Ready(Ok(goes.bytes))
    }

    /// Sends FIN after what was accepted.
    pub(crate) fn shutdown(&mut self, id: ConnectionId, side: Side) -> io::Result<()> {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        // After a reset there is nobody to tell, and tokio makes no error of that.
        let open = connection.end(side).state == EndState::Open;
        let pipe = connection.pipe(side);
        if open && pipe.sender == Sender::Open {
            pipe.sender = Sender::Shut;
            self.send(id, side, Carries::Fin);
        }
        Ok(())
    }

    pub(crate) fn park_reader(
        &mut self,
        id: ConnectionId,
        side: Side,
        waker: Waker,
    ) -> Option<Waiter> {
        let end = self.network.connections.get_mut(id)?.end(side);
        end.reader.replace(Waiter::Other(waker))
    }

    pub(crate) fn park_writer(
        &mut self,
        id: ConnectionId,
        side: Side,
        waker: Waker,
    ) -> Option<Waiter> {
        let end = self.network.connections.get_mut(id)?.end(side);
        end.writer.replace(Waiter::Other(waker))
    }

    /// The owner dropped its stream: FIN after what was accepted, or RST if it left bytes unread,
    /// as Linux does. Returns wakers to be dropped.
    pub(crate) fn close_end(&mut self, id: ConnectionId, side: Side) -> [Option<Waiter>; 2] {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return [None, None];
        };
        let end = connection.end(side);
        let wakers = [end.reader.take(), end.writer.take()];
        if end.state == EndState::Open {
            if connection.pipe(side.other()).delivered > 0 {
                self.abort_end(id, side);
                return wakers;
            }
            if self.resets_for_fin(id, side) {
                self.abort_end(id, side);
                return wakers;
            }
            self.finish(id, side);
        }
        self.close(id, side);
        self.forget_if_over(id);
        wakers
    }

    /// The end is closed, with what was to happen to it.
    fn close(&mut self, id: ConnectionId, side: Side) {
        if let Some(connection) = self.network.connections.get_mut(id) {
            let end = connection.end(side);
            end.state = EndState::Closed;
            for event in end.take_clogs().into_iter().flatten() {
                self.events.remove(event);
            }
        }
    }

    /// `from` sends FIN after what was accepted, if it has not sent its last word yet. Whoever writes
    /// there is told.
    pub(super) fn finish(&mut self, id: ConnectionId, from: Side) {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let is_open = connection.end(from).state == EndState::Open;
        let pipe = connection.pipe(from);
        if is_open && pipe.sender == Sender::Open {
            pipe.sender = Sender::Shut;
            let waits = connection.end(from).writer.take();
            self.wake_if(waits);
            self.send(id, from, Carries::Fin);
        }
    }

    /// Ends a connection by RST from `side`. What it has sent so far still arrives, unless the other
    /// end has no room for it: RST does not wait for that.
    pub(super) fn abort_end(&mut self, id: ConnectionId, side: Side) {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let end = connection.end(side);
        if end.state == EndState::Silent {
            return;
        }
        let before = std::mem::replace(&mut end.state, EndState::Closed);
        if before == EndState::Open {
            end.broken = Some(Breakage::Reset);
        }
        // Whoever still waits here belongs to a dead process or a dropped stream.
        let waits = [end.reader.take(), end.writer.take()];
        let [read_clog, write_clog] = end.take_clogs();
        let mut stale = [end.reset_event.take(), read_clog, write_clog, None];
        let incoming = connection.pipe(side.other());
        incoming.bytes.clear();
        incoming.delivered = 0;
        stale[3] = incoming.discard_under_way();
        connection.pipe(side).sender = Sender::Shut;
        let [reader, writer] = waits;
        self.wake_if(reader);
        self.wake_if(writer);
        for event in stale.into_iter().flatten() {
            self.events.remove(event);
        }
        // An end that was closed or reset before has said its last word already.
        if before == EndState::Open {
            self.send_reset(id, side);
        }
        self.forget_if_over(id);
    }

    /// Whether the socket still has a peer: neither was it reset, nor have both ends sent FIN.
    pub(crate) fn is_connected(&mut self, id: ConnectionId, side: Side) -> bool {
        self.network
            .connections
            .get_mut(id)
            .is_some_and(|connection| {
                let both_ended = connection.pipe(side).sender == Sender::Shut
                    && connection.pipe(side.other()).ended;
                connection.end(side).state == EndState::Open && !both_ended
            })
    }

    /// Bytes reached an end that is closed: they are lost, and the sender is told by RST.
    pub(super) fn refuse_bytes(&mut self, id: ConnectionId, from: Side) {
        self.discard_under_way(id, from);
        self.send_reset(id, from.other());
        self.forget_if_over(id);
    }

    /// What `from` sends and has not been delivered is lost.
    pub(super) fn discard_under_way(&mut self, id: ConnectionId, from: Side) {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        if let Some(event) = connection.pipe(from).discard_under_way() {
            self.events.remove(event);
        }
    }

    /// Sends a RST, once. It arrives behind what was sent before it, but does not wait for room
    /// there: bytes that find none are lost.
    pub(super) fn send_reset(&mut self, id: ConnectionId, from: Side) {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let end = connection.end(from.other());
        let is_told = end.state != EndState::Open || end.reset_event.is_some();
        let pipe = connection.pipe(from);
        if is_told || pipe.ends_with_reset() {
            return;
        }
        if !pipe.is_stalled() {
            self.send(id, from, Carries::Reset);
            return;
        }
        // What stalls has no event that would have to be removed.
        pipe.discard_under_way();
        let way = pipe.way;
        let on = self.occasion(id);
        let nanos = self.faults.segment_nanos(&way, on, &mut self.digest);
        let to = from.other();
        self.break_later(id, to, Breakage::Reset, Duration::from_nanos(nanos));
    }

    /// A RST that waited for no room reaches `to`, or its kernel gives up.
    pub(super) fn break_due(&mut self, id: ConnectionId, to: Side, breakage: Breakage) {
        let from = to.other();
        let is_rst = breakage == Breakage::Reset
            && self
                .network
                .connections
                .get(id)
                .is_some_and(|connection| !connection.half_open);
        if !is_rst || !self.is_held(id, from) {
            self.break_end(id, to, breakage);
            return;
        }
        let at = self.clock;
        if let Some(connection) = self.network.connections.get_mut(id) {
            connection.end(to).reset_event = None;
            let carries = Carries::Reset;
            connection
                .pipe(from)
                .segments
                .push_back(Segment { at, carries });
        }
    }

    /// A RST arrives at `to`. Bytes delivered before it can still be read.
    pub(super) fn deliver_reset(&mut self, id: ConnectionId, to: Side) {
        self.break_end(id, to, Breakage::Reset);
    }

    /// The socket of `to` fails. Bytes delivered before can still be read.
    pub(super) fn break_end(&mut self, id: ConnectionId, to: Side, breakage: Breakage) {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let incoming = connection.pipe(to.other());
        let ended = incoming.ended;
        let mut stale = [None; 6];
        // A socket that timed out is answered by RST once the other end's bytes reach it.
        if breakage == Breakage::Reset || connection.half_open {
            let incoming = connection.pipe(to.other());
            stale[0] = incoming.discard_under_way();
        }
        let outgoing = connection.pipe(to);
        stale[1] = outgoing.discard_under_way();
        stale[2] = outgoing.take_timeout();
        let end = connection.end(to);
        stale[3] = end.reset_event.take();
        [stale[4], stale[5]] = end.take_clogs();
        if end.state == EndState::Open {
            // After a FIN the end is no surprise; only writers are told.
            let kind = match breakage {
                Breakage::Reset if ended => io::ErrorKind::BrokenPipe,
                Breakage::Reset => io::ErrorKind::ConnectionReset,
                Breakage::TimedOut => io::ErrorKind::TimedOut,
            };
            end.state = EndState::Reset(Some(kind));
            end.broken = Some(breakage);
        }
        let waits = [end.reader.take(), end.writer.take()];
        let [reader, writer] = waits;
        self.wake_if(reader);
        self.wake_if(writer);
        for event in stale.into_iter().flatten() {
            self.events.remove(event);
        }
        self.forget_if_over(id);
    }
}
