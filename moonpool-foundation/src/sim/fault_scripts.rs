//! Faults over time, as FoundationDB's workloads script them. Each looks random and is decided by the
//! seed.

use std::time::Duration;

use super::network_faults::Host;
use super::process::ProcessId;
use super::sim_world::SimWorld;
use super::world::World;
use crate::chaos::FaultKind;

/// How long [`clog_random_pair`] clogs.
const RANDOM_PAIR_CLOG: Duration = Duration::from_secs(10);

impl World {
    /// A number below `bound`, for a script.
    fn script_below(&mut self, bound: usize) -> usize {
        let bound = u32::try_from(bound).unwrap_or(u32::MAX);
        let stream = self.faults.stream(FaultKind::PairClog);
        stream.below(bound, &mut self.digest) as usize
    }

    fn script_duration(&mut self, most: Duration) -> Duration {
        let most = super::clock::nanos(most);
        let stream = self.faults.stream(FaultKind::PairClog);
        Duration::from_nanos(stream.between(0, most, &mut self.digest))
    }
}

/// Clogs two processes for ten seconds, drawn from all of them; none if the same is drawn twice.
///
/// FoundationDB: `fdbserver/workloads/ClogSingleConnection.actor.cpp`.
///
/// ```
/// use moonpool_foundation::{SimWorld, clog_random_pair};
///
/// let world = SimWorld::new_with_seed(1);
/// world.add_process("one");
/// world.add_process("other");
/// clog_random_pair(&world);
/// ```
pub fn clog_random_pair(world: &SimWorld) {
    let processes = world.all_processes();
    if processes.is_empty() {
        return;
    }
    let count = processes.len();
    let (one, other) = world
        .shared
        .with(|world| (world.script_below(count), world.script_below(count)));
    if one != other {
        world.clog_pair(&processes[one], &processes[other], RANDOM_PAIR_CLOG);
    }
}

/// Disconnects two processes now, and reconnects them after `duration`, unless they are disconnected
/// for longer by then.
pub fn disconnect_pair_for(
    world: &SimWorld,
    from: impl Into<Host>,
    to: impl Into<Host>,
    duration: Duration,
) {
    let (from, to) = (from.into(), to.into());
    world
        .shared
        .with(|world| world.disconnect_hosts_for(from, to, duration));
    let handle = world.downgrade();
    world.schedule_after(duration, move || {
        if let Some(world) = handle.upgrade() {
            world.with(|world| world.reconnect_hosts_if_due(from, to));
        }
    });
}

/// Lets connections be closed by chance for `duration`, and no longer. Of several windows that
/// overlap the last end counts; [`SimWorld::set_connection_failures_enabled`] overrules them all.
pub fn enable_connection_failures(world: &SimWorld, duration: Duration) {
    world.shared.with(|world| {
        let until = world.after(duration);
        world.faults.open_failures_until(until);
    });
    let handle = world.downgrade();
    world.schedule_after(duration, move || {
        if let Some(world) = handle.upgrade() {
            world.with(|world| world.faults.close_failures_if_due(world.clock));
        }
    });
}

/// Clogs a random half of the processes one by one in the first half of `duration`, and unclogs them
/// in another order in the second.
///
/// FoundationDB: `fdbserver/workloads/RandomClogging.actor.cpp`, `swizzle`.
pub fn swizzle(world: &SimWorld, duration: Duration) {
    let mut left: Vec<ProcessId> = world
        .all_processes()
        .iter()
        .map(super::SimProcess::id)
        .collect();
    for _ in 0..left.len().div_ceil(2) {
        let (process, begins, ends) = world.shared.with(|world| {
            let process = left.swap_remove(world.script_below(left.len()));
            let begins = world.script_duration(duration / 2);
            let ends = duration / 2 + world.script_duration(duration / 2);
            (process, begins, ends)
        });
        let handle = world.downgrade();
        world.schedule_after(begins, move || {
            if let Some(world) = handle.upgrade() {
                world.with(|world| world.clog_process(process, ends.saturating_sub(begins)));
            }
        });
    }
}
