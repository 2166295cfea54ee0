//! README's service and its test, as README prints them, and a test that it prints them so.
#![cfg(feature = "sim")]

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
        let _detached = p.task().spawn_task("addition", async move {
            let sum = total.get() + amount;
            time.sleep(Duration::from_millis(1)).await; // the disk
            total.set(sum);
            reply.send(sum);
        });
    }
    Ok(())
}

/// Adds 1 ten times, and gives the last total.
async fn add_ten<P: Providers>(p: &P, server: NetworkAddress) -> Result<u64, ReplyError> {
    let transport = FlowTransportBuilder::from_providers(p).build();
    let counter = Endpoint::new(server, ADD);
    let mut total = 0;
    for _ in 0..10 {
        total = send_request(&transport, &counter, 1_u64, JsonCodec)?.await?;
    }
    Ok(total)
}
// end of service

// test
use moonpool::foundation::{SimProviders, SimulationBuilder, SimulationMetrics};

#[test]
fn no_addition_is_lost() {
    let server: NetworkAddress = "10.0.0.1:4500".parse().unwrap();
    SimulationBuilder::new()
        .register_providers_workload("counter", move |p: SimProviders, _| async move {
            let _serving = p.task().spawn_task("serve", serve(p.clone(), server));
            Ok(SimulationMetrics::default())
        })
        .register_providers_workload("clients", move |p: SimProviders, _| async move {
            let (first, second) = tokio::join!(add_ten(&p, server), add_ten(&p, server));
            assert_eq!(first.unwrap().max(second.unwrap()), 20);
            Ok(SimulationMetrics::default())
        })
        .run()
        .assert_passed();
}
// end of test
