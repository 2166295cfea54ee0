//! Bytes between a connection and the peer's state.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite};

use super::{Connection, Driver, Progress, TURN_BYTES, WRITE_FAILURE};
use crate::buggify_with_prob;
use crate::network::peer::error::ConnectionError;
use crate::network::peer::exchange::Inbound;
use crate::network::peer::frame::{BATCH_SLICES, Batch};
use crate::network::peer::packet::ReceivedPacket;
use crate::task::TaskProvider;
use crate::time::TimeProvider;

/// Pieces of memory that an ordinary write has at most.
const FEW_SLICES: usize = 8;

/// Writes as much of the batch as `SLICES` pieces hold.
fn write_batch<const SLICES: usize, S: AsyncWrite + Unpin>(
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
    /// Reads and hands out packets until nothing more is there, or nothing more is taken.
    pub(super) fn poll_read<S>(
        &self,
        cx: &mut Context<'_>,
        connection: &mut Connection<S>,
        now: Duration,
        budget: &mut usize,
    ) -> Result<Progress, ConnectionError>
    where
        S: tokio::io::AsyncRead + Unpin,
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
            connection.reader.make_room()?;
            let read = pin!(connection.stream.read_buf(connection.reader.buffer())).poll(cx);
            match read {
                Poll::Pending => {
                    connection.reader.handle_blocked();
                    return Ok(Progress::Blocked);
                }
                Poll::Ready(Ok(0)) => return Err(ConnectionError::Ended),
                Poll::Ready(Ok(bytes)) => {
                    *budget = budget.saturating_sub(bytes);
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
            if self.handle.state().is_ending() {
                connection.block = None;
                connection.reader.clear();
                return Ok(true);
            }
            if connection.block.is_none() {
                connection.block = connection.reader.next_block()?;
            }
            let Some(block) = &mut connection.block else {
                return Ok(true);
            };
            if connection.turn_packets == 0 || self.receiver.is_full() {
                return Ok(false);
            }
            let memory = block.memory();
            let Some((token, payload, bytes)) = block.next_packet()? else {
                connection.block = None;
                continue;
            };
            connection.turn_packets -= 1;
            let inbound = self.handle.state().handle_packet(now, token, payload)?;
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
            // An empty batch stays where it is, and keeps its memory.
            let Some(batch) = self.handle.state().lay_out(now) else {
                return Ok(Progress::Blocked);
            };
            if buggify_with_prob!(WRITE_FAILURE) {
                self.handle.state().put_back(batch, 0);
                return Err(ConnectionError::lost(&io::ErrorKind::BrokenPipe.into()));
            }
            // Most writes carry few packets, and a table of them all has to be filled in first.
            let written = if batch.slice_count() <= FEW_SLICES {
                write_batch::<FEW_SLICES, _>(cx, &mut connection.stream, &batch)
            } else {
                write_batch::<BATCH_SLICES, _>(cx, &mut connection.stream, &batch)
            };
            let bytes = match &written {
                Poll::Ready(Ok(bytes)) => *bytes,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            self.handle.state().put_back(batch, bytes);
            match written {
                Poll::Pending => return Ok(Progress::Blocked),
                Poll::Ready(Ok(0)) => {
                    return Err(ConnectionError::lost(&io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(_)) => {
                    budget = budget.saturating_sub(bytes);
                    connection.needs_flush = true;
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
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::task::Waker;

    use super::*;
    use crate::messaging::{UID, WellKnownToken, serialize_packet};
    use crate::network::TcpStreamTrait;
    use crate::network::peer::handle::PeerHandle;
    use crate::network::peer::receiver::Receiver;
    use crate::network::peer::session::{HelloAnswer, Outcome, VERSION};
    use crate::network::peer::state::{Action, PeerState};
    use crate::network::peer::{
        PeerConfig, PeerId, PeerSink, SessionEnded, SessionIdentity, SessionMode,
    };
    use crate::task::TokioTaskProvider;
    use crate::time::TokioTimeProvider;

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

    /// Nothing more comes, and nothing can be written.
    struct Silent;

    impl tokio::io::AsyncRead for Silent {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl TcpStreamTrait for Silent {
        fn local_addr(&self) -> io::Result<String> {
            Ok("here".into())
        }
        fn peer_addr(&self) -> io::Result<String> {
            Ok("there".into())
        }
        fn set_nodelay(&self, _: bool) -> io::Result<()> {
            Ok(())
        }
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
        let config = PeerConfig::default();
        let identity = SessionIdentity {
            incarnation: UID::new(1, 1),
            address: None,
        };
        let state = PeerState::dialling(config.clone(), SessionMode::Acknowledged(identity));
        let handle = PeerHandle::new(PeerId(0), "there".into(), state);
        let sink = Receiver::Sink(Rc::clone(&order) as Rc<dyn PeerSink>);
        let (time, task) = (TokioTimeProvider::new(), TokioTaskProvider::new());
        let driver = Driver::new(&handle, sink, time, task, &config);
        let receive = |now: Duration, bytes: &[u8]| {
            handle.state().handle_timeout(now);
            assert_eq!(handle.state().poll_action(now), Action::Connect);
            handle.state().handle_connected(now, UID::new(50, 50));
            let mut connection = Connection::new(Silent, "there", 1_000_000);
            connection.reader.buffer().extend_from_slice(bytes);
            let mut cx = Context::from_waker(Waker::noop());
            let mut budget = TURN_BYTES;
            driver
                .poll_read(&mut cx, &mut connection, now, &mut budget)
                .unwrap();
        };
        handle.reconnect();
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
