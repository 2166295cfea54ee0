//! Clients that break the rules, or keep them and mean no good: what they may cost the server.

#[allow(dead_code, reason = "the example uses the rest of it")]
#[path = "../../examples/hostile/wire.rs"]
mod wire;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::prelude::*;
use moonpool::{PeerConfig, QueueStats, ReplyPromise, Serving};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{Hosts, Transport, shut_down};
use wire::Hello;

/// A test of each name in each world. An attacker sends nothing again: the simulated network has no
/// faults.
macro_rules! in_both_worlds_without_faults {
    ($($name:ident;)*) => {
        $(mod $name {
            #[test]
            fn real() {
                crate::common::on_tokio(super::$name);
            }

            #[cfg(feature = "sim")]
            #[test]
            fn simulated() {
                crate::common::in_faultless_simulation(10, super::$name);
            }
        })*
    };
}

in_both_worlds_without_faults! {
    requests_of_a_client_that_reads_nothing_are_not_executed;
    clients_that_read_nothing_leave_room_for_those_that_do;
    what_a_session_held_is_given_back_with_its_end;
    half_packets_take_no_more_than_the_transport_may_read_into;
    a_session_that_never_acknowledges_its_refusals_ends_at_their_bytes;
    a_session_that_holds_too_much_ends_no_other;
    handlers_that_run_count_as_the_answers_before_them;
}

const TOKEN: UID = UID::new(0x4057, 1);
const KIB: usize = 1024;
const ANSWER: usize = 16 * KIB;

/// Everything but the text of an answer: prefixes, envelopes, and short answers.
const SHORT_ANSWERS: usize = 64 * KIB;

type Stream<P> = <<P as Providers>::Network as NetworkProvider>::TcpStream;

/// Answers a number with a text of that length, and counts.
struct Service {
    executed: Rc<Cell<usize>>,
    stats: Rc<Cell<QueueStats>>,
}

impl Service {
    fn start<P: Providers>(hosts: &Hosts<P>, transport: &Rc<Transport<P>>) -> Self {
        let (executed, stats) = (Rc::default(), Rc::default());
        let service = Self {
            executed: Rc::clone(&executed),
            stats: Rc::clone(&stats),
        };
        let serving = Rc::clone(transport);
        let requests = transport.register_handler::<usize, _>(TOKEN, JsonCodec);
        hosts.spawn_server(async move {
            while let Some((length, reply)) = requests.recv_with_transport(&serving).await {
                executed.set(executed.get() + 1);
                reply.send("x".repeat(length));
                stats.set(requests.stats());
            }
        });
        service
    }
}

/// A session of a client that is none of ours.
async fn session<P: Providers>(hosts: &Hosts<P>, server: &Transport<P>) -> Stream<P> {
    let address = server.local_address().unwrap().to_string();
    let mut stream = hosts.client.network().connect(&address).await.unwrap();
    let random = hosts.client.random();
    let hello = Hello::new(UID::random_from(random), UID::random_from(random));
    stream.write_all(&hello.packet()).await.unwrap();
    let mut answer = [0; wire::HEADER_BYTES + 80];
    stream.read_exact(&mut answer).await.unwrap();
    stream
}

/// So many requests to this token, behind each other.
fn requests_to(token: UID, requests: u64) -> Vec<u8> {
    let message = ANSWER.to_string();
    (1..=requests)
        .flat_map(|number| {
            let request = wire::request(UID::new(9, number), message.as_bytes());
            wire::sequenced(number, 1, token, &request)
        })
        .collect()
}

/// A session that asks for so many answers, and reads none.
async fn greedy<P: Providers>(hosts: &Hosts<P>, server: &Transport<P>, requests: u64) -> Stream<P> {
    let mut stream = session::<P>(hosts, server).await;
    let asked = requests_to(TOKEN, requests);
    stream.write_all(&asked).await.unwrap();
    stream
}

async fn requests_of_a_client_that_reads_nothing_are_not_executed<P: Providers>(hosts: Hosts<P>) {
    let config = PeerConfig {
        answer_bytes: 64 * KIB,
        ..PeerConfig::default()
    };
    let server = hosts.server_builder().peer_config(config);
    let server = server.build_listening().await.unwrap();
    let service = Service::start(&hosts, &server);
    let stream = greedy::<P>(&hosts, &server, 200).await;
    // Each is answered, be it with what it asks for or with a refusal.
    hosts
        .until(|| {
            let stats = server.stats();
            stats.replies_sent == 200 && stats.open_requests == 0
        })
        .await;
    let executed = service.executed.get();
    // Four fill the limit, the fifth passes it, as it was executed before that was known.
    assert!(executed == 4 || executed == 5, "{executed} were executed");
    let held = server.stats().queued_bytes;
    assert!(held <= 5 * ANSWER + SHORT_ANSWERS, "{held} bytes are held");
    drop(stream);
    shut_down::<P>(&server).await;
}

async fn a_session_that_never_acknowledges_its_refusals_ends_at_their_bytes<P: Providers>(
    hosts: Hosts<P>,
) {
    let limit = 128 * KIB;
    let server = hosts.server_builder().peer_config(PeerConfig {
        refusal_bytes: limit,
        ..PeerConfig::default()
    });
    let server = server.build_listening().await.unwrap();
    let mut stream = session::<P>(&hosts, &server).await;
    let asked = requests_to(UID::new(0xAB5E, 1), 10_000);
    // The session may end before all of it is taken.
    drop(stream.write_all(&asked).await);
    let most = Cell::new(0);
    hosts
        .until(|| {
            let stats = server.stats();
            most.set(most.get().max(stats.queued_bytes));
            stats.replies_dropped > 0
        })
        .await;
    let most = most.get();
    assert!(most <= limit + SHORT_ANSWERS, "{most} bytes were held");
    assert_eq!(server.stats().queued_bytes, 0, "they end with the session");
    drop(stream);
    shut_down::<P>(&server).await;
}

async fn clients_that_read_nothing_leave_room_for_those_that_do<P: Providers>(hosts: Hosts<P>) {
    let limit = 1024 * KIB;
    let server = hosts.server_builder().max_answer_bytes(limit);
    let server = server.build_listening().await.unwrap();
    let service = Service::start(&hosts, &server);
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(greedy::<P>(&hosts, &server, 100).await);
    }
    hosts.until(|| server.stats().replies_sent == 300).await;
    let held = server.stats().queued_bytes;
    // By itself one session would hold 64 MiB, and these ask for 4.7.
    assert!(held <= limit, "{held} bytes are held");
    assert!(
        service.executed.get() >= 30,
        "{} were executed",
        service.executed.get()
    );
    let client = hosts.connect();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    for _ in 0..20 {
        let reply: ReplyFuture<String, _> =
            send_request(&client, &endpoint, ANSWER, JsonCodec).unwrap();
        assert_eq!(reply.await.unwrap().len(), ANSWER);
    }
    assert!(service.stats.get().overloaded > 0);
    drop(streams);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Greedy sessions come and go: what one held is there for the next.
async fn what_a_session_held_is_given_back_with_its_end<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.server_builder().max_answer_bytes(256 * KIB);
    let server = server.build_listening().await.unwrap();
    let service = Service::start(&hosts, &server);
    let mut replies = 0;
    for round in 1..=20 {
        let before = service.executed.get();
        let mut stream = greedy::<P>(&hosts, &server, 20).await;
        replies += 20;
        hosts.until(|| server.stats().replies_sent == replies).await;
        let executed = service.executed.get() - before;
        // Half of what is free.
        assert!((8..=10).contains(&executed), "round {round}: {executed}");
        stream.write_all(&wire::close()).await.unwrap();
        hosts.until(|| server.stats().incoming_sessions == 0).await;
        drop(stream);
    }
    shut_down::<P>(&server).await;
}

/// The beginning of a large packet, on many connections. The memory is there for few; the others
/// are dropped, small messages go on, and once the memory is given back so do large ones.
async fn half_packets_take_no_more_than_the_transport_may_read_into<P: Providers>(hosts: Hosts<P>) {
    let size = 256 * KIB;
    let server = hosts.server_builder().max_read_bytes(1024 * KIB);
    let server = server.build_listening().await.unwrap();
    let service = Service::start(&hosts, &server);
    let mut half = wire::header(u32::try_from(size).unwrap());
    half.resize(8 * KIB, 0x5A);
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = session::<P>(&hosts, &server).await;
        stream.write_all(&half).await.unwrap();
        streams.push(stream);
    }
    hosts
        .until(|| server.stats().accepted == 20 && server.stats().incoming_connections <= 4)
        .await;
    let client = hosts.connect();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let ask = |length: usize| -> ReplyFuture<String, _> {
        send_request(&client, &endpoint, length, JsonCodec).unwrap()
    };
    assert_eq!(ask(10).await.unwrap().len(), 10);
    drop(streams);
    hosts
        .until(|| server.stats().incoming_connections == 1)
        .await;
    // A message as large as the others pretended to be.
    let large = format!("{}7", " ".repeat(size - 200)).into_bytes();
    client.send_reliable(&endpoint, &large).unwrap();
    assert_eq!(ask(10).await.unwrap().len(), 10);
    assert_eq!(service.executed.get(), 3);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Serves numbers with texts of that length, side by side: 7 takes two seconds, the others 20 ms.
fn serve_side_by_side<P: Providers>(
    hosts: &Hosts<P>,
    server: &Rc<Transport<P>>,
) -> Rc<Cell<usize>> {
    let requests = server.register_handler::<usize, _>(TOKEN, JsonCodec);
    let serving = Serving::new(server);
    let time = hosts.server.time().clone();
    let begun = Rc::new(Cell::new(0));
    let count = Rc::clone(&begun);
    drop(hosts.spawn_server(async move {
        let handler = async move |length: usize, _: &ReplyPromise<String, _>| {
            count.set(count.get() + 1);
            let millis = if length == 7 { 2_000 } else { 20 };
            time.sleep(Duration::from_millis(millis)).await;
            Ok("x".repeat(length))
        };
        serving.serve(requests, handler).await;
    }));
    begun
}

/// Nobody knows how large the first answers of a stream will be: a hundred handlers make six times as
/// much of them as all sessions may hold. The requests of others are refused then, and that is all.
async fn a_session_that_holds_too_much_ends_no_other<P: Providers>(hosts: Hosts<P>) {
    let limit = 256 * KIB;
    let server = hosts.server_builder().max_answer_bytes(limit);
    let server = server.build_listening().await.unwrap();
    serve_side_by_side(&hosts, &server);
    let client = hosts.connect();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let ask = |length: usize| -> ReplyFuture<String, _> {
        send_request(&client, &endpoint, length, JsonCodec).unwrap()
    };
    let long = ask(7);
    hosts.until(|| server.stats().open_requests == 1).await;
    let stream = greedy::<P>(&hosts, &server, 100).await;
    hosts.until(|| server.stats().replies_sent == 100).await;
    assert!(server.stats().queued_bytes > limit, "it holds too much");
    for _ in 0..10 {
        assert_eq!(ask(10).await, Err(ReplyError::Overloaded));
    }
    assert_eq!(long.await, Ok("x".repeat(7)), "what was admitted goes on");
    drop(stream);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Once a stream has given a large answer, no more handlers are begun for a session than there is room
/// for answers like it, however many requests are there before the first of them is answered.
async fn handlers_that_run_count_as_the_answers_before_them<P: Providers>(hosts: Hosts<P>) {
    let limit = 256 * KIB;
    let server = hosts.server_builder().max_answer_bytes(limit);
    let server = server.build_listening().await.unwrap();
    let begun = serve_side_by_side(&hosts, &server);
    let client = hosts.connect();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let ask = |length: usize| -> ReplyFuture<String, _> {
        send_request(&client, &endpoint, length, JsonCodec).unwrap()
    };
    assert_eq!(ask(ANSWER).await.unwrap().len(), ANSWER);
    // What was expected is given back with each answer.
    for _ in 0..3 {
        let asked: Vec<_> = (0..8).map(|_| ask(ANSWER)).collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap().len(), ANSWER);
        }
    }
    let before = begun.get();
    let stream = greedy::<P>(&hosts, &server, 100).await;
    hosts.until(|| server.stats().replies_sent == 125).await;
    let begun = begun.get() - before;
    // Half of what is free.
    assert!((8..=9).contains(&begun), "{begun} were begun");
    let held = server.stats().queued_bytes;
    assert!(held <= limit, "{held} bytes are held");
    drop(stream);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}
