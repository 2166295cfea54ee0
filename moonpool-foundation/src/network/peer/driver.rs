//! The task of a peer: does what [`PeerState`](super::state::PeerState) decides. One task, which
//! reads, writes and waits in the same poll, so that none of them waits for another.

mod quiet;
#[cfg(test)]
mod testing;
mod transfer;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;

use crate::buggify;
use crate::messaging::UID;
use crate::network::{NetworkProvider, TcpStreamTrait};
use crate::task::TaskProvider;
use crate::time::TimeProvider;

use super::config::PeerConfig;
use super::error::ConnectionError;
use super::handle::{Changed, PeerHandle};
use super::inbox::Inbox;
#[cfg(feature = "metrics")]
use super::instruments::Instruments;
use super::log::{self, LogLimit, PeerLog};
use super::reader::{Block, PacketReader};
use super::receiver::Receiver;
use super::slot::{Kept, Permit, Slot};
use super::state::{Action, Demand, Event};
use super::timer::Timer;
use transfer::TURN_PACKETS;

/// Bytes that are read, and written, in one poll of the task at most; then others have their turn.
const TURN_BYTES: usize = 256 * 1024;

/// Ends the handles' hopes when the task is gone, in whatever way.
struct EndGuard {
    handle: PeerHandle,
    inbox: Option<Rc<Inbox>>,
    #[cfg(feature = "metrics")]
    instruments: Instruments,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.handle.handle_driver_ended();
        #[cfg(feature = "metrics")]
        self.publish();
        if let Some(inbox) = &self.inbox {
            inbox.end();
        }
    }
}

#[cfg(feature = "metrics")]
impl EndGuard {
    fn publish(&self) {
        let counted = self.handle.state().counted();
        self.instruments.publish(counted);
    }
}

/// The driver: a peer's state, its receiver and its providers.
pub(super) struct Driver<T, TP> {
    handle: PeerHandle,
    receiver: Receiver,
    time: T,
    task: TP,
    max_payload: usize,
    /// Until when nothing is to be decided, unless a handle or the stream changes something: what
    /// the last turn ended with.
    settled_until: Cell<Duration>,
    log: PeerLog,
    #[cfg_attr(
        not(feature = "metrics"),
        expect(dead_code, reason = "it is there to be dropped")
    )]
    guard: EndGuard,
}

/// A stream and what was read from it and not handled yet.
pub(super) struct Connection<S> {
    pub(super) stream: S,
    pub(super) reader: PacketReader,
    pub(super) block: Option<Block>,
    /// Packets that may still be handed out in this poll.
    turn_packets: usize,
    needs_flush: bool,
    needs_shutdown: bool,
    /// Counts it, if it was accepted.
    pub(super) permit: Option<Permit>,
}

impl<S: TcpStreamTrait> Connection<S> {
    /// `max_payload` bounds what is read before it is known what it is.
    pub(super) fn new(stream: S, peer_name: &str, max_payload: usize) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            // The connection is as good as gone: the first read will say so.
            tracing::debug!(peer = peer_name, %error, "cannot set nodelay");
        }
        Self {
            stream,
            reader: PacketReader::new(max_payload),
            block: None,
            turn_packets: TURN_PACKETS,
            needs_flush: false,
            needs_shutdown: false,
            permit: None,
        }
    }
}

/// How far reading or writing got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The stream, or the receiver, has to wake the task.
    Blocked,
    /// This poll has done enough.
    OutOfBudget,
}

/// What a peer without a connection does next.
enum Next {
    /// A connection was attached, or the one that it had was fenced.
    Attached,
    Dial,
    Finish,
}

impl<T: TimeProvider, TP: TaskProvider> Driver<T, TP> {
    pub(super) fn new(
        handle: &PeerHandle,
        receiver: Receiver,
        time: T,
        task: TP,
        config: &PeerConfig,
    ) -> Self {
        let inbox = match &receiver {
            Receiver::Sink(_) => None,
            Receiver::Inbox(inbox) => Some(Rc::clone(inbox)),
        };
        let guard = EndGuard {
            handle: handle.untracked(),
            inbox,
            #[cfg(feature = "metrics")]
            instruments: Instruments::new(),
        };
        let max_payload = config.max_payload_bytes as usize;
        Self {
            handle: handle.untracked(),
            receiver,
            time,
            task,
            max_payload,
            settled_until: Cell::new(Duration::ZERO),
            log: PeerLog::new(Rc::default()),
            guard,
        }
    }

    /// Shares a limit of what is logged with others.
    pub(super) fn logging_within(self, limit: &Rc<LogLimit>) -> Self {
        let log = PeerLog::new(Rc::clone(limit));
        Self { log, ..self }
    }

    /// Dials, converses, backs off, until the state says that it is over.
    pub(super) async fn dial<N: NetworkProvider>(self, network: N) {
        let mut timer = pin!(Timer::new(self.time.clone()));
        while self.wait_for_dial(timer.as_mut()).await {
            match self.connect(&network, None, timer.as_mut()).await {
                Some(Ok(stream)) => {
                    let connection = self.greet(stream);
                    self.converse(connection, timer.as_mut()).await;
                }
                Some(Err(cause)) => self.handle_closed(cause),
                None => {}
            }
        }
        self.finish();
    }

    /// Converses on a connection that was accepted.
    pub(super) async fn serve<S>(self, stream: S)
    where
        S: tokio::io::AsyncRead + AsyncWrite + TcpStreamTrait + Unpin,
    {
        let mut timer = pin!(Timer::new(self.time.clone()));
        let connection = Connection::new(stream, self.handle.peer_name(), self.max_payload);
        self.converse(connection, timer.as_mut()).await;
        self.finish();
    }

    /// The peer of a session: dials if it may and wants to, and converses on the connections that
    /// are attached to it, one after the other, until it is over.
    pub(super) async fn link<N: NetworkProvider>(
        self,
        network: N,
        slot: Rc<Slot<N::TcpStream>>,
        kept: Kept,
    ) {
        let mut timer = pin!(Timer::new(self.time.clone()));
        loop {
            match self.wait_for_link(&slot, timer.as_mut()).await {
                Next::Finish => break,
                Next::Attached => {}
                Next::Dial if kept.prepare_dial() => {
                    self.handle_closed(ConnectionError::Superseded { generation: 0 });
                    kept.pass_over();
                }
                Next::Dial => match self.connect(&network, Some(&slot), timer.as_mut()).await {
                    None => {}
                    Some(Ok(stream)) => {
                        let connection = self.greet(stream);
                        self.converse_linked(connection, &slot, &kept, timer.as_mut())
                            .await;
                    }
                    Some(Err(cause)) => self.handle_closed(cause),
                },
            }
            if let Some(connection) = slot.take() {
                self.converse_linked(connection, &slot, &kept, timer.as_mut())
                    .await;
            }
        }
        drop(kept);
        self.finish();
    }

    fn greet<S: TcpStreamTrait>(&self, stream: S) -> Connection<S> {
        let session = UID::new(self.task.internal_random(), self.task.internal_random());
        let now = self.time.now();
        self.handle.state().handle_connected(now, session);
        Connection::new(stream, self.handle.peer_name(), self.max_payload)
    }

    /// Reads and writes until the connection is over, or a newer one fences it.
    async fn converse_linked<S>(
        &self,
        mut connection: Connection<S>,
        slot: &Slot<S>,
        kept: &Kept,
        mut timer: Pin<&mut Timer<T>>,
    ) where
        S: tokio::io::AsyncRead + AsyncWrite + TcpStreamTrait + Unpin,
    {
        connection.reader.share(Rc::clone(&kept.reads));
        self.settled_until.set(Duration::ZERO);
        let mut is_known = self.handle.is_connected();
        let ended = poll_fn(|cx| {
            // A newer connection fences this one: nothing more is read from it.
            if slot.is_filled() {
                return Poll::Ready(None);
            }
            let polled = self.poll_connection(cx, &mut connection, timer.as_mut());
            if !is_known && self.handle.is_connected() {
                is_known = true;
                kept.handle_answered();
            }
            polled.map(Some)
        })
        .await;
        // The other end learns of it before anyone here acts on it.
        drop(connection);
        let Some(cause) = ended else {
            return;
        };
        kept.prepare_close();
        let is_ours = cause == ConnectionError::Ourselves;
        self.handle_closed(cause);
        if is_ours {
            self.receiver.keep(&self.handle);
        } else {
            kept.pass_over();
        }
        if !self.handle.state().dials() {
            kept.handle_detached();
        }
    }

    /// Without a connection: waits for one, or until one is to be made.
    async fn wait_for_link<S>(&self, slot: &Slot<S>, mut timer: Pin<&mut Timer<T>>) -> Next {
        poll_fn(|cx| {
            self.handle.begin_turn(cx);
            loop {
                if slot.is_filled() {
                    return Poll::Ready(Next::Attached);
                }
                let now = self.time.now();
                match self.decide(now) {
                    Action::Connect => return Poll::Ready(Next::Dial),
                    Action::Finish => return Poll::Ready(Next::Finish),
                    Action::Disconnect(cause) => self.handle_closed(cause),
                    Action::Wait | Action::Shutdown => {}
                }
                if self.must_wait(cx, now, timer.as_mut()) {
                    crate::wait::note(crate::wait::WaitReason::Message { token: None });
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Without a connection: whether one is to be made. False: the peer is finished.
    async fn wait_for_dial(&self, mut timer: Pin<&mut Timer<T>>) -> bool {
        poll_fn(|cx| {
            self.handle.begin_turn(cx);
            loop {
                let now = self.time.now();
                match self.decide(now) {
                    Action::Connect => return Poll::Ready(true),
                    Action::Finish => return Poll::Ready(false),
                    Action::Disconnect(cause) => self.handle_closed(cause),
                    Action::Wait | Action::Shutdown => {}
                }
                if self.must_wait(cx, now, timer.as_mut()) {
                    crate::wait::note(crate::wait::WaitReason::Message { token: None });
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Makes a connection. `None`: one that was accepted came first.
    async fn connect<N: NetworkProvider>(
        &self,
        network: &N,
        slot: Option<&Slot<N::TcpStream>>,
        mut timer: Pin<&mut Timer<T>>,
    ) -> Option<Result<N::TcpStream, ConnectionError>> {
        let target = self.handle.dial_target();
        tracing::debug!(target: "moonpool::peer", peer = self.handle.peer_name(), target, "connecting");
        let mut connecting = pin!(network.connect(&target));
        poll_fn(|cx| {
            self.handle.begin_turn(cx);
            loop {
                if slot.is_some_and(Slot::is_filled) {
                    return Poll::Ready(None);
                }
                let now = self.time.now();
                match self.decide(now) {
                    Action::Disconnect(cause) => return Poll::Ready(Some(Err(cause))),
                    Action::Finish => return Poll::Ready(Some(Err(ConnectionError::Closed))),
                    Action::Wait | Action::Connect | Action::Shutdown => {}
                }
                if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                    return Poll::Ready(Some(
                        connected.map_err(|error| ConnectionError::connect(&error)),
                    ));
                }
                if self.must_wait(cx, now, timer.as_mut()) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Reads and writes until the connection is over.
    async fn converse<S>(&self, mut connection: Connection<S>, mut timer: Pin<&mut Timer<T>>)
    where
        S: tokio::io::AsyncRead + AsyncWrite + TcpStreamTrait + Unpin,
    {
        self.settled_until.set(Duration::ZERO);
        let cause = poll_fn(|cx| self.poll_connection(cx, &mut connection, timer.as_mut())).await;
        // The other end learns of it before anyone here acts on it.
        drop(connection);
        self.handle_closed(cause);
    }

    fn poll_connection<S>(
        &self,
        cx: &mut Context<'_>,
        connection: &mut Connection<S>,
        mut timer: Pin<&mut Timer<T>>,
    ) -> Poll<ConnectionError>
    where
        S: tokio::io::AsyncRead + AsyncWrite + TcpStreamTrait + Unpin,
    {
        // Who was woken to write has as a rule nothing to read.
        let has_packets = self.handle.changed() == Changed::Packets;
        let is_same_task = self.handle.begin_turn(cx);
        // A turn may end in the middle of what is there to read.
        let is_short = buggify!();
        let mut budget = if is_short { 1 } else { TURN_BYTES };
        connection.turn_packets = if is_short { 1 } else { TURN_PACKETS };
        let mut is_first = true;
        loop {
            let now = self.time.now();
            let is_settled = self.is_settled(now, std::mem::take(&mut is_first));
            if !is_settled {
                match self.decide(now) {
                    Action::Disconnect(cause) => return Poll::Ready(cause),
                    Action::Finish => return Poll::Ready(ConnectionError::Closed),
                    Action::Shutdown => connection.needs_shutdown = true,
                    Action::Wait | Action::Connect => {}
                }
            }
            let advanced = self
                .poll_read(cx, connection, now, &mut budget, has_packets)
                .and_then(|read| Ok((read, self.poll_write(cx, connection, now)?)));
            let (read, written) = match advanced {
                Ok(advanced) => advanced,
                Err(cause) => return Poll::Ready(cause),
            };
            if let Err(cause) = self.poll_last(cx, connection) {
                return Poll::Ready(cause);
            }
            let has_more = read == Progress::OutOfBudget || written == Progress::OutOfBudget;
            let (awaits_turn, is_owed) = {
                let state = self.handle.state();
                (state.awaits_turn(), state.unacknowledged() > 0)
            };
            if has_more || awaits_turn {
                // Still scheduled: others go first, then this task is polled again.
                if self.handle.state().awaits_large_answers() {
                    self.yield_to_all(cx);
                } else {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            // Once something was decided, every deadline may be another.
            let can_rest =
                is_same_task && is_settled && self.can_rest(now, is_owed, timer.alarms());
            if can_rest || self.must_wait(cx, now, timer.as_mut()) {
                return Poll::Pending;
            }
        }
    }

    /// Asks for another turn, after everybody else: also after the future that a runtime was started with,
    /// which is no task, and has its turn when no task is left.
    fn yield_to_all(&self, cx: &mut Context<'_>) {
        if pin!(self.task.yield_now()).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// What the state wants done now. Passes on what it has to report.
    fn decide(&self, now: Duration) -> Action {
        self.handle.take_changed();
        self.settled_until.set(Duration::ZERO);
        let demand = self.demand();
        let patience = if self.handle.is_connected() {
            None
        } else {
            self.receiver.patience(&self.handle)
        };
        let action = {
            let mut state = self.handle.state();
            state.set_demand(demand);
            state.set_patience(patience);
            state.handle_timeout(now);
            state.poll_action(now)
        };
        self.report_events();
        action
    }

    fn demand(&self) -> Demand {
        self.handle
            .demand(self.receiver.expects_replies(&self.handle))
    }

    /// Whether there is nothing to do but wait. Arms the timer, and lets handles wake the task.
    fn must_wait(
        &self,
        cx: &mut Context<'_>,
        now: Duration,
        mut timer: Pin<&mut Timer<T>>,
    ) -> bool {
        self.settled_until.set(Duration::ZERO);
        self.report_events();
        self.handle.wake_ready();
        // What was read since may be what was expected.
        let demand = self.demand();
        let (timeouts, is_due, connections) = {
            let mut state = self.handle.state();
            state.set_demand(demand);
            let is_due = state.has_more_to_do();
            (state.poll_timeout(now), is_due, state.connections())
        };
        self.log
            .note_connections(now, self.handle.peer_name(), connections);
        if is_due
            || timer.as_mut().poll(cx, now, timeouts).is_ready()
            || self.handle.take_changed() != Changed::Nothing
        {
            return false;
        }
        self.settled_until.set(timer.alarms().first());
        self.rest();
        true
    }

    fn handle_closed(&self, cause: ConnectionError) {
        let now = self.time.now();
        let name = self.handle.peer_name();
        let (connections, (was_open, known)) = {
            let state = self.handle.state();
            (state.connections(), state.connection_end())
        };
        self.log.note_connections(now, name, connections);
        let reason = known.as_ref().unwrap_or(&cause);
        self.log.note_end(now, name, was_open, reason);
        let jitter = self.task.internal_random();
        let demand = self.demand();
        {
            let mut state = self.handle.state();
            state.set_demand(demand);
            state.handle_closed(now, cause, jitter);
        }
        self.report_events();
        self.handle.wake_ready();
    }

    fn report_events(&self) {
        loop {
            let event = self.handle.state().poll_event();
            match event {
                Some(event) => {
                    self.note(&event);
                    self.receiver.report(&self.handle, event);
                }
                None => return,
            }
        }
    }

    fn note(&self, event: &Event) {
        if let Event::SessionEnded(ended) = event {
            log::note_session_end(self.handle.peer_name(), ended);
            #[cfg(feature = "metrics")]
            self.guard.instruments.note_session_end();
        }
    }

    fn finish(self) {
        self.report_events();
        tracing::debug!(target: "moonpool::peer", peer = self.handle.peer_name(), "finished");
        if let Receiver::Sink(sink) = &self.receiver {
            sink.handle_finished(&self.handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::testing::{Endless, TestStream};
    use super::*;
    use crate::messaging::serialize_packet;
    use crate::network::peer::state::PeerState;
    use crate::network::peer::{PeerId, PeerSink, ReceivedPacket, SessionEnded, SessionMode};
    use crate::task::TokioTaskProvider;
    use crate::time::TokioTimeProvider;

    #[derive(Default)]
    struct Counter(Cell<usize>);

    impl PeerSink for Counter {
        fn handle_packet(&self, _: &PeerHandle, packet: ReceivedPacket<'_>) {
            self.0.set(self.0.get() + packet.payload.len());
        }
        fn handle_session_ended(&self, _: &PeerHandle, _: SessionEnded) {}
        fn handle_finished(&self, _: &PeerHandle) {}
    }

    /// The driver of a peer that was accepted.
    fn accepted(
        sink: Rc<dyn PeerSink>,
    ) -> (PeerHandle, Driver<TokioTimeProvider, TokioTaskProvider>) {
        let config = PeerConfig::default();
        let state = PeerState::accepted(config.clone(), SessionMode::Plain, Duration::ZERO);
        let handle = PeerHandle::new(PeerId(0), String::new(), state);
        let (time, task) = (TokioTimeProvider::new(), TokioTaskProvider::new());
        let driver = Driver::new(&handle, Receiver::Sink(sink), time, task, &config);
        (handle, driver)
    }

    #[test]
    fn a_peer_that_never_stops_sending_does_not_keep_others_waiting() {
        let sink = Rc::new(Counter::default());
        let packet = serialize_packet(UID::new(1, 1), &[0; 3_000]);
        let (_handle, driver) = accepted(Rc::clone(&sink) as Rc<dyn PeerSink>);
        let mut serving = Endless::new(driver.serve(TestStream::repeating(packet, usize::MAX)));
        for poll in 1..=3 {
            assert!(serving.poll(), "it asks for its next turn");
            let received = sink.0.get();
            assert!(
                received >= poll * TURN_BYTES * 9 / 10,
                "{received} after {poll}"
            );
            assert!(received <= poll * 2 * TURN_BYTES, "{received} after {poll}");
        }
    }

    /// Answers each packet with one as large.
    struct Mirror;

    impl PeerSink for Mirror {
        fn handle_packet(&self, peer: &PeerHandle, packet: ReceivedPacket<'_>) {
            peer.send_reliable(packet.token, packet.to_bytes()).unwrap();
        }
        fn handle_session_ended(&self, _: &PeerHandle, _: SessionEnded) {}
        fn handle_finished(&self, _: &PeerHandle) {}
    }

    #[test]
    fn answers_to_the_first_of_many_packets_leave_before_the_rest_is_handed_out() {
        let packet = serialize_packet(UID::new(1, 1), b"payload");
        let stream = TestStream::repeating(packet.clone(), 2 * TURN_PACKETS + 10);
        let (_handle, driver) = accepted(Rc::new(Mirror));
        let mut serving = Endless::new(driver.serve(stream.clone()));
        let mut polls = 1;
        while serving.poll() {
            polls += 1;
        }
        assert_eq!(polls, 3);
        let parts = [TURN_PACKETS, TURN_PACKETS, 10].map(|packets| packets * packet.len());
        assert_eq!(stream.write_sizes(), parts);
    }

    /// Sends so many packets, each with this payload.
    fn send(handle: &PeerHandle, count: usize, payload: &'static [u8]) {
        for _ in 0..count {
            handle
                .send_reliable(UID::new(1, 1), payload.into())
                .unwrap();
        }
    }

    #[test]
    fn packets_that_are_ready_together_leave_in_one_write() {
        let stream = TestStream::default();
        let (handle, driver) = accepted(Rc::new(Counter::default()));
        send(&handle, 100, b"payload");
        let mut serving = Endless::new(driver.serve(stream.clone()));
        assert!(!serving.poll());
        assert_eq!(stream.write_sizes(), [100 * 31]);
        send(&handle, 1, b"payload");
        serving.poll();
        assert_eq!(stream.write_sizes(), [100 * 31, 31]);
    }

    #[test]
    fn a_peer_that_never_stops_sending_gives_others_a_turn_when_it_writes() {
        let stream = TestStream::default();
        let (handle, driver) = accepted(Rc::new(Counter::default()));
        send(&handle, 20, &[0; 100_000]);
        let mut serving = Endless::new(driver.serve(stream.clone()));
        assert!(serving.poll());
        let written: usize = stream.write_sizes().iter().sum();
        assert!(written < 2 * TURN_BYTES, "{written}");
    }
}
