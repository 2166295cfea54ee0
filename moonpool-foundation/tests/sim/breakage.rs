//! Connections that break from outside, and hosts that come and go.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use moonpool_foundation::{
    ConnectionSide, KillKind, NetworkConfiguration, NetworkProvider, Providers, RandomProvider,
    SimProcess, SimProviders, SimTcpStream, SimWorld, SimulationError, TaskProvider,
    TcpListenerTrait,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SECOND: Duration = Duration::from_secs(1);

struct Pair {
    world: SimWorld,
    server: SimProcess,
    client: SimProviders,
    /// The client's end.
    stream: SimTcpStream,
}

/// Accepts connections and keeps what they bring in `received`.
async fn sink(providers: SimProviders, received: Rc<RefCell<Vec<u8>>>) {
    let listener = providers.network().bind("server:80").await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let received = Rc::clone(&received);
        providers.task().spawn_task("sink", async move {
            let mut bytes = [0; 4096];
            while let Ok(count) = stream.read(&mut bytes).await {
                if count == 0 {
                    return;
                }
                received.borrow_mut().extend_from_slice(&bytes[..count]);
            }
        });
    }
}

fn connected(seed: u64) -> (Pair, Rc<RefCell<Vec<u8>>>) {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
    let received = Rc::new(RefCell::new(Vec::new()));
    let server = world.start_process("server", {
        let received = Rc::clone(&received);
        move |providers| sink(providers, Rc::clone(&received))
    });
    let client = world.add_process("client").providers();
    world.run_for(SECOND).unwrap();
    let connect = client.network().clone();
    let stream = world
        .block_on(async move { connect.connect("server:80").await.unwrap() })
        .unwrap();
    world.run_for(SECOND).unwrap();
    let pair = Pair {
        world,
        server,
        client,
        stream,
    };
    (pair, received)
}

/// How the stream ends for its reader, and when.
fn end_of(world: &SimWorld, mut stream: SimTcpStream) -> (Result<(), ErrorKind>, Duration) {
    let mut bytes = [0; 64];
    let end = world
        .block_on(async move {
            loop {
                match stream.read(&mut bytes).await {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(error) => return Err(error.kind()),
                }
            }
        })
        .unwrap();
    (end, world.now())
}

#[test]
fn a_host_without_power_is_silent_until_the_senders_socket_times_out() {
    let (mut pair, received) = connected(1);
    pair.world.kill(pair.server.id(), KillKind::PowerLoss);
    let lost_at = pair.world.now();
    pair.stream = pair
        .world
        .block_on(async move {
            pair.stream.write_all(b"into the void").await.unwrap();
            pair.stream
        })
        .unwrap();
    let (end, at) = end_of(&pair.world, pair.stream);
    assert_eq!(end, Err(ErrorKind::TimedOut));
    assert!((15..16).contains(&(at - lost_at).as_secs()), "{at:?}");
    assert!(received.borrow().is_empty());
    pair.world.run_until_empty().unwrap();
    assert_eq!(pair.world.leftovers().connections, 0);
}

#[test]
fn a_reader_hears_nothing_of_a_host_without_power() {
    let (mut pair, _) = connected(2);
    pair.world.kill(pair.server.id(), KillKind::PowerLoss);
    let error = pair
        .world
        .block_on(async move { pair.stream.read_u8().await })
        .unwrap_err();
    assert!(matches!(error, SimulationError::Deadlock { .. }), "{error}");
}

#[test]
fn bytes_under_way_to_a_host_that_loses_power_time_out_too() {
    let (mut pair, received) = connected(3);
    pair.stream = pair
        .world
        .block_on(async move {
            pair.stream.write_all(b"under way").await.unwrap();
            pair.stream
        })
        .unwrap();
    pair.world.kill(pair.server.id(), KillKind::PowerLoss);
    let (end, _) = end_of(&pair.world, pair.stream);
    assert_eq!(end, Err(ErrorKind::TimedOut));
    assert!(received.borrow().is_empty());
}

#[test]
fn a_restarted_host_resets_what_its_predecessor_left_open() {
    let (mut pair, _) = connected(4);
    pair.world.kill(pair.server.id(), KillKind::PowerLoss);
    pair.world.run_for(SECOND).unwrap();
    assert!(pair.world.restart(pair.server.id()));
    assert!(!pair.world.restart(pair.server.id()), "it lives already");
    let written_at = pair.world.now();
    pair.stream = pair
        .world
        .block_on(async move {
            pair.stream.write_all(b"hello?").await.unwrap();
            pair.stream
        })
        .unwrap();
    let (end, at) = end_of(&pair.world, pair.stream);
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert!(at - written_at < SECOND, "{at:?}");
}

#[test]
fn what_was_sent_in_vain_is_reset_once_the_host_is_back() {
    let (mut pair, _) = connected(5);
    pair.world.kill(pair.server.id(), KillKind::PowerLoss);
    pair.stream = pair
        .world
        .block_on(async move {
            pair.stream.write_all(b"hello?").await.unwrap();
            pair.stream
        })
        .unwrap();
    pair.world.run_for(3 * SECOND).unwrap();
    pair.world.restart(pair.server.id());
    let (end, at) = end_of(&pair.world, pair.stream);
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert!(at < 10 * SECOND, "{at:?}");
}

#[test]
fn a_connect_to_a_host_without_power_waits_for_it_or_times_out() {
    let (pair, _) = connected(6);
    pair.world.kill(pair.server.id(), KillKind::PowerLoss);
    let network = pair.client.network().clone();
    let began = pair.world.now();
    let kind = pair
        .world
        .block_on(async move { network.connect("server:80").await.unwrap_err().kind() })
        .unwrap();
    assert_eq!(kind, ErrorKind::TimedOut);
    assert_eq!((pair.world.now() - began).as_secs(), 127);

    let network = pair.client.network().clone();
    let waiting = pair.client.task().spawn_task("dialler", async move {
        network.connect("server:80").await.is_ok()
    });
    pair.world.run_for(5 * SECOND).unwrap();
    pair.world.restart(pair.server.id());
    assert_eq!(pair.world.block_on(waiting).unwrap(), Ok(true));
}

#[test]
fn each_life_begins_with_fresh_memory_and_goes_on_in_its_random_stream() {
    let lives = |kills: u32| {
        let world = SimWorld::new_with_seed(7);
        let drawn = Rc::new(RefCell::new(Vec::new()));
        let process = world.start_process("node", {
            let drawn = Rc::clone(&drawn);
            move |providers| {
                let drawn = Rc::clone(&drawn);
                async move {
                    let number: u64 = providers.random().random();
                    drawn.borrow_mut().push(number);
                    std::future::pending().await
                }
            }
        });
        world.run_for(SECOND).unwrap();
        for _ in 0..kills {
            world.kill(process.id(), KillKind::Crash);
            world.restart(process.id());
            world.run_for(SECOND).unwrap();
        }
        drawn.take()
    };
    let drawn = lives(3);
    assert_eq!(drawn, lives(3));
    let distinct: BTreeSet<_> = drawn.iter().collect();
    assert_eq!(
        distinct.len(),
        4,
        "a restart rewound the random stream: {drawn:?}"
    );
}

#[test]
fn an_abort_cuts_the_stream_at_any_byte_and_resets_both_ends() {
    let mut lengths = BTreeSet::new();
    for seed in 0..40 {
        let (mut pair, received) = connected(seed);
        let sent: Vec<u8> = (0..=255).cycle().take(2000).collect();
        let block = sent.clone();
        pair.stream = pair
            .world
            .block_on(async move {
                pair.stream.write_all(&block).await.unwrap();
                pair.stream
            })
            .unwrap();
        let [connection] = pair.world.connections()[..] else {
            panic!("one connection is open");
        };
        assert_eq!(connection.acceptor(), pair.server.id());
        pair.world.close_connection_abort(connection);
        let (end, _) = end_of(&pair.world, pair.stream);
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
        pair.world.run_until_empty().unwrap();
        let received = received.borrow();
        assert_eq!(received[..], sent[..received.len()]);
        lengths.insert(received.len());
        assert_eq!(pair.world.leftovers().connections, 0);
    }
    assert!(lengths.len() > 30, "cut at {lengths:?}");
    assert!(lengths.iter().all(|length| *length <= 2000));
}

#[test]
fn a_half_open_connection_swallows_writes_until_it_fails() {
    let mut ends = BTreeSet::new();
    for seed in 0..20 {
        let (mut pair, received) = connected(seed);
        let connection = pair.world.connections()[0];
        let delay = 30 * SECOND;
        pair.world
            .simulate_peer_crash(connection, ConnectionSide::Acceptor, delay);
        let due = pair.world.now() + delay;
        pair.stream = pair
            .world
            .block_on(async move {
                pair.stream.write_all(b"is anybody there?").await.unwrap();
                pair.stream
            })
            .unwrap();
        let (end, at) = end_of(&pair.world, pair.stream);
        assert_eq!(at, due);
        assert!(received.borrow().is_empty());
        ends.insert(format!("{end:?}"));
    }
    assert_eq!(
        ends.into_iter().collect::<Vec<_>>(),
        ["Err(ConnectionReset)", "Err(TimedOut)"]
    );
}

#[test]
fn providers_of_an_earlier_life_stay_inert_after_a_restart() {
    let world = SimWorld::new();
    let process = world.add_process("node");
    let before = process.providers();
    world.kill(process.id(), KillKind::Crash);
    world.restart(process.id());
    let ghost = before.task().spawn_task("ghost", async {});
    let now = process.providers().task().spawn_task("alive", async {});
    let (ghost, now) = world.block_on(async { (ghost.await, now.await) }).unwrap();
    assert!(ghost.is_err() && now.is_ok(), "{ghost:?} {now:?}");
}
