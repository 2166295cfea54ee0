//! How bytes move: written into a send buffer, carried as segments in order, delivered to the
//! reader, ended by FIN or RST. TCP's contract holds throughout: no hole, no reordering, FIN after
//! all accepted bytes, and a RST that tells itself from an end.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::Waker;

use tokio::io::ReadBuf;

use super::breakage::Breakage;
use super::clock::SimInstant;
use super::connections::{Asked, ConnectionId, EndState, Side, parked};
use super::digest::Digest;
use super::events::EventKey;
use super::world::{Event, World};

/// One direction of a connection.
///
/// `bytes` holds what was accepted and not read: the first `delivered` are with the reader, the
/// others are under way. So a byte is copied in once and out once.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    bytes: VecDeque<u8>,
    delivered: usize,
    segments: VecDeque<Segment>,
    /// The arrival of the first segment.
    event: Option<EventKey>,
    last_arrival: SimInstant,
    sender: Sender,
    /// A FIN has arrived: after the delivered bytes comes the end.
    ended: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sender {
    #[default]
    Open,
    /// It has sent FIN or RST: no more bytes are accepted.
    Shut,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    at: SimInstant,
    carries: Carries,
}

#[derive(Clone, Copy, Debug)]
enum Carries {
    Bytes(usize),
    Fin,
    Reset,
}

impl Pipe {
    pub(super) fn is_idle(&self) -> bool {
        self.segments.is_empty() && self.event.is_none()
    }

    fn under_way(&self) -> usize {
        self.bytes.len() - self.delivered
    }

    /// How many bytes of the first segment under way there are, if it carries any.
    pub(super) fn first_bytes(&self) -> usize {
        match self.segments.front().map(|segment| segment.carries) {
            Some(Carries::Bytes(count)) => count,
            Some(Carries::Fin | Carries::Reset) | None => 0,
        }
    }

    /// The next `count` bytes under way reach the reader.
    pub(super) fn deliver_bytes(&mut self, count: usize, digest: &mut Digest) {
        let (front, back) = self.bytes.as_slices();
        digest.fold_pair(front, back, self.delivered..self.delivered + count);
        self.delivered += count;
    }

    /// Whether the first segment waits for room with the reader.
    fn is_stalled(&self) -> bool {
        self.event.is_none() && !self.segments.is_empty()
    }

    /// Whether a RST is under way behind everything else.
    fn ends_with_reset(&self) -> bool {
        matches!(
            self.segments.back().map(|segment| segment.carries),
            Some(Carries::Reset)
        )
    }

    /// Forgets what has not been delivered. Returns the event to remove.
    fn discard_under_way(&mut self) -> Option<EventKey> {
        self.bytes.truncate(self.delivered);
        self.segments.clear();
        self.event.take()
    }
}

impl World {
    /// Reads into `buffer`: bytes, or nothing at the end.
    pub(crate) fn read(
        &mut self,
        id: ConnectionId,
        side: Side,
        buffer: &mut ReadBuf<'_>,
        waker: &Waker,
    ) -> Asked<io::Result<()>> {
        let Some(connection) = self.network.connections.get_mut(id) else {
            return Asked::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if buffer.remaining() == 0 {
            return Asked::Ready(Ok(()));
        }
        let pipe = connection.pipe(side.other());
        if pipe.delivered > 0 {
            let count = pipe.delivered.min(buffer.remaining());
            let (front, back) = pipe.bytes.as_slices();
            let from_front = count.min(front.len());
            buffer.put_slice(&front[..from_front]);
            buffer.put_slice(&back[..count - from_front]);
            pipe.bytes.drain(..count);
            pipe.delivered -= count;
            if pipe.is_stalled() {
                self.resume(id, side.other());
            }
            return Asked::Ready(Ok(()));
        }
        let ended = pipe.ended;
        let end = connection.end(side);
        match &mut end.state {
            EndState::Reset(error) if !ended => Asked::Ready(match error.take() {
                Some(kind) => Err(kind.into()),
                None => Ok(()),
            }),
            EndState::Reset(_) => Asked::Ready(Ok(())),
            EndState::Open | EndState::Closed | EndState::Silent if ended => Asked::Ready(Ok(())),
            EndState::Open | EndState::Closed | EndState::Silent => {
                parked(end.reader.as_ref(), waker)
            }
        }
    }

    /// Accepts as many of the bytes as the send buffer has room for.
    pub(crate) fn write(
        &mut self,
        id: ConnectionId,
        side: Side,
        slices: &[IoSlice<'_>],
        waker: &Waker,
    ) -> Asked<io::Result<usize>> {
        let capacity = self.faults.send_buffer_bytes();
        let Some(connection) = self.network.connections.get_mut(id) else {
            return Asked::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if let EndState::Reset(error) = &mut connection.end(side).state {
            let kind = error.take().unwrap_or(io::ErrorKind::BrokenPipe);
            return Asked::Ready(Err(kind.into()));
        }
        let pipe = connection.pipe(side);
        if pipe.sender == Sender::Shut {
            return Asked::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if offered == 0 {
            return Asked::Ready(Ok(0));
        }
        let accepted = offered.min(capacity.saturating_sub(pipe.under_way()));
        if accepted == 0 {
            return parked(connection.end(side).writer.as_ref(), waker);
        }
        let mut left = accepted;
        for slice in slices {
            let count = left.min(slice.len());
            pipe.bytes.extend(&slice[..count]);
            left -= count;
        }
        self.send(id, side, Carries::Bytes(accepted));
        Asked::Ready(Ok(accepted))
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
    ) -> Option<Waker> {
        self.network
            .connections
            .get_mut(id)?
            .end(side)
            .reader
            .replace(waker)
    }

    pub(crate) fn park_writer(
        &mut self,
        id: ConnectionId,
        side: Side,
        waker: Waker,
    ) -> Option<Waker> {
        self.network
            .connections
            .get_mut(id)?
            .end(side)
            .writer
            .replace(waker)
    }

    /// The owner dropped its stream: FIN after what was accepted, or RST if it left bytes unread,
    /// as Linux does. Returns wakers to be dropped.
    pub(crate) fn close_end(&mut self, id: ConnectionId, side: Side) -> [Option<Waker>; 2] {
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
            connection.end(side).state = EndState::Closed;
            if connection.pipe(side).sender == Sender::Open {
                connection.pipe(side).sender = Sender::Shut;
                self.send(id, side, Carries::Fin);
            }
        }
        if let Some(connection) = self.network.connections.get_mut(id) {
            connection.end(side).state = EndState::Closed;
        }
        self.forget_if_over(id);
        wakers
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
        // Whoever still waits here belongs to a dead process or a dropped stream.
        self.wakes
            .extend(end.reader.take().into_iter().chain(end.writer.take()));
        let mut stale = vec![end.reset_event.take()];
        let incoming = connection.pipe(side.other());
        incoming.bytes.clear();
        incoming.delivered = 0;
        stale.push(incoming.discard_under_way());
        connection.pipe(side).sender = Sender::Shut;
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

    /// Puts a segment behind those under way.
    fn send(&mut self, id: ConnectionId, from: Side, carries: Carries) {
        let latency = self.faults.segment_latency(&mut self.digest);
        let earliest = self.after(latency);
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

    fn await_first_segment(&mut self, id: ConnectionId, from: Side, at: SimInstant) {
        let event = self.schedule(
            at,
            Event::Segment {
                connection: id,
                from,
            },
        );
        if let Some(connection) = self.network.connections.get_mut(id) {
            connection.pipe(from).event = Some(event);
        }
    }

    /// The reader has made room: the sender's side learns of it a moment later.
    fn resume(&mut self, id: ConnectionId, from: Side) {
        let latency = self.faults.window_latency(&mut self.digest);
        let at = self.after(latency);
        self.await_first_segment(id, from, at);
    }

    /// The first segment of `from` arrives.
    pub(super) fn deliver_segment(&mut self, id: ConnectionId, from: Side) {
        let room = self.faults.receive_buffer_bytes();
        let Some(connection) = self.network.connections.get_mut(id) else {
            return;
        };
        let receiver = connection.end(from.other()).state;
        let pipe = connection.pipe(from);
        pipe.event = None;
        let Some(segment) = pipe.segments.front().copied() else {
            return;
        };
        match segment.carries {
            Carries::Bytes(_) if receiver == EndState::Closed => {
                self.refuse_bytes(id, from);
                return;
            }
            Carries::Bytes(_) | Carries::Fin if receiver != EndState::Open => {
                self.swallow(id, from);
                return;
            }
            // A segment larger than the whole buffer is let in when the buffer is empty.
            Carries::Bytes(count) if pipe.delivered > 0 && pipe.delivered + count > room => {
                if pipe.ends_with_reset() {
                    self.deliver_reset(id, from.other());
                }
                return;
            }
            Carries::Bytes(count) => {
                pipe.deliver_bytes(count, &mut self.digest);
                let end = connection.end(from.other());
                self.wakes.extend(end.reader.take());
                self.wakes.extend(connection.end(from).writer.take());
            }
            Carries::Fin => {
                pipe.ended = true;
                self.wakes
                    .extend(connection.end(from.other()).reader.take());
            }
            Carries::Reset => {
                self.deliver_reset(id, from.other());
                return;
            }
        }
        let pipe = connection.pipe(from);
        pipe.segments.pop_front();
        match pipe.segments.front().map(|next| next.at) {
            Some(at) => {
                let at = at.max(self.clock);
                self.await_first_segment(id, from, at);
            }
            None => self.forget_if_over(id),
        }
    }

    /// Bytes reached an end that is closed: they are lost, and the sender is told by RST.
    fn refuse_bytes(&mut self, id: ConnectionId, from: Side) {
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
        let latency = self.faults.segment_latency(&mut self.digest);
        let to = from.other();
        self.break_later(id, to, Breakage::Reset, latency);
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
        let mut stale = vec![incoming.discard_under_way()];
        stale.push(connection.pipe(to).discard_under_way());
        let end = connection.end(to);
        stale.push(end.reset_event.take());
        if end.state == EndState::Open {
            // After a FIN the end is no surprise; only writers are told.
            let kind = match breakage {
                Breakage::Reset if ended => io::ErrorKind::BrokenPipe,
                Breakage::Reset => io::ErrorKind::ConnectionReset,
                Breakage::TimedOut => io::ErrorKind::TimedOut,
            };
            end.state = EndState::Reset(Some(kind));
        }
        self.wakes
            .extend(end.reader.take().into_iter().chain(end.writer.take()));
        for event in stale.into_iter().flatten() {
            self.events.remove(event);
        }
        self.forget_if_over(id);
    }
}
