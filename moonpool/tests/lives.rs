//! What remains of connections and of lives of a process that have ended: nothing.
//!
//! A counting allocator sees the whole process, both ends and the simulator. So this binary holds
//! one test.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    reason = "the root of an integration test: a failure is a panic here"
)]

use std::alloc::System;
use std::time::Duration;

use foundation::{KillKind, NetworkConfiguration, SimProviders, SimWorld};
use moonpool::foundation;
use moonpool::prelude::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TOKEN: UID = UID::new(0x11FE, 1);
/// What a host that lost its power leaves half open at others is given up by then.
const FORGOTTEN: Duration = Duration::from_secs(7200);
/// For longer runs: so many kills, and twice as many connects.
const LIVES: &str = "LIVES";

/// One life of the server: it ends by being killed.
async fn serve(p: SimProviders, address: NetworkAddress) {
    let builder = FlowTransportBuilder::from_providers(&p).local_address(address);
    let transport = builder.build_listening().await.unwrap();
    let stream = transport.register_handler::<u64, _>(TOKEN, JsonCodec);
    while let Some((number, reply)) = stream.recv_with_transport::<_, _, _, u64>(&transport).await {
        reply.send(number + 1);
    }
}

/// Connects, asks once, and closes.
async fn ask(p: &SimProviders, endpoint: &Endpoint, number: u64) {
    let transport = FlowTransportBuilder::from_providers(p).build();
    let call = transport.call(endpoint, number, JsonCodec);
    let policy = RetryPolicy::new().while_not_found();
    let call = call.timeout(Duration::from_secs(60)).retry(policy);
    let answer: u64 = call.send().unwrap().await.unwrap();
    assert_eq!(answer, number + 1);
    transport.shutdown(Duration::from_secs(1)).await;
}

/// Bytes that are live after half of the lives, and after all.
fn live_after(lives: u64) -> (usize, usize) {
    let region = Region::new(ALLOCATOR);
    let live = move || {
        let change = region.change();
        change.bytes_allocated - change.bytes_deallocated
    };
    let network = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(network, 1).unwrap();
    let address = NetworkAddress::new(world.add_process("server").ip(), 80);
    let server = world.start_process("server", move |p| serve(p, address));
    let client = world.add_process("client").providers();
    let endpoint = Endpoint::new(address, TOKEN);
    let inside = world.downgrade();
    let body = async move {
        let mut after_half = 0;
        for life in 0..lives {
            ask(&client, &endpoint, life).await;
            // Another one is open when the process dies.
            let transport = FlowTransportBuilder::from_providers(&client).build();
            let call = transport.call(&endpoint, life, JsonCodec).send();
            let answer: Result<u64, _> = call.unwrap().await;
            assert_eq!(answer, Ok(life + 1));
            let kind = match life % 2 {
                0 => KillKind::Crash,
                _ => KillKind::PowerLoss,
            };
            let world = inside.world().unwrap();
            assert!(world.kill(server.id(), kind));
            assert!(world.restart(server.id()));
            drop(world);
            transport.shutdown(Duration::from_secs(1)).await;
            drop(transport);
            if life == lives / 2 {
                client.time().sleep(FORGOTTEN).await;
                after_half = live();
            }
        }
        client.time().sleep(FORGOTTEN).await;
        (after_half, live())
    };
    world.block_on(body).unwrap()
}

#[test]
fn memory_stays_flat_over_connects_and_kills() {
    let lives = std::env::var(LIVES).map_or(3_000, |lives| lives.parse().unwrap());
    let (after_half, after) = live_after(lives);
    println!("{lives} lives: {after_half} bytes live after half, {after} at the end");
    assert!(
        after <= after_half + after_half / 100 + 1024,
        "{after_half} {after}"
    );
}
