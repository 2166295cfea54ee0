//! What a connection keeps of memory after a burst of packets.
//!
//! The allocator counts for the whole process, so this binary holds one test.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    reason = "a test ends with a panic; clippy allows it in #[test] functions but not in helpers"
)]

use std::alloc::System;
use std::time::Duration;

use bytes::Bytes;
use moonpool_foundation::{
    NetworkConfiguration, NetworkProvider, Peer, PeerConfig, Providers, SimProviders, SimWorld,
    TaskProvider, TcpListenerTrait, TimeProvider, UID,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TOKEN: UID = UID::new(1, 9999);
/// Less than the limits of a peer's queue.
const BURST: usize = 60_000;

/// Answers packets of one byte.
async fn serve(p: SimProviders) {
    let listener = p.network().bind("server:80").await.unwrap();
    let (stream, from) = listener.accept().await.unwrap();
    let (time, task, config) = (p.time().clone(), p.task().clone(), PeerConfig::default());
    let peer: Peer<<SimProviders as Providers>::Network, _, _> =
        Peer::new_incoming(stream, from, time, task, config);
    while let Ok((token, payload)) = peer.receive().await {
        if payload.len() == 1 {
            peer.handle().send_reliable(token, payload).unwrap();
        }
    }
}

/// How many bytes a burst holds at its height, and how many are left of it.
async fn send_a_burst(p: SimProviders) -> (usize, usize) {
    p.time().sleep(Duration::from_secs(1)).await;
    let peer = Peer::new(
        p.network().clone(),
        p.time().clone(),
        p.task().clone(),
        "server:80".to_owned(),
        PeerConfig::default(),
    );
    let ping = async || {
        let ping = Bytes::from_static(b"x");
        peer.handle().send_reliable(TOKEN, ping).unwrap();
        peer.receive().await.unwrap();
    };
    ping().await;
    let region = Region::new(ALLOCATOR);
    let live = || {
        let change = region.change();
        change
            .bytes_allocated
            .saturating_sub(change.bytes_deallocated)
    };
    for _ in 0..BURST {
        let packet = Bytes::from_static(b"of a burst");
        peer.handle().send_reliable(TOKEN, packet).unwrap();
    }
    let height = live();
    ping().await;
    p.time().sleep(Duration::from_secs(1)).await;
    ping().await;
    (height, live())
}

#[test]
fn a_burst_leaves_less_than_a_megabyte() {
    let network = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(network, 1).unwrap();
    let serving = world.add_process("server").providers();
    let calling = world.add_process("client").providers();
    let task = serving.task().clone();
    drop(task.spawn_task("server", serve(serving)));
    let task = calling.task().clone();
    let calling = task.spawn_task("client", send_a_burst(calling));
    let (height, left) = world.block_on(calling).unwrap().unwrap();
    println!("{height} bytes at its height, {left} left");
    assert!(height > 4 << 20, "{height}");
    assert!(left < 1 << 20, "{left}");
}
