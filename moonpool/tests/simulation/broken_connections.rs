//! Calls while connections are cut at any byte, left half open, and the server's process dies and
//! comes back; audited by a ledger outside the processes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::{
    ConnectionSide, FaultKind, KillKind, NetworkConfiguration, ProcessId, SimProviders, SimWorld,
};
use moonpool::prelude::*;

const RECORD: UID = UID::new(0xB20C, 1);
const CALLS: u64 = 40;

/// How often each call was executed, and how it ended.
#[derive(Default)]
struct Ledger {
    executed: BTreeMap<u64, u32>,
    ended: BTreeMap<u64, Result<u64, ReplyError>>,
}

type SharedLedger = Rc<RefCell<Ledger>>;

async fn serve(providers: SimProviders, ledger: SharedLedger) {
    let address = "10.0.0.1:4500".parse().unwrap();
    let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
    let transport = builder.build_listening().await.unwrap();
    let requests = transport.register_handler::<u64, _>(RECORD, JsonCodec);
    while let Some((call, reply)) = requests.recv_with_transport(&transport).await {
        *ledger.borrow_mut().executed.entry(call).or_default() += 1;
        let pause = providers.random().random_range(0..3_000);
        providers.time().sleep(Duration::from_micros(pause)).await;
        reply.send(call + 1);
    }
}

async fn call_all(providers: SimProviders, ledger: SharedLedger) {
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let endpoint = Endpoint::new("10.0.0.1:4500".parse().unwrap(), RECORD);
    let mut pending = Vec::new();
    for call in 0..CALLS {
        let reply = send_request(&transport, &endpoint, call, JsonCodec).unwrap();
        let ledger = Rc::clone(&ledger);
        pending.push(providers.task().spawn_task("call", async move {
            let outcome = reply.await;
            let before = ledger.borrow_mut().ended.insert(call, outcome);
            assert!(before.is_none(), "call {call} ended twice");
        }));
        let pause = providers.random().random_range(0..20_000);
        providers.time().sleep(Duration::from_micros(pause)).await;
    }
    for call in pending {
        call.await.unwrap();
    }
    transport.shutdown(Duration::from_secs(1)).await;
}

/// What breaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chaos {
    /// RST in the middle of the stream.
    Cuts,
    /// Those, and connections that are half open for a while.
    HalfOpen,
    /// Those, and the server's process dies and comes back.
    Restarts,
}

async fn break_things(world: &SimWorld, server: ProcessId, chaos: Chaos) {
    let (random, time) = (world.random_provider(), world.time_provider());
    loop {
        let pause = random.random_range(1..60_u64);
        time.sleep(Duration::from_millis(pause)).await;
        let kinds = match chaos {
            Chaos::Cuts => 1,
            Chaos::HalfOpen => 2,
            Chaos::Restarts => 3,
        };
        let open = world.connections();
        match random.random_range(0..kinds) {
            0 => open
                .into_iter()
                .for_each(|connection| world.close_connection_abort(connection)),
            1 => {
                let crashed = if random.random_bool(0.5) {
                    ConnectionSide::Dialer
                } else {
                    ConnectionSide::Acceptor
                };
                let delay = Duration::from_millis(random.random_range(1..4_000));
                for connection in open {
                    world.simulate_peer_crash(connection, crashed, delay);
                }
            }
            _ => {
                let kind = if random.random_bool(0.5) {
                    KillKind::Crash
                } else {
                    KillKind::PowerLoss
                };
                world.kill(server, kind);
                let down = Duration::from_millis(random.random_range(0..300));
                time.sleep(down).await;
                world.restart(server);
            }
        }
    }
}

fn run(seed: u64, chaos: Chaos) -> (Ledger, u64) {
    // Peers that are refused or not answered give up in the end: what breaks here is said above.
    let config = NetworkConfiguration::default()
        .without(FaultKind::ConnectRefused)
        .without(FaultKind::ConnectHang);
    let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
    let ledger = SharedLedger::default();
    let server = world.start_process("server", {
        let ledger = Rc::clone(&ledger);
        move |providers| serve(providers, Rc::clone(&ledger))
    });
    let client = world.add_process("client").providers();
    let calls = call_all(client.clone(), Rc::clone(&ledger));
    let calling = client.task().spawn_task("client", calls);
    let done = world.block_on(async {
        moonpool::select! {
            done = calling => done,
            () = break_things(&world, server.id(), chaos) => unreachable!("chaos has no end"),
        }
    });
    done.unwrap_or_else(|error| panic!("seed {seed}: {error}"))
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let digest = world.digest();
    drop(world);
    (ledger.take(), digest)
}

/// What holds whatever breaks.
fn audit(seed: u64, ledger: &Ledger) {
    assert_eq!(
        ledger.ended.len() as u64,
        CALLS,
        "seed {seed}: a call never ended"
    );
    for (call, outcome) in &ledger.ended {
        let executed = ledger.executed.get(call).copied().unwrap_or(0);
        assert!(
            executed <= 1,
            "seed {seed}: call {call} was executed {executed} times"
        );
        match outcome {
            Ok(answer) => assert_eq!((*answer, executed), (call + 1, 1), "seed {seed}"),
            Err(ReplyError::ConnectionFailed | ReplyError::EndpointNotFound) => {
                assert_eq!(
                    executed, 0,
                    "seed {seed}: call {call} was executed after all"
                );
            }
            Err(ReplyError::MaybeDelivered) => {}
            Err(other) => panic!("seed {seed}: call {call} ended with {other:?}"),
        }
    }
}

/// How many seeds: `slow_` tests take `SESSION_SEEDS` for a long campaign by hand.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let given = std::env::var("SESSION_SEEDS");
    0..given.map_or(default, |seeds| seeds.parse().unwrap())
}

fn campaign(chaos: Chaos, default: u64) -> BTreeMap<&'static str, usize> {
    let mut outcomes = BTreeMap::new();
    for seed in seeds(default) {
        let (ledger, digest) = run(seed, chaos);
        audit(seed, &ledger);
        if seed % 50 == 0 {
            assert_eq!(run(seed, chaos).1, digest, "seed {seed} has two digests");
        }
        for outcome in ledger.ended.values() {
            let name = match outcome {
                Ok(_) => "answered",
                Err(ReplyError::ConnectionFailed) => "surely not executed",
                Err(ReplyError::MaybeDelivered) => "maybe delivered",
                Err(_) => "endpoint not found",
            };
            *outcomes.entry(name).or_default() += 1;
        }
    }
    println!("{outcomes:?}");
    outcomes
}

#[test]
fn slow_simulation_cut_connections_cost_no_call() {
    // The session goes on with the next connection: nothing is lost, and nothing runs twice.
    let outcomes = campaign(Chaos::Cuts, 100);
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), [&"answered"]);
}

#[test]
fn slow_simulation_half_open_connections_run_no_call_twice() {
    let outcomes = campaign(Chaos::HalfOpen, 100);
    assert!(outcomes["answered"] > 0);
}

#[test]
fn slow_simulation_a_restarting_server_runs_no_call_twice() {
    let outcomes = campaign(Chaos::Restarts, 100);
    for outcome in ["answered", "maybe delivered"] {
        assert!(outcomes.contains_key(outcome), "{outcomes:?}");
    }
}
