//! A counter whose clients call again when they do not know what became of a call.
//!
//! Adding one is not idempotent: whoever repeats it after `MaybeDelivered` or `Timeout` may add
//! twice. On a good network that never happens. The simulator kills the server and cuts its
//! connections until it does; with `fixed` each addition carries a number, which the server keeps
//! with the count, and all seeds pass.
//!
//! - `cargo run --example retried_counter`: looks for the bug, and shows what it looks like.
//! - `cargo run --example retried_counter -- fixed [seeds]`: the same with numbered additions.

#[path = "planted/common.rs"]
mod common;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use common::{address, listen, until_shutdown};
use moonpool::define_interface;
use moonpool::foundation::{
    Attrition, SimProviders, SimulationBuilder, SimulationMetrics, SimulationResult,
    WorkloadTopology,
};
use moonpool::prelude::*;
use moonpool::{SimulationError, sometimes_assert};
use serde::{Deserialize, Serialize};

/// How the server tells a repeated addition from a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Additions {
    /// Not at all.
    Anonymous,
    /// By client and number.
    Numbered,
}

const CLIENTS: usize = 3;
const ADDITIONS: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Addition {
    client: usize,
    number: u32,
}

define_interface! {
    /// Counts.
    Counter, id 0xC0C0, {
        /// Adds one, and gives the sum.
        add: Addition => u64,
    }
}

/// What the counter's process finds again when it starts.
#[derive(Default)]
struct Disk {
    count: Cell<u64>,
    done: RefCell<BTreeSet<Addition>>,
}

/// What clients began to add, each addition once however often it was sent.
#[derive(Default)]
struct Ledger {
    begun: Cell<u64>,
    answered: Cell<u64>,
}

async fn count(
    providers: SimProviders,
    topology: WorkloadTopology,
    additions: Additions,
) -> SimulationResult<()> {
    let transport = listen(&providers, &topology).await?;
    let counter = Counter::serve(&transport, JsonCodec).map_err(SimulationError::workload)?;
    let disk = topology.shared::<Disk>();
    while let Some((addition, reply)) = counter.add.recv().await {
        let is_new = disk.done.borrow_mut().insert(addition);
        sometimes_assert!(addition_repeated, !is_new, "a client called again");
        if is_new || additions == Additions::Anonymous {
            disk.count.set(disk.count.get() + 1);
        }
        reply.send(disk.count.get());
    }
    Ok(())
}

/// Adds one ten times, and calls again until there is an answer.
async fn add(
    providers: SimProviders,
    topology: WorkloadTopology,
    client: usize,
) -> SimulationResult<SimulationMetrics> {
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let counter = Counter::remote(&transport, address(&topology, "counter")?, JsonCodec);
    let ledger = topology.shared::<Ledger>();
    for number in 0..ADDITIONS {
        ledger.begun.set(ledger.begun.get() + 1);
        while let Err(error) = counter.add(Addition { client, number }).await {
            tracing::debug!(%error, "calling again");
            providers.time().sleep(Duration::from_millis(100)).await;
        }
        ledger.answered.set(ledger.answered.get() + 1);
        check(&topology)?;
    }
    transport.shutdown(Duration::from_secs(1)).await;
    Ok(SimulationMetrics::default())
}

/// Everything that was answered is counted, and nothing that was not begun.
fn check(topology: &WorkloadTopology) -> SimulationResult<()> {
    let count = topology.shared::<Disk>().count.get();
    let ledger = topology.shared::<Ledger>();
    let possible = ledger.answered.get()..=ledger.begun.get();
    if possible.contains(&count) {
        return Ok(());
    }
    Err(SimulationError::workload(format!(
        "the count is {count}; {} additions were begun, {} of them answered",
        possible.end(),
        possible.start()
    )))
}

fn campaign(additions: Additions) -> SimulationBuilder {
    let server = move |providers: SimProviders, topology: WorkloadTopology| {
        until_shutdown(topology.clone(), count(providers, topology, additions))
    };
    let mut builder = SimulationBuilder::new().process("counter", server);
    for client in 0..CLIENTS {
        let name = format!("client-{client}");
        let workload = move |providers, topology| add(providers, topology, client);
        builder = builder.register_providers_workload(name, workload);
    }
    builder
        .attrition(Attrition::default())
        .shutdown_after_all()
        .use_random_config()
}

fn main() -> std::process::ExitCode {
    common::run(
        || campaign(Additions::Anonymous),
        || campaign(Additions::Numbered),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addition_that_is_counted_twice_is_found() {
        let found = common::first_failure(campaign(Additions::Anonymous), 0).unwrap();
        assert!(found.headline.contains("additions were begun"), "{found:?}");
    }

    #[test]
    fn numbered_additions_are_counted_once() {
        let report = campaign(Additions::Numbered)
            .set_iterations(300)
            .require_coverage()
            .run();
        report.assert_passed();
    }
}
