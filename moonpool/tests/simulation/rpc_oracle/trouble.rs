//! Who breaks connections by call, in the patterns of FoundationDB's tests.

use std::time::Duration;

use moonpool::foundation::{
    ConnectionSide, SimProviders, SimWorld, SimulationMetrics, SimulationResult, WorkloadTopology,
    clog_random_pair, disconnect_pair_for, enable_connection_failures, swizzle,
};
use moonpool::prelude::*;

/// Until when there is trouble: before the shortest chaos ends.
pub(crate) const TROUBLE_ENDS: Duration = Duration::from_secs(5);

/// Does something to the network every now and then, if this seed has it.
pub(crate) async fn make(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let random = providers.random();
    let has_trouble = random.random_bool(0.6);
    let kinds: u8 = random.random();
    while has_trouble && providers.time().now() < TROUBLE_ENDS {
        let pause = Duration::from_millis(random.random_range(50..1_500));
        providers.time().sleep(pause).await;
        let drawn = random.random_range(0..8_u8);
        if kinds & (1 << drawn) != 0
            && let Some(world) = topology.world()
        {
            trouble(&world, random, drawn);
        }
    }
    Ok(SimulationMetrics::default())
}

fn trouble(world: &SimWorld, random: &impl RandomProvider, kind: u8) {
    let processes = world.all_processes();
    let any = || &processes[random.random_range(0..processes.len())];
    let (one, other) = (any(), any());
    if one.id() == other.id() {
        return;
    }
    let duration = Duration::from_millis(random.random_range(10..8_000));
    let connections = world.connections();
    match kind {
        0 => world.partition_pair(one, other, duration),
        1 => world.partition_one_way(one, other, duration),
        2 => clog_random_pair(world),
        3 => disconnect_pair_for(world, one, other, duration),
        4 => enable_connection_failures(world, duration),
        5 => swizzle(world, duration),
        6 if !connections.is_empty() => {
            let connection = connections[random.random_range(0..connections.len())];
            world.close_connection_abort(connection);
        }
        7 if !connections.is_empty() => {
            let connection = connections[random.random_range(0..connections.len())];
            match random.random_bool(0.5) {
                true => world.close_connection_graceful(connection, ConnectionSide::Acceptor),
                false => world.cut_connection(connection, duration),
            }
        }
        _ => {}
    }
}
