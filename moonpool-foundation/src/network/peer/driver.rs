//! The task of a peer: does what [`PeerState`](super::state::PeerState) decides. One task, which
//! reads, writes and waits in the same poll, so that none of them waits for another.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::messaging::UID;
use crate::network::{NetworkProvider, TcpStreamTrait};
use crate::task::TaskProvider;
use crate::time::TimeProvider;

use super::config::PeerConfig;
use super::error::ConnectionError;
use super::exchange::Inbound;
use super::handle::PeerHandle;
use super::inbox::Inbox;
use super::outbox::BATCH_SLICES;
use super::packet::{PeerSink, ReceivedPacket};
use super::reader::{Block, PacketReader};
use super::state::{Action, Event};

/// Bytes that are read, and written, in one poll of the task at most; then others have their turn.
const TURN_BYTES: usize = 256 * 1024;

/// Where received packets and reports go.
pub(super) enum Receiver {
    Sink(Rc<dyn PeerSink>),
    Inbox(Rc<Inbox>),
}

impl Receiver {
    fn is_full(&self) -> bool {
        match self {
            Self::Sink(_) => false,
            Self::Inbox(inbox) => inbox.is_full(),
        }
    }

    fn deliver(&self, handle: &PeerHandle, packet: ReceivedPacket<'_>) {
        match self {
            Self::Sink(sink) => sink.handle_packet(handle, packet),
            Self::Inbox(inbox) => inbox.push(packet),
        }
    }

    fn report(&self, handle: &PeerHandle, event: Event) {
        match (self, event) {
            (Self::Sink(sink), Event::SessionEnded(ended)) => {
                sink.handle_session_ended(handle, ended);
            }
            (Self::Sink(sink), Event::Withdrawn { id, limit }) => {
                sink.handle_withdrawn(handle, id, limit);
            }
            (Self::Inbox(inbox), Event::SessionEnded(ended)) => inbox.push_report(ended),
            // Plain mode learns of no limit of the other end's.
            (Self::Inbox(_), Event::Withdrawn { .. }) => {}
        }
    }
}

pin_project! {
    /// One timer that is armed for the state's next deadline, and only anew when that changes.
    pub(super) struct Timer<T: TimeProvider> {
        time: T,
        deadline: Option<Duration>,
        #[pin]
        sleep: Option<T::Sleep>,
    }
}

impl<T: TimeProvider> Timer<T> {
    fn new(time: T) -> Self {
        Self {
            time,
            deadline: None,
            sleep: None,
        }
    }

    /// Ready once `deadline` has passed; never, if there is none.
    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        now: Duration,
        deadline: Option<Duration>,
    ) -> Poll<()> {
        let mut this = self.project();
        if *this.deadline != deadline {
            *this.deadline = deadline;
            let sleep = deadline.map(|at| this.time.sleep(at.saturating_sub(now)));
            this.sleep.set(sleep);
        }
        let Some(sleep) = this.sleep.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        if sleep.poll(cx).is_pending() {
            return Poll::Pending;
        }
        *this.deadline = None;
        this.sleep.set(None);
        Poll::Ready(())
    }
}

/// Ends the handles' hopes when the task is gone, in whatever way.
struct EndGuard {
    handle: PeerHandle,
    inbox: Option<Rc<Inbox>>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.handle.handle_driver_ended();
        if let Some(inbox) = &self.inbox {
            inbox.end();
        }
    }
}

/// The driver: a peer's state, its receiver and its providers.
pub(super) struct Driver<T, TP> {
    handle: PeerHandle,
    receiver: Receiver,
    time: T,
    task: TP,
    max_payload: usize,
    _guard: EndGuard,
}

/// A stream and what was read from it and not handled yet.
struct Connection<S> {
    stream: S,
    reader: PacketReader,
    block: Option<Block>,
    needs_flush: bool,
    needs_shutdown: bool,
}

/// How far reading or writing got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The stream, or the receiver, has to wake the task.
    Blocked,
    /// This poll has done enough.
    OutOfBudget,
}

impl<T: TimeProvider, TP: TaskProvider> Driver<T, TP> {
    pub(super) fn new(
        handle: PeerHandle,
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
            handle: handle.clone(),
            inbox,
        };
        let max_payload = config.max_payload_bytes as usize;
        Self {
            handle,
            receiver,
            time,
            task,
            max_payload,
            _guard: guard,
        }
    }

    /// Dials, converses, backs off, until the state says that it is over.
    pub(super) async fn dial<N: NetworkProvider>(self, network: N) {
        let mut timer = pin!(Timer::new(self.time.clone()));
        while self.wait_for_dial(timer.as_mut()).await {
            let connected = self.connect(&network, timer.as_mut()).await;
            let now = self.time.now();
            match connected {
                Ok(stream) => {
                    let session =
                        UID::new(self.task.internal_random(), self.task.internal_random());
                    self.handle.state().handle_connected(now, session);
                    self.converse(stream, timer.as_mut()).await;
                }
                Err(cause) => self.handle_closed(cause),
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
        self.converse(stream, timer.as_mut()).await;
        self.finish();
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

    async fn connect<N: NetworkProvider>(
        &self,
        network: &N,
        mut timer: Pin<&mut Timer<T>>,
    ) -> Result<N::TcpStream, ConnectionError> {
        let mut connecting = pin!(network.connect(self.handle.peer_name()));
        poll_fn(|cx| {
            self.handle.begin_turn(cx);
            loop {
                let now = self.time.now();
                match self.decide(now) {
                    Action::Disconnect(cause) => return Poll::Ready(Err(cause)),
                    Action::Finish => return Poll::Ready(Err(ConnectionError::Closed)),
                    Action::Wait | Action::Connect | Action::Shutdown => {}
                }
                if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                    return Poll::Ready(
                        connected.map_err(|error| ConnectionError::connect(&error)),
                    );
                }
                if self.must_wait(cx, now, timer.as_mut()) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Reads and writes until the connection is over.
    async fn converse<S>(&self, stream: S, mut timer: Pin<&mut Timer<T>>)
    where
        S: tokio::io::AsyncRead + AsyncWrite + TcpStreamTrait + Unpin,
    {
        if let Err(error) = stream.set_nodelay(true) {
            // The connection is as good as gone: the first read will say so.
            tracing::debug!(peer = self.handle.peer_name(), %error, "cannot set nodelay");
        }
        let mut connection = Connection {
            stream,
            reader: PacketReader::new(self.max_payload),
            block: None,
            needs_flush: false,
            needs_shutdown: false,
        };
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
        S: tokio::io::AsyncRead + AsyncWrite + Unpin,
    {
        self.handle.begin_turn(cx);
        let mut budget = TURN_BYTES;
        loop {
            let now = self.time.now();
            match self.decide(now) {
                Action::Disconnect(cause) => return Poll::Ready(cause),
                Action::Finish => return Poll::Ready(ConnectionError::Closed),
                Action::Shutdown => connection.needs_shutdown = true,
                Action::Wait | Action::Connect => {}
            }
            let advanced = self
                .poll_read(cx, connection, now, &mut budget)
                .and_then(|read| Ok((read, self.poll_write(cx, connection)?)));
            let (read, written) = match advanced {
                Ok(advanced) => advanced,
                Err(cause) => return Poll::Ready(cause),
            };
            if let Err(cause) = self.poll_last(cx, connection) {
                return Poll::Ready(cause);
            }
            if read == Progress::OutOfBudget || written == Progress::OutOfBudget {
                // Still scheduled: others go first, then this task is polled again.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.must_wait(cx, now, timer.as_mut()) {
                return Poll::Pending;
            }
        }
    }

    /// Reads and hands out packets until nothing more is there, or nothing more is taken.
    fn poll_read<S>(
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
                return Ok(Progress::Blocked);
            }
            if *budget == 0 {
                return Ok(Progress::OutOfBudget);
            }
            let read = pin!(connection.stream.read_buf(connection.reader.buffer())).poll(cx);
            match read {
                Poll::Pending => return Ok(Progress::Blocked),
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

    /// Hands out the complete packets that were read. False: the receiver takes no more now.
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
            if self.receiver.is_full() {
                return Ok(false);
            }
            let Some((token, payload, bytes)) = block.next_packet()? else {
                connection.block = None;
                continue;
            };
            let inbound = self.handle.state().handle_packet(now, token, payload)?;
            if let Inbound::Deliver {
                token,
                payload,
                reliable,
            } = inbound
            {
                let packet = ReceivedPacket::new(token, payload, reliable, bytes);
                self.receiver.deliver(&self.handle, packet);
            }
        }
    }

    /// Writes what can be written.
    fn poll_write<S>(
        &self,
        cx: &mut Context<'_>,
        connection: &mut Connection<S>,
    ) -> Result<Progress, ConnectionError>
    where
        S: AsyncWrite + Unpin,
    {
        let mut budget = TURN_BYTES;
        loop {
            if budget == 0 {
                return Ok(Progress::OutOfBudget);
            }
            let batch = {
                let mut state = self.handle.state();
                state.lay_out();
                state.take_batch()
            };
            if batch.is_empty() {
                return Ok(Progress::Blocked);
            }
            let mut slices = [IoSlice::new(&[]); BATCH_SLICES];
            let count = batch.slices(&mut slices);
            let pieces = slices.get(..count).unwrap_or_default();
            let written = Pin::new(&mut connection.stream).poll_write_vectored(cx, pieces);
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
    fn poll_last<S>(
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

    /// What the state wants done now. Passes on what it has to report.
    fn decide(&self, now: Duration) -> Action {
        self.handle.take_dirty();
        let action = {
            let mut state = self.handle.state();
            state.handle_timeout(now);
            state.poll_action(now)
        };
        self.report_events();
        action
    }

    /// Whether there is nothing to do but wait. Arms the timer, and lets handles wake the task.
    fn must_wait(&self, cx: &mut Context<'_>, now: Duration, timer: Pin<&mut Timer<T>>) -> bool {
        self.report_events();
        self.handle.wake_ready();
        let (deadline, is_due) = {
            let state = self.handle.state();
            (state.poll_timeout(now), state.has_more_to_do())
        };
        if is_due || timer.poll(cx, now, deadline).is_ready() || self.handle.take_dirty() {
            return false;
        }
        self.handle.end_turn();
        true
    }

    fn handle_closed(&self, cause: ConnectionError) {
        tracing::debug!(peer = self.handle.peer_name(), %cause, "no connection");
        let now = self.time.now();
        let jitter = self.task.internal_random();
        self.handle.state().handle_closed(now, cause, jitter);
        self.report_events();
        self.handle.wake_ready();
    }

    fn report_events(&self) {
        loop {
            let event = self.handle.state().poll_event();
            match event {
                Some(event) => self.receiver.report(&self.handle, event),
                None => return,
            }
        }
    }

    fn finish(self) {
        self.report_events();
        tracing::debug!(peer = self.handle.peer_name(), "finished");
        if let Receiver::Sink(sink) = &self.receiver {
            sink.handle_finished(&self.handle);
        }
    }
}
