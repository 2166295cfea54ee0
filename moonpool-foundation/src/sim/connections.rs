//! Sockets of the simulated network: what exists, who owns it, how it is made and how it ends.
//! How bytes move is in `delivery`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use super::addresses::{Ports, collide, destination, is_reached};
use super::clock::SimInstant;
use super::events::EventKey;
use super::faults::{ConnectFailure, Occasion};
use super::links::Links;
use super::pipe::Pipe;
use super::process::{Death, ProcessId, ProcessRef};
use super::slab::{Key, Slab};
use super::world::{Event, World};
use crate::chaos::FaultTarget;

pub use super::connection::Side;
pub(super) use super::connection::{Connection, End, EndState};

pub(crate) type ConnectionId = Key;
pub(crate) type ListenerId = Key;
pub(crate) type AttemptId = Key;

/// Connections that a listener keeps until they are accepted; beyond it a connect is tried again.
const BACKLOG: usize = 1024;
/// When a connect that met a full backlog is tried again, as Linux does with its first SYN.
const CONNECT_RETRY: Duration = Duration::from_secs(1);
/// The longest pause between two tries. After it comes the end, two minutes after the first try.
const LAST_CONNECT_RETRY: Duration = Duration::from_secs(64);
/// When a connect to an address that no host has gives up, as ARP does.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Listener {
    owner: ProcessRef,
    local: SocketAddr,
    pending: VecDeque<ConnectionId>,
    acceptors: Slab<Waker>,
}

/// A connect under way.
#[derive(Debug)]
pub(super) struct Attempt {
    owner: ProcessRef,
    local: SocketAddr,
    remote: SocketAddr,
    /// The way back, once it has arrived.
    back: Duration,
    outcome: Outcome,
    event: Option<EventKey>,
    waker: Option<Waker>,
    /// How long to wait before it is tried again.
    retry: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Unknown,
    Connected(ConnectionId),
    Failed(io::ErrorKind),
    /// Nobody will ever answer.
    Hangs,
    /// It had made a connection, whose port it no longer owns, and never heard of it.
    Abandoned,
}

/// What a future learns when it asks.
#[derive(Debug)]
pub(crate) enum Asked<T> {
    Ready(T),
    /// Not yet; the task that asks will be woken, and what it waits for is noted.
    Noted,
    /// Not yet, and the waker that is kept would wake the asker.
    Parked,
    /// Not yet, and the asker's waker must be stored first.
    Park,
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(super) connections: Slab<Connection>,
    pub(super) links: Links,
    pub(super) listeners: Slab<Listener>,
    pub(super) attempts: Slab<Attempt>,
    /// Who listens on a port of a process; several only on different addresses.
    pub(super) bound: BTreeMap<(ProcessId, u16), Vec<ListenerId>>,
    pub(super) ports: BTreeMap<ProcessId, Ports>,
}

impl Network {
    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn listeners(&self) -> usize {
        self.listeners.len()
    }

    fn take_port(&mut self, process: ProcessId) -> io::Result<u16> {
        let bound = &self.bound;
        let ports = self.ports.entry(process).or_default();
        ports
            .take(|port| bound.contains_key(&(process, port)))
            .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    fn release_port(&mut self, process: ProcessId, port: u16) {
        if let Some(ports) = self.ports.get_mut(&process) {
            ports.release(port);
        }
    }

    /// The listener that a connect to `remote` on `process` meets.
    fn listening(&self, process: ProcessId, remote: SocketAddr) -> Option<ListenerId> {
        let bound = self.bound.get(&(process, remote.port()))?;
        bound.iter().copied().find(|id| {
            self.listeners
                .get(*id)
                .is_some_and(|listener| is_reached(listener.local.ip(), remote.ip()))
        })
    }
}

impl World {
    /// Binds a listener at once; the caller has waited the latency.
    pub(crate) fn bind(
        &mut self,
        owner: ProcessRef,
        mut local: SocketAddr,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let ip = local.ip();
        let is_own = self.processes.get(owner.id).has_ip(ip);
        if !(ip.is_unspecified() || ip.is_loopback() || is_own) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let network = &mut self.network;
        if local.port() == 0 {
            local.set_port(network.take_port(owner.id)?);
        }
        let bound = network.bound.entry((owner.id, local.port())).or_default();
        let taken = bound.iter().any(|id| {
            network
                .listeners
                .get(*id)
                .is_some_and(|listener| collide(listener.local.ip(), ip))
        });
        if taken {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = network.listeners.insert(Listener {
            owner,
            local,
            pending: VecDeque::new(),
            acceptors: Slab::default(),
        });
        bound.push(id);
        Ok((id, local))
    }

    /// Unbinds; connections that nobody accepted are reset.
    pub(crate) fn close_listener(&mut self, id: ListenerId) {
        let Some(listener) = self.network.listeners.remove(id) else {
            return;
        };
        let (process, port) = (listener.owner.id, listener.local.port());
        if let Some(bound) = self.network.bound.get_mut(&(process, port)) {
            bound.retain(|other| *other != id);
            if bound.is_empty() {
                self.network.bound.remove(&(process, port));
            }
        }
        self.network.release_port(process, port);
        for connection in listener.pending {
            self.abort_end(connection, Side::Acceptor);
        }
        // Whoever still waits finds the listener gone.
        self.wakes
            .extend(listener.acceptors.iter().map(|(_, waker)| waker.clone()));
    }

    /// Whether a connection waits to be accepted; else `acceptor` is kept to be woken.
    pub(crate) fn has_pending(&self, id: ListenerId) -> bool {
        self.network
            .listeners
            .get(id)
            .is_some_and(|listener| !listener.pending.is_empty())
    }

    /// Hands out the oldest pending connection and its dialer's address.
    pub(crate) fn accept(&mut self, id: ListenerId) -> Option<(ConnectionId, SocketAddr)> {
        let connection = self.network.listeners.get_mut(id)?.pending.pop_front()?;
        let remote = self
            .network
            .connections
            .get_mut(connection)?
            .end(Side::Acceptor)
            .remote;
        Some((connection, remote))
    }

    /// Keeps `waker` until the acceptor is done or dropped.
    pub(crate) fn add_acceptor(&mut self, id: ListenerId, waker: Waker) -> Option<Key> {
        let listener = self.network.listeners.get_mut(id)?;
        Some(listener.acceptors.insert(waker))
    }

    pub(crate) fn remove_acceptor(&mut self, id: ListenerId, acceptor: Key) -> Option<Waker> {
        self.network
            .listeners
            .get_mut(id)?
            .acceptors
            .remove(acceptor)
    }

    /// Sends a connect on its way.
    pub(crate) fn start_connect(
        &mut self,
        owner: ProcessRef,
        mut remote: SocketAddr,
    ) -> io::Result<AttemptId> {
        remote.set_ip(destination(remote.ip()));
        let ip = if remote.ip().is_loopback() {
            remote.ip()
        } else {
            let source = self.processes.get(owner.id).source(remote.ip());
            source.ok_or(io::ErrorKind::NetworkUnreachable)?
        };
        let local = SocketAddr::new(ip, self.network.take_port(owner.id)?);
        let host = self.host_of(owner, remote);
        let on = self.connect_occasion(owner, host);
        let (there, back) = self.faults.connect_latency(on, &mut self.digest);
        let reachable = host.is_some();
        let attempt = self.network.attempts.insert(Attempt {
            owner,
            local,
            remote,
            back,
            outcome: if reachable {
                Outcome::Unknown
            } else {
                Outcome::Failed(io::ErrorKind::HostUnreachable)
            },
            event: None,
            waker: None,
            retry: CONNECT_RETRY,
        });
        let failure = match host {
            Some(host) => {
                self.maybe_partition(owner.id, host);
                self.faults.connect_failure(on, &mut self.digest)
            }
            None => None,
        };
        self.send_connect(attempt, there, reachable, failure);
        Ok(attempt)
    }

    fn send_connect(
        &mut self,
        id: AttemptId,
        there: Duration,
        reachable: bool,
        failure: Option<ConnectFailure>,
    ) {
        let Some(attempt) = self.network.attempts.get_mut(id) else {
            return;
        };
        let (delay, event) = match failure {
            Some(ConnectFailure::Hangs) => {
                attempt.outcome = Outcome::Hangs;
                return;
            }
            Some(ConnectFailure::Refused) => {
                attempt.outcome = Outcome::Failed(io::ErrorKind::ConnectionRefused);
                (there + attempt.back, Event::ConnectAnswered(id))
            }
            None if reachable => (there, Event::ConnectArrives(id)),
            None => (UNREACHABLE_AFTER, Event::ConnectAnswered(id)),
        };
        let event = self.schedule(self.clock.after(delay), event);
        if let Some(attempt) = self.network.attempts.get_mut(id) {
            attempt.event = Some(event);
        }
    }

    fn connect_occasion(&self, owner: ProcessRef, host: Option<ProcessId>) -> Occasion {
        let own = owner.id.number();
        Occasion {
            now: self.clock,
            target: FaultTarget::Pair(own, host.map_or(own, ProcessId::number)),
        }
    }

    /// Whether a connect or its answer does not get through between two processes.
    fn is_out_of_reach(&self, owner: ProcessRef, host: ProcessId) -> bool {
        let links = &self.network.links;
        links.obstacle(owner.id, host, false).is_some()
            || links.obstacle(host, owner.id, false).is_some()
    }

    /// The process that `remote` reaches from `owner`.
    fn host_of(&self, owner: ProcessRef, remote: SocketAddr) -> Option<ProcessId> {
        if remote.ip().is_loopback() {
            Some(owner.id)
        } else {
            self.processes.by_ip(remote.ip())
        }
    }

    pub(super) fn connect_arrives(&mut self, id: AttemptId) {
        let Some(attempt) = self.network.attempts.get(id) else {
            return;
        };
        let (owner, local, remote, back) =
            (attempt.owner, attempt.local, attempt.remote, attempt.back);
        let host = self.host_of(owner, remote);
        let listener = host.and_then(|process| self.network.listening(process, remote));
        let is_silent = host.is_some_and(|process| {
            !self.processes.is_powered(process) || self.is_out_of_reach(owner, process)
        });
        let listener = listener.filter(|_| {
            !host.is_some_and(|host| self.network.links.is_disconnected(owner.id, host))
        });
        let (outcome, event) = match listener {
            _ if is_silent => self.try_connect_again(id),
            None => (
                Outcome::Failed(io::ErrorKind::ConnectionRefused),
                self.schedule(self.clock.after(back), Event::ConnectAnswered(id)),
            ),
            Some(listener) if self.backlog_is_full(listener) => (
                Outcome::Unknown,
                self.schedule(self.clock.after(CONNECT_RETRY), Event::ConnectArrives(id)),
            ),
            Some(listener) => (
                Outcome::Connected(self.establish(listener, owner, local, remote)),
                self.schedule(self.clock.after(back), Event::ConnectAnswered(id)),
            ),
        };
        if let Some(attempt) = self.network.attempts.get_mut(id) {
            attempt.outcome = outcome;
            attempt.event = Some(event);
        }
    }

    /// Nobody answers: the connect is tried again, after twice the time, until it has taken too long.
    fn try_connect_again(&mut self, id: AttemptId) -> (Outcome, EventKey) {
        match self.next_try(id) {
            Some(wait) => {
                let again = Event::ConnectArrives(id);
                (Outcome::Unknown, self.schedule(self.after(wait), again))
            }
            None => {
                let over = self.schedule(self.clock, Event::ConnectAnswered(id));
                (Outcome::Failed(io::ErrorKind::TimedOut), over)
            }
        }
    }

    /// How long to wait before a connect is tried again; nothing once it has taken too long.
    fn next_try(&mut self, id: AttemptId) -> Option<Duration> {
        let attempt = self.network.attempts.get_mut(id)?;
        let wait = attempt.retry;
        attempt.retry = wait * 2;
        (wait <= LAST_CONNECT_RETRY).then_some(wait)
    }

    /// Whether an answer is on its way that does not get through. That nobody answered always does.
    fn is_answer_lost(&self, id: AttemptId) -> bool {
        let Some(attempt) = self.network.attempts.get(id) else {
            return false;
        };
        let is_answer = matches!(
            attempt.outcome,
            Outcome::Connected(_) | Outcome::Failed(io::ErrorKind::ConnectionRefused)
        );
        let host = self.host_of(attempt.owner, attempt.remote);
        is_answer && host.is_some_and(|host| self.is_out_of_reach(attempt.owner, host))
    }

    /// A connect has taken too long; what it had made is reset.
    fn abandon(&mut self, id: AttemptId) {
        let Some(attempt) = self.network.attempts.get_mut(id) else {
            return;
        };
        let timed_out = Outcome::Failed(io::ErrorKind::TimedOut);
        if let Outcome::Connected(made) = std::mem::replace(&mut attempt.outcome, timed_out) {
            attempt.outcome = Outcome::Abandoned;
            self.abort_end(made, Side::Dialer);
        }
    }

    /// Connects that wait for a retry, or for ever, are tried again soon.
    pub(super) fn retry_connects(&mut self) {
        let ids: Vec<AttemptId> = self.network.attempts.iter().map(|(id, _)| id).collect();
        for id in ids {
            let Some(attempt) = self.network.attempts.get_mut(id) else {
                continue;
            };
            let is_answered = attempt.event.is_none() && !matches!(attempt.outcome, Outcome::Hangs);
            let again = match attempt.outcome {
                _ if is_answered => continue,
                Outcome::Connected(_) => Event::ConnectAnswered(id),
                Outcome::Unknown | Outcome::Hangs => Event::ConnectArrives(id),
                Outcome::Failed(_) | Outcome::Abandoned => continue,
            };
            if matches!(attempt.outcome, Outcome::Hangs) {
                attempt.outcome = Outcome::Unknown;
            }
            attempt.retry = CONNECT_RETRY;
            let (owner, remote, waits) = (attempt.owner, attempt.remote, attempt.event.take());
            if let Some(waits) = waits {
                self.events.remove(waits);
            }
            let on = self.connect_occasion(owner, self.host_of(owner, remote));
            let (soon, _) = self.faults.connect_latency(on, &mut self.digest);
            let event = self.schedule(self.after(soon), again);
            if let Some(attempt) = self.network.attempts.get_mut(id) {
                attempt.event = Some(event);
            }
        }
    }

    fn backlog_is_full(&self, listener: ListenerId) -> bool {
        self.network
            .listeners
            .get(listener)
            .is_some_and(|listener| listener.pending.len() >= BACKLOG)
    }

    fn establish(
        &mut self,
        listener: ListenerId,
        dialer: ProcessRef,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> ConnectionId {
        let acceptor = self
            .network
            .listeners
            .get(listener)
            .map_or(dialer, |listener| listener.owner);
        let displayed = self.translator.displayed(local, &mut self.digest);
        let id = self.network.connections.insert(Connection {
            ends: [
                End::new(dialer, local, remote),
                End::new(acceptor, remote, displayed),
            ],
            pipes: [Pipe::default(), Pipe::default()],
            cut: None,
            half_open: false,
            next_partition_draw: self.clock,
        });
        self.lay_pipes(id);
        if let Some(listener) = self.network.listeners.get_mut(listener) {
            listener.pending.push_back(id);
            self.wakes
                .extend(listener.acceptors.iter().map(|(_, waker)| waker.clone()));
        }
        id
    }

    /// An answer that meets an obstacle is lost, and asked for again.
    pub(super) fn connect_answered(&mut self, id: AttemptId) {
        if self.is_answer_lost(id) {
            if let Some(wait) = self.next_try(id) {
                let event = self.schedule(self.after(wait), Event::ConnectAnswered(id));
                if let Some(attempt) = self.network.attempts.get_mut(id) {
                    attempt.event = Some(event);
                }
                return;
            }
            self.abandon(id);
        }
        if let Some(attempt) = self.network.attempts.get_mut(id) {
            attempt.event = None;
            self.wakes.extend(attempt.waker.take());
        }
    }

    /// Asks how a connect went; a finished one is forgotten.
    pub(crate) fn ask_attempt(
        &mut self,
        id: AttemptId,
        waker: &Waker,
    ) -> Asked<io::Result<ConnectionId>> {
        let Some(attempt) = self.network.attempts.get(id) else {
            return Asked::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if attempt.event.is_some() || matches!(attempt.outcome, Outcome::Hangs) {
            let kept = attempt.waker.as_ref();
            return match kept.is_some_and(|kept| kept.will_wake(waker)) {
                true => Asked::Parked,
                false => Asked::Park,
            };
        }
        let (outcome, owner, port) = (attempt.outcome, attempt.owner, attempt.local.port());
        self.network.attempts.remove(id);
        Asked::Ready(match outcome {
            Outcome::Connected(connection) => Ok(connection),
            Outcome::Failed(kind) => {
                self.network.release_port(owner.id, port);
                Err(kind.into())
            }
            Outcome::Abandoned => Err(io::ErrorKind::TimedOut.into()),
            Outcome::Unknown | Outcome::Hangs => Err(io::ErrorKind::NotConnected.into()),
        })
    }

    pub(crate) fn park_attempt(&mut self, id: AttemptId, waker: Waker) -> Option<Waker> {
        self.network.attempts.get_mut(id)?.waker.replace(waker)
    }

    /// Gives a connect up; a connection it had made is reset.
    pub(crate) fn cancel_connect(&mut self, id: AttemptId) -> Option<Waker> {
        let attempt = self.network.attempts.remove(id)?;
        if let Some(event) = attempt.event {
            self.events.remove(event);
        }
        match attempt.outcome {
            Outcome::Connected(connection) => self.abort_end(connection, Side::Dialer),
            Outcome::Abandoned => {}
            Outcome::Unknown | Outcome::Failed(_) | Outcome::Hangs => {
                self.network
                    .release_port(attempt.owner.id, attempt.local.port());
            }
        }
        attempt.waker
    }

    /// This end's address and the other's.
    pub(crate) fn addresses(
        &mut self,
        id: ConnectionId,
        side: Side,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let end = self.network.connections.get_mut(id)?.end(side);
        Some((end.local, end.remote))
    }

    /// Breaks all sockets of a process that has just been sealed: its peers see RST, or nothing at all
    /// if its host went with it.
    pub(super) fn crash_sockets(&mut self, process: ProcessId, death: Death) {
        for (id, side) in self.ends_of(process) {
            match death {
                Death::Crash => self.abort_end(id, side),
                Death::PowerLoss => self.silence_end(id, side),
            }
        }
        let listeners: Vec<ListenerId> = self
            .network
            .listeners
            .iter()
            .filter(|(_, listener)| listener.owner.id == process)
            .map(|(id, _)| id)
            .collect();
        for id in listeners {
            self.close_listener(id);
        }
        let attempts: Vec<AttemptId> = self
            .network
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.owner.id == process)
            .map(|(id, _)| id)
            .collect();
        for id in attempts {
            self.cancel_connect(id);
        }
    }

    /// Forgets a connection on which nothing will ever happen again.
    pub(super) fn forget_if_over(&mut self, id: ConnectionId) {
        let over = self
            .network
            .connections
            .get(id)
            .is_some_and(Connection::is_over);
        if over && let Some(mut connection) = self.network.connections.remove(id) {
            for event in connection.take_events() {
                self.events.remove(event);
            }
            let dialer = &connection.ends[Side::Dialer.index()];
            self.network
                .release_port(dialer.owner.id, dialer.local.port());
        }
    }

    pub(super) fn after(&self, latency: Duration) -> SimInstant {
        self.clock.after(latency)
    }
}
