//! A lock service whose holders trust their clocks, and the storage that pays for it.
//!
//! A lock is granted for a second, by the service's clock. A holder stops writing well before, by
//! its own. Clocks drift, segments are held up, processes stand still: a write that was on its way
//! when the lease ended arrives after the next holder's first one. The simulator finds it; with
//! `fixed` the storage refuses what comes with an older lease, and all seeds pass.
//!
//! - `cargo run --example lock_service`: looks for the bug, and shows what it looks like.
//! - `cargo run --example lock_service -- fixed [seeds]`: the same with fencing.

#[path = "planted/common.rs"]
mod common;

use std::cell::Cell;
use std::time::Duration;

use common::{address, listen, until_shutdown};
use moonpool::foundation::{
    SimProviders, SimulationBuilder, SimulationMetrics, SimulationResult, WorkloadTopology,
};
use moonpool::prelude::*;
use moonpool::{Client, SimulationError, define_interface, sometimes_assert};
use serde::{Deserialize, Serialize};

/// What the storage does about leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storage {
    /// It takes every write: the holder will have looked at its clock.
    Trusting,
    /// It refuses a write that comes with an older lease than another write did.
    Fencing,
}

const LEASE: Duration = Duration::from_secs(1);
/// A holder stops writing this long before its lease ends. It is never enough.
const MARGIN: Duration = Duration::from_millis(150);
const LEASES_PER_HOLDER: u32 = 4;

#[derive(Debug, Serialize, Deserialize)]
struct Lease {
    /// Ascends from holder to holder.
    number: u64,
    /// By the lock service's clock.
    ends_at: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
struct Write {
    lease: u64,
}

define_interface! {
    /// Grants a lock to one after the other.
    Locks, id 0x10C4, {
        /// Waits until the lock is free.
        acquire: () => Lease,
    }
}

define_interface! {
    /// What the lock protects.
    Register, id 0x4E61, {
        /// False if the write was refused.
        write: Write => bool,
    }
}

/// The newest lease that anything was written under. It stands outside the processes.
#[derive(Default)]
struct Ledger {
    newest: Cell<u64>,
}

async fn grant_locks(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let transport = listen(&providers, &topology).await?;
    let locks = Locks::serve(&transport, JsonCodec).map_err(SimulationError::workload)?;
    let time = providers.time();
    let mut number = 0;
    while let Some(((), reply)) = locks.acquire.recv().await {
        number += 1;
        let ends_at = time.timer() + LEASE;
        reply.send(Lease { number, ends_at });
        time.sleep(LEASE).await;
        while time.timer() < ends_at {
            time.sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}

async fn store(
    providers: SimProviders,
    topology: WorkloadTopology,
    storage: Storage,
) -> SimulationResult<()> {
    let transport = listen(&providers, &topology).await?;
    let register = Register::serve(&transport, JsonCodec).map_err(SimulationError::workload)?;
    let ledger = topology.shared::<Ledger>();
    while let Some((Write { lease }, reply)) = register.write.recv().await {
        let newest = ledger.newest.get();
        if storage == Storage::Fencing && lease < newest {
            sometimes_assert!(late_write_refused, true, "the fence was needed");
            reply.send(false);
            continue;
        }
        if lease < newest {
            return Err(SimulationError::workload(format!(
                "a write under lease {lease} was taken after one under lease {newest}"
            )));
        }
        ledger.newest.set(lease);
        reply.send(true);
    }
    Ok(())
}

/// Takes the lock a few times, and writes as long as it believes to have it.
async fn hold(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let locks = Locks::remote(&transport, address(&topology, "locks")?, JsonCodec);
    let register = Register::remote(&transport, address(&topology, "storage")?, JsonCodec);
    let time = providers.time();
    for _ in 0..LEASES_PER_HOLDER {
        let Ok(lease) = locks.acquire(()).await else {
            time.sleep(LEASE).await;
            continue;
        };
        while time.timer() + MARGIN < lease.ends_at {
            write(&register, lease.number).await;
            time.sleep(Duration::from_millis(20)).await;
        }
    }
    transport.shutdown(Duration::from_secs(1)).await;
    Ok(SimulationMetrics::default())
}

async fn write(register: &Client<Register>, lease: u64) {
    // Refused or lost: in either case there is nothing to be done about it here.
    if let Err(error) = register.write(Write { lease }).await {
        tracing::debug!(%error, "a write was not answered");
    }
}

fn campaign(storage: Storage) -> SimulationBuilder {
    SimulationBuilder::new()
        .process("locks", |providers, topology: WorkloadTopology| {
            until_shutdown(topology.clone(), grant_locks(providers, topology))
        })
        .process("storage", move |providers, topology: WorkloadTopology| {
            until_shutdown(topology.clone(), store(providers, topology, storage))
        })
        .register_providers_workload("holder-1", hold)
        .register_providers_workload("holder-2", hold)
        .shutdown_after_all()
        .use_random_config()
}

fn main() -> std::process::ExitCode {
    common::run(
        || campaign(Storage::Trusting),
        || campaign(Storage::Fencing),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_write_is_found() {
        let found = common::first_failure(campaign(Storage::Trusting), 0).unwrap();
        let expected = "was taken after one under lease";
        assert!(found.headline.contains(expected), "{found:?}");
    }

    #[test]
    fn fencing_holds() {
        let report = campaign(Storage::Fencing)
            .set_iterations(300)
            .require_coverage()
            .run();
        report.assert_passed();
    }
}
