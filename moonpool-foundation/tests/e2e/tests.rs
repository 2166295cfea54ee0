//! The scenarios: what is promised holds under each, and each reaches what it is there for.

use moonpool_foundation::chaos::oracle;
use moonpool_foundation::{
    BuggifyProbabilities, InvariantCheck, NetworkConfiguration, SimProviders, SimulationBuilder,
    SimulationReport, WorkloadTopology,
};

use crate::operations::Weights;
use crate::workloads::{bare_client, bare_server, session_client, session_server, wire_server};

const CLIENTS: [&str; 3] = ["client-1", "client-2", "client-3"];

/// A campaign of `clients` sessions, which the oracle watches.
fn sessions(clients: usize, weights: Weights) -> SimulationBuilder {
    let builder = SimulationBuilder::new()
        .process("server", session_server)
        .with_invariants(oracle::sessions());
    CLIENTS
        .into_iter()
        .take(clients)
        .fold(builder, |builder, name| {
            let client =
                move |p: SimProviders, t: WorkloadTopology| session_client(p, t, weights, name);
            builder.register_providers_workload(name, client)
        })
}

/// The same of bare peers, before their server is registered.
fn bare(clients: usize, weights: Weights) -> SimulationBuilder {
    let builder = SimulationBuilder::new().with_invariants(oracle::bare_peers());
    CLIENTS
        .into_iter()
        .take(clients)
        .fold(builder, |builder, name| {
            let client =
                move |p: SimProviders, t: WorkloadTopology| bare_client(p, t, weights, name);
            builder.register_providers_workload(name, client)
        })
}

/// Fails unless each of these held at least once.
fn assert_reached(report: &SimulationReport, names: &[&str]) {
    report.assert_passed();
    for name in names {
        let held = report
            .assertion_results
            .iter()
            .filter(|r| r.name == *name)
            .map(|r| r.held);
        assert!(held.sum::<u64>() > 0, "{name} was missed: {report}");
    }
}

#[test]
fn reliable_delivery() {
    let report = sessions(1, Weights::CALM).set_iterations(100).run();
    assert_reached(&report, &["session_client_closed", "packet_ids_are_dense"]);
}

#[test]
fn reliable_packets_arrive_once_and_in_order_over_connections_that_break() {
    let report = sessions(1, Weights::BROKEN)
        .with_network_config(NetworkConfiguration::chaos())
        .set_iterations(200)
        .run();
    let names = [
        "session_resumed",
        "session_lost",
        "delivery_became_uncertain",
    ];
    assert_reached(&report, &names);
}

#[test]
fn unreliable_drops() {
    let weights = Weights {
        reliable: 0,
        unreliable: 20,
        ..Weights::BROKEN
    };
    let report = bare(1, weights)
        .process("server", wire_server)
        .set_iterations(100)
        .run();
    let names = [
        "unreliable_discarded_on_error",
        "an_unreliable_packet_arrived",
    ];
    assert_reached(&report, &names);
}

#[test]
fn mixed_queues() {
    let weights = Weights {
        reliable: 20,
        unreliable: 20,
        wait: 2,
        ..Weights::BROKEN
    };
    let report = bare(1, weights)
        .process("server", bare_server)
        .set_iterations(100)
        .run();
    assert_reached(&report, &["queue_was_full", "delivery_became_uncertain"]);
}

#[test]
fn reconnection() {
    let weights = Weights {
        reconnect: 5,
        ..Weights::BROKEN
    };
    let report = bare(1, weights)
        .process("server", wire_server)
        .set_iterations(100)
        .run();
    assert_reached(
        &report,
        &["wire_server_connection_closed", "bare_client_closed"],
    );
    let sessions = sessions(1, weights).set_iterations(100).run();
    assert_reached(&sessions, &["session_resumed"]);
}

#[test]
fn multi_client() {
    let report = sessions(3, Weights::BROKEN).set_iterations(60).run();
    assert_reached(&report, &["session_resumed", "session_lost"]);
    let report = bare(3, Weights::BROKEN)
        .process("server", bare_server)
        .set_iterations(60)
        .run();
    assert_reached(&report, &["delivery_became_uncertain"]);
}

#[test]
fn a_campaign_of_peers_is_the_same_on_any_number_of_threads() {
    let campaign = |jobs| {
        sessions(2, Weights::BROKEN)
            .set_iterations(20)
            .jobs(jobs)
            .run()
    };
    let (alone, together) = (campaign(1), campaign(3));
    assert_eq!(alone.metrics.digest, together.metrics.digest);
    assert_eq!(alone.assertion_results, together.assertion_results);
    assert_eq!(alone.buggify_results, together.buggify_results);
}

/// The oracle is not blind: bare peers lose what was written on a connection that broke, so they do
/// not keep what sessions promise unless that is reported.
#[test]
fn bare_peers_do_not_keep_the_promise_of_sessions() {
    let unreported =
        InvariantCheck::at_end("all arrived", |states: &moonpool_foundation::States, _| {
            let mut states = states.clone();
            if let Some(sender) = states.get_mut("sender/client-1") {
                sender["maybe_delivered"].take();
            }
            let checks = oracle::sessions();
            let mut at_end = checks
                .iter()
                .filter(|check| check.name() == "no reliable packet is lost");
            at_end.try_for_each(|check| check.check(&states, std::time::Duration::ZERO))
        });
    let report = bare(1, Weights::BROKEN)
        .process("server", wire_server)
        .with_invariants(vec![unreported])
        .set_iterations(60)
        .run();
    assert!(report.failed_runs > 0);
    let mut failures = report.failures();
    assert!(
        failures.all(|seed| seed.verdict.name() == "Invariant"),
        "{report}"
    );
}

#[test]
fn writes_of_a_peer_fail_now_and_then_and_sessions_survive_that() {
    let often = BuggifyProbabilities::new(1.0, 0.25).unwrap();
    let campaign = |probabilities| {
        sessions(1, Weights::CALM)
            .with_network_config(NetworkConfiguration::fast_local())
            .with_buggify(probabilities)
            .set_iterations(100)
            .run()
    };
    // Nothing else breaks a connection here.
    assert_reached(&campaign(often), &["session_resumed"]);
    let calm = campaign(BuggifyProbabilities::OFF);
    let resumed = calm
        .assertion_results
        .iter()
        .find(|r| r.name == "session_resumed");
    assert_eq!(resumed.unwrap().held, 0);
}

#[test]
fn flipped_bits_are_caught_by_checksums_and_no_changed_packet_arrives() {
    let mut network = NetworkConfiguration::disabled();
    network.chaos.bit_flip_probability = 0.02;
    let names = [
        "checksum_caught_corruption",
        "connection_teardown_on_wire_error",
    ];
    let over_sessions = sessions(1, Weights::CALM)
        .with_network_config(network.clone())
        .set_iterations(100)
        .run();
    assert_reached(&over_sessions, &names);
    let raw = bare(1, Weights::CALM)
        .process("server", wire_server)
        .with_network_config(network)
        .set_iterations(100)
        .run();
    assert_reached(&raw, &["wire_server_wire_error"]);
}
