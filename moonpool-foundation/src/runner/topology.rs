//! [`WorkloadTopology`]: what a workload knows of the others.

use std::rc::Rc;

use tokio_util::sync::CancellationToken;

use super::shared::SharedValues;
#[cfg(feature = "sim")]
use crate::chaos::StateRegistry;
#[cfg(feature = "sim")]
use crate::providers::SimProviders;
#[cfg(feature = "sim")]
use crate::sim::SimWorld;

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
    #[cfg(feature = "sim")]
    pub state_registry: StateRegistry,
    pub(super) shared: SharedValues,
    /// Who runs it, in a simulation.
    #[cfg(feature = "sim")]
    pub(super) providers: Option<SimProviders>,
}

impl WorkloadTopology {
    /// That of a run on real sockets.
    pub(super) fn outside(
        my_ip: String,
        peer_ips: Vec<String>,
        peer_names: Vec<String>,
        shutdown_signal: CancellationToken,
    ) -> Self {
        Self {
            my_ip,
            peer_ips,
            peer_names,
            shutdown_signal,
            #[cfg(feature = "sim")]
            state_registry: StateRegistry::new(),
            shared: SharedValues::default(),
            #[cfg(feature = "sim")]
            providers: None,
        }
    }

    /// The run's value of this type, which all its workloads and processes share; made by the first
    /// that asks, and new in each run.
    ///
    /// It is for what stands outside the processes: the ledger that a test compares with what was
    /// acknowledged. What one process keeps, such as a disk, is its [`own`](Self::own): replicas that
    /// shared a disk would never miss what was not replicated. A closure must not capture such a value
    /// instead: it would be the same for all seeds, which run at once and in any order.
    ///
    /// ```
    /// use moonpool_foundation::{SimulationBuilder, SimulationMetrics};
    /// use std::cell::Cell;
    ///
    /// #[derive(Default)]
    /// struct Ledger { starts: Cell<u32> }
    ///
    /// SimulationBuilder::new()
    ///     .set_iterations(3)
    ///     .register_workload("server", |_random, _network, _time, _task, topology| async move {
    ///         let ledger = topology.shared::<Ledger>();
    ///         ledger.starts.set(ledger.starts.get() + 1);
    ///         assert_eq!(ledger.starts.get(), 1, "each run has a ledger of its own");
    ///         Ok(SimulationMetrics::default())
    ///     })
    ///     .run()
    ///     .assert_passed();
    /// ```
    #[must_use]
    pub fn shared<T: Default + 'static>(&self) -> Rc<T> {
        self.shared.get(None)
    }

    /// This process's value of this type, which all its lives in this run share, and no other process;
    /// made by the first life that asks, and new in each run. The disk that a restarted process finds again.
    ///
    /// What is put there survives every kind of kill from that moment on, as if it were written and
    /// flushed at once: the time that this takes is for the caller to wait, before or after.
    ///
    /// ```
    /// use moonpool_foundation::{SimulationBuilder, SimulationMetrics};
    /// use std::cell::Cell;
    ///
    /// #[derive(Default)]
    /// struct Disk { starts: Cell<u32> }
    ///
    /// let mut builder = SimulationBuilder::new().set_iterations(3);
    /// for name in ["replica 0", "replica 1"] {
    ///     builder = builder.process(name, |_providers, topology| async move {
    ///         let disk = topology.own::<Disk>();
    ///         disk.starts.set(disk.starts.get() + 1);
    ///         assert_eq!(disk.starts.get(), 1, "each replica has a disk of its own");
    ///         Ok(())
    ///     });
    /// }
    /// builder
    ///     .register_workload("client", |_random, _network, _time, _task, _topology| async move {
    ///         Ok(SimulationMetrics::default())
    ///     })
    ///     .run()
    ///     .assert_passed();
    /// ```
    #[must_use]
    pub fn own<T: Default + 'static>(&self) -> Rc<T> {
        self.shared.get(Some(&self.my_ip))
    }

    /// The world that this workload runs in, for faults that it causes itself; see
    /// [`SimProviders::world`]. `None` outside a simulation, and in a process that was killed.
    ///
    /// Kill [processes](crate::SimulationBuilder::process): a workload that is killed never returns,
    /// and its seed waits for it in vain.
    ///
    /// ```
    /// use moonpool_foundation::{KillKind, SimulationBuilder, SimulationMetrics};
    ///
    /// SimulationBuilder::new()
    ///     .set_iterations(3)
    ///     .process("server", |_providers, _topology| std::future::pending())
    ///     .register_workload("killer", |_random, _network, _time, _task, topology| async move {
    ///         if let Some(world) = topology.world()
    ///             && let Some(server) = world.process("server")
    ///         {
    ///             assert!(world.kill(server.id(), KillKind::PowerLoss));
    ///             assert!(world.restart(server.id()));
    ///         }
    ///         Ok(SimulationMetrics::default())
    ///     })
    ///     .run()
    ///     .assert_passed();
    /// ```
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn world(&self) -> Option<SimWorld> {
        self.providers.as_ref()?.world()
    }

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
        let topology = WorkloadTopology::outside(
            "10.0.0.1".into(),
            vec!["10.0.0.2".into(), "10.0.0.3".into(), "10.0.0.4".into()],
            vec!["server-1".into(), "client".into(), "server-2".into()],
            CancellationToken::new(),
        );
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
