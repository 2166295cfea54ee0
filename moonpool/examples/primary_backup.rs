//! A log with a primary and a backup, whose primary acknowledges before it replicates.
//!
//! An entry that was acknowledged is on the primary; the backup gets it a moment later. If the
//! primary dies in between, the backup takes over without it. The simulator finds that moment; with
//! `fixed` an entry is acknowledged once both have it, and all seeds pass.
//!
//! - `cargo run --example primary_backup`: looks for the bug, and shows what it looks like.
//! - `cargo run --example primary_backup -- fixed [seeds]`: the same, replicated first.

#[path = "planted/common.rs"]
mod common;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use common::{address, listen, until_shutdown};
use moonpool::foundation::{
    KillKind, SimProviders, SimulationBuilder, SimulationMetrics, SimulationResult,
    WorkloadTopology,
};
use moonpool::prelude::*;
use moonpool::{Client, SimulationError, define_interface, sometimes_assert};

/// When the primary answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acknowledge {
    /// Once it has the entry itself.
    AtOnce,
    /// Once the backup has it too.
    WhenReplicated,
}

const ENTRIES: u64 = 30;

define_interface! {
    /// A log that entries are appended to.
    Log, id 0x1067, {
        /// Appends an entry, unless it is there.
        append: u64 => (),
        /// Every entry.
        read: () => BTreeSet<u64>,
    }
}

type Entries = Rc<RefCell<BTreeSet<u64>>>;

async fn lead(
    providers: SimProviders,
    topology: WorkloadTopology,
    acknowledge: Acknowledge,
) -> SimulationResult<()> {
    let transport = listen(&providers, &topology).await?;
    let log = Log::serve(&transport, JsonCodec).map_err(SimulationError::workload)?;
    let backup = Log::remote(&transport, address(&topology, "backup")?, JsonCodec);
    while let Some((entry, reply)) = log.append.recv().await {
        if acknowledge == Acknowledge::AtOnce {
            reply.send(());
            replicate(&backup, entry, &providers).await;
        } else {
            replicate(&backup, entry, &providers).await;
            reply.send(());
        }
    }
    Ok(())
}

/// Appending twice does no harm, so it is repeated until it is answered.
async fn replicate(backup: &Client<Log>, entry: u64, providers: &SimProviders) {
    while let Err(error) = backup.append(entry).await {
        tracing::debug!(%error, entry, "replicating again");
        providers.time().sleep(Duration::from_millis(50)).await;
    }
}

async fn follow(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let transport = listen(&providers, &topology).await?;
    let log = Log::serve(&transport, JsonCodec).map_err(SimulationError::workload)?;
    let entries = Entries::default();
    loop {
        moonpool::select! {
            Some((entry, reply)) = log.append.recv() => {
                entries.borrow_mut().insert(entry);
                reply.send(());
            }
            Some(((), reply)) = log.read.recv() => {
                let read = entries.borrow().clone();
                reply.send(read);
            }
            else => return Ok(()),
        }
    }
}

/// Appends to the primary until that is gone, then looks at what the backup has.
async fn append(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let primary = Log::remote(&transport, address(&topology, "primary")?, JsonCodec);
    let backup = Log::remote(&transport, address(&topology, "backup")?, JsonCodec);
    let mut acknowledged = BTreeSet::new();
    for entry in 0..ENTRIES {
        match primary.append(entry).await {
            Ok(()) => acknowledged.insert(entry),
            Err(_) => break,
        };
        providers.time().sleep(Duration::from_millis(5)).await;
    }
    // Whoever takes over first makes sure that the old primary does not go on.
    if let Some(world) = topology.world()
        && let Some(primary) = world.process("primary")
    {
        world.kill(primary.id(), KillKind::PowerLoss);
    }
    let read = loop {
        match backup.read(()).await {
            Ok(read) => break read,
            Err(_) => providers.time().sleep(Duration::from_millis(50)).await,
        }
    };
    sometimes_assert!(
        backup_took_over,
        !acknowledged.is_empty() && !acknowledged.contains(&(ENTRIES - 1)),
        "the primary died between its first answer and its last"
    );
    let lost: Vec<&u64> = acknowledged.difference(&read).collect();
    if !lost.is_empty() {
        return Err(SimulationError::workload(format!(
            "the backup took over without entries {lost:?}, which were acknowledged"
        )));
    }
    transport.shutdown(Duration::from_secs(1)).await;
    Ok(SimulationMetrics::default())
}

/// Kills the primary at some moment.
async fn kill_the_primary(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let after = providers.random().random_range(0..1_000_u64);
    providers.time().sleep(Duration::from_millis(after)).await;
    if let Some(world) = topology.world()
        && let Some(primary) = world.process("primary")
    {
        world.kill(primary.id(), KillKind::Crash);
    }
    Ok(SimulationMetrics::default())
}

fn campaign(acknowledge: Acknowledge) -> SimulationBuilder {
    SimulationBuilder::new()
        .process("primary", move |providers, topology: WorkloadTopology| {
            until_shutdown(topology.clone(), lead(providers, topology, acknowledge))
        })
        .process("backup", |providers, topology: WorkloadTopology| {
            until_shutdown(topology.clone(), follow(providers, topology))
        })
        .register_providers_workload("client", append)
        .register_providers_workload("operator", kill_the_primary)
        .shutdown_after_all()
        .use_random_config()
}

fn main() -> std::process::ExitCode {
    common::run(
        || campaign(Acknowledge::AtOnce),
        || campaign(Acknowledge::WhenReplicated),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_entry_that_is_lost_is_found() {
        let found = common::first_failure(campaign(Acknowledge::AtOnce), 0).unwrap();
        assert!(found.headline.contains("took over without"), "{found:?}");
    }

    #[test]
    fn entries_that_are_replicated_first_are_never_lost() {
        let report = campaign(Acknowledge::WhenReplicated)
            .set_iterations(300)
            .require_coverage()
            .run();
        report.assert_passed();
    }
}
