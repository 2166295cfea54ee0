//! Calls over the simulated network.

use bench_common::{Arguments, Measurement, Sample};
use moonpool::{
    JsonCodec, MessageCodec, NetworkAddress, PostcardCodec, Providers, TaskProvider, TimeProvider,
};

use crate::{calls, streams};

pub fn sequential(arguments: &Arguments) {
    let count = arguments.number("n", 100_000);
    match arguments.text("codec", "postcard") {
        "json" => run(1, 1, count, JsonCodec),
        _ => run(1, 1, count, PostcardCodec),
    }
}

/// `nodes` clients that call each of as many servers, `window` calls in flight from each to each.
pub fn mesh(arguments: &Arguments) {
    let count = arguments.number("n", 100_000);
    let nodes = arguments.number("nodes", 10);
    let window = arguments.number("window", 8);
    match arguments.text("codec", "postcard") {
        "json" => run(nodes, window, count, JsonCodec),
        _ => run(nodes, window, count, PostcardCodec),
    }
}

fn run<C: MessageCodec>(nodes: u64, window: u64, count: u64, codec: C) {
    let each = count / (nodes * nodes * window) * window;
    let world = streams::world(1);
    let mut servers = Vec::new();
    for node in 0..nodes {
        let process = world.add_process(&format!("server{node}"));
        let address = NetworkAddress::new(process.ip(), 80);
        servers.push(address);
        let (providers, codec) = (process.providers(), codec.clone());
        process.providers().task().spawn_task("server", async move {
            let transport = calls::serve::<_, Sample, C>(&providers, address, codec).await;
            std::future::pending::<()>().await;
            drop(transport);
        });
    }
    let mut asking = Vec::new();
    for node in 0..nodes {
        let client = world.add_process(&format!("client{node}")).providers();
        let transport = calls::transport(&client);
        for server in servers.clone() {
            let (providers, transport, codec) = (client.clone(), transport.clone(), codec.clone());
            asking.push(client.task().spawn_task("client", async move {
                providers.time().sleep(bench_common::ONE_WAY).await;
                let counts = (each, window);
                calls::call_many(&providers, &transport, server, counts, codec).await;
            }));
        }
    }
    let measurement = Measurement::begin();
    let all = async move {
        for one in asking {
            one.await.unwrap();
        }
    };
    world.block_on(all).unwrap();
    measurement.end(each * nodes * nodes);
}
