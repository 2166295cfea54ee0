//! Every way in which a call can end, reached through the public API, with a ledger of what was
//! executed: nothing that is said to be surely not executed is in it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    Endpoint, JsonCodec, PeerConfig, Providers, QueueLimits, ReplyError, ReplyFuture, ReplyPromise,
    RequestStream, UID,
};
use serde::{Deserialize, Serialize};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    every_outcome_is_reached_exactly_when_it_is_due: 50;
}

const PUBLIC: UID = UID::new(0x0A11, 1);
const PRIVATE: UID = UID::new(0x0A11, 2);
const NOBODY: UID = UID::new(0x0A11, 4);

/// What the handler is to do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Behaviour {
    Answer,
    DropPromise,
    AnswerTooMuch,
    AnswerAnotherType,
    SayNo,
    Hold,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    id: u32,
    behaviour: Behaviour,
    padding: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    id: u32,
    padding: String,
}

/// What was executed, and what the handler keeps.
#[derive(Default)]
struct Ledger {
    executed: RefCell<Vec<u32>>,
    held: RefCell<Vec<ReplyPromise<Answer, JsonCodec>>>,
}

impl Ledger {
    fn has(&self, id: u32) -> bool {
        let executed = self.executed.borrow();
        assert!(executed.iter().filter(|other| **other == id).count() <= 1);
        executed.contains(&id)
    }

    fn execute(&self, request: Request, reply: ReplyPromise<Answer, JsonCodec>) {
        let Request { id, behaviour, .. } = request;
        self.executed.borrow_mut().push(id);
        match behaviour {
            Behaviour::Answer => reply.send(answer(id)),
            Behaviour::DropPromise => drop(reply),
            Behaviour::AnswerTooMuch => reply.send(Answer {
                id,
                padding: "x".repeat(5_000),
            }),
            Behaviour::AnswerAnotherType => {
                reply.send_error(ReplyError::Serialization {
                    message: "made up".to_owned(),
                });
            }
            Behaviour::SayNo => reply.send_error(ReplyError::application(7, "no")),
            Behaviour::Hold => self.held.borrow_mut().push(reply),
        }
    }
}

fn answer(id: u32) -> Answer {
    Answer {
        id,
        padding: String::new(),
    }
}

async fn serve<P: Providers>(server: Rc<Transport<P>>, ledger: Rc<Ledger>) {
    let public = server.register_handler::<Request, _>(PUBLIC, JsonCodec);
    let private = server.register_private_handler::<Request, _>(PRIVATE, JsonCodec);
    loop {
        moonpool::select! {
            Some((request, reply)) = public.recv_with_transport(&server) => {
                ledger.execute(request, reply);
            }
            Some((request, reply)) = private.recv_with_transport(&server) => {
                ledger.execute(request, reply);
            }
            else => break,
        }
    }
}

struct Caller<P: Providers> {
    transport: Rc<Transport<P>>,
    server: moonpool::NetworkAddress,
    next_id: std::cell::Cell<u32>,
    ledger: Rc<Ledger>,
}

type Outcome = Result<Answer, ReplyError>;

impl<P: Providers> Caller<P> {
    fn send(
        &self,
        token: UID,
        behaviour: Behaviour,
        padding: usize,
        timeout: Duration,
    ) -> (u32, Result<ReplyFuture<Answer, JsonCodec>, ReplyError>) {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let request = Request {
            id,
            behaviour,
            padding: "x".repeat(padding),
        };
        let endpoint = Endpoint::new(self.server, token);
        let call = self.transport.call(&endpoint, request, JsonCodec);
        (id, call.timeout(timeout).send().map_err(ReplyError::from))
    }

    /// One call: how it ended, and whether it was executed.
    async fn call(&self, token: UID, behaviour: Behaviour, padding: usize) -> (Outcome, bool) {
        let (id, sent) = self.send(token, behaviour, padding, Duration::from_secs(10));
        let outcome = match sent {
            Ok(call) => call.await,
            Err(error) => Err(error),
        };
        if let Ok(reply) = &outcome {
            assert_eq!(*reply, answer(id), "a reply belongs to its request");
        }
        self.check(id, outcome)
    }

    fn check(&self, id: u32, outcome: Outcome) -> (Outcome, bool) {
        let executed = self.ledger.has(id);
        match &outcome {
            Ok(_) => assert!(executed),
            Err(error) if error.is_surely_not_executed() => assert!(!executed, "{error}"),
            Err(_) => {}
        }
        (outcome, executed)
    }
}

/// What the handler's part in the outcome is, for both a remote and a local caller.
async fn check_handled<P: Providers>(caller: &Caller<P>) {
    use Behaviour::{Answer, AnswerAnotherType, AnswerTooMuch, DropPromise, SayNo};

    let made_up = ReplyError::Serialization {
        message: "made up".to_owned(),
    };
    let table = [
        (Answer, None),
        (DropPromise, Some(ReplyError::BrokenPromise)),
        (AnswerTooMuch, Some(ReplyError::ReplyTooLarge)),
        (AnswerAnotherType, Some(made_up)),
        (SayNo, Some(ReplyError::application(7, "no"))),
    ];
    for (behaviour, error) in table {
        let (outcome, executed) = caller.call(PUBLIC, behaviour, 0).await;
        assert_eq!(outcome.err(), error, "{behaviour:?}");
        assert!(executed, "{behaviour:?}");
    }
    let (outcome, executed) = caller.call(NOBODY, Answer, 0).await;
    assert_eq!(outcome, Err(ReplyError::EndpointNotFound));
    assert!(!executed);
    let (outcome, executed) = caller.call(PUBLIC, Answer, 5_000).await;
    assert_eq!(outcome, Err(ReplyError::PayloadTooLarge));
    assert!(!executed);
}

/// A request that does not decode, though it is for the right endpoint.
async fn check_undecodable<P: Providers>(transport: &Transport<P>, endpoint: Endpoint) {
    let call = transport.call(&endpoint, "no request", JsonCodec);
    let outcome = call.send::<Answer>().unwrap().await;
    assert!(
        matches!(outcome, Err(ReplyError::Serialization { .. })),
        "{outcome:?}"
    );
    // The reply does not decode: it was executed.
    let request = Request {
        id: 0xFFFF,
        behaviour: Behaviour::Answer,
        padding: String::new(),
    };
    let call = transport.call(&endpoint, request, JsonCodec);
    let outcome = call.send::<String>().unwrap().await;
    assert!(
        matches!(outcome, Err(ReplyError::Serialization { .. })),
        "{outcome:?}"
    );
}

/// The stream takes one request at a time, and nobody takes it out.
async fn check_overloaded<P: Providers>(caller: &Caller<P>, server: &Transport<P>) {
    let limits = QueueLimits {
        messages: 1,
        ..QueueLimits::default()
    };
    let mut stream = RequestStream::<Request, _>::with_limits(JsonCodec, limits);
    let narrow = stream.make_dynamic_endpoint(server).unwrap().token;
    let (_, first) = caller.send(narrow, Behaviour::Answer, 0, Duration::from_secs(10));
    let (outcome, executed) = caller.call(narrow, Behaviour::Answer, 0).await;
    assert_eq!(outcome, Err(ReplyError::Overloaded));
    assert!(!executed);
    drop(stream);
    assert_eq!(first.unwrap().await, Err(ReplyError::BrokenPromise));
}

async fn every_outcome_is_reached_exactly_when_it_is_due<P: Providers>(hosts: Hosts<P>) {
    let config = PeerConfig {
        max_payload_bytes: 4_000,
        ..PeerConfig::default()
    };
    let server = hosts.server_builder().peer_config(config);
    let server = server.build_listening().await.unwrap();
    let address = server.local_address().unwrap();
    let ledger = Rc::new(Ledger::default());
    let serving = hosts.spawn_server(serve::<P>(server.clone(), ledger.clone()));
    hosts.until(|| server.stats().endpoints == 2).await;
    let client = hosts
        .client_builder()
        .peer_config(hosts.impatient())
        .build();
    let caller = |transport: &Rc<Transport<P>>, from| Caller::<P> {
        transport: transport.clone(),
        server: address,
        next_id: std::cell::Cell::new(from),
        ledger: ledger.clone(),
    };
    let (remote, local) = (caller(&client, 0), caller(&server, 1_000));
    check_handled::<P>(&remote).await;
    check_handled::<P>(&local).await;
    check_undecodable::<P>(&client, Endpoint::new(address, PUBLIC)).await;

    // Who may not use the endpoint, and who may.
    let (outcome, executed) = remote.call(PRIVATE, Behaviour::Answer, 0).await;
    assert_eq!((outcome, executed), (Err(ReplyError::Unauthorized), false));
    let (outcome, executed) = local.call(PRIVATE, Behaviour::Answer, 0).await;
    assert!(outcome.is_ok() && executed);

    check_overloaded::<P>(&remote, &server).await;
    check_overloaded::<P>(&local, &server).await;

    // Given up: by the deadline, and by the caller, which the server sees.
    let (id, call) = remote.send(PUBLIC, Behaviour::Hold, 0, Duration::from_millis(150));
    let outcome = call.unwrap().await;
    assert_eq!(remote.check(id, outcome), (Err(ReplyError::Timeout), true));
    let (_, call) = remote.send(PUBLIC, Behaviour::Hold, 0, Duration::from_secs(10));
    hosts.until(|| ledger.held.borrow().len() == 2).await;
    let cancelled = ledger.held.borrow_mut().pop().unwrap();
    assert!(!cancelled.is_cancelled());
    drop(call);
    cancelled.cancelled().await;
    assert!(cancelled.is_cancelled());

    // The server dies with the call.
    let (id, call) = remote.send(PUBLIC, Behaviour::Hold, 0, Duration::from_secs(10));
    hosts.until(|| ledger.held.borrow().len() == 2).await;
    serving.abort();
    let _cancelled = serving.await;
    drop((local, server));
    let outcome = call.unwrap().await;
    assert_eq!(
        remote.check(id, outcome),
        (Err(ReplyError::MaybeDelivered), true)
    );

    // Nobody is there: the request is never written.
    let (outcome, executed) = remote.call(PUBLIC, Behaviour::Answer, 0).await;
    assert_eq!(
        (outcome, executed),
        (Err(ReplyError::ConnectionFailed), false)
    );
    assert_eq!(client.stats().pending_calls, 0);
    ledger.held.borrow_mut().clear();
    shut_down::<P>(&client).await;
}
