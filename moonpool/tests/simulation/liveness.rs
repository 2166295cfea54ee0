//! Who notices that the other end is gone, how soon, and what that costs while it is there.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::{
    ConnectionSide, KillKind, NetworkConfiguration, Regressions, SimProcess, SimProviders,
    SimWorld, SimulationBuilder, SimulationError, SimulationMetrics,
};
use moonpool::prelude::*;
use moonpool::{AddressState, FailureMonitor, select};

const SLOW: UID = UID::new(0x510, 1);
const PORT: u16 = 4500;

type SimTransport = FlowTransport<
    <SimProviders as Providers>::Network,
    <SimProviders as Providers>::Time,
    <SimProviders as Providers>::Task,
>;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Answers each request after as many seconds as it says; those that say 0, never.
async fn serve_slowly(providers: SimProviders, address: NetworkAddress) {
    let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
    let transport = builder.build_listening().await.unwrap();
    let requests = transport.register_handler::<u64, _>(SLOW, JsonCodec);
    let mut kept = Vec::new();
    while let Some((pause, reply)) = requests.recv_with_transport(&transport).await {
        if pause == 0 {
            kept.push(reply);
            continue;
        }
        let time = providers.time().clone();
        providers.task().spawn_task("answer", async move {
            time.sleep(seconds(pause)).await;
            reply.send(pause);
        });
    }
}

/// A server, and a client whose calls have no deadline.
struct Pair {
    world: SimWorld,
    server: SimProcess,
    client: SimProviders,
    address: NetworkAddress,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let network = NetworkConfiguration::disabled();
        let world = SimWorld::new_with_network_config_and_seed(network, seed).unwrap();
        world.set_time_budget(Some(seconds(10_000)));
        let address: NetworkAddress = format!("10.0.0.1:{PORT}").parse().unwrap();
        let server =
            world.start_process("server", move |providers| serve_slowly(providers, address));
        let client = world.add_process("client").providers();
        Self {
            world,
            server,
            client,
            address,
        }
    }

    fn connect(&self) -> Rc<SimTransport> {
        FlowTransportBuilder::from_providers(&self.client)
            .default_timeout(None)
            .build()
    }

    fn ask(&self, transport: &SimTransport, pause: u64) -> ReplyFuture<u64, JsonCodec> {
        let endpoint = Endpoint::new(self.address, SLOW);
        send_request(transport, &endpoint, pause, JsonCodec).unwrap()
    }
}

#[test]
fn a_power_loss_ends_a_pending_call_by_detection() {
    for seed in 0..50 {
        let pair = Pair::new(seed);
        let (took, outcome) = pair
            .world
            .block_on(async {
                let transport = pair.connect();
                let call = pair.ask(&transport, 0);
                // Time for the request to be acknowledged: only the reply is owed then.
                pair.client.time().sleep(seconds(3)).await;
                assert_eq!(transport.stats().queued_packets, 0, "seed {seed}");
                pair.world.kill(pair.server.id(), KillKind::PowerLoss);
                let killed_at = pair.client.time().now();
                let outcome = call.await;
                (pair.client.time().now() - killed_at, outcome)
            })
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(outcome, Err(ReplyError::MaybeDelivered), "seed {seed}");
        // At most a second to the ping, two to give up, three of patience.
        let expected = seconds(5)..=Duration::from_millis(6_100);
        assert!(expected.contains(&took), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_half_open_connection_costs_a_pending_call_some_time_only() {
    for seed in 0..50 {
        let pair = Pair::new(seed);
        let took = pair
            .world
            .block_on(async {
                let transport = pair.connect();
                let call = pair.ask(&transport, 5);
                pair.client.time().sleep(seconds(3)).await;
                for connection in pair.world.connections() {
                    let side = ConnectionSide::Acceptor;
                    pair.world
                        .simulate_peer_crash(connection, side, seconds(3_600));
                }
                assert_eq!(call.await, Ok(5), "seed {seed}");
                pair.client.time().now()
            })
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        // Found out by the ping, and resumed: the reply was kept.
        assert!(took < seconds(8), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_slow_handler_on_a_healthy_server_keeps_its_call() {
    for seed in 0..20 {
        let pair = Pair::new(seed);
        pair.world
            .block_on(async {
                let transport = pair.connect();
                assert_eq!(pair.ask(&transport, 600).await, Ok(600), "seed {seed}");
                let peer = transport.get_or_open_peer(&pair.address).unwrap();
                assert_eq!(peer.metrics().reconnects, 0, "seed {seed}");
            })
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn a_watch_sees_failure_and_recovery_over_kill_and_restart() {
    for seed in 0..50 {
        for is_crash in [true, false] {
            let kind = if is_crash {
                KillKind::Crash
            } else {
                KillKind::PowerLoss
            };
            let pair = Pair::new(seed);
            let check = async {
                let transport = pair.connect();
                let monitor: FailureMonitor = transport.failure_monitor();
                let time = pair.client.time();
                monitor.on_available(pair.address).await.unwrap();
                let (failed, lost) = (
                    monitor.on_failed(pair.address),
                    monitor.on_disconnect(pair.address),
                );
                time.sleep(seconds(20)).await;
                pair.world.kill(pair.server.id(), kind);
                let killed_at = time.now();
                lost.await.unwrap();
                let noticed = time.now() - killed_at;
                failed.await.unwrap();
                assert_eq!(time.now() - killed_at - noticed, seconds(3), "seed {seed}");
                assert_eq!(monitor.state(pair.address), AddressState::Failed);
                let silence = if is_crash {
                    seconds(0)..=seconds(1)
                } else {
                    seconds(2)..=Duration::from_millis(3_100)
                };
                assert!(silence.contains(&noticed), "seed {seed}: {noticed:?}");
                let back = monitor.on_available(pair.address);
                pair.world.restart(pair.server.id());
                let restarted_at = time.now();
                back.await.unwrap();
                let recovered = time.now() - restarted_at;
                assert!(recovered < seconds(4), "seed {seed}: {recovered:?}");
                assert_eq!(monitor.state(pair.address), AddressState::Available);
            };
            if let Err(error) = pair.world.block_on(check) {
                panic!("seed {seed}: {error}");
            }
        }
    }
}

#[test]
fn idle_connections_cost_nothing_and_close_after_three_minutes() {
    for seed in 0..20 {
        let pair = Pair::new(seed);
        let transport = pair
            .world
            .block_on(async {
                let transport = pair.connect();
                assert_eq!(pair.ask(&transport, 1).await, Ok(1));
                transport
            })
            .unwrap();
        // The reply's acknowledgement is asked for, and each end's timer notices once that there
        // is nothing to do.
        pair.world.run_for(seconds(5)).unwrap();
        let settled = pair.world.events_processed();
        pair.world.run_for(seconds(170)).unwrap();
        assert_eq!(pair.world.connections().len(), 1, "seed {seed}");
        assert_eq!(pair.world.events_processed(), settled, "seed {seed}");
        pair.world.run_for(seconds(10)).unwrap();
        assert_eq!(pair.world.connections().len(), 0, "seed {seed}");
        let stats = transport.stats();
        // Of tasks there is left the one that looks after deadlines, which a transport keeps once it has
        // called.
        assert_eq!((stats.peers, stats.tasks), (0, 1), "seed {seed}");
        // And at the server its acceptor and its handler.
        assert_eq!(pair.world.pending_tasks().len(), 3, "seed {seed}");
        let asked = pair.world.block_on(pair.ask(&transport, 1));
        assert_eq!(asked.unwrap(), Ok(1), "seed {seed}");
    }
}

#[test]
fn a_half_open_session_is_closed_by_the_accepting_end_alone() {
    let pair = Pair::new(1);
    let transport = pair.connect();
    let answered = pair.world.block_on(pair.ask(&transport, 1)).unwrap();
    assert_eq!(answered, Ok(1));
    pair.world.run_for(seconds(5)).unwrap();
    let client = pair.world.process("client").unwrap();
    pair.world.kill(client.id(), KillKind::PowerLoss);
    pair.world.run_for(seconds(205)).unwrap();
    assert!(pair.world.pending_tasks().len() > 2);
    pair.world.run_for(seconds(75)).unwrap();
    assert_eq!(pair.world.pending_tasks().len(), 2);
}

#[test]
fn a_server_that_never_answers_is_a_deadlock_although_both_ends_ping() {
    for seed in 0..20 {
        let pair = Pair::new(seed);
        let transport = pair.connect();
        let error = pair.world.block_on(pair.ask(&transport, 0)).unwrap_err();
        let SimulationError::Deadlock { at, report } = &error else {
            panic!("seed {seed}: {error}");
        };
        let expected = seconds(10)..seconds(13);
        assert!(expected.contains(at), "seed {seed}: {at:?}");
        let line = format!("main future waits on reply from endpoint {SLOW}");
        assert!(report.contains(&line), "seed {seed}: {report}");
        let again = Pair::new(seed);
        let transport = again.connect();
        again.world.block_on(again.ask(&transport, 0)).unwrap_err();
        assert_eq!(again.world.digest(), pair.world.digest(), "seed {seed}");
    }
}

#[test]
fn a_workload_whose_server_never_answers_gets_the_verdict() {
    let report = SimulationBuilder::new()
        .with_seed_range(0..5)
        .with_network_config(NetworkConfiguration::disabled())
        .regressions(Regressions::Off)
        .register_providers_workload("server", |providers: SimProviders, topology| async move {
            let ip = topology.my_ip.parse().unwrap();
            serve_slowly(providers, NetworkAddress::new(ip, PORT)).await;
            Ok(SimulationMetrics::default())
        })
        .register_providers_workload("client", |providers: SimProviders, topology| async move {
            let ip = topology
                .get_peer_by_name("server")
                .unwrap()
                .parse()
                .unwrap();
            let endpoint = Endpoint::new(NetworkAddress::new(ip, PORT), SLOW);
            let transport = FlowTransportBuilder::from_providers(&providers)
                .default_timeout(None)
                .build();
            let call = send_request::<_, u64, _, _, _, _>(&transport, &endpoint, 0_u64, JsonCodec);
            call.unwrap().await.unwrap();
            Ok(SimulationMetrics::default())
        })
        .run();
    assert_eq!(report.failed_runs, 5, "{report}");
    assert!(report.to_string().contains("eadlock"), "{report}");
}

#[test]
fn what_keepalives_find_out_is_no_deadlock() {
    for seed in 0..20 {
        let pair = Pair::new(seed);
        let transport = pair.connect();
        let call = pair.ask(&transport, 0);
        pair.world.run_for(seconds(3)).unwrap();
        pair.world.kill(pair.server.id(), KillKind::PowerLoss);
        let outcome = pair.world.block_on(call);
        let outcome = outcome.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(outcome, Err(ReplyError::MaybeDelivered), "seed {seed}");
    }
}

#[test]
fn a_watch_alone_keeps_no_run_alive() {
    for seed in 0..20 {
        let pair = Pair::new(seed);
        let transport = pair.connect();
        let monitor = transport.failure_monitor();
        let healthy = monitor.on_failed(pair.address);
        let nobody = NetworkAddress::new(pair.address.ip, 1);
        let hopeless = monitor.on_available(nobody);
        pair.world.run_until_empty().unwrap();
        assert!(pair.world.now() < seconds(5), "seed {seed}");
        pair.world.run_for(seconds(10)).unwrap();
        assert_eq!(monitor.state(pair.address), AddressState::Available);
        assert_eq!(monitor.state(nobody), AddressState::Failed);
        let waiting = async {
            select! {
                _ = healthy => "failed",
                _ = hopeless => "available",
            }
        };
        let error = pair.world.block_on(waiting).unwrap_err();
        assert!(
            matches!(error, SimulationError::Deadlock { .. }),
            "seed {seed}: {error}"
        );
        assert!(error.to_string().contains("watch of 10.0.0.1:1"), "{error}");
    }
}

/// Thousands of peers, each needed for a moment: dialled, accepted, failed.
#[test]
fn thousands_of_peers_that_come_and_go_leave_nothing() {
    const PEERS: u16 = 2_000;
    let pair = Pair::new(3);
    let transport = pair.connect();
    let monitor = transport.failure_monitor();
    let ended = Cell::new(0);
    pair.world
        .block_on(async {
            for number in 0..PEERS {
                let nobody = NetworkAddress::new(pair.address.ip, 10_000 + number);
                let endpoint = Endpoint::new(nobody, SLOW);
                let call =
                    send_request::<_, u64, _, _, _, _>(&transport, &endpoint, 0_u64, JsonCodec);
                let watch = monitor.on_failed(nobody);
                let short = pair.connect();
                assert_eq!(pair.ask(&short, 1).await, Ok(1));
                if number % 100 == 0 {
                    let outcome = call.unwrap().await;
                    assert_eq!(outcome, Err(ReplyError::ConnectionFailed));
                    watch.await.unwrap();
                }
                ended.set(ended.get() + 1);
            }
        })
        .unwrap();
    assert_eq!(ended.get(), PEERS);
    assert!(transport.stats().peers < 500, "most are forgotten by now");
    pair.world.run_for(seconds(300)).unwrap();
    let stats = transport.stats();
    let gauges = [
        stats.peers,
        stats.tasks,
        stats.pending_calls,
        stats.queued_packets,
        stats.watches,
        stats.missing_endpoints,
    ];
    // One task looks after deadlines.
    assert_eq!(gauges, [0, 1, 0, 0, 0, 0]);
    assert_eq!(pair.world.pending_tasks().len(), 3);
    assert_eq!(pair.world.connections().len(), 0);
}
