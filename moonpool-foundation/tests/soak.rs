//! Ten simulated minutes of chaos, again and again: nothing is left, and no memory is lost.
//!
//! `MOONPOOL_ITERATIONS=1000 cargo nextest run -p moonpool-foundation slow_simulation_soak` is the long
//! form. The allocator counts for the whole process, so this binary holds nothing else.
#![cfg(feature = "sim")]

use std::alloc::System;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use moonpool_foundation::{
    Attrition, Leftovers, NetworkProvider, Peer, PeerConfig, Phases, Providers, RandomProvider,
    SimNetworkProvider, SimProviders, SimTaskProvider, SimTimeProvider, SimulationBuilder,
    SimulationMetrics, SimulationResult, TaskProvider, TcpListenerTrait, TimeProvider, UID,
    WorkloadTopology, select,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type PeerOf = Peer<SimNetworkProvider, SimTimeProvider, SimTaskProvider>;

const CHAOS: Duration = Duration::from_secs(600);
const TOKEN: UID = UID::new(7, 8);
/// Seeds if `MOONPOOL_ITERATIONS` says nothing.
const SEEDS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(30);

fn soak() -> SimulationBuilder {
    let mut builder = SimulationBuilder::new()
        .use_random_config()
        .shutdown_after_all()
        .attrition(Attrition::default())
        .phases(Phases {
            chaos: CHAOS..CHAOS,
            quiet: Duration::from_secs(600),
        });
    for server in ["server-1", "server-2", "server-3"] {
        builder = builder.process(server, serve);
    }
    builder
        .register_providers_workload("streams", exchange_bytes)
        .register_providers_workload("peers", exchange_packets)
}

/// Echoes bytes on port 80, and packets on port 81.
async fn serve(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let bytes = providers.network().bind("0.0.0.0:80").await?;
    let packets = providers.network().bind("0.0.0.0:81").await?;
    loop {
        select! {
            () = topology.shutdown_signal.cancelled() => return Ok(()),
            accepted = bytes.accept() => {
                if let Ok((stream, _)) = accepted {
                    providers.task().spawn_task("echo", echo(providers.time().clone(), stream));
                }
            }
            accepted = packets.accept() => {
                if let Ok((stream, from)) = accepted {
                    let (time, task) = (providers.time().clone(), providers.task().clone());
                    let peer: PeerOf = Peer::new_incoming(stream, from, time, task, PeerConfig::default());
                    let shutdown = topology.shutdown_signal.clone();
                    providers.task().spawn_task("peer", async move {
                        loop {
                            select! {
                                () = shutdown.cancelled() => break,
                                received = peer.receive() => match received {
                                    Ok((token, payload)) => {
                                        drop(peer.handle().send_reliable(token, payload));
                                    }
                                    Err(_) => break,
                                }
                            }
                        }
                        peer.handle().close(PATIENCE).await;
                    });
                }
            }
        }
    }
}

/// Echoes until the end, or until nothing has come for a while: the other end may have given up on a
/// cut connection, which this one never learns.
async fn echo(time: SimTimeProvider, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut bytes = [0; 256];
    while let Ok(Ok(count @ 1..)) = time.timeout(IDLE, stream.read(&mut bytes)).await {
        if stream.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

fn any_server(providers: &SimProviders, port: u16) -> String {
    let server = providers.random().random_range(1..=3_u8);
    format!("server-{server}:{port}")
}

/// Connects, exchanges and closes until the chaos is over; what fails is tried again elsewhere.
async fn exchange_bytes(
    providers: SimProviders,
    _topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    while providers.time().now() < CHAOS {
        let exchange = async {
            let address = any_server(&providers, 80);
            let mut stream = providers.network().connect(&address).await?;
            for _ in 0..5 {
                let sent = [providers.random().random::<u8>(); 100];
                stream.write_all(&sent).await?;
                let mut received = [0; 100];
                stream.read_exact(&mut received).await?;
                providers.time().sleep(Duration::from_millis(200)).await;
            }
            Ok::<_, io::Error>(())
        };
        drop(providers.time().timeout(PATIENCE, exchange).await);
        providers.time().sleep(Duration::from_millis(100)).await;
    }
    Ok(SimulationMetrics::default())
}

async fn exchange_packets(
    providers: SimProviders,
    _topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    while providers.time().now() < CHAOS {
        let peer = Peer::new(
            providers.network().clone(),
            providers.time().clone(),
            providers.task().clone(),
            any_server(&providers, 81),
            PeerConfig::default(),
        );
        for _ in 0..50 {
            drop(
                peer.handle()
                    .send_reliable(TOKEN, Bytes::from_static(b"packet")),
            );
            providers.time().sleep(Duration::from_millis(250)).await;
            while peer.try_receive().is_some() {}
        }
        peer.handle().close(PATIENCE).await;
    }
    Ok(SimulationMetrics::default())
}

/// One test at a time: the allocator counts what both allocate.
static ALONE: Mutex<()> = Mutex::new(());

fn live_bytes() -> f64 {
    let stats = ALLOCATOR.stats();
    (stats.bytes_allocated - stats.bytes_deallocated) as f64
}

#[test]
fn slow_simulation_soak_leaves_nothing_behind() {
    let _alone = ALONE.lock();
    let report = soak().set_iterations(SEEDS).run();
    report.assert_passed();
    println!("{report}");
    for seed in &report.individual_metrics {
        assert!(seed.metrics.simulated_time >= CHAOS);
        assert_eq!(seed.leftovers, Leftovers::default(), "seed {}", seed.seed);
    }
}

#[test]
fn slow_simulation_soak_keeps_no_memory_from_run_to_run() {
    let _alone = ALONE.lock();
    let mut after = Vec::new();
    for _ in 0..10 {
        // One thread: those of a campaign keep what tokio and the standard library keep per thread.
        soak()
            .set_debug_seeds(vec![1])
            .jobs(1)
            .run()
            .assert_passed();
        after.push(live_bytes());
    }
    let growth = after[9] / after[1];
    assert!((0.99..=1.01).contains(&growth), "{after:?}");
}
