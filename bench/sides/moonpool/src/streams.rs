//! Echoes over simulated streams.

use std::time::Duration;

use bench_common::{Measurement, ONE_WAY, PAYLOAD};
use moonpool::foundation::{
    LatencyModel, NetworkConfiguration, SimProviders, SimTcpStream, SimWorld,
};
use moonpool::{NetworkProvider, Providers, TaskProvider, TcpListenerTrait, TimeProvider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// No faults, and 1 ms from each host to each other, all of it under way.
pub fn network() -> NetworkConfiguration {
    let none = LatencyModel::fixed(Duration::ZERO);
    NetworkConfiguration {
        bind_latency: none,
        accept_latency: none,
        connect_latency: LatencyModel::fixed(2 * ONE_WAY),
        read_latency: none,
        write_latency: LatencyModel::fixed(ONE_WAY),
        ..NetworkConfiguration::disabled()
    }
}

pub fn world(seed: u64) -> SimWorld {
    SimWorld::new_with_network_config_and_seed(network(), seed).unwrap()
}

/// Connects as soon as the other end listens.
pub async fn connect(providers: &SimProviders, address: &str) -> SimTcpStream {
    loop {
        if let Ok(stream) = providers.network().connect(address).await {
            return stream;
        }
        providers.time().sleep(ONE_WAY).await;
    }
}

/// Serves each connection in a task of its own.
pub async fn serve(providers: SimProviders, address: String) {
    let listener = providers.network().bind(&address).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        providers.task().spawn_task("connection", echo(stream));
    }
}

pub async fn echo(mut stream: SimTcpStream) {
    let mut bytes = [0; PAYLOAD];
    while stream.read_exact(&mut bytes).await.is_ok() {
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// Writes `window` messages and then one for each that came back, `count` in all.
pub async fn ask(mut stream: SimTcpStream, count: u64, window: u64) {
    let mut bytes = [7; PAYLOAD];
    let window = window.min(count);
    for _ in 0..window {
        stream.write_all(&bytes).await.unwrap();
    }
    stream.flush().await.unwrap();
    for _ in 0..count - window {
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
    }
    for _ in 0..window {
        stream.read_exact(&mut bytes).await.unwrap();
    }
}

/// One echo after the other.
pub fn sequential(count: u64) {
    let world = world(1);
    let server = world.add_process("server").providers();
    let client = world.add_process("client").providers();
    let address = "server:80".to_owned();
    server
        .task()
        .spawn_task("server", serve(server.clone(), address.clone()));
    let asking = client.task().spawn_task("client", {
        let client = client.clone();
        async move {
            let stream = connect(&client, &address).await;
            ask(stream, count, 1).await;
        }
    });
    let measurement = Measurement::begin();
    world.block_on(asking).unwrap().unwrap();
    measurement.end(count);
}
