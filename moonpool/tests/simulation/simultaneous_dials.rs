//! Processes that call each other: who dials is chance, and they share one connection.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::{
    ConnectionSide, FaultKind, KillKind, NetworkConfiguration, SimProviders, SimWorld,
};
use moonpool::prelude::*;

const ECHO: UID = UID::new(0xB20C, 2);

type Transport = FlowTransport<
    <SimProviders as Providers>::Network,
    <SimProviders as Providers>::Time,
    <SimProviders as Providers>::Task,
>;

/// The default network, in which connections break only where a test breaks them, and who is dialled
/// answers.
fn world(seed: u64) -> SimWorld {
    let config = NetworkConfiguration::default()
        .without(FaultKind::ConnectRefused)
        .without(FaultKind::ConnectHang)
        .without(FaultKind::RandomClose);
    SimWorld::new_with_network_config_and_seed(config, seed).unwrap()
}

fn address(host: u8) -> NetworkAddress {
    format!("10.0.0.{host}:4500").parse().unwrap()
}

async fn listen(providers: &SimProviders, host: u8) -> Rc<Transport> {
    let builder = FlowTransportBuilder::from_providers(providers).local_address(address(host));
    builder.build_listening().await.unwrap()
}

fn serve(providers: &SimProviders, transport: &Rc<Transport>) {
    let requests = transport.register_handler::<u64, _>(ECHO, JsonCodec);
    let transport = Rc::clone(transport);
    let serving = async move {
        while let Some((number, reply)) = requests.recv_with_transport(&transport).await {
            reply.send(number + 1);
        }
    };
    drop(providers.task().spawn_task("serve", serving));
}

fn ask(transport: &Transport, host: u8, number: u64) -> ReplyFuture<u64, JsonCodec> {
    send_request(
        transport,
        &Endpoint::new(address(host), ECHO),
        number,
        JsonCodec,
    )
    .unwrap()
}

/// Calls one host from another, `count` times, and wants every answer.
async fn call(providers: SimProviders, transport: Rc<Transport>, host: u8, count: u64) {
    for number in 0..count {
        assert_eq!(ask(&transport, host, number).await, Ok(number + 1));
        let pause = providers.random().random_range(0..2_000);
        providers.time().sleep(Duration::from_micros(pause)).await;
    }
}

#[test]
fn two_transports_that_call_each_other_at_once_end_up_on_one_connection() {
    let mut dialled_once = 0;
    for seed in 0..300 {
        let world = world(seed);
        let (a, b) = (world.add_process("a"), world.add_process("b"));
        let (a, b) = (a.providers(), b.providers());
        world
            .block_on(async {
                let (at_a, at_b) = (listen(&a, 1).await, listen(&b, 2).await);
                serve(&a, &at_a);
                serve(&b, &at_b);
                let calls = [
                    a.task()
                        .spawn_task("a", call(a.clone(), at_a.clone(), 2, 20)),
                    b.task()
                        .spawn_task("b", call(b.clone(), at_b.clone(), 1, 20)),
                ];
                for call in calls {
                    call.await.unwrap();
                }
                a.time().sleep(Duration::from_millis(100)).await;
                assert_eq!(world.connections().len(), 1, "seed {seed}");
                let (a, b) = (at_a.stats(), at_b.stats());
                assert_eq!((a.peers, b.peers), (1, 1), "seed {seed}");
                let accepted = a.incoming_connections + b.incoming_connections;
                assert_eq!(accepted, 1, "seed {seed}");
                dialled_once += u32::from(a.accepted + b.accepted == 1);
            })
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    // Otherwise they never dialled at once, and nothing was tested.
    assert!(dialled_once < 250, "{dialled_once}");
}

#[test]
fn an_accepted_session_is_called_without_a_dial_and_resumed_by_either_end() {
    for seed in 0..50 {
        let world = world(seed);
        let (a, b) = (world.add_process("a"), world.add_process("b"));
        let (a, b) = (a.providers(), b.providers());
        world
            .block_on(async {
                let (at_a, at_b) = (listen(&a, 1).await, listen(&b, 2).await);
                serve(&a, &at_a);
                serve(&b, &at_b);
                assert_eq!(ask(&at_a, 2, 1).await, Ok(2));
                for number in 0..20 {
                    // Now one end has something to say, now the other.
                    if let Some(connection) = world.connections().first() {
                        world.close_connection_abort(*connection);
                    }
                    let (from, to) = if number % 2 == 0 {
                        (&at_b, 1)
                    } else {
                        (&at_a, 2)
                    };
                    assert_eq!(ask(from, to, number).await, Ok(number + 1), "seed {seed}");
                    a.time().sleep(Duration::from_millis(50)).await;
                    assert_eq!(world.connections().len(), 1, "seed {seed}");
                }
                // The session began once, whoever dialled since: each end has one peer. Besides there are
                // the tasks that accept connections and that keep the calls' deadlines.
                for stats in [at_a.stats(), at_b.stats()] {
                    assert_eq!(stats.peers + stats.incoming_sessions, 1, "seed {seed}");
                    assert_eq!(stats.tasks, 3, "seed {seed}");
                }
                assert!(at_a.stats().accepted > 0 && at_b.stats().accepted > 0);
            })
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn the_address_of_a_hello_is_not_dialled_unless_local_code_asks_for_it() {
    let world = world(1);
    let (a, b) = (world.add_process("a"), world.add_process("b"));
    let (a, b) = (a.providers(), b.providers());
    let done = world.block_on(async {
        let (at_a, at_b) = (listen(&a, 1).await, listen(&b, 2).await);
        serve(&b, &at_b);
        assert_eq!(ask(&at_a, 2, 1).await, Ok(2));
        world.close_connection_abort(world.connections()[0]);
        a.time().sleep(Duration::from_secs(70)).await;
        assert_eq!(at_a.stats().accepted, 0, "the server dialled its client");
        assert_eq!(at_b.stats().peers, 0);
    });
    done.unwrap();
}

#[test]
fn a_restarted_peer_behind_a_half_open_predecessor_is_reached_within_the_ping() {
    for seed in 0..50 {
        let world = world(seed);
        let a = world.add_process("a").providers();
        let starts = Rc::new(Cell::new(0));
        let process = world.start_process("b", {
            let starts = Rc::clone(&starts);
            move |providers| {
                let starts = Rc::clone(&starts);
                async move {
                    let transport = listen(&providers, 2).await;
                    serve(&providers, &transport);
                    starts.set(starts.get() + 1);
                    if starts.get() > 1 {
                        // It says Hello before it is asked.
                        assert_eq!(ask(&transport, 1, 7).await, Ok(8));
                    }
                    std::future::pending::<()>().await;
                }
            }
        });
        world
            .block_on(async {
                let at_a = listen(&a, 1).await;
                serve(&a, &at_a);
                assert_eq!(ask(&at_a, 2, 1).await, Ok(2));
                // Nothing tells that the other end is gone.
                for connection in world.connections() {
                    let never = Duration::from_secs(600);
                    world.simulate_peer_crash(connection, ConnectionSide::Acceptor, never);
                }
                world.kill(process.id(), KillKind::PowerLoss);
                world.restart(process.id());
                // Before its Hello is there, a request would still be written to the old one.
                while at_a.stats().incoming_sessions == 0 {
                    a.time().sleep(Duration::from_millis(1)).await;
                }
                let before = a.time().now();
                assert_eq!(ask(&at_a, 2, 5).await, Ok(6), "seed {seed}");
                let took = a.time().now() - before;
                assert!(took < Duration::from_millis(2_200), "seed {seed}: {took:?}");
                assert_eq!(at_a.stats().peers, 1, "seed {seed}");
            })
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
