//! Greets accepted connections, and gives each session, and each address, one peer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::collections::HashMap;
use crate::messaging::{NetworkAddress, UID, WellKnownToken, serialize_packet};
use crate::network::NetworkProvider;
use crate::task::{JoinHandle, TaskProvider};
use crate::time::TimeProvider;

use super::config::PeerConfig;
use super::driver::{Connection, Driver};
use super::error::{ConnectionError, ProtocolError};
use super::handle::PeerHandle;
use super::log::{self, LogLimit};
use super::packet::{PacketId, PeerId, PeerSink};
use super::read_memory::ReadMemory;
use super::receiver::Receiver;
use super::session::{Hello, HelloAnswer, HelloKind, SessionIdentity, SessionMode, VERSION};
use super::session_hub::{Admitted, Arrival, PassedOver, SessionHub};
use super::slot::{Keeper, Kept, Permit, Slot};
use super::state::PeerState;
use super::{Peer, task_name};

/// Sessions that are kept at most, those without a connection included, unless configured.
pub(super) const MAX_SESSIONS: usize = 65_536;

/// Connections that may be without a complete Hello at one time, unless configured.
pub(super) const MAX_HANDSHAKES: usize = 1_024;

/// Connections that may be accepted at one time, unless configured.
const MAX_CONNECTIONS: usize = 16_384;

/// How many accepted connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Those that are being greeted or carry a session, 16,384. One more is closed at once.
    pub connections: usize,
    /// Those without a complete Hello, 1,024, and half of `connections` at most. For one more the oldest
    /// of them is closed: whoever connects and says nothing keeps nobody out.
    pub handshakes: usize,
    /// Sessions that are kept, those without a connection included, 65,536. For one more the one that
    /// has been without a connection for longest ends; while all have one, no more are accepted.
    pub sessions: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            handshakes: MAX_HANDSHAKES,
            sessions: MAX_SESSIONS,
        }
    }
}

impl AcceptLimits {
    fn greetings(&self) -> usize {
        self.handshakes.min(self.connections / 2).max(1)
    }
}

/// What became of a connection that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is being greeted.
    Greeted,
    /// It is being greeted, and the one that was without a Hello for longest was closed for it.
    GreetedForOldest,
    /// There are too many, and it is closed.
    Refused,
}

/// Bytes of the largest first packet: a Hello of a later version may be longer than ours.
pub(super) const MAX_HELLO_BYTES: usize = 1_024;

/// Owns the peers of a transport's sessions: each until it is finished, or evicted.
pub trait SessionOwner<N, T, TP> {
    /// The id of a peer that may be made: one that no other has or had.
    fn next_id(&self) -> PeerId;

    /// A session was accepted. Dropping the peer ends it. If it serves an address, what is sent there
    /// from now on is to be sent with this peer.
    fn adopt(&self, peer: Peer<N, T, TP>, serves: Option<NetworkAddress>);

    /// There are too many sessions: drop this one's peer, which has been without a connection for
    /// longest.
    fn evict(&self, peer: PeerId);

    /// The process at the other end of `from` is gone, and `to` leads to its successor: `from` ends,
    /// its address passes over, and so did its packets, which are given by the ids that they had
    /// and that they have now, in order.
    fn pass_over(&self, from: PeerId, to: &PeerHandle, packets: Vec<(PacketId, PacketId)>);
}

/// Makes a transport's peers: those that dial an address, and those of sessions that others began.
/// Each address has one at most, whoever dialled.
///
/// A connection whose Hello is for a known session is handed to that session's peer, and the
/// peer's older connection, if it has one, is dropped unread. One whose Hello names an address
/// that a peer without a connection dials is that peer's, so that two ends which dial each other
/// meet on one connection. A session is kept for 60 s without a connection.
///
/// Dropping it ends the greetings that are going on; peers stay, and get no further connections.
pub struct SessionAcceptor<N: NetworkProvider, T: TimeProvider, TP: TaskProvider> {
    shared: Rc<Shared<N, T, TP>>,
}

struct Shared<N: NetworkProvider, T, TP> {
    this: Weak<Self>,
    network: N,
    time: T,
    task: TP,
    config: PeerConfig,
    sink: Rc<dyn PeerSink>,
    owner: Rc<dyn SessionOwner<N, T, TP>>,
    hub: RefCell<SessionHub>,
    slots: RefCell<HashMap<PeerId, Rc<Slot<N::TcpStream>>>>,
    greetings: RefCell<BTreeMap<u64, JoinHandle<()>>>,
    next_greeting: Cell<u64>,
    limits: Cell<AcceptLimits>,
    connections: Rc<Cell<usize>>,
    /// What connections read into.
    reads: RefCell<Rc<ReadMemory>>,
    /// What strangers may cause to be logged.
    log_limit: Rc<LogLimit>,
}

impl<N: NetworkProvider, T: TimeProvider, TP: TaskProvider> SessionAcceptor<N, T, TP> {
    /// Without connections yet. What arrives on sessions goes to `sink`.
    pub fn new(
        network: N,
        time: T,
        task: TP,
        config: PeerConfig,
        identity: SessionIdentity,
        sink: Rc<dyn PeerSink>,
        owner: Rc<dyn SessionOwner<N, T, TP>>,
    ) -> Self {
        let hub = SessionHub::new(config.clone(), identity, MAX_SESSIONS);
        let shared = Rc::new_cyclic(|this| Shared {
            this: this.clone(),
            network,
            time,
            task,
            config,
            sink,
            owner,
            hub: RefCell::new(hub),
            slots: RefCell::default(),
            greetings: RefCell::default(),
            next_greeting: Cell::new(0),
            limits: Cell::default(),
            connections: Rc::default(),
            reads: RefCell::new(Rc::new(ReadMemory::new(usize::MAX))),
            log_limit: Rc::default(),
        });
        Self { shared }
    }

    /// All sessions together hold about so many bytes of answers and refusals at most: each of them
    /// what is still free, so that those which do not read leave room for those which do. To be
    /// called before there are any.
    #[must_use]
    pub fn with_answer_budget(self, bytes: usize) -> Self {
        self.shared.hub.borrow_mut().limit_answers(bytes);
        self
    }

    /// All connections together read into about so many bytes at most: their buffers, and packets
    /// that are not complete. Beyond half of it reads are small and buffers are not kept; a connection
    /// whose packet does not fit is dropped, and its session goes on with the next. To be called
    /// before there are any.
    #[must_use]
    pub fn with_read_budget(self, bytes: usize) -> Self {
        let budget = Rc::new(ReadMemory::new(bytes));
        self.shared.reads.replace(budget);
        self
    }

    /// The peer that dials this address. There must be none that serves it.
    pub fn dial(&self, address: &NetworkAddress, id: PeerId) -> Peer<N, T, TP> {
        let shared = &self.shared;
        let mode = SessionMode::Acknowledged(shared.hub.borrow().identity());
        let state = PeerState::dialling(shared.config.clone(), mode);
        let handle = PeerHandle::new(id, address.socket_addr().to_string(), state);
        shared.hub.borrow_mut().open(handle.untracked(), address);
        shared.start(handle, Rc::default())
    }

    /// Ends the greetings that are going on.
    pub fn end_greetings(&self) {
        let greetings = self.shared.greetings.take();
        for greeting in greetings.into_values() {
            greeting.abort();
        }
    }

    /// What is accepted from now on has these limits.
    pub fn set_limits(&self, limits: AcceptLimits) {
        self.shared.limits.set(limits);
        self.shared.hub.borrow_mut().set_limit(limits.sessions);
    }

    /// Greets a connection, for at most `connect_timeout`, if the limits allow it.
    pub fn accept(&self, stream: N::TcpStream, peer_address: String) -> Acceptance {
        let shared = &self.shared;
        let limits = shared.limits.get();
        let is_crowded = shared.greetings.borrow().len() >= limits.greetings();
        // One that is evicted may take a turn of its task to be gone.
        let others = self.connections() - usize::from(is_crowded).min(self.connections());
        if others >= limits.connections {
            return Acceptance::Refused;
        }
        if is_crowded {
            self.evict_oldest_greeting();
        }
        self.greet(stream, peer_address);
        if is_crowded {
            Acceptance::GreetedForOldest
        } else {
            Acceptance::Greeted
        }
    }

    fn evict_oldest_greeting(&self) {
        let oldest = self.shared.greetings.borrow_mut().pop_first();
        if let Some((_, greeting)) = oldest {
            tracing::debug!("the oldest of too many connections without a Hello is closed");
            greeting.abort();
        }
    }

    fn greet(&self, stream: N::TcpStream, peer_address: String) {
        let shared = &self.shared;
        let number = shared.next_greeting.get();
        shared.next_greeting.set(number + 1);
        let permit = Permit::new(&shared.connections);
        let limit = shared.config.connect_timeout;
        let (time, weak) = (shared.time.clone(), shared.this.clone());
        let greeting = async move {
            let name = peer_address.clone();
            let greeted = time.timeout(limit, greet(&weak, stream, peer_address, permit));
            let ended = match greeted.await {
                Ok(Ok(())) => None,
                Ok(Err(cause)) => Some(cause),
                Err(_elapsed) => Some(ConnectionError::TimedOut { after: limit }),
            };
            if let Some(cause) = ended {
                #[cfg(feature = "metrics")]
                super::instruments::note_refused();
                if let Some(shared) = weak.upgrade() {
                    log::note_refused(&shared.log_limit, time.now(), &name, &cause);
                }
            }
            if let Some(shared) = weak.upgrade() {
                let done = shared.greetings.borrow_mut().remove(&number);
                drop(done);
            }
        };
        let task = shared.task.spawn_driver("moonpool-greeting", greeting);
        shared.greetings.borrow_mut().insert(number, task);
    }

    /// Connections that are being greeted or carry a session.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.get()
    }
}

impl<N: NetworkProvider, T: TimeProvider, TP: TaskProvider> Drop for SessionAcceptor<N, T, TP> {
    fn drop(&mut self) {
        self.end_greetings();
    }
}

impl<N: NetworkProvider, T: TimeProvider, TP: TaskProvider> fmt::Debug
    for SessionAcceptor<N, T, TP>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionAcceptor")
            .field("identity", &self.shared.hub.borrow().identity())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// Reads the Hello, and does what it leads to.
async fn greet<N, T, TP>(
    shared: &Weak<Shared<N, T, TP>>,
    stream: N::TcpStream,
    peer_address: String,
    permit: Permit,
) -> Result<(), ConnectionError>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    let mut connection = Connection::new(stream, &peer_address, MAX_HELLO_BYTES);
    let hello = read_hello(&mut connection).await?;
    let Some(owner) = shared.upgrade() else {
        return Err(ConnectionError::Closed);
    };
    let (refusal, cause) = match hello {
        HelloKind::Compatible(hello) => {
            match owner.admit(&hello, connection, peer_address, permit)? {
                Some(refused) => (refused, None),
                None => return Ok(()),
            }
        }
        HelloKind::Incompatible {
            version_min,
            version_max,
        } => {
            let incarnation = owner.hub.borrow().identity().incarnation;
            let answer = HelloAnswer::incompatible(incarnation, VERSION, VERSION);
            let cause = ConnectionError::Incompatible {
                version_min,
                version_max,
            };
            ((connection, answer, permit), Some(cause))
        }
    };
    drop(owner);
    let (mut connection, answer, _permit) = refusal;
    refuse(&mut connection.stream, &answer).await?;
    cause.map_or(Ok(()), Err)
}

async fn read_hello<S>(connection: &mut Connection<S>) -> Result<HelloKind, ConnectionError>
where
    S: tokio::io::AsyncRead + Unpin,
{
    loop {
        if let Some(mut block) = connection.reader.next_block()?
            && let Some((token, payload, _)) = block.next_packet()?
        {
            if token != WellKnownToken::Hello.token() {
                return Err(ProtocolError::NoHello { token }.into());
            }
            let hello = Hello::decode(payload)?;
            connection.block = Some(block);
            return Ok(hello);
        }
        let read = connection.stream.read_buf(connection.reader.buffer());
        match read.await {
            Ok(0) => return Err(ConnectionError::Ended),
            Ok(bytes) => connection.reader.handle_read(bytes),
            Err(error) => return Err(ConnectionError::lost(&error)),
        }
    }
}

/// Says why there will be no session, and waits for the other end to have read it: dropping the
/// stream earlier could reset it.
async fn refuse<S>(stream: &mut S, answer: &HelloAnswer) -> Result<(), ConnectionError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let token = WellKnownToken::HelloAnswer.token();
    let packet = serialize_packet(token, &answer.encode());
    let lost = |error: std::io::Error| ConnectionError::lost(&error);
    stream.write_all(&packet).await.map_err(lost)?;
    stream.shutdown().await.map_err(lost)?;
    let mut ignored = [0; 256];
    while stream.read(&mut ignored).await.map_err(lost)? > 0 {}
    Ok(())
}

/// A connection that is to be told something else than that it carries a session.
type Refused<S> = (Connection<S>, HelloAnswer, Permit);

impl<N: NetworkProvider, T: TimeProvider, TP: TaskProvider> Shared<N, T, TP> {
    /// Begins or resumes the session that the Hello is for.
    fn admit(
        &self,
        hello: &Hello,
        mut connection: Connection<N::TcpStream>,
        peer_address: String,
        permit: Permit,
    ) -> Result<Option<Refused<N::TcpStream>>, ConnectionError> {
        connection
            .reader
            .allow(self.config.max_payload_bytes as usize);
        let arrival = Arrival {
            now: self.time.now(),
            hello,
            new_peer: self.owner.next_id(),
            new_session: UID::new(self.task.internal_random(), self.task.internal_random()),
            name: peer_address,
            jitter: self.task.internal_random(),
        };
        let admitted = self.hub.borrow_mut().admit(arrival);
        let evicted = match admitted {
            Admitted::Refused(answer) => return Ok(Some((connection, answer, permit))),
            Admitted::Dropped(cause) => return Err(cause),
            Admitted::Broken(peer, cause) => {
                self.slot(&peer).fence();
                peer.signal();
                return Err(cause);
            }
            Admitted::Attached { peer, evicted } => {
                tracing::debug!(peer = %peer.id(), "a connection was attached");
                connection.permit = Some(permit);
                self.slot(&peer).put(connection);
                peer.signal();
                evicted
            }
            Admitted::Begun {
                peer,
                address,
                evicted,
                contested,
            } => {
                connection.permit = Some(permit);
                let slot = Rc::<Slot<_>>::default();
                slot.put(connection);
                self.owner.adopt(self.start(peer, slot), address);
                if let Some(contested) = contested {
                    contested.signal();
                }
                evicted
            }
        };
        if let Some(evicted) = evicted {
            self.owner.evict(evicted);
        }
        Ok(None)
    }

    /// Where the peer's next connection is to be put.
    fn slot(&self, peer: &PeerHandle) -> Rc<Slot<N::TcpStream>> {
        let slots = self.slots.borrow();
        slots.get(&peer.id()).cloned().unwrap_or_default()
    }

    fn start(&self, handle: PeerHandle, slot: Rc<Slot<N::TcpStream>>) -> Peer<N, T, TP> {
        self.slots
            .borrow_mut()
            .insert(handle.id(), Rc::clone(&slot));
        let receiver = Receiver::Sink(Rc::clone(&self.sink));
        let (time, task) = (self.time.clone(), self.task.clone());
        let driver = Driver::new(&handle, receiver, time, task, &self.config)
            .logging_within(&self.log_limit);
        let kept = Kept {
            keeper: self.this.clone(),
            peer: handle.id(),
            reads: Rc::clone(&self.reads.borrow()),
        };
        let driver = driver.link(self.network.clone(), slot, kept);
        let driver = self.task.spawn_driver(task_name(&handle), driver);
        Peer::assemble(handle, None, driver).closing_when_idle()
    }
}

impl<N: NetworkProvider, T: TimeProvider, TP: TaskProvider> Keeper for Shared<N, T, TP> {
    fn handle_detached(&self, peer: PeerId) {
        self.hub.borrow_mut().handle_detached(peer);
    }

    fn handle_answered(&self, peer: PeerId) {
        self.hub.borrow_mut().handle_answered(peer);
    }

    fn prepare_close(&self, peer: PeerId) {
        self.hub.borrow_mut().prepare_close(peer);
    }

    fn prepare_dial(&self, peer: PeerId) -> bool {
        self.hub.borrow_mut().prepare_dial(peer)
    }

    fn pass_over(&self, peer: PeerId) {
        let passed = self.hub.borrow_mut().pass_over(peer);
        if let Some(PassedOver { to, packets }) = passed {
            tracing::debug!(from = %peer, to = %to.id(), "an address passes over");
            self.owner.pass_over(peer, &to, packets);
            to.signal();
        }
    }

    fn forget(&self, peer: PeerId) {
        let handle = self.hub.borrow_mut().forget(peer);
        let slot = self.slots.borrow_mut().remove(&peer);
        drop((handle, slot));
    }
}
