//! What stands between processes: partitions and clogs that hold back what is under way, pairs that
//! are disconnected, base latencies.
//!
//! An obstacle is met on arrival: a segment, a RST or a connect that reaches the other host while one
//! stands is held. Those that are held are listed, so that lifting an obstacle looks at them alone;
//! a network without obstacles asks one question per arrival.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::clock::SimInstant;
use super::connections::{ConnectionId, Side};
use super::events::EventKey;
use super::faults::Occasion;
use super::process::ProcessId;
use super::world::{Event, World};
use crate::chaos::{FaultKind, FaultTarget};

/// What keeps whom from reaching whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Block {
    /// Nothing of the first reaches the second, and it comes late.
    Clog(ProcessId, ProcessId),
    /// Nothing reaches the process or leaves it, and it comes late.
    ClogAll(ProcessId),
    /// Nothing of the first reaches the second.
    Partition(ProcessId, ProcessId),
    /// Nothing of the process reaches anybody.
    Sends(ProcessId),
    /// Nothing reaches the process.
    Receives(ProcessId),
}

impl Block {
    /// For digests.
    pub(super) fn number(self) -> u64 {
        let pair = |from: ProcessId, to: ProcessId| {
            (u64::from(from.number()) << 24) | u64::from(to.number())
        };
        let (kind, who) = match self {
            Self::Clog(from, to) => (0, pair(from, to)),
            Self::ClogAll(process) => (1, u64::from(process.number())),
            Self::Partition(from, to) => (2, pair(from, to)),
            Self::Sends(process) => (3, u64::from(process.number())),
            Self::Receives(process) => (4, u64::from(process.number())),
        };
        (kind << 48) | who
    }

    fn obstacle(self) -> Obstacle {
        match self {
            Self::Clog(..) | Self::ClogAll(_) => Obstacle::Clog,
            Self::Partition(..) | Self::Sends(_) | Self::Receives(_) => Obstacle::Partition,
        }
    }
}

/// What an arrival meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// It comes late.
    Clog,
    /// It comes late too, if its sender does not give up first.
    Partition,
}

/// Who put an obstacle or a delay there. Stable connections do not meet what chance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    Call,
    #[default]
    Chance,
}

#[derive(Debug)]
struct Standing {
    until: SimInstant,
    event: EventKey,
}

#[derive(Debug, Default)]
pub(super) struct Links {
    /// What chance put up and what a call did stand side by side: each ends at its own time, and
    /// stable connections meet one of them only.
    blocks: BTreeMap<(Block, Cause), Standing>,
    /// Pairs that are disconnected, and until when; `NEVER` if until a call ends it.
    disconnected: BTreeMap<(ProcessId, ProcessId), SimInstant>,
    /// Directions that something is held of.
    held: Vec<(ConnectionId, Side)>,
    latencies: BTreeMap<(IpAddr, IpAddr), Duration>,
}

impl Links {
    /// What an arrival from one process at another meets. A process always reaches itself.
    pub(super) fn obstacle(
        &self,
        from: ProcessId,
        to: ProcessId,
        stable: bool,
    ) -> Option<Obstacle> {
        if self.blocks.is_empty() || from == to {
            return None;
        }
        let possible = [
            Block::Partition(from, to),
            Block::Sends(from),
            Block::Receives(to),
            Block::Clog(from, to),
            Block::ClogAll(from),
            Block::ClogAll(to),
        ];
        let met = possible
            .into_iter()
            .find(|block| self.meets(*block, stable));
        met.map(Block::obstacle)
    }

    /// Whether anything stands anywhere.
    pub(super) fn has_blocks(&self) -> bool {
        !self.blocks.is_empty()
    }

    fn meets(&self, block: Block, stable: bool) -> bool {
        let stands = |cause| self.blocks.contains_key(&(block, cause));
        stands(Cause::Call) || (!stable && stands(Cause::Chance))
    }

    /// Whether a clog stands between two processes, whatever else does.
    pub(super) fn is_clogged(&self, from: ProcessId, to: ProcessId) -> bool {
        let clogs = [
            Block::Clog(from, to),
            Block::ClogAll(from),
            Block::ClogAll(to),
        ];
        from != to && clogs.into_iter().any(|clog| self.meets(clog, false))
    }

    pub(super) fn is_disconnected(&self, one: ProcessId, other: ProcessId) -> bool {
        !self.disconnected.is_empty() && self.disconnected.contains_key(&ordered(one, other))
    }
}

fn ordered(one: ProcessId, other: ProcessId) -> (ProcessId, ProcessId) {
    (one.min(other), one.max(other))
}

fn pair(from: ProcessId, to: ProcessId) -> FaultTarget {
    FaultTarget::Pair(from.number(), to.number())
}

impl World {
    /// Puts obstacles up for `lasts`, as one fault.
    pub(super) fn block(
        &mut self,
        kind: FaultKind,
        target: FaultTarget,
        blocks: &[Block],
        lasts: Duration,
    ) {
        if self.fault_fires(kind, target) {
            for block in blocks {
                self.put_up(*block, lasts, Cause::Call);
            }
        }
    }

    /// One that the same cause put up already stands until the later of the two ends.
    fn put_up(&mut self, block: Block, lasts: Duration, cause: Cause) {
        let until = self.after(lasts);
        let standing = self.network.links.blocks.get(&(block, cause));
        if standing.is_some_and(|standing| standing.until >= until) {
            return;
        }
        let event = self.schedule(until, Event::Lift(block, cause));
        let standing = Standing { until, event };
        let before = self.network.links.blocks.insert((block, cause), standing);
        if let Some(before) = before {
            self.events.remove(before.event);
        }
        self.notice_block("put up", block);
    }

    /// An obstacle's time is over.
    pub(super) fn lift(&mut self, block: Block, cause: Cause) {
        self.remove_block(block, cause);
        self.release_held();
    }

    fn remove_block(&mut self, block: Block, cause: Cause) {
        if let Some(standing) = self.network.links.blocks.remove(&(block, cause)) {
            self.events.remove(standing.event);
            self.notice_block("lifted", block);
        }
    }

    /// Takes obstacles down, whoever put them up, and lets go what they held.
    pub(super) fn take_down(&mut self, blocks: &[Block]) {
        for block in blocks {
            self.remove_block(*block, Cause::Call);
            self.remove_block(*block, Cause::Chance);
        }
        self.release_held();
    }

    /// Takes all obstacles down, and connects what was disconnected.
    pub(super) fn take_all_down(&mut self) {
        let blocks = self.network.links.blocks.keys();
        let blocks: Vec<Block> = blocks.map(|(block, _)| *block).collect();
        self.network.links.disconnected.clear();
        self.take_down(&blocks);
    }

    /// Whether the first is kept from reaching the second by a partition.
    pub(super) fn is_partitioned(&self, from: ProcessId, to: ProcessId) -> bool {
        self.network.links.obstacle(from, to, false) == Some(Obstacle::Partition)
    }

    /// What keeps the segments of `from` from arriving.
    pub(super) fn obstacle_for(&self, id: ConnectionId, from: Side) -> Option<Obstacle> {
        if self.network.links.blocks.is_empty() {
            return None;
        }
        let connection = self.network.connections.get(id)?;
        let sender = connection.ends[from.index()].owner.id;
        let receiver = connection.ends[from.other().index()].owner.id;
        self.network
            .links
            .obstacle(sender, receiver, connection.is_stable())
    }

    /// Remembers that something of this direction is held.
    pub(super) fn list_held(&mut self, id: ConnectionId, from: Side) {
        if let Some(connection) = self.network.connections.get_mut(id)
            && !std::mem::replace(&mut connection.pipe(from).is_listed, true)
        {
            self.network.links.held.push((id, from));
        }
    }

    /// What is held goes on if nothing stands in its way any more.
    fn release_held(&mut self) {
        if self.network.links.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut self.network.links.held);
        for (id, from) in held {
            let there = self.obstacle_for(id, from);
            let back = self.obstacle_for(id, from.other());
            if there.is_some() || back == Some(Obstacle::Partition) {
                self.network.links.held.push((id, from));
            } else if let Some(connection) = self.network.connections.get_mut(id) {
                connection.pipe(from).is_listed = false;
            }
            if there.is_none() {
                self.go_on(id, from);
            }
            if back != Some(Obstacle::Partition) {
                self.acknowledge(id, from);
            }
        }
    }

    /// Gives a new connection the latencies and buffers of its two directions.
    pub(super) fn lay_pipes(&mut self, id: ConnectionId) {
        let on = self.occasion(id);
        let delays = self.faults.asymmetric_delays(on, &mut self.digest);
        for from in [Side::Dialer, Side::Acceptor] {
            let Some((local, remote)) = self.hosts(id, from) else {
                return;
            };
            let base = self.base_latency(local, remote, on);
            let capacity = self.faults.send_buffer_bytes(base);
            let delay = delays.map_or(Duration::ZERO, |delays| delays[from.index()]);
            if let Some(connection) = self.network.connections.get_mut(id) {
                connection.pipe(from).lay(capacity, base, delay);
            }
        }
    }

    /// The addresses of the hosts that `from` sends from and to.
    fn hosts(&self, id: ConnectionId, from: Side) -> Option<(IpAddr, IpAddr)> {
        let connection = self.network.connections.get(id)?;
        let owner = |side: Side| {
            self.processes
                .get(connection.ends[side.index()].owner.id)
                .ip
        };
        Some((owner(from), owner(from.other())))
    }

    /// Draws whether the two processes part, if partitions happen by chance.
    pub(super) fn maybe_partition(&mut self, from: ProcessId, to: ProcessId) {
        if !self.faults.partitions() || from == to {
            return;
        }
        let on = Occasion {
            now: self.clock,
            target: pair(from, to),
        };
        let Some(drawn) = self.faults.partition(on, &mut self.digest) else {
            return;
        };
        if drawn.there {
            self.put_up(Block::Partition(from, to), drawn.lasts, Cause::Chance);
        }
        if drawn.back {
            self.put_up(Block::Partition(to, from), drawn.lasts, Cause::Chance);
        }
    }

    /// Resets all connections between two processes, and refuses new ones until then; until later if
    /// that was said before.
    pub(super) fn disconnect_pair(&mut self, one: ProcessId, other: ProcessId, until: SimInstant) {
        if !self.fault_fires(FaultKind::Disconnect, pair(one, other)) {
            return;
        }
        let known = self.network.links.disconnected.entry(ordered(one, other));
        let known = known.or_insert(until);
        *known = until.max(*known);
        let mut between = Vec::new();
        for (id, connection) in self.network.connections.iter() {
            let owners = [connection.ends[0].owner.id, connection.ends[1].owner.id];
            if ordered(owners[0], owners[1]) == ordered(one, other) {
                between.push(id);
            }
        }
        for id in between {
            self.abort_connection(id);
        }
    }

    pub(super) fn reconnect_pair(&mut self, one: ProcessId, other: ProcessId) {
        self.network.links.disconnected.remove(&ordered(one, other));
    }

    /// Lets two processes connect again if they were disconnected until now, and not longer since.
    pub(super) fn reconnect_pair_if_due(&mut self, one: ProcessId, other: ProcessId) {
        let until = self.network.links.disconnected.get(&ordered(one, other));
        if until.is_some_and(|until| *until <= self.clock) {
            self.reconnect_pair(one, other);
        }
    }

    /// The base latency between two addresses, drawn if there is none.
    pub(super) fn base_latency(&mut self, from: IpAddr, to: IpAddr, on: Occasion) -> Duration {
        if from == to {
            return Duration::ZERO;
        }
        if let Some(known) = self.network.links.latencies.get(&(from, to)) {
            return *known;
        }
        if !self.faults.has_pair_latency() {
            return Duration::ZERO;
        }
        let drawn = self.faults.pair_latency(on, &mut self.digest);
        self.network.links.latencies.insert((from, to), drawn);
        drawn
    }

    pub(super) fn pair_latency(&self, from: IpAddr, to: IpAddr) -> Option<Duration> {
        self.network.links.latencies.get(&(from, to)).copied()
    }

    /// Returns what holds from now on.
    pub(super) fn set_pair_latency_if_not_set(
        &mut self,
        from: IpAddr,
        to: IpAddr,
        latency: Duration,
    ) -> Duration {
        let latencies = &mut self.network.links.latencies;
        *latencies.entry((from, to)).or_insert(latency)
    }
}
