//! [`WorkloadTopology`]: what a workload knows of the others.

use tokio_util::sync::CancellationToken;

use crate::chaos::StateRegistry;

/// Where a workload runs, and who else is there.
///
/// ```
/// use moonpool_foundation::{SimulationBuilder, SimulationError, SimulationMetrics};
///
/// let report = SimulationBuilder::new()
///     .set_iterations(3)
///     .register_workload("server", |_random, _network, _time, _task, topology| async move {
///         topology.shutdown_signal.cancelled().await;
///         Ok(SimulationMetrics::default())
///     })
///     .register_workload("client", |_random, _network, _time, _task, topology| async move {
///         let server = topology
///             .get_peer_by_name("server")
///             .ok_or_else(|| SimulationError::workload("no server"))?;
///         assert_eq!(server, "10.0.0.1");
///         Ok(SimulationMetrics::default())
///     })
///     .run();
/// report.assert_passed();
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkloadTopology {
    /// This workload's address.
    pub my_ip: String,
    /// The addresses of the other workloads, in the order they were registered.
    pub peer_ips: Vec<String>,
    /// Their names, in the same order.
    pub peer_names: Vec<String>,
    /// Fires when the first workload has returned `Ok`; with
    /// [`shutdown_after_all`](crate::SimulationBuilder::shutdown_after_all), when the last has.
    pub shutdown_signal: CancellationToken,
    /// States that all workloads and processes of this run share, for its invariants.
    pub state_registry: StateRegistry,
}

impl WorkloadTopology {
    /// The address of the workload of that name, if it is another one than this.
    #[must_use]
    pub fn get_peer_by_name(&self, name: &str) -> Option<String> {
        let index = self.peer_names.iter().position(|peer| peer == name)?;
        self.peer_ips.get(index).cloned()
    }

    /// Name and address of every other workload whose name begins with `prefix`.
    #[must_use]
    pub fn get_peers_with_prefix(&self, prefix: &str) -> Vec<(String, String)> {
        self.peer_names
            .iter()
            .zip(&self.peer_ips)
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, ip)| (name.clone(), ip.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_found_by_name_and_by_prefix() {
        let topology = WorkloadTopology {
            my_ip: "10.0.0.1".into(),
            peer_ips: vec!["10.0.0.2".into(), "10.0.0.3".into(), "10.0.0.4".into()],
            peer_names: vec!["server-1".into(), "client".into(), "server-2".into()],
            shutdown_signal: CancellationToken::new(),
            state_registry: StateRegistry::new(),
        };
        assert_eq!(
            topology.get_peer_by_name("client").as_deref(),
            Some("10.0.0.3")
        );
        assert_eq!(topology.get_peer_by_name("server"), None);
        assert_eq!(
            topology.get_peers_with_prefix("server-"),
            [
                ("server-1".to_owned(), "10.0.0.2".to_owned()),
                ("server-2".to_owned(), "10.0.0.4".to_owned()),
            ]
        );
    }
}
