//! [`Plan`]: everything that decides a campaign, made once and shared by its threads.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::coverage::Requirement;
use super::environment::Check;
use super::phases::Phases;
use super::topology::WorkloadTopology;
use super::workload::{Progress, ShutdownAfter, Workload};
use crate::chaos::{Attrition, BuggifyProbabilities, FaultId, InvariantCheck};
use crate::network::{NetworkConfigError, NetworkConfiguration};
use crate::sim::SimWorld;

/// Where a workload runs, and who else is there: the same for every seed.
#[derive(Clone, Debug)]
pub(super) struct Place {
    my_ip: String,
    peer_ips: Vec<String>,
    peer_names: Vec<String>,
}

impl Place {
    pub(super) fn topology(&self, progress: &Progress) -> WorkloadTopology {
        WorkloadTopology {
            my_ip: self.my_ip.clone(),
            peer_ips: self.peer_ips.clone(),
            peer_names: self.peer_names.clone(),
            shutdown_signal: progress.shutdown.clone(),
            state_registry: progress.registry.clone(),
            shared: progress.shared.clone(),
            providers: None,
        }
    }
}

/// Which seeds a campaign runs, in order. A range takes no memory, however long it is.
#[derive(Clone, Debug)]
pub(super) enum Seeds {
    Range(Range<u64>),
    List(Vec<u64>),
}

impl Seeds {
    /// How many there are, as far as a `usize` can tell.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Range(range) => {
                usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
            }
            Self::List(seeds) => seeds.len(),
        }
    }

    /// The seed at `position`, if there are that many.
    pub(super) fn get(&self, position: usize) -> Option<u64> {
        match self {
            Self::Range(range) => {
                let seed = range.start.checked_add(u64::try_from(position).ok()?)?;
                range.contains(&seed).then_some(seed)
            }
            Self::List(seeds) => seeds.get(position).copied(),
        }
    }
}

/// One of several equal parts of a campaign: each runs every n-th seed, and together they run all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    /// Below `count`.
    index: usize,
    count: usize,
}

impl Shard {
    /// The shard that is the whole.
    pub(super) const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether it is the first of several, or the whole.
    pub(super) fn is_first(self) -> bool {
        self.index == 0
    }

    /// The `number`-th, from 1, of `count`.
    pub(super) fn new(number: usize, count: usize) -> Option<Self> {
        let index = number.checked_sub(1)?;
        (index < count).then_some(Self { index, count })
    }

    /// How many of so many positions are this shard's.
    fn share(self, positions: usize) -> usize {
        positions.saturating_sub(self.index).div_ceil(self.count)
    }

    /// The position in the whole campaign of this shard's `turn`-th seed.
    pub(super) fn position(self, turn: usize) -> Option<usize> {
        turn.checked_mul(self.count)?.checked_add(self.index)
    }
}

/// The network of a campaign's seeds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Network {
    /// The same for all.
    Fixed(Box<NetworkConfiguration>),
    /// Drawn per seed: some kinds of faults, with rates of their own.
    Swarm,
}

impl Network {
    /// The network of `seed`: a pure function of it.
    pub(super) fn of(&self, seed: u64) -> Box<NetworkConfiguration> {
        match self {
            Self::Fixed(config) => Box::clone(config),
            Self::Swarm => Box::new(NetworkConfiguration::swarm_for_seed(seed)),
        }
    }
}

/// Everything that decides a campaign. Shared by its threads.
#[derive(Clone, Debug)]
pub(super) struct Plan<'a> {
    pub(super) workloads: &'a [Workload],
    pub(super) network: &'a Network,
    pub(super) time_budget: Duration,
    pub(super) livelock_limit: Option<u64>,
    pub(super) shutdown_after: ShutdownAfter,
    pub(super) phases: Option<Phases>,
    pub(super) attrition: Option<Attrition>,
    pub(super) skipped_faults: BTreeSet<FaultId>,
    pub(super) seeds: Seeds,
    pub(super) shard: Shard,
    /// Real time after which no further seed begins.
    pub(super) time_limit: Option<Duration>,
    pub(super) jobs: usize,
    pub(super) check: Check,
    pub(super) stop_on_failure: bool,
    pub(super) places: Vec<Place>,
    /// `None`: as the network has it.
    pub(super) buggify: Option<BuggifyProbabilities>,
    pub(super) invariants: Arc<[InvariantCheck]>,
    pub(super) coverage: Requirement,
    /// The campaign ends with the seed with which all required sites have held.
    pub(super) stops_when_covered: bool,
}

impl<'a> Plan<'a> {
    /// A plan with the addresses that a world will give to these workloads.
    pub(super) fn new(
        workloads: &'a [Workload],
        network: &'a Network,
    ) -> Result<Self, NetworkConfigError> {
        if let Network::Fixed(config) = network {
            config.validate()?;
        }
        let world = SimWorld::new();
        let hosts: Vec<(String, String)> = workloads
            .iter()
            .map(|workload| {
                let process = world.add_process(&workload.name);
                (process.name().to_owned(), process.ip().to_string())
            })
            .collect();
        let place = |me: usize| {
            let others = hosts.iter().enumerate().filter(|(index, _)| *index != me);
            let (peer_names, peer_ips) = others.map(|(_, host)| host.clone()).unzip();
            Place {
                my_ip: hosts[me].1.clone(),
                peer_ips,
                peer_names,
            }
        };
        Ok(Self {
            workloads,
            network,
            time_budget: Duration::MAX,
            livelock_limit: None,
            shutdown_after: ShutdownAfter::default(),
            phases: None,
            attrition: None,
            skipped_faults: BTreeSet::new(),
            seeds: Seeds::List(Vec::new()),
            shard: Shard::WHOLE,
            time_limit: None,
            jobs: 1,
            check: Check::default(),
            stop_on_failure: false,
            places: (0..hosts.len()).map(place).collect(),
            buggify: None,
            invariants: Arc::new([]),
            coverage: Requirement::default(),
            stops_when_covered: false,
        })
    }

    /// Tells one configuration from another, on every machine: FNV-1a over what decides a seed's run.
    pub(super) fn fingerprint(&self) -> u64 {
        let names = self.workloads.iter().map(|workload| workload.name.as_ref());
        let names: Vec<&str> = names.collect();
        let decisive = (
            (names, self.network, self.time_budget, self.livelock_limit),
            (
                self.shutdown_after,
                &self.phases,
                &self.attrition,
                &self.skipped_faults,
                self.buggify,
            ),
        );
        let text = format!("{decisive:?}");
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// How many turns this shard has at most.
    pub(super) fn turns(&self) -> usize {
        self.shard.share(self.seeds.len())
    }

    /// How many seeds this shard runs, unless time ends it.
    pub(super) fn seeds_to_run(&self) -> Option<u64> {
        match self.time_limit {
            None => u64::try_from(self.turns()).ok(),
            Some(_) => None,
        }
    }

    /// Whether what a seed comes to may make it the last.
    pub(super) fn may_end_early(&self) -> bool {
        self.stop_on_failure || self.stops_when_covered
    }

    /// The same campaign over other seeds, all of which run.
    pub(super) fn with_seeds(&self, seeds: Vec<u64>) -> Self {
        Self {
            seeds: Seeds::List(seeds),
            shard: Shard::WHOLE,
            time_limit: None,
            stops_when_covered: false,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_network_is_a_function_of_its_seed() {
        assert_eq!(Network::Swarm.of(7), Network::Swarm.of(7));
        assert_ne!(Network::Swarm.of(7), Network::Swarm.of(8));
    }

    #[test]
    fn shards_share_every_position() {
        for positions in 0..20 {
            let shares = (1..=3).map(|number| Shard::new(number, 3).unwrap().share(positions));
            assert_eq!(shares.sum::<usize>(), positions);
        }
    }
}
