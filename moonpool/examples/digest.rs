//! Prints what each seed of a small campaign came to, so that runs can be compared with each other:
//! of two processes, of debug and release, of one worker thread and many.
//!
//! `cargo run --example digest [-- first-seed number-of-seeds]`, by default `0 1000`. A line per
//! seed: the seed, the digest of all its steps, the verdict. The `MOONPOOL_*` variables apply. Ends
//! with status 1 if a seed failed.
#![expect(clippy::print_stdout, reason = "what it prints is what is compared")]

use std::process::ExitCode;
use std::time::Duration;

use moonpool::foundation::{
    Attrition, NetworkConfiguration, SimProviders, SimulationBuilder, SimulationMetrics,
    WorkloadTopology,
};
use moonpool::prelude::*;
use moonpool::{SimulationError, SimulationResult, select};

const DOUBLE: UID = UID::new(0xD16E, 1);
const CALLS: u64 = 10;

async fn serve<P: Providers>(
    providers: P,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let transport = FlowTransportBuilder::from_providers(&providers)
        .local_address(server_address(&topology.my_ip)?)
        .build_listening()
        .await
        .map_err(boxed)?;
    let requests = transport.register_handler::<u64, _>(DOUBLE, JsonCodec);
    loop {
        select! {
            () = topology.shutdown_signal.cancelled() => break,
            request = requests.recv_with_transport(&transport) => {
                let (number, reply) = request.ok_or_else(|| SimulationError::workload("closed"))?;
                reply.send(2 * number);
            }
        }
    }
    transport.shutdown(Duration::from_secs(1)).await;
    Ok(SimulationMetrics::default())
}

async fn call<P: Providers>(
    providers: P,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let server = topology
        .get_peer_by_name("server")
        .ok_or_else(|| SimulationError::workload("no server"))?;
    let endpoint = Endpoint::new(server_address(&server)?, DOUBLE);
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    for _ in 0..CALLS {
        let number = providers.random().random_range(0..1_000_u64);
        let reply = send_request(&transport, &endpoint, number, JsonCodec);
        // Under faults a call may end without an answer; a wrong one it must not get.
        let doubled: Result<u64, ReplyError> = reply.map_err(boxed)?.await;
        if doubled.is_ok_and(|doubled| doubled != 2 * number) {
            return Err(SimulationError::workload("a wrong answer"));
        }
        let pause = providers.random().random_range(0..2_000);
        providers.time().sleep(Duration::from_micros(pause)).await;
    }
    transport.shutdown(Duration::from_secs(1)).await;
    Ok(SimulationMetrics::default())
}

/// Beats until it is told to stop, or dies.
async fn beat<P: Providers>(providers: P, topology: WorkloadTopology) -> SimulationResult<()> {
    while !topology.shutdown_signal.is_cancelled() {
        providers.time().timer();
        providers.time().sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Processes die and come back in the little time that the calls take.
fn attrition() -> Attrition {
    let millis = |min, max| Duration::from_millis(min)..=Duration::from_millis(max);
    Attrition {
        probability: 0.3,
        interval: millis(1, 10),
        downtime: millis(1, 20),
        reboot: millis(1, 5),
        grace: millis(1, 5),
        pause: millis(1, 20),
        ..Attrition::default()
    }
}

fn server_address(ip: &str) -> SimulationResult<NetworkAddress> {
    format!("{ip}:4500").parse().map_err(boxed)
}

fn boxed<E: std::error::Error + 'static>(error: E) -> SimulationError {
    SimulationError::Other(Box::new(error))
}

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .flat_map(|text| text.parse())
        .collect();
    let (first, count) = match numbers[..] {
        [first, count] => (first, count),
        _ => (0, 1_000),
    };
    let report = SimulationBuilder::new()
        .with_seed_range(first..first.saturating_add(count))
        .with_network_config(NetworkConfiguration::default())
        .register_providers_workload("server", serve::<SimProviders>)
        .register_providers_workload("client-1", call::<SimProviders>)
        .register_providers_workload("client-2", call::<SimProviders>)
        .process("beat-1", beat::<SimProviders>)
        .process("beat-2", beat::<SimProviders>)
        .attrition(attrition())
        .run();
    for seed in &report.individual_metrics {
        println!(
            "{} {:016x} {}",
            seed.seed,
            seed.metrics.digest,
            seed.verdict.name()
        );
    }
    if report.failed_runs == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
