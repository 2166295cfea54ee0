//! README's service and its test, as README prints them, and a test that it prints them so.
#![cfg(feature = "sim")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test ends with a panic; clippy allows it in #[test] functions but not in helpers"
)]

// service
use std::{cell::Cell, rc::Rc, time::Duration};

use moonpool::prelude::*;

const ADD: UID = UID::new(0xC0C0, 1);

/// Keeps a total on a slow disk. Each addition is answered with the new total.
async fn serve<P: Providers>(p: P, address: NetworkAddress) -> Result<(), BuildError> {
    let builder = FlowTransportBuilder::from_providers(&p).local_address(address);
    let transport = builder.build_listening().await?;
    let additions = transport.register_handler::<u64, _>(ADD, JsonCodec);
    let total = Rc::new(Cell::new(0));
    while let Some((amount, reply)) = additions.recv_with_transport(&transport).await {
        let (total, time) = (total.clone(), p.time().clone());
        p.task().spawn_task("addition", async move {
            let sum = total.get() + amount;
            time.sleep(Duration::from_micros(200)).await; // the disk
            total.set(sum);
            reply.send(sum);
        });
    }
    Ok(())
}

/// Adds 1 three times, and gives the last total.
async fn add_three<P: Providers>(p: &P, server: NetworkAddress) -> Result<u64, ReplyError> {
    let transport = FlowTransportBuilder::from_providers(p).build();
    let counter = Endpoint::new(server, ADD);
    let mut total = 0;
    for _ in 0..3 {
        total = send_request(&transport, &counter, 1_u64, JsonCodec)?.await?;
    }
    Ok(total)
}
// end of service

// test
use moonpool::foundation::{
    NetworkConfiguration, SimProviders, SimulationBuilder, SimulationMetrics,
};

#[test]
// end of use
#[should_panic(expected = "failed with Panic")]
// fn
fn no_addition_is_lost() {
    let server: NetworkAddress = "10.0.0.1:4500".parse().unwrap();
    SimulationBuilder::new()
        .with_network_config(NetworkConfiguration::disabled())
        .register_providers_workload("counter", move |p: SimProviders, _| async move {
            p.task().spawn_task("serve", serve(p.clone(), server));
            Ok(SimulationMetrics::default())
        })
        .register_providers_workload("clients", move |p: SimProviders, _| async move {
            let (first, second) = tokio::join!(add_three(&p, server), add_three(&p, server));
            assert_eq!(first.unwrap().max(second.unwrap()), 6);
            Ok(SimulationMetrics::default())
        })
        // end of campaign
        .regressions(moonpool::foundation::Regressions::Off)
        // run
        .run()
        .assert_passed();
}
// end of test

/// The lines between two marker lines of this file.
fn section(begin: &str, end: &str) -> &'static str {
    let source = include_str!("readme.rs");
    let (_, rest) = source.split_once(begin).unwrap_or_default();
    let (section, _) = rest.split_once(end).unwrap_or_default();
    section
}

#[test]
fn readme_prints_this_code() {
    let readme = include_str!("../../README.md");
    for (begin, end) in [
        ("\n// service\n", "\n// end of service\n"),
        ("\n// test\n", "\n// end of use\n"),
        ("\n// fn\n", "\n        // end of campaign\n"),
        ("\n        // run\n", "\n// end of test\n"),
        ("\n// program\n", "\n// end of program\n"),
    ] {
        let code = section(begin, end);
        assert!(!code.is_empty(), "the markers of this file are gone");
        assert!(readme.contains(code), "README.md does not contain:\n{code}");
    }
    let snippets = readme.matches("```rust").count();
    assert_eq!(snippets, 3, "README.md has code that is not here");
}

/// The correction that README names, so that it does not name one that is none.
#[test]
fn the_corrected_service_passes() {
    let server: NetworkAddress = "10.0.0.1:4500".parse().unwrap();
    SimulationBuilder::new()
        .with_network_config(NetworkConfiguration::disabled())
        .register_providers_workload("counter", move |p: SimProviders, _| async move {
            let builder = FlowTransportBuilder::from_providers(&p).local_address(server);
            let transport = builder.build_listening().await.unwrap();
            let additions = transport.register_handler::<u64, _>(ADD, JsonCodec);
            let total = Rc::new(Cell::new(0));
            for _ in 0..6 {
                let (amount, reply) = additions.recv_with_transport(&transport).await.unwrap();
                let (total, time) = (total.clone(), p.time().clone());
                p.task().spawn_task("addition", async move {
                    time.sleep(Duration::from_micros(200)).await;
                    total.set(total.get() + amount);
                    reply.send(total.get());
                });
            }
            p.time().sleep(Duration::from_secs(1)).await;
            Ok(SimulationMetrics::default())
        })
        .register_providers_workload("clients", move |p: SimProviders, _| async move {
            let (first, second) = tokio::join!(add_three(&p, server), add_three(&p, server));
            assert_eq!(first.unwrap().max(second.unwrap()), 6);
            Ok(SimulationMetrics::default())
        })
        .run()
        .assert_passed();
}

/// Which seeds fail depends on every draw of the library: README's banner is out of date once one is
/// added, and says so here.
#[test]
fn readme_prints_the_seed_that_fails() {
    let panic = std::panic::catch_unwind(no_addition_is_lost).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    let words = message.strip_prefix("seed ").unwrap();
    let (seed, words) = words.split_once(' ').unwrap();
    let (_, count) = words.rsplit_once(" (").unwrap();
    let (count, _) = count.split_once(')').unwrap();
    let line = format!("\nseed           {seed} ({count})\n");
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&line), "README.md does not contain:{line}");
}

// program
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:4500".into());
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(Default::default())?;
    runtime.block_on(serve(TokioProviders::new(), address.parse()?))?;
    Ok(())
}
// end of program

/// What `main` runs, on a port that the system has just given out and taken back.
#[test]
fn the_service_counts_on_real_sockets() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: NetworkAddress = free.local_addr().unwrap().to_string().parse().unwrap();
    drop(free);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder
        .enable_all()
        .build_local(Default::default())
        .unwrap();
    let total = runtime.block_on(async {
        let p = TokioProviders::new();
        let serving = p.task().spawn_task("serve", serve(p.clone(), address));
        let total = add_three(&p, address).await;
        serving.abort();
        total
    });
    assert_eq!(total, Ok(3));
}
