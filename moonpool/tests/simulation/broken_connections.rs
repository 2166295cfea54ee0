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
    ended: BTreeMap<u64, Ended>,
}

/// How a call ended.
enum Ended {
    /// As its caller learned.
    With(Result<u64, ReplyError>),
    /// With its caller: nobody learned anything.
    CallerDied,
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
            let before = ledger.borrow_mut().ended.insert(call, Ended::With(outcome));
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
fn audit(seed: u64, calls: u64, ledger: &Ledger) {
    assert_eq!(
        ledger.ended.len() as u64,
        calls,
        "seed {seed}: a call never ended"
    );
    for (call, outcome) in &ledger.ended {
        let executed = ledger.executed.get(call).copied().unwrap_or(0);
        assert!(
            executed <= 1,
            "seed {seed}: call {call} was executed {executed} times"
        );
        let Ended::With(outcome) = outcome else {
            continue;
        };
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
    campaign_of(default, |seed| {
        let (ledger, digest) = run(seed, chaos);
        (ledger, CALLS, digest)
    })
}

/// Runs and audits worlds; each gives its ledger, how many calls were made, and its digest.
fn campaign_of(
    default: u64,
    run: impl Fn(u64) -> (Ledger, u64, u64),
) -> BTreeMap<&'static str, usize> {
    let mut outcomes = BTreeMap::new();
    for seed in seeds(default) {
        let (ledger, calls, digest) = run(seed);
        audit(seed, calls, &ledger);
        if seed % 50 == 0 {
            assert_eq!(run(seed).2, digest, "seed {seed} has two digests");
        }
        for outcome in ledger.ended.values() {
            let name = match outcome {
                Ended::CallerDied => "caller died",
                Ended::With(Ok(_)) => "answered",
                Ended::With(Err(ReplyError::ConnectionFailed)) => "surely not executed",
                Ended::With(Err(ReplyError::MaybeDelivered)) => "maybe delivered",
                Ended::With(Err(_)) => "endpoint not found",
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
    for outcome in ["answered", "maybe delivered", "surely not executed"] {
        assert!(outcomes.contains_key(outcome), "{outcomes:?}");
    }
}

/// Hosts of a mesh in which everybody calls everybody.
const NODES: u8 = 5;
/// Calls that each life of a node makes.
const CALLS_OF_A_NODE: u64 = 24;

/// What the nodes of a mesh did, seen from outside: a call's number is drawn here, so that no two
/// lives use the same.
#[derive(Clone, Default)]
struct Mesh {
    ledger: SharedLedger,
    made: Rc<RefCell<u64>>,
    /// Calls whose caller died: nobody learned how they ended.
    orphans: Rc<RefCell<BTreeMap<u64, u8>>>,
}

fn mesh_address(host: u8) -> NetworkAddress {
    format!("10.0.0.{host}:4500").parse().unwrap()
}

async fn mesh_node(providers: SimProviders, host: u8, mesh: Mesh) {
    let builder = FlowTransportBuilder::from_providers(&providers);
    let builder = builder.local_address(mesh_address(host));
    let transport = builder.build_listening().await.unwrap();
    let requests = transport.register_handler::<u64, _>(RECORD, JsonCodec);
    let serving = {
        let (providers, transport) = (providers.clone(), Rc::clone(&transport));
        let ledger = Rc::clone(&mesh.ledger);
        async move {
            while let Some((call, reply)) = requests.recv_with_transport(&transport).await {
                *ledger.borrow_mut().executed.entry(call).or_default() += 1;
                let pause = providers.random().random_range(0..2_000);
                providers.time().sleep(Duration::from_micros(pause)).await;
                reply.send(call + 1);
            }
        }
    };
    drop(providers.task().spawn_task("serve", serving));
    for _ in 0..CALLS_OF_A_NODE {
        let others: Vec<u8> = (1..=NODES).filter(|other| *other != host).collect();
        let to = others[providers.random().random_range(0..others.len())];
        let call = *mesh.made.borrow();
        *mesh.made.borrow_mut() += 1;
        mesh.orphans.borrow_mut().insert(call, host);
        let endpoint = Endpoint::new(mesh_address(to), RECORD);
        let reply = send_request(&transport, &endpoint, call, JsonCodec).unwrap();
        let mesh = mesh.clone();
        drop(providers.task().spawn_task("call", async move {
            let outcome = reply.await;
            mesh.orphans.borrow_mut().remove(&call);
            let before = mesh
                .ledger
                .borrow_mut()
                .ended
                .insert(call, Ended::With(outcome));
            assert!(before.is_none(), "call {call} ended twice");
        }));
        let pause = providers.random().random_range(0..30_000);
        providers.time().sleep(Duration::from_micros(pause)).await;
    }
    std::future::pending::<()>().await;
}

/// Cuts, half-opens and kills for a while, then lets everything come to rest.
async fn break_mesh(world: &SimWorld, nodes: &[ProcessId], mesh: &Mesh, kills: bool) {
    let (random, time) = (world.random_provider(), world.time_provider());
    let rounds = random.random_range(5..25);
    for _ in 0..rounds {
        let pause = random.random_range(1..60_u64);
        time.sleep(Duration::from_millis(pause)).await;
        let open = world.connections();
        match random.random_range(0..if kills { 3 } else { 1 }) {
            0 => {
                for connection in open {
                    if random.random_bool(0.5) {
                        world.close_connection_abort(connection);
                    }
                }
            }
            1 => {
                for connection in open {
                    let crashed = match random.random_range(0..4) {
                        0 => ConnectionSide::Dialer,
                        1 => ConnectionSide::Acceptor,
                        _ => continue,
                    };
                    let delay = Duration::from_millis(random.random_range(1..4_000));
                    world.simulate_peer_crash(connection, crashed, delay);
                }
            }
            _ => {
                let at = random.random_range(0..nodes.len());
                let kind = if random.random_bool(0.5) {
                    KillKind::Crash
                } else {
                    KillKind::PowerLoss
                };
                world.kill(nodes[at], kind);
                let host = u8::try_from(at).unwrap() + 1;
                mesh.orphans.borrow_mut().retain(|call, caller| {
                    if *caller == host {
                        let mut ledger = mesh.ledger.borrow_mut();
                        ledger.ended.insert(*call, Ended::CallerDied);
                    }
                    *caller != host
                });
                let down = Duration::from_millis(random.random_range(0..300));
                time.sleep(down).await;
                world.restart(nodes[at]);
            }
        }
    }
    // Every call ends, whatever died.
    let patience = time.now() + Duration::from_secs(60);
    while time.now() < patience {
        time.sleep(Duration::from_millis(500)).await;
        if mesh.orphans.borrow().is_empty() {
            break;
        }
    }
    time.sleep(Duration::from_secs(1)).await;
}

fn run_mesh(seed: u64, kills: bool) -> (Ledger, u64, u64) {
    let world = SimWorld::new_with_seed(seed);
    let mesh = Mesh::default();
    let start = |host: u8| {
        let mesh = mesh.clone();
        let node = move |providers| mesh_node(providers, host, mesh.clone());
        world.start_process(&format!("node {host}"), node).id()
    };
    let nodes: Vec<ProcessId> = (1..=NODES).map(start).collect();
    world
        .block_on(break_mesh(&world, &nodes, &mesh, kills))
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let pairs = usize::from(NODES) * usize::from(NODES - 1) / 2;
    if !kills {
        let open = world.connections().len();
        assert!(open <= pairs, "seed {seed}: {open} connections");
    }
    let digest = world.digest();
    drop(world);
    let made = *mesh.made.borrow();
    (mesh.ledger.take(), made, digest)
}

#[test]
fn slow_simulation_a_mesh_under_cut_connections_runs_no_call_twice() {
    let outcomes = campaign_of(40, |seed| run_mesh(seed, false));
    assert!(outcomes["answered"] > 0, "{outcomes:?}");
}

#[test]
fn slow_simulation_a_mesh_whose_nodes_die_runs_no_call_twice() {
    let outcomes = campaign_of(60, |seed| run_mesh(seed, true));
    for outcome in ["answered", "maybe delivered"] {
        assert!(outcomes.contains_key(outcome), "{outcomes:?}");
    }
}
