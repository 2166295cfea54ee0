//! Bytes between a connection and the peer's state.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite};

use super::{Connection, Driver, Progress, TURN_BYTES};
use crate::buggify_with_prob;
use crate::network::TcpStreamTrait;
use crate::network::peer::error::ConnectionError;
use crate::network::peer::exchange::Inbound;
use crate::network::peer::frame::{BATCH_SLICES, Batch};
use crate::network::peer::packet::ReceivedPacket;
use crate::task::TaskProvider;
use crate::time::TimeProvider;

/// Packets that are handed out in one poll of the task at most. What others make of them leaves with
/// the next poll, while they make something of the rest: without it two ends with many calls between
/// them pass all of them back and forth in one piece, and one waits while the other one works.
pub(super) const TURN_PACKETS: usize = 96;

/// Chance of a write to fail in simulation, where `buggify!` has switched that on: the connection is
/// torn down with all that was queued on it.
const WRITE_FAILURE: f64 = 0.02;

/// Pieces of memory that an ordinary write has at most.
const FEW_SLICES: usize = 8;

/// Writes from the batch. Most writes carry few packets, and a table of them has to be filled in first.
#[inline]
fn write_batch<S: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    stream: &mut S,
    batch: &Batch,
) -> Poll<io::Result<usize>> {
    if let Some(only) = batch.only_slice() {
        Pin::new(stream).poll_write_vectored(cx, &[IoSlice::new(only)])
    } else if batch.slice_count() <= FEW_SLICES {
        write_slices::<FEW_SLICES, _>(cx, stream, batch)
    } else {
        write_slices::<BATCH_SLICES, _>(cx, stream, batch)
    }
}

/// Writes as much of the batch as `SLICES` pieces hold. By itself: the table is on the stack.
#[inline(never)]
fn write_slices<const SLICES: usize, S: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    stream: &mut S,
    batch: &Batch,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = batch.slices(&mut slices);
    let pieces = slices.get(..count).unwrap_or_default();
    Pin::new(stream).poll_write_vectored(cx, pieces)
}

impl<T: TimeProvider, TP: TaskProvider> Driver<T, TP> {
    /// Reads and hands out packets until nothing more is there, or nothing more is taken. If it is
    /// doubtful that anything is there, the stream is asked first.
    pub(super) fn poll_read<S>(
        &self,
        cx: &mut Context<'_>,
        connection: &mut Connection<S>,
        now: Duration,
        budget: &mut usize,
        mut is_doubtful: bool,
    ) -> Result<Progress, ConnectionError>
    where
        S: tokio::io::AsyncRead + TcpStreamTrait + Unpin,
    {
        loop {
            if !self.hand_out(connection, now)? {
                return Ok(match connection.turn_packets {
                    0 => Progress::OutOfBudget,
                    _ => Progress::Blocked,
                });
            }
            if *budget == 0 {
                return Ok(Progress::OutOfBudget);
            }
            if is_doubtful && connection.stream.poll_readable(cx).is_pending() {
                connection.reader.handle_blocked(now);
                return Ok(Progress::Blocked);
            }
            connection.reader.make_room()?;
            let read = pin!(connection.stream.read_buf(connection.reader.buffer())).poll(cx);
            match read {
                Poll::Pending => {
                    connection.reader.handle_blocked(now);
                    return Ok(Progress::Blocked);
                }
                Poll::Ready(Ok(0)) => return Err(ConnectionError::Ended),
                Poll::Ready(Ok(bytes)) => {
                    *budget = budget.saturating_sub(bytes);
                    // A read that left room has taken everything, if a fault did not cut it short.
                    is_doubtful = connection.reader.has_room();
                    connection.reader.handle_read(bytes);
                    self.handle.state().handle_read(bytes);
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Err(ConnectionError::lost(&error)),
            }
        }
    }

    /// Hands out the complete packets that were read. False: the receiver takes no more now, or this
    /// poll has handed out enough.
    fn hand_out<S>(
        &self,
        connection: &mut Connection<S>,
        now: Duration,
    ) -> Result<bool, ConnectionError> {
        loop {
            if connection.block.is_none() && connection.reader.is_empty() {
                return Ok(true);
            }
            let mut state = self.handle.state();
            if state.is_ending() {
                connection.block = None;
                connection.reader.clear();
                return Ok(true);
            }
            let block = match &mut connection.block {
                Some(block) => block,
                None => match connection.reader.next_block()? {
                    Some(block) => connection.block.insert(block),
                    None => return Ok(true),
                },
            };
            if block.is_spent() {
                connection.block = None;
                continue;
            }
            if connection.turn_packets == 0 || self.receiver.is_full() {
                return Ok(false);
            }
            let memory = block.memory();
            let Some((token, payload, bytes)) = block.next_packet()? else {
                connection.block = None;
                continue;
            };
            connection.turn_packets -= 1;
            let inbound = state.handle_packet(now, token, payload)?;
            drop(state);
            match inbound {
                Inbound::Deliver {
                    token,
                    payload,
                    reliable,
                } => {
                    let packet = ReceivedPacket::new(token, payload, reliable, bytes, memory);
                    self.receiver.deliver(&self.handle, packet.at(now));
                }
                // A greeting may have ended a session: the receiver learns of it before it gets what
                // comes in the next one.
                Inbound::Consumed => self.report_events(),
            }
        }
    }

    /// Writes what can be written.
    pub(super) fn poll_write<S>(
        &self,
        cx: &mut Context<'_>,
        connection: &mut Connection<S>,
        now: Duration,
    ) -> Result<Progress, ConnectionError>
    where
        S: AsyncWrite + Unpin,
    {
        let mut budget = TURN_BYTES;
        loop {
            if budget == 0 {
                return Ok(Progress::OutOfBudget);
            }
            let laid_out = self.handle.state().lay_out(now);
            let Some(batch) = laid_out else {
                return Ok(Progress::Blocked);
            };
            if buggify_with_prob!(WRITE_FAILURE) {
                self.handle.state().put_back(batch, 0);
                return Err(ConnectionError::lost(&io::ErrorKind::BrokenPipe.into()));
            }
            let written = write_batch(cx, &mut connection.stream, &batch);
            let bytes = match &written {
                Poll::Ready(Ok(bytes)) => *bytes,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            let has_more = {
                let mut state = self.handle.state();
                state.put_back(batch, bytes);
                state.has_output()
            };
            match written {
                Poll::Pending => return Ok(Progress::Blocked),
                Poll::Ready(Ok(0)) => {
                    return Err(ConnectionError::lost(&io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(_)) => {
                    budget = budget.saturating_sub(bytes);
                    connection.needs_flush = true;
                    if !has_more {
                        return Ok(Progress::Blocked);
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Err(ConnectionError::lost(&error)),
            }
        }
    }

    /// Flushes, and ends this end's half of the stream if that is due.
    pub(super) fn poll_last<S>(
        &self,
        cx: &mut Context<'_>,
        connection: &mut Connection<S>,
    ) -> Result<(), ConnectionError>
    where
        S: AsyncWrite + Unpin,
    {
        let mut stream = Pin::new(&mut connection.stream);
        if connection.needs_flush {
            match stream.as_mut().poll_flush(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => connection.needs_flush = false,
                Poll::Ready(Err(error)) => return Err(ConnectionError::lost(&error)),
            }
        }
        if connection.needs_shutdown {
            match stream.poll_shutdown(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => connection.needs_shutdown = false,
                Poll::Ready(Err(error)) => return Err(ConnectionError::lost(&error)),
            }
            self.handle.state().handle_shutdown();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::Future;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::task::{Wake, Waker};

    use bytes::Bytes;

    use super::super::testing::{Flag, TestStream};
    use super::*;
    use crate::messaging::{UID, WellKnownToken, serialize_packet};
    use crate::network::peer::handle::PeerHandle;
    use crate::network::peer::reader::PacketReader;
    use crate::network::peer::receiver::Receiver;
    use crate::network::peer::session::{Hello, HelloAnswer, Outcome, VERSION};
    use crate::network::peer::state::{Action, Attachment, PeerState};
    use crate::network::peer::timer::Timer;
    use crate::network::peer::{
        PeerConfig, PeerId, PeerSink, SessionEnded, SessionIdentity, SessionMode,
    };
    use crate::task::TokioTaskProvider;

    /// Notes what it is told, in order.
    #[derive(Default)]
    struct Order(RefCell<Vec<&'static str>>);

    impl PeerSink for Order {
        fn handle_packet(&self, _: &PeerHandle, _: ReceivedPacket<'_>) {
            self.0.borrow_mut().push("packet");
        }
        fn handle_session_ended(&self, _: &PeerHandle, _: SessionEnded) {
            self.0.borrow_mut().push("session ended");
        }
        fn handle_finished(&self, _: &PeerHandle) {}
    }

    /// A clock that stands, and whose sleeps note whom they would wake, and after what time.
    #[derive(Clone, Default)]
    struct Standing(Rc<RefCell<Vec<Waker>>>, Rc<RefCell<Vec<Duration>>>);

    impl Future for Standing {
        type Output = ();

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            self.0.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        }
    }

    impl TimeProvider for Standing {
        type Sleep = Self;

        fn sleep(&self, duration: Duration) -> Self {
            self.1.borrow_mut().push(duration);
            self.clone()
        }
        fn now(&self) -> Duration {
            Duration::ZERO
        }
        fn timer(&self) -> Duration {
            Duration::ZERO
        }
        fn unix_time(&self) -> Duration {
            Duration::ZERO
        }
    }

    /// Expects replies if it is told to, and lets the peer dial once a packet has come.
    #[derive(Default)]
    struct Caller(Cell<bool>);

    impl PeerSink for Caller {
        fn handle_packet(&self, peer: &PeerHandle, _: ReceivedPacket<'_>) {
            peer.allow_dial(&"10.0.0.1:1".parse().unwrap());
        }
        fn expects_replies(&self, _: &PeerHandle) -> bool {
            self.0.get()
        }
        fn handle_session_ended(&self, _: &PeerHandle, _: SessionEnded) {}
        fn handle_finished(&self, _: &PeerHandle) {}
    }

    /// The peer of a session that was accepted, its clock, and its driver.
    fn serving(
        sink: Rc<dyn PeerSink>,
    ) -> (PeerHandle, Standing, impl Future<Output = ()>, TestStream) {
        let config = PeerConfig::default();
        let identity = SessionIdentity {
            incarnation: UID::new(1, 1),
            address: None,
        };
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            max_payload: 1_000_000,
            features: 0,
            incarnation: UID::new(2, 2),
            session: UID::new(3, 3),
            next_expected: 1,
            generation: 1,
            expected_peer: None,
            address: None,
        };
        let mut state = PeerState::of_session(config.clone(), identity);
        let begin = Attachment::Begin(UID::new(4, 4));
        let attached = state.handle_attached(Duration::ZERO, &hello, begin);
        attached.unwrap();
        let handle = PeerHandle::new(PeerId(0), "there".into(), state);
        let (clock, task) = (Standing::default(), TokioTaskProvider::new());
        let sink = Receiver::Sink(sink);
        let driver = Driver::new(&handle, sink, clock.clone(), task, &config);
        let stream = TestStream::default();
        let connection = Connection::new(stream.clone(), "there", 1_000_000);
        let timer = Timer::new(clock.clone());
        let conversing = async move {
            let mut timer = pin!(timer);
            driver.converse(connection, timer.as_mut()).await;
        };
        (handle, clock, conversing, stream)
    }

    #[derive(Default)]
    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    thread_local! {
        /// The task that has the driver. Not `Waker::noop()`: two of those need not know that they
        /// are the same, and a driver that another task has takes no short turn.
        static TASK: Waker = Waker::from(Arc::<Task>::default());
    }

    /// Polls it, and gives the times after which timers were set.
    fn timers_of(conversing: Pin<&mut impl Future<Output = ()>>, clock: &Standing) -> Vec<u64> {
        let polled = TASK.with(|task| conversing.poll(&mut Context::from_waker(task)));
        assert!(polled.is_pending());
        let set = std::mem::take(&mut *clock.1.borrow_mut());
        set.iter().map(Duration::as_secs).collect()
    }

    #[test]
    fn a_deadline_that_comes_nearer_without_a_packet_is_noticed() {
        let (handle, clock, conversing, _stream) = serving(Rc::new(Order::default()));
        let mut conversing = pin!(conversing);
        let closed_there_first = [216];
        assert_eq!(timers_of(conversing.as_mut(), &clock), closed_there_first);
        handle.allow_dial(&"10.0.0.1:1".parse().unwrap());
        assert_eq!(timers_of(conversing.as_mut(), &clock), [180]);
    }

    #[test]
    fn what_the_receiver_of_a_packet_changes_is_noticed_in_the_same_turn() {
        let (_handle, clock, conversing, stream) = serving(Rc::new(Caller::default()));
        let mut conversing = pin!(conversing);
        assert_eq!(timers_of(conversing.as_mut(), &clock), [216]);
        let packet = serialize_packet(UID::new(7, 8), b"unreliable");
        stream.receive(&packet);
        assert_eq!(timers_of(conversing.as_mut(), &clock), [180]);
    }

    #[test]
    fn replies_that_are_expected_all_at_once_need_a_timer_for_the_keepalive() {
        let caller = Rc::new(Caller::default());
        let (_handle, clock, conversing, _stream) = serving(Rc::clone(&caller) as Rc<dyn PeerSink>);
        let mut conversing = pin!(conversing);
        assert_eq!(timers_of(conversing.as_mut(), &clock), [216]);
        caller.0.set(true);
        assert_eq!(timers_of(conversing.as_mut(), &clock), [1]);
    }

    #[test]
    fn whoever_waits_for_room_learns_of_an_acknowledgement_that_changes_nothing_else() {
        let (handle, clock, conversing, stream) = serving(Rc::new(Order::default()));
        let mut conversing = pin!(conversing);
        let payload = Bytes::from(vec![7; 500_000]);
        let send = || handle.send_reliable(UID::new(7, 8), payload.clone());
        let sent = std::iter::from_fn(|| send().ok()).count() as u64;
        let (woken, waker) = Flag::new();
        let mut cx = Context::from_waker(&waker);
        let mut ready = pin!(handle.ready());
        assert!(ready.as_mut().poll(&mut cx).is_pending());
        while stream.take_written().len() > 1000 || handle.state().has_output() {
            timers_of(conversing.as_mut(), &clock);
        }
        assert!(!woken.take(), "all of it is still owed");
        let ack = (sent + 1).to_le_bytes();
        let ack = serialize_packet(WellKnownToken::Ack.token(), &ack);
        stream.receive(&ack);
        timers_of(conversing.as_mut(), &clock);
        assert!(woken.take());
        assert!(ready.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn pongs_and_acknowledgements_leave_although_there_is_nothing_else_to_write() {
        let (_handle, clock, conversing, stream) = serving(Rc::new(Order::default()));
        let mut conversing = pin!(conversing);
        timers_of(conversing.as_mut(), &clock);
        let mut kinds_after = |packets: Vec<u8>| {
            stream.take_written();
            stream.receive(&packets);
            // An acknowledgement may wait for the turn after this one.
            timers_of(conversing.as_mut(), &clock);
            timers_of(conversing.as_mut(), &clock);
            let mut reader = PacketReader::new(1_000_000);
            reader.buffer().extend_from_slice(&stream.take_written());
            let mut kinds = Vec::new();
            while let Some(mut block) = reader.next_block().unwrap() {
                while let Some((token, ..)) = block.next_packet().unwrap() {
                    kinds.push(WellKnownToken::session_frame(token));
                }
            }
            kinds
        };
        let ping = [1_u64.to_le_bytes(), 9_u64.to_le_bytes()].concat();
        let ping = serialize_packet(WellKnownToken::SessionPing.token(), &ping);
        // The answer to the Hello leaves as well.
        let kinds = kinds_after(ping);
        assert_eq!(kinds.last(), Some(&Some(WellKnownToken::SessionPong)));
        let sequenced = (1..=64_u64).flat_map(|sequence| {
            let mut frame = [sequence.to_le_bytes(), 1_u64.to_le_bytes()].concat();
            frame.extend_from_slice(&UID::new(7, 8).to_le_bytes());
            serialize_packet(WellKnownToken::Sequenced.token(), &frame)
        });
        let kinds = kinds_after(sequenced.collect());
        assert_eq!(kinds, [Some(WellKnownToken::Ack)]);
    }

    #[test]
    fn a_watch_counts_from_when_it_began_however_many_turns_there_are() {
        let (handle, clock, conversing, _stream) = serving(Rc::new(Order::default()));
        let mut conversing = pin!(conversing);
        let _watch = handle.watch();
        assert_eq!(timers_of(conversing.as_mut(), &clock), [1]);
        assert!(timers_of(conversing.as_mut(), &clock).is_empty());
        let later = Duration::from_millis(500);
        let told = handle.state().poll_timeout(later).background;
        assert_eq!(told, Some(Duration::from_secs(1)));
    }

    /// A peer that dials.
    fn dialling(
        sink: Rc<dyn PeerSink>,
        clock: Standing,
    ) -> (PeerHandle, Driver<Standing, TokioTaskProvider>) {
        let config = PeerConfig::default();
        let identity = SessionIdentity {
            incarnation: UID::new(1, 1),
            address: None,
        };
        let state = PeerState::dialling(config.clone(), SessionMode::Acknowledged(identity));
        let handle = PeerHandle::new(PeerId(0), "there".into(), state);
        let sink = Receiver::Sink(sink);
        let driver = Driver::new(&handle, sink, clock, TokioTaskProvider::new(), &config);
        handle.reconnect();
        (handle, driver)
    }

    /// It gets a connection, on which this arrives.
    fn connect(handle: &PeerHandle, now: Duration, bytes: &[u8]) -> Connection<TestStream> {
        handle.state().handle_timeout(now);
        assert_eq!(handle.state().poll_action(now), Action::Connect);
        handle.state().handle_connected(now, UID::new(50, 50));
        let stream = TestStream::default();
        stream.receive(bytes);
        Connection::new(stream, "there", 1_000_000)
    }

    #[test]
    fn the_timers_wake_the_task_that_has_the_driver_now() {
        let (clock, now) = (Standing::default(), Duration::ZERO);
        let (handle, driver) = dialling(Rc::new(Order::default()), clock.clone());
        let connection = connect(&handle, now, &fresh(2));
        let mut timer = pin!(Timer::new(clock.clone()));
        let mut conversing = pin!(driver.converse(connection, timer.as_mut()));
        let asked = || std::mem::take(&mut *clock.0.borrow_mut());
        let mut poll = |waker: &Waker| {
            let mut cx = Context::from_waker(waker);
            assert!(conversing.as_mut().poll(&mut cx).is_pending());
        };
        let [first, second] = [(); 2].map(|()| Waker::from(Arc::<Task>::default()));
        poll(&first);
        assert!(!asked().is_empty());
        poll(&first);
        assert!(asked().is_empty(), "they are set");
        poll(&second);
        let woken = asked();
        assert!(!woken.is_empty() && woken.iter().all(|waker| waker.will_wake(&second)));
    }

    fn fresh(incarnation: u64) -> Vec<u8> {
        let answer = HelloAnswer {
            version: VERSION,
            outcome: Outcome::Fresh {
                session: UID::new(50, incarnation),
            },
            max_payload: 1_000_000,
            features: 0,
            incarnation: UID::new(incarnation, incarnation),
            address: None,
        };
        serialize_packet(WellKnownToken::HelloAnswer.token(), &answer.encode())
    }

    #[test]
    fn the_end_of_a_session_is_told_before_what_comes_in_the_next_one() {
        let order = Rc::new(Order::default());
        let sink = Rc::clone(&order) as Rc<dyn PeerSink>;
        let (handle, driver) = dialling(sink, Standing::default());
        let receive = |now: Duration, bytes: &[u8]| {
            let mut connection = connect(&handle, now, bytes);
            let mut cx = Context::from_waker(Waker::noop());
            let mut budget = TURN_BYTES;
            driver
                .poll_read(&mut cx, &mut connection, now, &mut budget, false)
                .unwrap();
        };
        receive(Duration::ZERO, &fresh(2));
        handle.send_reliable(UID::new(7, 8), "x".into()).unwrap();
        let batch = handle.state().lay_out(Duration::ZERO).unwrap();
        handle.state().put_back(batch, 10_000);
        let lost = ConnectionError::lost(&io::ErrorKind::ConnectionReset.into());
        handle.state().handle_closed(Duration::ZERO, lost, 0);
        // The other end is a new process, and sends at once.
        let mut frame = [1_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
        frame.extend_from_slice(&UID::new(7, 8).to_le_bytes());
        frame.extend_from_slice(b"request");
        let mut bytes = fresh(3);
        bytes.extend(serialize_packet(WellKnownToken::Sequenced.token(), &frame));
        receive(Duration::from_secs(2), &bytes);
        assert_eq!(*order.0.borrow(), ["session ended", "packet"]);
    }
}
