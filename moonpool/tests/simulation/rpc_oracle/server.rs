//! Servers: an interface with a limit on its handlers, a well-known token, a narrow queue, an endpoint
//! for friends, and interfaces at endpoints that come and go.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::{
    SimProviders, SimTaskProvider, SimTimeProvider, SimulationResult, WorkloadTopology,
    always_assert, sometimes_assert,
};
use moonpool::prelude::*;
use moonpool::{MethodStream, QueueLimits, Server, Serving, TransportError, TransportStats};

use super::coverage::Tally;
use super::ledger::{APPLICATION_CODE, Ending, Facts, Ledger, Typing, words};
use super::limits::Narrowness;
use super::protocol::{
    Act, Ask, GRACE, Girth, NARROW, Oracle, PRIVATE, Place, SimTransport, TOO_MUCH, Told,
    WELL_KNOWN, address, boxed, some_millis,
};

/// What a server calls itself by.
const OWN: UID = UID::new(0x0_AC20, 1);

/// Handlers of the interface that run at one time.
const CONCURRENCY: usize = 3;

/// One life of a server.
pub(crate) struct Host {
    providers: SimProviders,
    ledger: Rc<Ledger>,
    transport: Rc<SimTransport>,
    address: NetworkAddress,
    /// The other servers, and this one.
    servers: Vec<NetworkAddress>,
    girth: Girth,
    narrowness: Narrowness,
    life: u64,
    tally: Tally,
}

type Promise = ReplyPromise<Told, JsonCodec>;

/// How a handler ends a request.
enum Decision {
    Answer(Told),
    Fail(ReplyError),
    Drop,
}

/// Serves on port 4500 until the process is told to end.
pub(crate) async fn serve(
    providers: SimProviders,
    topology: WorkloadTopology,
    girth: Girth,
    tally: Tally,
) -> SimulationResult<()> {
    let ledger = topology.shared::<Ledger>();
    let own = address(&topology.my_ip)?;
    let narrowness = Narrowness::draw(providers.random().random());
    let friends = Rc::clone(&ledger);
    let mut builder = FlowTransportBuilder::from_providers(&providers)
        .local_address(own)
        .peer_config(girth.peer_config(narrowness))
        .verify(move |peer| friends.is_friend(peer.incarnation));
    if girth == Girth::Narrow {
        builder = builder.max_pending_calls(8);
        builder = match narrowness {
            Narrowness::Packets => builder.max_incoming_connections(2),
            Narrowness::Bytes => builder.max_handshakes(1),
            Narrowness::Whole => builder.max_sessions(2).max_answer_bytes(1_500),
        };
    }
    let transport = builder.build_listening().await.map_err(boxed)?;
    ledger.listens(own, girth, narrowness);
    let others = topology.get_peers_with_prefix("server-").into_iter();
    let servers: SimulationResult<Vec<_>> = others.map(|(_, ip)| address(&ip)).collect();
    let mut servers = servers?;
    servers.push(own);
    let host = Rc::new(Host {
        life: ledger.next(),
        providers,
        ledger,
        transport,
        address: own,
        servers,
        girth,
        narrowness,
        tally,
    });
    host.live(topology).await
}

impl Host {
    async fn live(self: Rc<Self>, topology: WorkloadTopology) -> SimulationResult<()> {
        let oracle = Oracle::serve(&self.transport, JsonCodec).map_err(boxed)?;
        let mut open = RequestStream::<Ask, _>::new(JsonCodec);
        let id = WellKnownId::user(WELL_KNOWN).map_err(boxed)?;
        open.make_well_known_endpoint(&self.transport, id)
            .map_err(boxed)?;
        let is_few = self.providers.random().random_bool(0.5);
        let limits = match is_few {
            true => QueueLimits {
                messages: 2,
                ..QueueLimits::default()
            },
            false => QueueLimits {
                bytes: 500,
                ..QueueLimits::default()
            },
        };
        let mut narrow = RequestStream::<Ask, _>::with_limits(JsonCodec, limits);
        let id = WellKnownId::user(NARROW).map_err(boxed)?;
        narrow
            .make_well_known_endpoint(&self.transport, id)
            .map_err(boxed)?;
        let private = self
            .transport
            .register_private_handler::<Ask, _>(PRIVATE, JsonCodec);
        let first = self.publish()?;

        let serving = Serving::new(&self.transport).max_concurrency(CONCURRENCY);
        let served = self.spawn(
            "ask",
            Rc::clone(&self).serve_asks(serving.clone(), oracle.ask),
        );
        let consulted = Rc::clone(&self).serve_asks(serving, oracle.consult);
        let served_too = self.spawn("consult", consulted);
        let slowly = self.spawn("narrow", Rc::clone(&self).serve_slowly(narrow, is_few));
        let come_and_go = self.spawn("dynamic", Rc::clone(&self).come_and_go(first));
        loop {
            moonpool::select! {
                () = topology.shutdown_signal.cancelled() => break,
                Some((ask, promise)) = open.recv_with_transport(&self.transport) => {
                    self.handle_apart(ask, promise);
                }
                Some((ask, promise)) = private.recv_with_transport(&self.transport) => {
                    self.handle_apart(ask, promise);
                }
                else => break,
            }
        }
        self.reach_own_limits().await;
        let left = self.leave_one_call().await;
        self.ledger.stops(self.address);
        slowly.abort();
        come_and_go.abort();
        drop((open, private));
        self.transport.shutdown(GRACE).await;
        // They end with their streams.
        let _ended = (served.await, served_too.await);
        self.note_limits(&self.transport.stats());
        check_gauges(&self.transport.stats());
        if let Some((reply, promise)) = left {
            let outcome = reply.await;
            always_assert!(
                a_call_ends_with_its_transport,
                outcome == Err(ReplyError::MaybeDelivered),
                "it ended with {outcome:?}"
            );
            drop(promise);
        }
        Ok(())
    }

    /// Promises that wait, messages of a narrow process to itself, and its requests to itself.
    async fn reach_own_limits(&self) {
        if self.girth == Girth::Wide {
            return;
        }
        let promises = (0..10).map(|_| self.transport.promise::<Told, _>(JsonCodec).open());
        let promises: Vec<_> = promises.collect();
        let refused = promises.iter().find_map(|promise| promise.as_ref().err());
        always_assert!(
            promises_are_calls_that_wait,
            matches!(refused, Some(TransportError::TooManyCalls)),
            "{refused:?}"
        );
        self.tally.limit("pending_promises");
        drop(promises);
        if self.narrowness == Narrowness::Whole {
            return;
        }
        let own = self.transport.register_handler::<u64, _>(OWN, JsonCodec);
        let endpoint = Endpoint::new(self.address, OWN);
        let fill = || self.transport.send_reliable(&endpoint, &[b'7'; 200]).err();
        let refused = (0..20).find_map(|_| fill());
        always_assert!(
            the_queue_to_itself_becomes_full,
            matches!(refused, Some(TransportError::QueueFull)),
            "{refused:?}"
        );
        self.tally.limit(match self.narrowness {
            Narrowness::Packets => "local_packets",
            _ => "local_bytes",
        });
        if self.narrowness == Narrowness::Bytes {
            return;
        }
        self.sleep(1).await;
        let mut held = Vec::new();
        let mut is_refused = false;
        for number in 0..6_u64 {
            let call = self.transport.call(&endpoint, number, JsonCodec);
            let Ok(mut reply) = call.timeout(None).send::<u64>() else {
                return;
            };
            moonpool::select! {
                Some((_, promise)) = own.recv_with_transport::<_, _, _, u64>(&self.transport) => {
                    held.push((reply, promise));
                }
                outcome = &mut reply => {
                    is_refused |= outcome == Err(ReplyError::Overloaded);
                }
            }
        }
        always_assert!(
            own_requests_without_room_are_overloaded,
            is_refused,
            "none was"
        );
        self.tally.limit("own_requests");
    }

    /// A call of this process to itself, which its handler has and does not answer: the transport ends
    /// with both ends of it. `None` if it is refused.
    async fn leave_one_call(
        &self,
    ) -> Option<(ReplyFuture<u64, JsonCodec>, ReplyPromise<u64, JsonCodec>)> {
        let own = self.transport.register_handler::<u64, _>(OWN, JsonCodec);
        let endpoint = Endpoint::new(self.address, OWN);
        let call = self
            .transport
            .call(&endpoint, 7_u64, JsonCodec)
            .timeout(None);
        let mut reply = call.send().ok()?;
        moonpool::select! {
            received = own.recv_with_transport(&self.transport) => Some((reply, received?.1)),
            _refused = &mut reply => None,
        }
    }

    fn spawn(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + 'static,
    ) -> JoinHandle<()> {
        self.providers.task().spawn_task(name, future)
    }

    async fn serve_asks(
        self: Rc<Self>,
        serving: Serving<SimTimeProvider, SimTaskProvider>,
        method: MethodStream<Ask, Told, JsonCodec>,
    ) {
        let watched = serving.clone();
        let handler = async move |ask, promise: &Promise| {
            let running = watched.stats().running;
            always_assert!(
                no_more_handlers_run_than_may,
                running <= CONCURRENCY,
                "{running} run at one time"
            );
            let is_at_limit = running == CONCURRENCY;
            sometimes_assert!(handlers_are_at_their_limit, is_at_limit, "no more may run");
            if is_at_limit {
                self.tally.limit("handlers");
            }
            self.handle_served(ask, promise).await
        };
        serving.serve(method, handler).await;
    }

    fn publish(&self) -> SimulationResult<Server<Oracle>> {
        let dynamic = Oracle::serve_dynamic(&self.transport, JsonCodec).map_err(boxed)?;
        let base = dynamic.base_endpoint();
        self.ledger.publishes(base.unwrap());
        Ok(dynamic)
    }

    /// Takes a request out of the narrow queue now and then.
    async fn serve_slowly(self: Rc<Self>, narrow: RequestStream<Ask, JsonCodec>, is_few: bool) {
        while let Some((ask, promise)) = narrow.recv_with_transport(&self.transport).await {
            self.handle_apart(ask, promise);
            self.sleep(some_millis(&self.providers, 400)).await;
            if narrow.stats().overloaded > 0 && self.girth == Girth::Wide {
                let limit = if is_few {
                    "stream_messages"
                } else {
                    "stream_bytes"
                };
                self.tally.limit(limit);
            }
        }
    }

    /// Serves an interface at an endpoint of its own for a while, drops it, and serves another.
    async fn come_and_go(self: Rc<Self>, mut dynamic: Server<Oracle>) {
        loop {
            let until = Duration::from_millis(self.providers.random().random_range(1_000..5_000));
            let mut until = Box::pin(self.providers.time().sleep(until));
            loop {
                moonpool::select! {
                    () = &mut until => break,
                    Some((ask, promise)) = dynamic.ask.recv() => self.handle_apart(ask, promise),
                    Some((ask, promise)) = dynamic.consult.recv() => {
                        self.handle_apart(ask, promise);
                    }
                    else => return,
                }
            }
            self.ledger.withdraws(dynamic.base_endpoint().unwrap());
            drop(dynamic);
            dynamic = match self.publish() {
                Ok(dynamic) => dynamic,
                Err(_closing) => return,
            };
        }
    }

    /// In a task of its own.
    fn handle_apart(self: &Rc<Self>, ask: Ask, promise: Promise) {
        let host = Rc::clone(self);
        drop(self.providers.task().spawn_task("handler", async move {
            let call = ask.call;
            match host.handle(ask, &promise).await {
                Decision::Answer(told) => promise.send(told),
                Decision::Fail(error) => promise.send_error(error),
                Decision::Drop => {
                    host.ledger.breaks(call);
                    drop(promise);
                }
            }
        }));
    }

    /// For a [`Serving`], whose handlers cannot drop their promise.
    async fn handle_served(&self, ask: Ask, promise: &Promise) -> Result<Told, ReplyError> {
        let call = ask.call;
        match self.handle(ask, promise).await {
            Decision::Answer(told) => Ok(told),
            Decision::Fail(error) => Err(error),
            Decision::Drop => {
                self.ledger.breaks(call);
                Err(ReplyError::BrokenPromise)
            }
        }
    }

    async fn handle(&self, ask: Ask, promise: &Promise) -> Decision {
        let Ask {
            call, caller, act, ..
        } = ask;
        self.ledger.executes(call, caller, self.life);
        self.ledger
            .check_remaining(&self.providers, call, promise.remaining());
        self.ledger
            .check_expects_answer(call, promise.expects_answer());
        let metadata = promise.metadata();
        if promise.expects_answer() {
            let tag = metadata.iter().find(|(key, _)| *key == "call");
            self.ledger.check_tag(call, tag.map(|(_, value)| value));
        }
        let watch = Watch {
            host: self,
            call,
            is_done: Cell::new(false),
        };
        let told = |padding| {
            Decision::Answer(Told {
                call,
                caller,
                life: self.life,
                padding,
                is_unencodable: act == Act::AnswerUnencodable,
            })
        };
        let decision = match act {
            Act::Answer | Act::AnswerUnencodable => told(ask.padding),
            Act::AnswerAfter { millis } => {
                self.sleep(millis).await;
                told(ask.padding)
            }
            Act::Drop { millis } => {
                self.sleep(millis).await;
                Decision::Drop
            }
            Act::Refuse => Decision::Fail(refusal(caller, act)),
            Act::AnswerTooMuch => told("x".repeat(TOO_MUCH)),
            Act::AwaitCancellation => {
                if promise.expects_answer() {
                    promise.cancelled().await;
                    self.ledger.sees_cancelled(call);
                }
                told(ask.padding)
            }
            Act::AskAnother => match self.ask_another(promise).await {
                Ok(()) => told(ask.padding),
                Err(_) => Decision::Fail(refusal(caller, act)),
            },
        };
        watch.is_done.set(true);
        decision
    }

    /// A call on behalf of another, which it must not outlast.
    async fn ask_another(&self, promise: &Promise) -> Result<(), ReplyError> {
        let random = self.providers.random();
        let server = self.servers[random.random_range(0..self.servers.len())];
        let act = match random.random_bool(0.8) {
            true => Act::AnswerAfter {
                millis: some_millis(&self.providers, 500),
            },
            false => Act::Drop { millis: 0 },
        };
        let now = self.providers.time().now();
        let own = now + Duration::from_secs(2);
        let caller = self.transport.incarnation();
        let deadline = promise.deadline().map_or(own, |end| end.min(own));
        let call = self.ledger.begins(Facts {
            server,
            place: Place::WellKnown,
            act,
            padding: 0,
            typing: Typing::Alike,
            caller,
            caller_girth: self.girth,
            is_retried: false,
            is_one_way: false,
            is_tagged: false,
            began: now,
            deadline: Some(deadline),
            carried: Some(deadline),
            is_impatient: false,
            attempts: None,
            is_steady: false,
        });
        let ask = Ask {
            call,
            caller,
            act,
            padding: String::new(),
            is_tagged: false,
        };
        let endpoint = Place::WellKnown.endpoint(server);
        let nested = self.transport.call(&endpoint, ask, JsonCodec);
        let nested = nested.timeout(Duration::from_secs(2)).within(promise);
        let given_up = GivenUp {
            host: self,
            call,
            is_done: Cell::new(false),
        };
        let (outcome, ending) = match nested.send::<Told>() {
            Ok(reply) => {
                let outcome = reply.await;
                let ending = match &outcome {
                    Ok(told) => {
                        self.ledger.answered_by(call, told.life);
                        Ending::Answered
                    }
                    Err(error) => Ending::Failed(error.clone()),
                };
                (outcome.map(|_| ()), ending)
            }
            Err(not_sent) => (Err(not_sent.into()), Ending::NotSent),
        };
        given_up.is_done.set(true);
        self.ledger.ends(&self.providers, call, ending);
        outcome
    }

    fn note_limits(&self, stats: &TransportStats) {
        let is_narrow = self.girth == Girth::Narrow;
        let (is_refused, is_shut_out) = (stats.requests_refused > 0, stats.accept_refused > 0);
        sometimes_assert!(
            answer_slots_run_out,
            is_narrow && is_refused,
            "requests were refused for want of room for their answers"
        );
        sometimes_assert!(
            incoming_connections_run_out,
            is_narrow && is_shut_out,
            "connections were closed at once"
        );
        let limits = [
            (
                is_refused && is_narrow,
                match self.narrowness {
                    Narrowness::Packets => "answer_packets",
                    Narrowness::Bytes => "answer_bytes",
                    Narrowness::Whole => "all_answer_bytes",
                },
            ),
            (is_shut_out && is_narrow, "connections"),
            (stats.handshakes_evicted > 0, "handshakes"),
        ];
        let reached = limits.iter().filter(|(is_reached, _)| *is_reached);
        reached.for_each(|(_, limit)| self.tally.limit(limit));
    }

    async fn sleep(&self, millis: u64) {
        if millis > 0 {
            let time = self.providers.time();
            time.sleep(Duration::from_millis(millis)).await;
        }
    }

    /// Whether this life goes on: nobody has killed it, or told it to end.
    fn goes_on(&self) -> bool {
        self.providers.world().is_some() && !self.ledger.has_stopped(self.address)
    }
}

fn refusal(caller: UID, act: Act) -> ReplyError {
    ReplyError::application(APPLICATION_CODE, words(caller, act))
}

/// Tells the ledger of a handler that is dropped half-way: its caller waits no more.
struct Watch<'a> {
    host: &'a Host,
    call: u64,
    is_done: Cell<bool>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.is_done.get() && self.host.goes_on() {
            self.host.ledger.sees_cancelled(self.call);
        }
    }
}

/// Tells the ledger of a nested call that is dropped with its handler.
struct GivenUp<'a> {
    host: &'a Host,
    call: u64,
    is_done: Cell<bool>,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if !self.is_done.get() {
            let (ledger, providers) = (&self.host.ledger, &self.host.providers);
            ledger.ends(providers, self.call, Ending::GivenUp);
        }
    }
}

/// Of a transport that is shut down nothing is left.
pub(crate) fn check_gauges(stats: &TransportStats) {
    let gauges = [
        stats.peers,
        stats.incoming_connections,
        stats.incoming_sessions,
        stats.endpoints,
        stats.pending_calls,
        stats.open_requests,
        stats.watches,
        stats.missing_endpoints,
        stats.queued_packets,
        stats.queued_bytes,
        stats.local_packets,
        stats.local_bytes,
        stats.tasks,
    ];
    always_assert!(
        nothing_is_left_after_shutdown,
        gauges == [0; 13],
        "left: {stats:?}"
    );
}
