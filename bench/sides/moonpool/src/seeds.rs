//! Whole runs: two hosts and one exchange.

use bench_common::{Arguments, Measurement, PAYLOAD};
use moonpool::foundation::{Check, SimProviders, SimulationBuilder, SimulationMetrics};
use moonpool::{NetworkProvider, Providers, TaskProvider, TcpListenerTrait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::streams;

async fn answer(providers: SimProviders) {
    let listener = providers.network().bind("server:80").await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = [0; PAYLOAD];
    stream.read_exact(&mut bytes).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
}

async fn ask(providers: SimProviders) {
    let stream = streams::connect(&providers, "server:80").await;
    streams::ask(stream, 1, 1).await;
}

/// A world a seed.
pub fn bare(count: u64) {
    let measurement = Measurement::begin();
    for seed in 0..count {
        let world = streams::world(seed);
        let server = world.add_process("server").providers();
        let client = world.add_process("client").providers();
        server.task().spawn_task("server", answer(server.clone()));
        let asking = client.task().spawn_task("client", ask(client.clone()));
        world.block_on(asking).unwrap().unwrap();
    }
    measurement.end(count);
}

/// The same through the runner, which checks some seeds by a second run, as it does for users.
pub fn builder(arguments: &Arguments) {
    let count: u64 = arguments.number("n", 10_000);
    let builder = SimulationBuilder::new()
        .with_seed_range(0..count)
        .jobs(arguments.number("jobs", 1))
        .with_network_config(streams::network())
        .register_providers_workload("server", |providers, _| async move {
            answer(providers).await;
            Ok(SimulationMetrics::default())
        })
        .register_providers_workload("client", |providers, _| async move {
            ask(providers).await;
            Ok(SimulationMetrics::default())
        });
    let builder = match arguments.text("check", "default") {
        "all" => builder.check(Check::All),
        _ => builder,
    };
    let measurement = Measurement::begin();
    builder.run().assert_passed();
    measurement.end(count);
}
