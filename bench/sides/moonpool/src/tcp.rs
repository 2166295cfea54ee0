//! Calls over loopback TCP, on the runtime that moonpool asks for: one thread, tokio's local one.

use std::rc::Rc;
use std::time::Duration;

use bench_common::{Arguments, LARGE, Measurement, Sample, print};
use moonpool::{
    Blob, Endpoint, FlowTransportBuilder, JsonCodec, MessageCodec, NetworkAddress, PeerConfig,
    PostcardCodec, TokioProviders, send_request,
};

use crate::calls;

const ANY_PORT: &str = "127.0.0.1:0";

fn real<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap()
        .block_on(future)
}

/// How many calls are made, before the measurement and in it, by how many callers.
#[derive(Clone, Copy)]
struct Counts {
    warm_up: u64,
    measured: u64,
    window: u64,
}

impl Counts {
    fn of(arguments: &Arguments) -> Self {
        let measured = arguments.number("n", 20_000);
        let window = arguments.number("window", 1);
        Self {
            warm_up: arguments.warm_up(measured, window),
            measured,
            window,
        }
    }
}

/// Both ends on this thread.
pub fn one_process(arguments: &Arguments) {
    let counts = Counts::of(arguments);
    match arguments.text("codec", "postcard") {
        "json" => real(both_ends(counts, JsonCodec)),
        _ => real(both_ends(counts, PostcardCodec)),
    }
}

async fn both_ends<C: MessageCodec>(counts: Counts, codec: C) {
    let providers = TokioProviders::new();
    let any = ANY_PORT.parse().unwrap();
    let server = calls::serve::<_, Sample, C>(&providers, any, codec.clone()).await;
    measure(server.local_address().unwrap(), counts, None, codec).await;
}

async fn measure<C: MessageCodec>(
    server: NetworkAddress,
    counts: Counts,
    other: Option<u32>,
    codec: C,
) {
    let providers = TokioProviders::new();
    let transport = calls::transport(&providers);
    calls::call_many(
        &providers,
        &transport,
        server,
        (counts.warm_up, counts.window),
        codec.clone(),
    )
    .await;
    let measurement = Measurement::begin_with(other);
    calls::call_many(
        &providers,
        &transport,
        server,
        (counts.measured, counts.window),
        codec,
    )
    .await;
    measurement.end(counts.measured / counts.window * counts.window);
    transport.shutdown(Duration::from_secs(1)).await;
}

/// Prints its address and serves until it is killed.
pub fn server(arguments: &Arguments) {
    match arguments.text("codec", "postcard") {
        "json" => real(serve(JsonCodec)),
        _ => real(serve(PostcardCodec)),
    }
}

async fn serve<C: MessageCodec>(codec: C) {
    let providers = TokioProviders::new();
    let any = ANY_PORT.parse().unwrap();
    let server = calls::serve::<_, Sample, C>(&providers, any, codec).await;
    print("address", server.local_address().unwrap());
    std::future::pending().await
}

/// Calls the server of another process.
pub fn client(arguments: &Arguments) {
    let counts = Counts::of(arguments);
    let address = arguments.text("address", "").parse().unwrap();
    let other = Some(arguments.number("server", 0));
    match arguments.text("codec", "postcard") {
        "json" => real(measure(address, counts, other, JsonCodec)),
        _ => real(measure(address, counts, other, PostcardCodec)),
    }
}

/// Echoes of 1 MiB, one after the other.
pub fn large(count: u64) {
    real(async move {
        let providers = TokioProviders::new();
        let any = ANY_PORT.parse().unwrap();
        // A little above the default limit, since the payload carries its length as well.
        let mut peers = PeerConfig::default();
        peers.max_payload_bytes = 2 << 20;
        let builder =
            || FlowTransportBuilder::from_providers(&providers).peer_config(peers.clone());
        let server = builder()
            .local_address(any)
            .build_listening()
            .await
            .unwrap();
        calls::echo::<TokioProviders, Blob, _>(&providers, &server, PostcardCodec);
        let endpoint = Endpoint::new(server.local_address().unwrap(), calls::TOKEN);
        let transport = builder().build();
        let mut bytes = Blob::from(vec![7; LARGE]);
        let mut measurement = Measurement::begin();
        for call in 0..=count {
            if call == 1 {
                measurement = Measurement::begin();
            }
            let reply = send_request(&transport, &endpoint, bytes, PostcardCodec).unwrap();
            bytes = reply.await.unwrap();
        }
        measurement.end(count);
        assert_eq!(bytes.len(), LARGE);
    });
}

/// As many callers as connections, each calling the server of another process, one call after the other
/// on a transport of its own.
pub fn connections(arguments: &Arguments) {
    let address = arguments.text("address", "").parse().unwrap();
    let other = Some(arguments.number("server", 0));
    let connections: u64 = arguments.number("connections", 100);
    let each = arguments.number::<u64>("n", 20_000) / connections;
    real(async move {
        let providers = TokioProviders::new();
        let mut transports = Vec::new();
        for _ in 0..connections {
            let transport = calls::transport(&providers);
            let one = (1, 1);
            calls::call_many(&providers, &transport, address, one, PostcardCodec).await;
            transports.push(transport);
        }
        let measurement = Measurement::begin_with(other);
        let callers: Vec<_> = transports
            .iter()
            .map(|transport| {
                let transport = Rc::clone(transport);
                tokio::task::spawn_local(async move {
                    calls::call::<TokioProviders, _>(&transport, address, each, PostcardCodec)
                        .await;
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        measurement.end(each * connections);
    });
}
