//! One logical connection to one address, kept alive.
//!
//! A [`Peer`] queues packets, connects, writes many packets at once, reads many at once, and
//! reconnects with backoff. What it decides is plain data without I/O (`state.rs`); one task
//! per peer does it (`driver.rs`). It refuses to know what the packets mean.

mod backoff;
mod budget;
mod config;
mod driver;
mod error;
mod exchange;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod handle;
mod inbox;
#[cfg(feature = "metrics")]
mod instruments;
mod kept_payloads;
mod log;
mod metrics;
pub mod observability;
mod outbox;
mod packet;
#[cfg(feature = "sim")]
mod packet_probe;
mod read_memory;
mod reader;
mod receiver;
mod refusals;
mod session;
mod session_acceptor;
mod session_hub;
mod session_table;
mod slot;
mod state;
mod tail;
mod terms;
mod timer;
mod waiters;
#[cfg(test)]
mod wire_format;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;

use bytes::Bytes;

use crate::messaging::UID;
use crate::network::NetworkProvider;
use crate::task::{JoinHandle, TaskProvider};
use crate::time::TimeProvider;

pub use config::{PeerConfig, PeerConfigError};
pub use error::{ConnectionError, PeerError, ProtocolError, SendError};
pub use handle::{CloseOutcome, PeerHandle, PeerWatch};
pub use kept_payloads::KeptPayloads;
pub use metrics::PeerMetrics;
pub use packet::{
    ConnectionChange, PacketId, PeerId, PeerSink, ReceivedPacket, SessionEnded, Withdrawal,
};
#[cfg(feature = "sim")]
pub use packet_probe::PacketProbe;
pub use session::{SessionIdentity, SessionMode};
pub use session_acceptor::{AcceptLimits, Acceptance, SessionAcceptor, SessionOwner};
pub use tail::{NOTED_BYTES, NotedChecksum, Tail};
pub use terms::{Account, AnswerSlot, Expiry, PacketTerms};

use driver::Driver;
use inbox::{Inbox, Taken};
use receiver::Receiver;
use state::PeerState;

/// A peer and its task. Dropping it ends the task at once; [`close`](PeerHandle::close) ends it in
/// order. Everything a [`PeerHandle`] does, it does too.
///
/// A *bare* peer ([`new`](Self::new), [`new_incoming`](Self::new_incoming)) speaks plain packets
/// and has an inbox. One [with a sink](Self::with_sink) hands packets out as they are read, and can
/// speak acknowledged sessions.
///
/// When it dials: a plain peer dials at once and again after each loss, for as long as it exists,
/// since the other end may have something to say. An acknowledged one dials when a reliable packet
/// is queued or unacknowledged, while [replies are expected](PeerSink::expects_replies), while it is
/// [watched](PeerHandle::watch), and while something was sent within the last 3 s.
///
/// When it notices that the other end is gone: in acknowledged mode, while any of the first three is
/// the case, a connection that brings no packet for 1 s is asked for a sign of life, and given up if
/// none comes within 2 s. One that nobody needs is not asked, and closes once it was idle for
/// [`idle_close`](PeerConfig::idle_close).
///
/// ```
/// use moonpool_foundation::{
///     NetworkProvider, Peer, PeerConfig, Providers, TcpListenerTrait, TokioProviders, UID,
/// };
///
/// async fn greet<P: Providers>(p: P) -> Result<(), Box<dyn std::error::Error>> {
///     let (network, time, task) = (p.network(), p.time(), p.task());
///     let listener = network.bind("127.0.0.1:0").await?;
///     let dialler = Peer::new(
///         network.clone(), time.clone(), task.clone(),
///         listener.local_addr()?, PeerConfig::default(),
///     );
///     dialler.send_reliable(UID::new(1, 2), "hello".into())?;
///
///     let (stream, from) = listener.accept().await?;
///     let accepted = Peer::<P::Network, _, _>::new_incoming(
///         stream, from, time.clone(), task.clone(), PeerConfig::default(),
///     );
///     assert_eq!(accepted.receive().await?, (UID::new(1, 2), "hello".into()));
///     Ok(())
/// }
/// # let runtime = tokio::runtime::Builder::new_current_thread()
/// #     .enable_all().build_local(Default::default())?;
/// # runtime.block_on(greet(TokioProviders::new()))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Peer<N, T, TP> {
    handle: PeerHandle,
    inbox: Option<Rc<Inbox>>,
    driver: JoinHandle<()>,
    /// Which providers the task uses: they are its own.
    providers: PhantomData<(N, T, TP)>,
}

impl<N: NetworkProvider, T: TimeProvider, TP: TaskProvider> Peer<N, T, TP> {
    /// A bare peer that dials `address` (`ip:port`, `[v6]:port` or `name:port`).
    pub fn new(
        network: N,
        time: T,
        task: TP,
        address: impl Into<String>,
        config: PeerConfig,
    ) -> Self {
        let inbox = Rc::new(Inbox::new(config.inbox_packets));
        let state = PeerState::dialling(config.clone(), SessionMode::Plain);
        let handle = PeerHandle::new(PeerId::default(), address.into(), state);
        let receiver = Receiver::Inbox(Rc::clone(&inbox));
        let driver = Driver::new(&handle, receiver, time, task.clone(), &config);
        let driver = task.spawn_driver(task_name(&handle), driver.dial(network));
        Self::assemble(handle, Some(inbox), driver)
    }

    /// A bare peer on a connection that was accepted. It ends with that connection.
    pub fn new_incoming(
        stream: N::TcpStream,
        peer_address: String,
        time: T,
        task: TP,
        config: PeerConfig,
    ) -> Self {
        let inbox = Rc::new(Inbox::new(config.inbox_packets));
        let state = PeerState::accepted(config.clone(), SessionMode::Plain, time.now());
        let handle = PeerHandle::new(PeerId::default(), peer_address, state);
        let receiver = Receiver::Inbox(Rc::clone(&inbox));
        let driver = Driver::new(&handle, receiver, time, task.clone(), &config);
        let driver = task.spawn_driver(task_name(&handle), driver.serve(stream));
        Self::assemble(handle, Some(inbox), driver)
    }

    /// A peer that dials `address` and hands what arrives to `sink`, under the name `id`.
    #[expect(
        clippy::too_many_arguments,
        reason = "three of them are the providers, which always travel together"
    )]
    pub fn with_sink(
        network: N,
        time: T,
        task: TP,
        address: impl Into<String>,
        config: PeerConfig,
        mode: SessionMode,
        id: PeerId,
        sink: Rc<dyn PeerSink>,
    ) -> Self {
        let state = PeerState::dialling(config.clone(), mode);
        let handle = PeerHandle::new(id, address.into(), state);
        let receiver = Receiver::Sink(sink);
        let driver = Driver::new(&handle, receiver, time, task.clone(), &config);
        let driver = task.spawn_driver(task_name(&handle), driver.dial(network));
        Self::assemble(handle, None, driver)
    }

    /// A peer on a connection that was accepted, which hands what arrives to `sink`. In
    /// acknowledged mode the other end has `connect_timeout` to send its Hello, every Hello is
    /// answered with a fresh session, and that ends with the connection. A [`SessionAcceptor`] makes
    /// peers that outlive their connections.
    #[expect(
        clippy::too_many_arguments,
        reason = "two of them are the providers, which always travel together"
    )]
    pub fn incoming_with_sink(
        stream: N::TcpStream,
        peer_address: String,
        time: T,
        task: TP,
        config: PeerConfig,
        mode: SessionMode,
        id: PeerId,
        sink: Rc<dyn PeerSink>,
    ) -> Self {
        let state = PeerState::accepted(config.clone(), mode, time.now());
        let handle = PeerHandle::new(id, peer_address, state);
        let receiver = Receiver::Sink(sink);
        let driver = Driver::new(&handle, receiver, time, task.clone(), &config);
        let driver = task.spawn_driver(task_name(&handle), driver.serve(stream));
        Self::assemble(handle, None, driver)
    }

    fn assemble(handle: PeerHandle, inbox: Option<Rc<Inbox>>, driver: JoinHandle<()>) -> Self {
        Self {
            handle,
            inbox,
            driver,
            providers: PhantomData,
        }
    }

    /// Lets the peer close when it is idle, although it is held: for owners that drop it when it has
    /// [finished](PeerSink::handle_finished). Peers with a sink only close for being idle after this.
    #[must_use]
    pub fn closing_when_idle(self) -> Self {
        let mut this = self;
        this.handle = this.handle.untracked();
        this
    }

    /// The handle, to clone and keep.
    #[must_use]
    pub fn handle(&self) -> &PeerHandle {
        &self.handle
    }

    /// The next packet that arrived, waiting for one if there is none. Packets that arrived before
    /// the peer ended are still given.
    ///
    /// # Errors
    /// [`PeerError::Closed`] once the peer has ended, and at once if it has a sink.
    ///
    /// # Cancel safety
    /// No packet is lost when the future is dropped.
    pub async fn receive(&self) -> Result<(UID, Bytes), PeerError> {
        let closed = PeerError::Closed { payload: None };
        match &self.inbox {
            Some(inbox) => {
                let taken = inbox.wait().await;
                self.accept(taken).ok_or(closed)
            }
            None => Err(closed),
        }
    }

    /// The next packet that arrived, if there is one. Always `None` if the peer has a sink.
    pub fn try_receive(&self) -> Option<(UID, Bytes)> {
        let taken = self.inbox.as_ref()?.take()?;
        self.accept(taken)
    }

    fn accept(&self, taken: Taken) -> Option<(UID, Bytes)> {
        match taken {
            Taken::Packet {
                token,
                payload,
                made_room,
            } => {
                if made_room {
                    self.handle.signal();
                }
                Some((token, payload))
            }
            Taken::Ended => None,
        }
    }

    /// The next report of packets that were, or may have been, lost with a connection. Up to 64
    /// wait; older ones are forgotten and counted in
    /// [`reports_forgotten`](PeerMetrics::reports_forgotten). Always `None` if the peer has a sink.
    pub fn try_session_ended(&self) -> Option<SessionEnded> {
        self.inbox.as_ref()?.take_report()
    }

    /// The peer's gauges and counters now, those of the inbox included.
    #[must_use]
    pub fn metrics(&self) -> PeerMetrics {
        let metrics = self.handle.metrics();
        match &self.inbox {
            Some(inbox) => PeerMetrics {
                inbox_packets: inbox.len(),
                reports_forgotten: inbox.forgotten(),
                ..metrics
            },
            None => metrics,
        }
    }
}

fn task_name(handle: &PeerHandle) -> String {
    format!("peer {}", handle.peer_name())
}

impl<N, T, TP> Deref for Peer<N, T, TP> {
    type Target = PeerHandle;

    fn deref(&self) -> &PeerHandle {
        &self.handle
    }
}

impl<N, T, TP> Drop for Peer<N, T, TP> {
    fn drop(&mut self) {
        self.handle.handle_dropped();
        self.driver.abort();
    }
}

impl<N, T, TP> fmt::Debug for Peer<N, T, TP> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}
