//! [`FlowTransport`]: what a process has one of, to serve and to call.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use moonpool_foundation::network::peer::{
    AcceptLimits, CloseOutcome, PeerConfig, PeerHandle, PeerMetrics, SessionAcceptor,
    SessionIdentity,
};
use moonpool_foundation::{
    Endpoint, JoinHandle, NetworkAddress, NetworkProvider, TaskProvider, TimeProvider, UID,
    sometimes_assert,
};
use moonpool_traits::CodecError;

use super::acceptor::{AcceptedPeers, Acceptor};
use super::builder::FlowTransportBuilder;
use super::core::{Admission, Core, Phase};
use super::deadline_timer;
use super::envelope;
use super::failure_watch::{FailureMonitor, OpenPeer};
use super::middleware::CallChain;
use super::request::Outgoing;
use super::stats::TransportStats;
use crate::error::TransportError;

/// How long connections have for what was answered last, if handlers took up the grace.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Sends messages to endpoints and hands arriving ones to their receivers.
///
/// A process usually has one. It keeps one connection per address it sends to, opened by the first
/// message; answers travel back on the session their requests came on, so a client needs no
/// address of its own. Messages to the transport's own address never touch a socket; they are
/// encoded, bounded and delivered in a later turn like all others.
///
/// Sending is synchronous and never blocks. Made by [`FlowTransportBuilder`], always inside an
/// `Rc`; dropping the last one ends its connections and tasks at once, [`shutdown`](Self::shutdown)
/// ends them in order.
///
/// ```
/// use moonpool::{Endpoint, FlowTransportBuilder, JsonCodec, NetworkAddress, Providers};
/// use moonpool::{ReplyError, UID, send_request};
///
/// async fn ask<P: Providers>(providers: P, server: NetworkAddress) -> Result<String, ReplyError> {
///     let transport = FlowTransportBuilder::from_providers(&providers).build();
///     let endpoint = Endpoint::new(server, UID::new(0xEC40, 0));
///     send_request(&transport, &endpoint, "hello".to_owned(), JsonCodec)?.await
/// }
/// ```
pub struct FlowTransport<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    core: Rc<Core>,
    time: T,
    task: TP,
    pub(super) peer_config: PeerConfig,
    pub(super) default_timeout: Option<Duration>,
    pub(super) call_chain: CallChain,
    /// Makes peers, of connections dialled and accepted.
    sessions: Rc<SessionAcceptor<N, T, TP>>,
    /// Accepts connections; none in a client.
    accept_task: RefCell<Option<JoinHandle<()>>>,
    /// Delivers messages to this process itself; started by the first one.
    local_task: RefCell<Option<JoinHandle<()>>>,
    /// Keeps the deadlines of calls; started by the first one that has one.
    deadline_task: RefCell<Option<JoinHandle<()>>>,
}

impl<N, T, TP> FlowTransport<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    /// A transport that does not listen, whose messages to `local_address` are delivered locally.
    /// [`FlowTransportBuilder`] has the options, and the transports that listen.
    #[must_use]
    pub fn new(local_address: NetworkAddress, network: N, time: T, task: TP) -> Rc<Self> {
        FlowTransportBuilder::new(network, time, task)
            .local_address(local_address)
            .build()
    }

    pub(crate) fn from_parts(
        core: Rc<Core>,
        network: N,
        time: T,
        task: TP,
        peer_config: PeerConfig,
        default_timeout: Option<Duration>,
        call_chain: CallChain,
    ) -> Rc<Self> {
        let sessions = SessionAcceptor::new(
            network,
            time.clone(),
            task.clone(),
            peer_config.clone(),
            session_identity(&core),
            core.sink(),
            Rc::new(AcceptedPeers(Rc::downgrade(&core))),
        )
        .with_answer_budget(core.limits.answer_bytes)
        .with_read_budget(core.limits.read_bytes);
        let transport = Rc::new(Self {
            core,
            time,
            task,
            peer_config,
            default_timeout,
            call_chain,
            sessions: Rc::new(sessions),
            accept_task: RefCell::new(None),
            local_task: RefCell::new(None),
            deadline_task: RefCell::new(None),
        });
        let opener: Weak<dyn OpenPeer> = Rc::<Self>::downgrade(&transport);
        transport.core.set_opener(opener);
        let weak = Rc::downgrade(&transport);
        transport.core.set_local_starter(move || {
            if let Some(transport) = weak.upgrade() {
                transport.start_local_delivery();
            }
        });
        transport
    }

    /// Starts the task that accepts connections.
    pub(crate) fn listen(&self, listener: N::TcpListener, limits: AcceptLimits) {
        self.sessions.set_limits(limits);
        let acceptor = Acceptor {
            listener,
            core: Rc::downgrade(&self.core),
            sessions: Rc::clone(&self.sessions),
            time: self.time.clone(),
        };
        let task = self.task.spawn_driver("moonpool-accept", acceptor.run());
        self.accept_task.replace(Some(task));
    }

    pub(crate) fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// For tasks that belong to the transport and are not its own.
    pub(super) fn time_and_task(&self) -> (T, TP) {
        (self.time.clone(), self.task.clone())
    }

    /// Starts the task that ends calls when their time has come, unless it runs.
    pub(super) fn start_keeping_deadlines(&self) {
        if self.deadline_task.borrow().is_none() {
            let keeping = deadline_timer::run(Rc::downgrade(&self.core), self.time.clone());
            let task = self.task.spawn_driver("moonpool-deadlines", keeping);
            self.deadline_task.replace(Some(task));
            self.core.keeps_deadlines.set(true);
        }
    }

    /// What the listener is bound to, with the real port; `0.0.0.0` and `::` as they are. `None` for a
    /// transport that does not listen.
    #[must_use]
    pub fn listening_address(&self) -> Option<NetworkAddress> {
        self.core.listening.get()
    }

    /// Where others reach this transport: its listening address with the real port, or the public
    /// address it was given. `None` for a client, and for one that listens on `0.0.0.0` or `::` and
    /// was given no public address: see [`listening_address`](Self::listening_address).
    #[must_use]
    pub fn local_address(&self) -> Option<NetworkAddress> {
        self.core.address.get()
    }

    /// Tells this start of the process from all others.
    #[must_use]
    pub fn incarnation(&self) -> UID {
        self.core.incarnation
    }

    /// The peer for an address: that of a session whose other end listens there, be it that it was
    /// opened from here or there, or a new one, which begins to connect, and keeps at it. It does not
    /// close for being idle while the handle is held.
    ///
    /// # Errors
    /// `TlsNotSupported`, `NoDestination` for what is no address to send to, `PeerConfig`, `Closed`.
    pub fn get_or_open_peer(&self, address: &NetworkAddress) -> Result<PeerHandle, TransportError> {
        self.core.check_open()?;
        self.find_or_open_peer(address)
    }

    fn find_or_open_peer(&self, address: &NetworkAddress) -> Result<PeerHandle, TransportError> {
        if address.is_tls() {
            let address = *address;
            return Err(TransportError::TlsNotSupported { address });
        }
        let known = self.core.peers.borrow_mut().open(address);
        match known {
            Some((peer, is_first)) => {
                if is_first {
                    peer.allow_dial(address);
                    self.core.handle_serving(address, &peer);
                }
                Ok(peer)
            }
            None => self.open_peer(address),
        }
    }

    fn open_peer(&self, address: &NetworkAddress) -> Result<PeerHandle, TransportError> {
        if !address.is_canonical() {
            let address = *address;
            return Err(TransportError::NoDestination { address });
        }
        sometimes_assert!(remote_peer_path, true, "a message to another process");
        let id = self.core.peers.borrow_mut().next_id();
        tracing::debug!(%address, %id, "opening a peer");
        let peer = self.sessions.dial(address, id);
        let handle = peer.handle().clone();
        let mut peers = self.core.peers.borrow_mut();
        peers.insert(&handle, Some(address), true, Box::new(peer));
        drop(peers);
        self.core.handle_serving(address, &handle);
        sometimes_assert!(peer_created, true, "it dials");
        Ok(handle)
    }

    /// What is known of the addresses and endpoints that this transport talks to.
    #[must_use]
    pub fn failure_monitor(&self) -> FailureMonitor {
        FailureMonitor::new(self.core.clone())
    }

    /// Sends a one-way message that is delivered at most once, in order with the other reliable
    /// messages to the same address. It waits for a connection as long as the peer has patience;
    /// nobody learns whether it arrived. `payload` is what the receiver's codec is given.
    /// [`MethodCall::tell`](super::MethodCall::tell) is the typed form.
    ///
    /// # Errors
    /// Everything but `TooManyCalls` and `Codec`. Nothing is queued then.
    pub fn send_reliable(&self, endpoint: &Endpoint, payload: &[u8]) -> Result<(), TransportError> {
        self.send_message(endpoint, |peer| {
            peer.send_reliable_with(endpoint.token, |buffer| put_message(payload, buffer))?;
            Ok(())
        })
        .unwrap_or_else(|| self.send_local_message(endpoint.token, payload))
    }

    /// Sends a one-way message that is dropped if there is no working connection, and that may
    /// overtake reliable ones. Nobody learns of it: `Ok` says that the message was taken, and is given
    /// for one that is dropped, too. One that finds no connection begins to make one, for the next. To
    /// the own process it is as [`send_reliable`](Self::send_reliable).
    /// [`MethodCall::tell_unreliable`](super::MethodCall::tell_unreliable) is the typed form.
    ///
    /// # Errors
    /// As [`send_reliable`](Self::send_reliable).
    pub fn send_unreliable(
        &self,
        endpoint: &Endpoint,
        payload: &[u8],
    ) -> Result<(), TransportError> {
        self.send_message(endpoint, |peer| {
            peer.send_unreliable_with(endpoint.token, |buffer| put_message(payload, buffer))?;
            Ok(())
        })
        .unwrap_or_else(|| self.send_local_message(endpoint.token, payload))
    }

    /// `None` if the endpoint is in this process.
    fn send_message(
        &self,
        endpoint: &Endpoint,
        send: impl FnOnce(&PeerHandle) -> Result<(), TransportError>,
    ) -> Option<Result<(), TransportError>> {
        if self.core.is_local(&endpoint.address) {
            return None;
        }
        let peer = self.get_or_open_peer(&endpoint.address);
        Some(peer.and_then(|peer| send(&peer)))
    }

    fn send_local_message(&self, token: UID, payload: &[u8]) -> Result<(), TransportError> {
        self.send_local(token, |buffer| {
            put_message(payload, buffer)?;
            Ok(Bytes::new())
        })?;
        Ok(())
    }

    /// Queues a packet to this process itself. Gives its number.
    pub(crate) fn send_local(
        &self,
        token: UID,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, CodecError>,
    ) -> Result<u64, TransportError> {
        self.core.check_open()?;
        let number = self
            .core
            .send_local(token, Admission::WithinLimits, encode)?;
        self.start_local_delivery();
        Ok(number)
    }

    /// Starts the task that delivers packets to this process itself, unless it runs.
    pub(crate) fn start_local_delivery(&self) {
        if self.local_task.borrow().is_none() {
            sometimes_assert!(
                local_delivery_path,
                true,
                "a message to this process itself"
            );
            let core = Rc::downgrade(&self.core);
            let deliver = poll_fn(move |cx| match core.upgrade() {
                Some(core) => core.poll_local(cx),
                None => Poll::Ready(()),
            });
            let task = self.task.spawn_task("moonpool-local", deliver);
            self.local_task.replace(Some(task));
        }
    }

    /// Gauges and counters. Visits every peer: it is for people and tests, not for each message.
    #[must_use]
    pub fn stats(&self) -> TransportStats {
        let mut stats = self.core.stats();
        for task in [&self.accept_task, &self.local_task, &self.deadline_task] {
            if task
                .borrow()
                .as_ref()
                .is_some_and(|task| !task.is_finished())
            {
                stats.tasks += 1;
            }
        }
        stats
    }

    /// What the peer that serves an address has counted, and why its last connection, or the last
    /// attempt to get one, ended: what is behind a
    /// [`ConnectionFailed`](super::ReplyError::ConnectionFailed). `None` if there is no such peer:
    /// nothing was sent there yet, or it was idle and is forgotten.
    ///
    /// Opens nothing, and is no use of the peer that would keep it from closing.
    #[must_use]
    pub fn peer_metrics(&self, address: &NetworkAddress) -> Option<PeerMetrics> {
        let peers = self.core.peers.borrow();
        Some(peers.serving(address)?.metrics())
    }

    /// The metrics of all peers, dialled and accepted, in the order in which they were made; each
    /// with the address that it dials, or that of the accepted connection's other end. Visits every
    /// peer: it is for people and tests, not for each message.
    #[must_use]
    pub fn all_peer_metrics(&self) -> Vec<(String, PeerMetrics)> {
        let peers = self.core.peers.borrow();
        let described = peers
            .handles()
            .map(|peer| (peer.peer_name().to_owned(), peer.metrics()));
        described.collect()
    }

    /// Ends the transport in order. It stops accepting, registering and sending; streams end once
    /// they are empty; handlers of a [`Serving`](super::Serving) may finish; every connection writes
    /// what is queued, replies included, and is then closed; calls that still wait end. All of that
    /// takes `grace` at most, and a second more if handlers took up the grace: those that are left at
    /// its end are dropped, and so are requests that are still queued for them, and their callers get
    /// `BrokenPromise` at once. When it is done, no handler is left, and every gauge of
    /// [`stats`](Self::stats) is 0.
    ///
    /// Requests that your own code has received are waited for likewise, until they are answered.
    /// Answers to [embedded promises](super::EmbeddedPromise) leave as long as anything is waited for,
    /// over connections made for them if need be; nobody waits for those that your own code still
    /// owes: give them before. Nor must the task
    /// that awaits this be the one that polls [`Serving::serve`](super::Serving::serve), whose streams
    /// would not end within the grace, or one of its handlers, which would wait for itself and be
    /// dropped, its caller unanswered. A handler that is to end the transport spawns a task for that,
    /// and answers.
    ///
    /// # Cancel safety
    /// A dropped future leaves the transport closing: nothing new begins, but connections may stay
    /// open. Call it again, or drop the transport. Once handlers were dropped it ends at once.
    pub async fn shutdown(&self, grace: Duration) {
        self.core.begin_close();
        stop(self.accept_task.take()).await;
        self.sessions.end_greetings();
        let began = self.time.now();
        let is_drained = self.drain_handlers(grace).await;
        // One of the handlers that are dropped may be what awaits this.
        let _finished = (!is_drained).then(|| FinishOnDrop(&self.core));
        if !is_drained {
            self.core.handlers.close();
            poll_fn(|cx| self.core.handlers.poll_stopped(cx)).await;
        }
        let (now, mut end) = (self.time.now(), began.saturating_add(grace));
        if now > began {
            end = end.max(now.saturating_add(LAST_ANSWERS));
        }
        self.close_peers(end).await;
        self.core.finish_close();
        stop(self.local_task.take()).await;
        stop(self.deadline_task.take()).await;
        poll_fn(|cx| self.core.handlers.poll_stopped(cx)).await;
    }

    /// Waits until what was served is handled, for `grace` at most. Whether it is.
    async fn drain_handlers(&self, grace: Duration) -> bool {
        let drained = poll_fn(|cx| self.core.handlers.poll_drained(cx));
        let is_drained = self.time.timeout(grace, drained).await.is_ok();
        if !is_drained {
            let running = self.core.handlers.running();
            tracing::debug!(running, "handlers outlast the grace");
        }
        is_drained
    }

    /// Closes all peers side by side, and then those that were opened meanwhile for answers to
    /// promises.
    async fn close_peers(&self, end: Duration) {
        let mut closed = None;
        loop {
            let mut peers: Vec<PeerHandle> = self.core.peers.borrow().handles().cloned().collect();
            // Ids ascend, so each is closed once.
            peers.retain(|peer| Some(peer.id()) > closed);
            let Some(last) = peers.last() else {
                return;
            };
            closed = Some(last.id());
            tracing::debug!(peers = peers.len(), "shutting down");
            let grace = end.saturating_sub(self.time.now());
            let closing = peers.into_iter().map(|peer| async move {
                if let CloseOutcome::Incomplete(left) = peer.close(grace).await {
                    tracing::debug!(peer = peer.peer_name(), ?left, "closed with packets left");
                }
            });
            all(closing).await;
        }
    }

    /// Whether [`shutdown`](Self::shutdown) has begun.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        !self.core.is_open()
    }
}

impl<N, T, TP> OpenPeer for FlowTransport<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    fn open_peer(&self, address: &NetworkAddress) -> Result<PeerHandle, TransportError> {
        self.get_or_open_peer(address)
    }

    fn open_peer_to_answer(&self, address: &NetworkAddress) -> Result<PeerHandle, TransportError> {
        self.core.check_not_closed()?;
        self.find_or_open_peer(address)
    }

    fn outgoing(&self) -> &dyn Outgoing {
        self
    }
}

impl<N, T, TP> Drop for FlowTransport<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    fn drop(&mut self) {
        for task in [&self.accept_task, &self.local_task, &self.deadline_task] {
            if let Some(task) = task.take() {
                task.abort();
            }
        }
        self.sessions.end_greetings();
        self.core.finish_close();
    }
}

impl<N, T, TP> fmt::Debug for FlowTransport<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase: Phase = self.core.phase();
        f.debug_struct("FlowTransport")
            .field("local_address", &self.local_address())
            .field("incarnation", &self.incarnation())
            .field("phase", &phase)
            .finish_non_exhaustive()
    }
}

/// Closes what is left when a shutdown ends half-way that has dropped its handlers.
struct FinishOnDrop<'a>(&'a Core);

impl Drop for FinishOnDrop<'_> {
    fn drop(&mut self) {
        self.0.finish_close();
    }
}

/// How this transport greets, dialling or accepting.
fn session_identity(core: &Core) -> SessionIdentity {
    SessionIdentity {
        incarnation: core.incarnation,
        address: core.address.get(),
    }
}

fn put_message(payload: &[u8], buffer: &mut BytesMut) -> Result<(), CodecError> {
    envelope::put_message_head(None, buffer);
    buffer.put_slice(payload);
    Ok(())
}

/// Cancels a task and waits until its future is gone, and with it what it holds.
async fn stop(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        task.abort();
        if let Err(error) = task.await {
            tracing::trace!(%error, "a task was stopped");
        }
    }
}

/// Waits for all futures at once: connections close side by side, within one grace.
async fn all<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut pending: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    poll_fn(|cx| {
        pending.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if pending.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
