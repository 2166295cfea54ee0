//! The state of a transport and what it does with arriving packets: everything that needs no
//! provider, and so no type parameter.
//!
//! Who owns whom: the [`FlowTransport`](super::FlowTransport) owns the core; the core owns peers,
//! receivers and local packets. Drivers, receivers and routes for answers refer back weakly, so
//! nothing keeps itself alive. Promises, futures and streams in users' hands may outlive the
//! transport; they find a closed core.

mod arrivals;
mod calls;
mod promises;
mod reports;
mod requests;
mod room;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use moonpool_foundation::network::peer::{KeptPayloads, PeerConfigError, PeerHandle, PeerSink};
use moonpool_foundation::wait::{self, WaitReason};
use moonpool_foundation::{
    Endpoint, NetworkAddress, UID, WellKnownId, WellKnownToken, sometimes_assert,
};
use moonpool_traits::CodecError;

use calls::Looks;
use reports::TransportSink;
use room::Room;

use super::call_table::CallTable;
use super::endpoint_map::{EndpointMap, FIRST_USER_ID, InvalidToken};
use super::failure_monitor::FailureTable;
use super::failure_watch::OpenPeer;
use super::handler_tasks::HandlerTasks;
use super::kept_bodies::KeptBodies;
use super::local_queue::LocalQueue;
#[cfg(feature = "metrics")]
use super::method_metrics::Instruments;
use super::open_requests::OpenRequests;
use super::peer_info::Verify;
use super::peer_table::PeerTable;
use super::receivers::{MessageReceiver, NoticeReceiver, Packet, PingReceiver};
use super::reply_error::ReplyError;
use super::reply_route::SpareRoutes;
use super::stats::{Counters, TransportStats};
use crate::error::{RegisterError, TransportError};

/// Receivers that every transport registers for itself.
const BUILT_IN_ENDPOINTS: usize = 4;

/// What a core is made with.
pub(crate) struct CoreParams {
    pub(crate) incarnation: UID,
    /// The upper half of the tokens of dynamic endpoints.
    pub(crate) endpoint_nonce: u64,
    /// The upper half of reply tokens.
    pub(crate) call_nonce: u64,
    /// What the hashes of tokens start from that other ends chose: none of them learns it.
    pub(crate) hash_seed: u64,
    pub(crate) limits: Limits,
    /// The time, as the transport's provider tells it.
    pub(crate) clock: Box<dyn Fn() -> Duration>,
    pub(crate) verify: Verify,
    /// What is wrong with the peers' configuration: nothing is sent then.
    pub(crate) config_error: Option<PeerConfigError>,
}

/// Bounds of what the core holds or passes to itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) payload_bytes: usize,
    pub(crate) local_packets: usize,
    pub(crate) local_bytes: usize,
    /// Requests of this process to itself that are not answered.
    pub(crate) local_answers: usize,
    /// Calls that may wait at one time.
    pub(crate) calls: usize,
    /// Bytes of answers that all sessions may hold together.
    pub(crate) answer_bytes: usize,
    /// Bytes that all connections may read into together.
    pub(crate) read_bytes: usize,
}

/// How far the transport has come in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    /// Nothing new begins; answers may still leave.
    Closing,
    Closed,
}

/// Whether the local queue's limits apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// For requests and one-way messages.
    WithinLimits,
    /// For answers: there is at most one per admitted request, and its caller waits for it.
    Always,
}

/// What to do about a receiver that has the token already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnConflict {
    Replace,
    Refuse,
}

/// See the [module's documentation](self).
pub(crate) struct Core {
    this: Weak<Core>,
    pub(crate) incarnation: UID,
    /// Where others reach this process; messages to it are delivered locally.
    pub(crate) address: Cell<Option<NetworkAddress>>,
    /// What is bound, be it an address that others can dial or not.
    pub(crate) listening: Cell<Option<NetworkAddress>>,
    phase: Cell<Phase>,
    endpoints: RefCell<EndpointMap>,
    pub(crate) calls: RefCell<CallTable>,
    looks: RefCell<Looks>,
    open_requests: RefCell<OpenRequests>,
    pub(crate) peers: RefCell<PeerTable>,
    pub(crate) failures: RefCell<FailureTable>,
    /// The transport, for what needs its providers.
    opener: RefCell<Option<Weak<dyn OpenPeer>>>,
    local: RefCell<LocalQueue>,
    /// Requests of this process to itself that are not answered.
    local_slots: Cell<usize>,
    /// Answers that nobody has taken yet.
    kept: RefCell<KeptPayloads>,
    pub(crate) kept_bodies: RefCell<KeptBodies>,
    pub(crate) spare_routes: RefCell<SpareRoutes>,
    /// A task keeps the deadlines of calls.
    pub(crate) keeps_deadlines: Cell<bool>,
    /// Starts the task that empties it.
    start_local: RefCell<Option<Rc<dyn Fn()>>>,
    /// Further addresses that turned out to lead here.
    own_addresses: RefCell<BTreeSet<(IpAddr, u16)>>,
    pub(crate) limits: Limits,
    /// Those who wait for room.
    pub(crate) room: Room,
    clock: Box<dyn Fn() -> Duration>,
    verify: Verify,
    config_error: Option<PeerConfigError>,
    /// Tasks that handle requests.
    pub(crate) handlers: Rc<HandlerTasks>,
    pub(crate) counters: Counters,
    #[cfg(feature = "metrics")]
    pub(crate) instruments: Rc<Instruments>,
}

impl Core {
    pub(crate) fn new(params: CoreParams) -> Rc<Self> {
        Rc::new_cyclic(|this: &Weak<Core>| {
            let mut endpoints = EndpointMap::with_nonce(params.endpoint_nonce);
            insert_built_in(&mut endpoints, this, params.incarnation);
            debug_assert_eq!(endpoints.len(), BUILT_IN_ENDPOINTS);
            Self {
                this: this.clone(),
                incarnation: params.incarnation,
                address: Cell::new(None),
                listening: Cell::new(None),
                phase: Cell::new(Phase::Open),
                endpoints: RefCell::new(endpoints),
                calls: RefCell::new(CallTable::new(params.call_nonce, params.limits.calls)),
                looks: RefCell::default(),
                open_requests: RefCell::new(OpenRequests::new(params.hash_seed)),
                peers: RefCell::new(PeerTable::new()),
                failures: RefCell::new(FailureTable::new()),
                opener: RefCell::new(None),
                local: RefCell::default(),
                local_slots: Cell::new(0),
                kept: RefCell::default(),
                kept_bodies: RefCell::default(),
                spare_routes: RefCell::default(),
                keeps_deadlines: Cell::new(false),
                start_local: RefCell::default(),
                own_addresses: RefCell::default(),
                limits: params.limits,
                room: Room::default(),
                clock: params.clock,
                verify: params.verify,
                config_error: params.config_error,
                handlers: HandlerTasks::new(),
                counters: Counters::default(),
                #[cfg(feature = "metrics")]
                instruments: Rc::default(),
            }
        })
    }

    /// Who makes peers.
    pub(crate) fn set_opener(&self, opener: Weak<dyn OpenPeer>) {
        self.opener.replace(Some(opener));
    }

    /// The peer that dials an address, made if there is none.
    pub(crate) fn open_peer(&self, address: &NetworkAddress) -> Result<PeerHandle, TransportError> {
        self.transport()
            .ok_or(TransportError::Closed)?
            .open_peer(address)
    }

    /// The transport, unless it is gone.
    pub(crate) fn transport(&self) -> Option<Rc<dyn OpenPeer>> {
        self.opener.borrow().as_ref().and_then(Weak::upgrade)
    }

    /// What peers report to.
    pub(crate) fn sink(&self) -> Rc<dyn PeerSink> {
        let core = self.this.clone();
        Rc::new(TransportSink { core })
    }

    /// The time, as the transport's provider tells it.
    pub(crate) fn now(&self) -> Duration {
        (self.clock)()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    /// Whether anything can be sent.
    pub(crate) fn check_open(&self) -> Result<(), TransportError> {
        self.check_before(Phase::Closing)
    }

    /// Whether what is owed can be sent.
    pub(crate) fn check_not_closed(&self) -> Result<(), TransportError> {
        self.check_before(Phase::Closed)
    }

    fn check_before(&self, end: Phase) -> Result<(), TransportError> {
        if self.phase.get() >= end {
            return Err(TransportError::Closed);
        }
        match &self.config_error {
            Some(error) => Err(TransportError::PeerConfig(error.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.phase.get() == Phase::Closed
    }

    #[inline]
    pub(crate) fn is_local(&self, address: &NetworkAddress) -> bool {
        let is_canonical = self
            .address
            .get()
            .is_some_and(|own| own.ip == address.ip && own.port == address.port);
        is_canonical || self.is_own_address(address)
    }

    fn is_own_address(&self, address: &NetworkAddress) -> bool {
        let own = self.own_addresses.borrow();
        !own.is_empty() && own.contains(&(address.ip, address.port))
    }

    pub(crate) fn set_local_starter(&self, start: impl Fn() + 'static) {
        self.start_local.replace(Some(Rc::new(start)));
    }

    // Registration.

    /// Registers under a chosen token.
    pub(crate) fn register(
        &self,
        token: UID,
        receiver: Rc<dyn MessageReceiver>,
        conflict: OnConflict,
    ) -> Result<(), RegisterError> {
        self.check_registration(token)?;
        if conflict == OnConflict::Refuse && self.endpoints.borrow().get(&token).is_some() {
            return Err(RegisterError::AlreadyRegistered { token });
        }
        let inserted = self
            .endpoints
            .borrow_mut()
            .insert_at(token, receiver.clone());
        if let Some(replaced) = inserted? {
            tracing::warn!(%token, "an endpoint's receiver is replaced; the old one is closed");
            replaced.handle_closed();
        }
        receiver.handle_registered(token, self.endpoint(token));
        Ok(())
    }

    /// Registers under a token of the map's choice.
    pub(crate) fn register_dynamic(
        &self,
        receiver: Rc<dyn MessageReceiver>,
    ) -> Result<Endpoint, RegisterError> {
        if !self.is_open() {
            return Err(RegisterError::Closed);
        }
        let address = self.address.get().ok_or(RegisterError::NoAddress)?;
        let token = self.endpoints.borrow_mut().insert(receiver.clone());
        if !token.is_valid() {
            return Err(RegisterError::Full);
        }
        let endpoint = Endpoint::new(address, token);
        receiver.handle_registered(token, Some(endpoint));
        Ok(endpoint)
    }

    /// Registers under adjacent tokens of the map's choice, and gives the first one's endpoint.
    pub(crate) fn register_dynamic_run(
        &self,
        receivers: Vec<Rc<dyn MessageReceiver>>,
    ) -> Result<Endpoint, RegisterError> {
        if !self.is_open() {
            return Err(RegisterError::Closed);
        }
        let address = self.address.get().ok_or(RegisterError::NoAddress)?;
        let inserted = self.endpoints.borrow_mut().insert_run(receivers.clone());
        let base = Endpoint::new(address, inserted.ok_or(RegisterError::Full)?);
        for (index, receiver) in (0..).zip(receivers) {
            let endpoint = base.adjusted(index);
            receiver.handle_registered(endpoint.token, Some(endpoint));
        }
        Ok(base)
    }

    /// Ends a registration, if it is still this receiver's. Well-known ones stay.
    pub(crate) fn deregister(&self, token: UID, receiver: &Rc<dyn MessageReceiver>) {
        let removed = {
            let mut endpoints = self.endpoints.borrow_mut();
            let own = endpoints
                .get(&token)
                .is_some_and(|found| Rc::ptr_eq(found, receiver));
            if own { endpoints.remove(&token) } else { None }
        };
        drop(removed);
    }

    /// Ends whatever registration the token has.
    pub(crate) fn remove_endpoint(&self, token: &UID) -> bool {
        let removed = self.endpoints.borrow_mut().remove(token);
        if let Some(receiver) = &removed {
            receiver.handle_closed();
        }
        removed.is_some()
    }

    fn endpoint(&self, token: UID) -> Option<Endpoint> {
        let address = self.address.get()?;
        Some(Endpoint::new(address, token))
    }

    fn check_registration(&self, token: UID) -> Result<(), RegisterError> {
        if !self.is_open() {
            return Err(RegisterError::Closed);
        }
        if WellKnownId::of(token).is_some_and(|id| id.get() < FIRST_USER_ID) {
            return Err(RegisterError::Reserved { token });
        }
        if self.calls.borrow().owns(token) || !token.is_valid() {
            return Err(InvalidToken::Allocated { token }.into());
        }
        Ok(())
    }

    // Messages to this process itself.

    /// Queues a packet for the local task. Gives its number.
    pub(crate) fn send_local(
        &self,
        token: UID,
        admission: Admission,
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, CodecError>,
    ) -> Result<u64, TransportError> {
        self.admit_local(admission)?;
        let mut packet = BytesMut::new();
        let tail = encode(&mut packet)?;
        packet.extend_from_slice(&tail);
        let (size, limit) = (packet.len(), self.limits.payload_bytes);
        if size > limit {
            return Err(TransportError::PayloadTooLarge { size, limit });
        }
        let (number, waker) = {
            let mut local = self.local.borrow_mut();
            (local.next_number(), local.push(token, packet.freeze()))
        };
        wake(waker);
        Ok(number)
    }

    fn admit_local(&self, admission: Admission) -> Result<(), TransportError> {
        if self.is_closed() {
            return Err(TransportError::Closed);
        }
        if !self.has_local_room() && admission == Admission::WithinLimits {
            return Err(TransportError::QueueFull);
        }
        Ok(())
    }

    /// One turn of the local task: hands over what was queued before it, so that what receivers
    /// send meanwhile waits for the next turn and other tasks get theirs.
    pub(crate) fn poll_local(&self, cx: &mut Context<'_>) -> Poll<()> {
        let queued = self.local.borrow().len();
        let (found, not_found) = self.counters.found();
        for _ in 0..queued {
            let next = self.local.borrow_mut().pop();
            let Some((token, packet)) = next else {
                break;
            };
            self.dispatch(token, &Packet::Local(&packet));
        }
        let now = self.counters.found();
        sometimes_assert!(endpoint_found_local, now.0 > found, "in this process");
        sometimes_assert!(
            endpoint_not_found_local,
            now.1 > not_found,
            "in this process"
        );
        self.note_local_room();
        if self.is_closed() {
            return Poll::Ready(());
        }
        if self.local.borrow().len() > 0 {
            cx.waker().wake_by_ref();
        } else {
            let replaced = self.local.borrow_mut().wait(cx.waker());
            drop(replaced);
            wait::note(WaitReason::Message { token: None });
        }
        Poll::Pending
    }

    // The end.

    /// Stops what begins here: sends, registrations, connections. Streams end once they are empty.
    pub(crate) fn begin_close(&self) {
        if self.phase.get() < Phase::Closing {
            self.phase.set(Phase::Closing);
        }
        let receivers = self.endpoints.borrow_mut().drain();
        for receiver in receivers {
            receiver.handle_closed();
        }
        self.room.closing.wake_first();
    }

    /// Ends everything: peers at once, calls with what is known of them, the local task.
    pub(crate) fn finish_close(&self) {
        self.begin_close();
        if self.phase.replace(Phase::Closed) != Phase::Closed {
            self.counters.note_coverage();
            let was_reused = self.peers.borrow().was_reused();
            sometimes_assert!(
                peer_reused,
                was_reused,
                "a later message took the same peer"
            );
        }
        let waiting = self.calls.borrow().waiting();
        sometimes_assert!(reply_queue_closed, waiting > 0, "while calls waited");
        let callers = self.end_all_calls();
        let peers = self.peers.borrow_mut().drain();
        drop(peers);
        let watches = self.failures.borrow_mut().close();
        watches.into_iter().for_each(Waker::wake);
        callers.into_iter().for_each(Waker::wake);
        let handlers = self.open_requests.borrow_mut().end_all();
        handlers.into_iter().for_each(Waker::wake);
        self.handlers.close();
        wake(self.take_timer());
        let local = self.local.borrow_mut().clear();
        wake(local);
    }

    /// Counters, and the gauges that need no provider.
    pub(crate) fn stats(&self) -> TransportStats {
        let mut stats = self.counters.snapshot();
        let peers = self.peers.borrow();
        stats.peers = peers.dialling();
        stats.incoming_sessions = peers.len() - peers.dialling();
        stats.incoming_connections = peers.accepted_connections();
        stats.tasks = peers.len() + self.handlers.running();
        for peer in peers.handles() {
            let metrics = peer.metrics();
            stats.queued_packets +=
                metrics.reliable_queued + metrics.unacknowledged + metrics.unreliable_queued;
            stats.queued_bytes += metrics.reliable_bytes + metrics.unreliable_bytes;
        }
        stats.endpoints = self
            .endpoints
            .borrow()
            .len()
            .saturating_sub(BUILT_IN_ENDPOINTS);
        let failures = self.failures.borrow();
        stats.watches = failures.waiting();
        stats.missing_endpoints = failures.missing();
        stats.pending_calls = self.calls.borrow().waiting();
        stats.open_requests = self.open_requests.borrow().len();
        let local = self.local.borrow();
        stats.local_packets = local.len();
        stats.local_bytes = local.bytes();
        stats
    }
}

fn insert_built_in(endpoints: &mut EndpointMap, core: &Weak<Core>, incarnation: UID) {
    let notices = [
        (
            WellKnownToken::EndpointNotFound,
            ReplyError::EndpointNotFound,
        ),
        (
            WellKnownToken::UnauthorizedEndpoint,
            ReplyError::Unauthorized,
        ),
        (WellKnownToken::Overloaded, ReplyError::Overloaded),
    ];
    for (token, error) in notices {
        let core = core.clone();
        endpoints.insert_well_known(token, Rc::new(NoticeReceiver { core, error }));
    }
    let ping = Rc::new(PingReceiver { incarnation });
    endpoints.insert_well_known(WellKnownToken::Ping, ping);
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
