//! Callers that outlive every server, and call in every way there is.

use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::{
    SimProviders, SimulationMetrics, SimulationResult, WorkloadTopology, always_assert,
};
use moonpool::prelude::*;
use moonpool::{Client, MessageCodec, NotSent, PeerConfig, RetryPolicy, TransportError};
use serde::Serialize;

use super::coverage::{Tally, cover_outcome, cover_refusal};
use super::ledger::{Ending, Facts, Ledger, Typing};
use super::limits::Narrowness;
use super::protocol::{
    Act, Ask, GRACE, Girth, Oracle, Place, SimTransport, Told, Unencodable, address, boxed,
    some_millis,
};
use super::server::check_gauges;

const CALLS: u32 = 40;

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Character {
    pub(crate) girth: Girth,
    /// Private endpoints accept it.
    pub(crate) is_friend: bool,
    /// Between two calls, at most.
    pub(crate) pause_millis: u64,
}

/// In which way a call is made, and how it is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `send_request`, with its defaults.
    Plain,
    Timeout(Option<Duration>),
    UnlessFailedFor(Duration),
    Retry {
        while_not_found: bool,
        /// More are made only if there is no limit to them.
        attempts: Option<u32>,
    },
    /// Through the client of an interface.
    Method,
    /// Dropped after a while.
    DropAfter(Duration),
    /// The reply is taken to be of another type.
    MistakenReply,
    Message {
        is_reliable: bool,
    },
}

/// The default deadline of a call.
const DEFAULT: Duration = Duration::from_secs(10);

struct Caller {
    providers: SimProviders,
    ledger: Rc<Ledger>,
    transport: Rc<SimTransport>,
    servers: Vec<NetworkAddress>,
    character: Character,
    /// What this seed has, as bits: some outcomes are only found where others are missing.
    mix: u64,
    narrowness: Narrowness,
    tally: Tally,
}

/// Calls that overlap; at the end each server has to answer one.
pub(crate) async fn call(
    providers: SimProviders,
    topology: WorkloadTopology,
    character: Character,
    tally: Tally,
) -> SimulationResult<SimulationMetrics> {
    let narrowness = Narrowness::draw(providers.random().random());
    let mut builder = FlowTransportBuilder::from_providers(&providers)
        .peer_config(character.girth.peer_config(narrowness));
    if character.girth == Girth::Narrow {
        builder = builder.max_pending_calls(6);
    }
    let transport = builder.build();
    let ledger = topology.shared::<Ledger>();
    if character.is_friend {
        ledger.befriend(transport.incarnation());
    }
    let servers = topology.get_peers_with_prefix("server-").into_iter();
    let servers: SimulationResult<Vec<_>> = servers.map(|(_, ip)| address(&ip)).collect();
    let caller = Rc::new(Caller {
        mix: providers.random().random(),
        narrowness,
        providers,
        ledger,
        transport,
        servers: servers?,
        character,
        tally,
    });
    let mut pending = Vec::new();
    for _ in 0..CALLS {
        let one = Rc::clone(&caller);
        let task = caller.providers.task();
        pending.push(task.spawn_task("call", async move { one.call_somehow().await }));
        if caller.chance(0.7) {
            caller
                .sleep(some_millis(&caller.providers, character.pause_millis))
                .await;
        }
        if caller.chance(0.1) {
            caller.be_refused();
        }
    }
    for call in pending {
        call.await.map_err(boxed)?;
    }
    if caller.has(16) {
        caller.be_refused_often().await;
    }
    for server in &caller.servers {
        let facts = |caller: &Caller| Facts {
            deadline: Some(caller.now() + DEFAULT),
            carried: Some(caller.now() + DEFAULT),
            ..caller.facts(*server, Place::WellKnown, Act::Answer, 10)
        };
        while !caller.call_once(facts(&caller), Way::Plain).await {
            caller.sleep(200).await;
        }
    }
    caller.finish().await;
    Ok(SimulationMetrics::default())
}

impl Caller {
    fn now(&self) -> Duration {
        self.providers.time().now()
    }

    fn chance(&self, probability: f64) -> bool {
        self.providers.random().random_bool(probability)
    }

    async fn sleep(&self, millis: u64) {
        let time = self.providers.time();
        time.sleep(Duration::from_millis(millis)).await;
    }

    /// Whether this caller has a feature in this seed. All have those above 31 by chance.
    fn has(&self, feature: u32) -> bool {
        self.mix & (1 << feature) != 0
    }

    fn facts(&self, server: NetworkAddress, place: Place, act: Act, padding: usize) -> Facts {
        Facts {
            server: match place {
                Place::Dynamic(base) => base.address,
                _ => server,
            },
            place,
            act,
            padding,
            typing: Typing::Alike,
            caller: self.transport.incarnation(),
            caller_girth: self.character.girth,
            is_retried: false,
            is_one_way: false,
            is_tagged: self.chance(0.3),
            began: self.now(),
            deadline: None,
            carried: None,
            is_impatient: false,
            attempts: None,
            is_steady: true,
        }
    }

    fn draw_place(&self) -> Place {
        let random = self.providers.random();
        match random.random_range(0..16) {
            0..3 => Place::Consult,
            3..6 => Place::WellKnown,
            6..8 if self.has(0) => Place::Narrow,
            8..10 if self.has(1) => Place::Private,
            10..13 if self.has(2) => match self.ledger.any_published(random) {
                Some(base) => Place::Dynamic(base),
                None => Place::Ask,
            },
            13 if self.has(3) => Place::Nobody,
            14 if self.has(3) => Place::NobodyWellKnown,
            _ => Place::Ask,
        }
    }

    fn draw_act(&self) -> Act {
        let millis = |max| some_millis(&self.providers, max);
        match self.providers.random().random_range(0..16) {
            0..3 => Act::AnswerAfter {
                millis: millis(3_000),
            },
            3 if self.has(4) => Act::Drop { millis: 0 },
            4 if self.has(4) => Act::Drop {
                millis: millis(1_000),
            },
            5 if self.has(5) => Act::Refuse,
            6 if self.has(6) => Act::AnswerTooMuch,
            7 if self.has(7) => Act::AnswerUnencodable,
            8 if self.has(8) => Act::AwaitCancellation,
            9..12 if self.has(9) => Act::AskAnother,
            _ => Act::Answer,
        }
    }

    fn draw_way(&self, act: Act, place: Place) -> Way {
        let random = self.providers.random();
        let short = Duration::from_millis(some_millis(&self.providers, 300));
        let long = Duration::from_millis(random.random_range(300..6_000));
        match random.random_range(0..20) {
            0..3 => Way::Timeout(Some(short)),
            3..6 => Way::Timeout(Some(long)),
            // Somebody has to end it.
            6 if matches!(act, Act::Answer | Act::Drop { .. } | Act::Refuse) => Way::Timeout(None),
            7..9 => Way::UnlessFailedFor(2 * long),
            9 => Way::UnlessFailedFor(short),
            10..13 if self.has(10) => Way::Retry {
                while_not_found: self.chance(0.5),
                attempts: self.chance(0.5).then_some(2),
            },
            13..15 if self.has(11) => Way::DropAfter(short),
            15 if self.has(12) => Way::MistakenReply,
            16 if self.has(13) => Way::Message {
                is_reliable: self.chance(0.5),
            },
            17..19 if matches!(place, Place::Ask | Place::Consult | Place::Dynamic(_)) => {
                Way::Method
            }
            _ => Way::Plain,
        }
    }

    async fn call_somehow(&self) {
        if self.chance(0.03) {
            return self.call_undecodably().await;
        }
        let random = self.providers.random();
        let server = self.servers[random.random_range(0..self.servers.len())];
        let place = self.draw_place();
        let act = self.draw_act();
        let way = self.draw_way(act, place);
        let padding = match random.random_range(0..8) {
            0 if self.has(14) => random.random_range(1_000..3_000),
            1 if self.has(15) => random.random_range(1_000..9_000),
            _ => random.random_range(0..300),
        };
        let facts = self.facts(server, place, act, padding);
        let now = facts.began;
        let facts = match way {
            Way::Plain | Way::Method => Facts {
                deadline: Some(now + DEFAULT),
                ..facts
            },
            Way::Timeout(limit) => Facts {
                deadline: limit.map(|limit| now + limit),
                ..facts
            },
            Way::UnlessFailedFor(patience) => Facts {
                deadline: Some(now + 2 * DEFAULT),
                is_impatient: patience < Duration::from_millis(500),
                ..facts
            },
            Way::Retry { attempts, .. } => Facts {
                attempts: attempts.map(|attempts| usize::try_from(attempts).unwrap()),
                deadline: Some(now + DEFAULT),
                is_retried: true,
                ..facts
            },
            Way::DropAfter(limit) => Facts {
                deadline: Some(now + limit),
                ..facts
            },
            Way::MistakenReply => Facts {
                deadline: Some(now + DEFAULT),
                typing: Typing::ReplyMistaken,
                is_tagged: false,
                ..facts
            },
            Way::Message { .. } => Facts {
                is_one_way: true,
                is_tagged: false,
                ..facts
            },
        };
        let carried = match way {
            Way::DropAfter(_) => Some(now + DEFAULT),
            Way::Message { .. } => None,
            _ => facts.deadline,
        };
        self.call_once(Facts { carried, ..facts }, way).await;
    }

    /// Makes a call and judges its outcome. Whether it was answered.
    async fn call_once(&self, facts: Facts, way: Way) -> bool {
        let call = self.ledger.begins(facts.clone());
        let ask = Ask {
            call,
            caller: facts.caller,
            act: facts.act,
            padding: "p".repeat(facts.padding),
            is_tagged: facts.is_tagged,
        };
        let endpoint = facts.place.endpoint(facts.server);
        if let Way::Message { is_reliable } = way {
            self.send_one_way(call, &endpoint, &ask, is_reliable);
            return false;
        }
        let ending = match way {
            Way::MistakenReply => {
                let sent = send_request(&self.transport, &endpoint, ask, JsonCodec);
                match sent {
                    Ok(reply) => {
                        let outcome: Result<String, ReplyError> = reply.await;
                        Ending::Failed(outcome.unwrap_err())
                    }
                    Err(not_sent) => self.handle_not_sent(call, &not_sent),
                }
            }
            _ => match self.start(&endpoint, &facts, way, ask) {
                Ok(reply) => self.await_reply(call, &facts, way, reply).await,
                Err(not_sent) => self.handle_not_sent(call, &not_sent),
            },
        };
        self.ledger.ends(&self.providers, call, ending.clone());
        cover_outcome(&ending, &self.tally);
        let limit = self.ledger.limit_behind(&self.providers, call, &ending);
        limit.inspect(|limit| self.tally.limit(limit));
        ending == Ending::Answered
    }

    fn start(
        &self,
        endpoint: &Endpoint,
        facts: &Facts,
        way: Way,
        ask: Ask,
    ) -> Result<ReplyFuture<Told, JsonCodec>, NotSent<Ask>> {
        let tag = ask.call.to_string();
        if way == Way::Plain && !facts.is_tagged {
            return send_request(&self.transport, endpoint, ask, JsonCodec);
        }
        if way == Way::Method {
            let base = match facts.place {
                Place::Dynamic(base) => base,
                _ => Place::Ask.endpoint(facts.server),
            };
            let oracle: Client<Oracle> = Oracle::at(&self.transport, base, JsonCodec);
            let method = match facts.place {
                Place::Consult => oracle.consult(ask),
                _ => oracle.ask(ask),
            };
            return match facts.is_tagged {
                true => method.metadata("call", tag).send(),
                false => method.send(),
            };
        }
        let mut call = self.transport.call(endpoint, ask, JsonCodec);
        if facts.is_tagged {
            call = call.metadata("call", tag);
        }
        match way {
            Way::Timeout(limit) => call.timeout(limit),
            Way::UnlessFailedFor(patience) => call.unless_failed_for(patience).timeout(2 * DEFAULT),
            Way::Retry {
                while_not_found,
                attempts,
            } => {
                let policy = match attempts {
                    Some(attempts) => RetryPolicy::new().max_attempts(attempts),
                    None => RetryPolicy::new(),
                };
                call.retry(match while_not_found {
                    true => policy.while_not_found(),
                    false => policy,
                })
            }
            _ => call,
        }
        .send()
    }

    async fn await_reply(
        &self,
        call: u64,
        facts: &Facts,
        way: Way,
        reply: ReplyFuture<Told, JsonCodec>,
    ) -> Ending {
        let outcome = match way {
            Way::DropAfter(limit) => match self.providers.time().timeout(limit, reply).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => return Ending::GivenUp,
            },
            _ => reply.await,
        };
        match outcome {
            Ok(told) => {
                self.ledger.answered_by(call, told.life);
                let expected = Told {
                    call,
                    caller: facts.caller,
                    life: told.life,
                    padding: "p".repeat(facts.padding),
                    is_unencodable: false,
                };
                always_assert!(
                    a_reply_belongs_to_its_request,
                    told == expected,
                    "{told:?} came for {facts:?}"
                );
                Ending::Answered
            }
            Err(error) => Ending::Failed(error),
        }
    }

    fn handle_not_sent(&self, call: u64, not_sent: &NotSent<Ask>) -> Ending {
        always_assert!(
            what_is_not_sent_comes_back,
            not_sent.request.call == call,
            "{:?} for call {call}",
            not_sent.request
        );
        cover_refusal(&not_sent.error, &self.tally);
        Ending::NotSent
    }

    fn send_one_way(&self, call: u64, endpoint: &Endpoint, ask: &Ask, is_reliable: bool) {
        let payload = JsonCodec.encode(ask).unwrap();
        let sent = match is_reliable {
            true => self.transport.send_reliable(endpoint, &payload),
            false => self.transport.send_unreliable(endpoint, &payload),
        };
        if let Err(error) = sent {
            cover_refusal(&error, &self.tally);
            self.ledger.ends(&self.providers, call, Ending::NotSent);
        }
    }

    /// A request that is none: it is refused, and the stream lives on.
    async fn call_undecodably(&self) {
        let random = self.providers.random();
        let server = self.servers[random.random_range(0..self.servers.len())];
        let endpoint = Place::WellKnown.endpoint(server);
        let text = "no request".to_owned();
        let call = self.transport.call(&endpoint, text, JsonCodec);
        let Ok(reply) = call.timeout(Duration::from_secs(2)).send::<Told>() else {
            return;
        };
        let outcome = reply.await;
        always_assert!(
            what_does_not_decode_is_never_answered,
            !matches!(outcome, Ok(_) | Err(ReplyError::Application { .. })),
            "{outcome:?}"
        );
        if let Err(error) = outcome {
            cover_outcome(&Ending::Failed(error), &self.tally);
        }
    }

    /// Tries what no transport can send.
    fn be_refused(&self) {
        let server = self.servers[0];
        let endpoint = Place::WellKnown.endpoint(server);
        let tls = NetworkAddress::new(server.ip, server.port).with_flags(NetworkAddress::FLAG_TLS);
        let nowhere = NetworkAddress { port: 0, ..server };
        let reserved = UID::well_known(3);
        for endpoint in [
            Endpoint::new(tls, endpoint.token),
            Endpoint::new(nowhere, endpoint.token),
            Endpoint::new(server, reserved),
        ] {
            self.expect_refusal(send_request(&self.transport, &endpoint, 7_u64, JsonCodec));
        }
        let call = self.transport.call(&endpoint, 7_u64, JsonCodec);
        let call = call.metadata("large", "x".repeat(9_000));
        self.expect_refusal(call.send());
        let unencodable = send_request(&self.transport, &endpoint, Unencodable, JsonCodec);
        self.expect_refusal(unencodable);
        // Answers to a promise that travels need an address to come to.
        let promise = self.transport.promise::<Told, _>(JsonCodec).open();
        if let Some(error) = promise.err() {
            cover_refusal(&error, &self.tally);
        }
        let nonsense = PeerConfig {
            max_payload_bytes: 0,
            ..PeerConfig::default()
        };
        let builder = FlowTransportBuilder::from_providers(&self.providers);
        let transport = builder.peer_config(nonsense).build();
        self.expect_refusal(send_request(&transport, &endpoint, 7_u64, JsonCodec));
    }

    fn expect_refusal<Req: Serialize>(
        &self,
        sent: Result<ReplyFuture<Told, JsonCodec>, NotSent<Req>>,
    ) {
        let error = sent.err().map(|not_sent| not_sent.error);
        always_assert!(
            what_cannot_be_sent_is_refused,
            error.is_some(),
            "it was sent"
        );
        if let Some(error) = error {
            cover_refusal(&error, &self.tally);
        }
    }

    /// Sends until nothing more is taken: within one instant a queue cannot drain.
    fn fill_queue(&self) {
        let (is_reached, limits) = match self.narrowness {
            Narrowness::Packets => (true, ["reliable_packets", "unreliable_packets"]),
            Narrowness::Bytes => (true, ["reliable_bytes", "unreliable_bytes"]),
            Narrowness::Whole => (false, ["", ""]),
        };
        if !is_reached || self.character.girth != Girth::Narrow {
            return;
        }
        let endpoint = Place::Nobody.endpoint(self.servers[0]);
        for (is_reliable, limit) in [(true, limits[0]), (false, limits[1])] {
            let refused = (0..20).find_map(|_| match is_reliable {
                true => self.transport.send_reliable(&endpoint, &[7; 200]).err(),
                false => self.transport.send_unreliable(&endpoint, &[7; 200]).err(),
            });
            always_assert!(
                a_narrow_queue_becomes_full,
                matches!(refused, Some(TransportError::QueueFull)),
                "{limit}: {refused:?}"
            );
            self.tally.limit(limit);
        }
    }

    /// Calls that arrive one by one, so that each is refused in a packet of its own: more of them are
    /// on their way than a narrow server may have there.
    async fn be_refused_often(&self) {
        let server = self.servers[self.providers.random().random_range(0..self.servers.len())];
        let refused = (0..40).map(|step| async move {
            let time = self.providers.time();
            time.sleep(Duration::from_micros(100 * step)).await;
            let deadline = Some(self.now() + DEFAULT);
            let facts = Facts {
                deadline,
                carried: deadline,
                is_tagged: false,
                ..self.facts(server, Place::Nobody, Act::Answer, 10)
            };
            self.call_once(facts, Way::Plain).await;
        });
        futures_util::future::join_all(refused).await;
    }

    async fn finish(&self) {
        self.fill_queue();
        self.transport.shutdown(GRACE).await;
        check_gauges(&self.transport.stats());
        let endpoint = Place::WellKnown.endpoint(self.servers[0]);
        self.expect_refusal(send_request(&self.transport, &endpoint, 7_u64, JsonCodec));
    }
}
