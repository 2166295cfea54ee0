//! Faults of the network by call: what a test does to a [`SimWorld`], and what it asks.
//!
//! Each call that causes a fault takes an ordinal of its kind, is counted, and can be skipped, as
//! those by chance.

use std::net::IpAddr;
use std::time::Duration;

use super::breakage::{CloseReason, SimConnection};
use super::clock::SimInstant;
use super::clogs::ClogSide;
use super::connections::Side;
use super::faults::{CloseDirection, Ending};
use super::links::{Block, Cause};
use super::pipe::Pipe;
use super::process::ProcessId;
use super::sim_world::{SimProcess, SimWorld};
use super::world::World;
use crate::chaos::{FaultKind, FaultTarget};
use crate::messaging::NetworkAddress;

/// Names a process for a fault: by itself, or by the address that it has. Faults act on processes;
/// addresses that connections display make no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Host {
    /// This process.
    Process(ProcessId),
    /// The process of this address; nothing happens if there is none.
    Address(IpAddr),
}

impl From<ProcessId> for Host {
    fn from(process: ProcessId) -> Self {
        Self::Process(process)
    }
}

impl From<&SimProcess> for Host {
    fn from(process: &SimProcess) -> Self {
        Self::Process(process.id())
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl From<&NetworkAddress> for Host {
    fn from(address: &NetworkAddress) -> Self {
        Self::Address(address.ip)
    }
}

impl World {
    fn host(&self, host: Host) -> Option<ProcessId> {
        match host {
            Host::Process(process) => Some(process),
            Host::Address(address) => self.processes.by_ip(address),
        }
    }

    pub(super) fn disconnect_hosts_for(&mut self, one: Host, other: Host, duration: Duration) {
        if let (Some(one), Some(other)) = (self.host(one), self.host(other)) {
            self.disconnect_pair(one, other, self.after(duration));
        }
    }

    pub(super) fn reconnect_hosts_if_due(&mut self, one: Host, other: Host) {
        if let (Some(one), Some(other)) = (self.host(one), self.host(other)) {
            self.reconnect_pair_if_due(one, other);
        }
    }

    pub(super) fn clog_process(&mut self, process: ProcessId, duration: Duration) {
        let target = FaultTarget::Process(process.number());
        let block = Block::ClogAll(process);
        self.block(FaultKind::PairClog, target, &[block], duration);
    }
}

impl SimWorld {
    fn with_host(&self, host: Host, f: impl FnOnce(&mut World, ProcessId)) {
        self.shared.with(|world| {
            if let Some(process) = world.host(host) {
                f(world, process);
            }
        });
    }

    fn with_pair(&self, one: Host, other: Host, f: impl FnOnce(&mut World, ProcessId, ProcessId)) {
        self.shared.with(|world| {
            if let (Some(one), Some(other)) = (world.host(one), world.host(other)) {
                f(world, one, other);
            }
        });
    }

    /// Keeps two processes from reaching each other for `duration`. What is under way stalls,
    /// connects are not answered, and a connection whose bytes stay unacknowledged for 15 s fails with
    /// `TimedOut`. A process always reaches itself.
    pub fn partition_pair(&self, one: impl Into<Host>, other: impl Into<Host>, duration: Duration) {
        self.with_pair(one.into(), other.into(), |world, one, other| {
            let target = FaultTarget::Pair(one.number(), other.number());
            let blocks = [Block::Partition(one, other), Block::Partition(other, one)];
            world.block(FaultKind::Partition, target, &blocks, duration);
        });
    }

    /// Keeps what `from` sends from reaching `to` for `duration`; the other way stays open. Bytes that
    /// arrive the other way are not acknowledged.
    pub fn partition_one_way(
        &self,
        from: impl Into<Host>,
        to: impl Into<Host>,
        duration: Duration,
    ) {
        self.with_pair(from.into(), to.into(), |world, from, to| {
            let target = FaultTarget::Pair(from.number(), to.number());
            let blocks = [Block::Partition(from, to)];
            world.block(FaultKind::Partition, target, &blocks, duration);
        });
    }

    /// Keeps what `process` sends from reaching anybody for `duration`.
    pub fn partition_send_from(&self, process: impl Into<Host>, duration: Duration) {
        self.with_host(process.into(), |world, process| {
            let target = FaultTarget::Process(process.number());
            let blocks = [Block::Sends(process)];
            world.block(FaultKind::Partition, target, &blocks, duration);
        });
    }

    /// Keeps everything from reaching `process` for `duration`.
    pub fn partition_recv_to(&self, process: impl Into<Host>, duration: Duration) {
        self.with_host(process.into(), |world, process| {
            let target = FaultTarget::Process(process.number());
            let blocks = [Block::Receives(process)];
            world.block(FaultKind::Partition, target, &blocks, duration);
        });
    }

    /// Ends the partition between two processes, in both directions. One that
    /// [`partition_send_from`](Self::partition_send_from) or
    /// [`partition_recv_to`](Self::partition_recv_to) made stays.
    pub fn restore_partition(&self, one: impl Into<Host>, other: impl Into<Host>) {
        self.with_pair(one.into(), other.into(), |world, one, other| {
            world.take_down(&[Block::Partition(one, other), Block::Partition(other, one)]);
        });
    }

    /// Ends what [`partition_send_from`](Self::partition_send_from) and
    /// [`partition_recv_to`](Self::partition_recv_to) did to a process.
    pub fn restore_process(&self, process: impl Into<Host>) {
        self.with_host(process.into(), |world, process| {
            world.take_down(&[Block::Sends(process), Block::Receives(process)]);
        });
    }

    /// Whether a partition keeps what `from` sends from reaching `to`.
    #[must_use]
    pub fn is_partitioned(&self, from: impl Into<Host>, to: impl Into<Host>) -> bool {
        let (from, to) = (from.into(), to.into());
        self.shared.with(|world| {
            let pair = world.host(from).zip(world.host(to));
            pair.is_some_and(|(from, to)| world.is_partitioned(from, to))
        })
    }

    /// Holds everything back between two processes for `duration`; then it arrives.
    pub fn clog_pair(&self, one: impl Into<Host>, other: impl Into<Host>, duration: Duration) {
        self.with_pair(one.into(), other.into(), |world, one, other| {
            let target = FaultTarget::Pair(one.number(), other.number());
            let blocks = [Block::Clog(one, other), Block::Clog(other, one)];
            world.block(FaultKind::PairClog, target, &blocks, duration);
        });
    }

    /// Ends a [`clog_pair`](Self::clog_pair).
    pub fn unclog_pair(&self, one: impl Into<Host>, other: impl Into<Host>) {
        self.with_pair(one.into(), other.into(), |world, one, other| {
            world.take_down(&[Block::Clog(one, other), Block::Clog(other, one)]);
        });
    }

    /// Whether a clog holds back what `from` sends to `to`, be they partitioned too or not.
    #[must_use]
    pub fn is_pair_clogged(&self, from: impl Into<Host>, to: impl Into<Host>) -> bool {
        let (from, to) = (from.into(), to.into());
        self.shared.with(|world| {
            let pair = world.host(from).zip(world.host(to));
            let links = &world.network.links;
            pair.is_some_and(|(from, to)| links.is_clogged(from, to))
        })
    }

    /// Holds back everything that `process` sends or is sent for `duration`; then it arrives.
    pub fn clog_process(&self, process: impl Into<Host>, duration: Duration) {
        self.with_host(process.into(), |world, process| {
            world.clog_process(process, duration);
        });
    }

    /// Ends a [`clog_process`](Self::clog_process).
    pub fn unclog_process(&self, process: impl Into<Host>) {
        self.with_host(process.into(), |world, process| {
            world.take_down(&[Block::ClogAll(process)]);
        });
    }

    /// Resets all connections between two processes, and refuses new ones until
    /// [`reconnect_pair`](Self::reconnect_pair).
    pub fn disconnect_pair(&self, one: impl Into<Host>, other: impl Into<Host>) {
        self.with_pair(one.into(), other.into(), |world, one, other| {
            world.disconnect_pair(one, other, SimInstant::NEVER);
        });
    }

    /// Lets two processes connect again.
    pub fn reconnect_pair(&self, one: impl Into<Host>, other: impl Into<Host>) {
        self.with_pair(one.into(), other.into(), World::reconnect_pair);
    }

    /// Stalls both directions of a connection for `duration`. Data is kept; writes are accepted until
    /// the send buffer is full.
    pub fn cut_connection(&self, connection: SimConnection, duration: Duration) {
        self.shared
            .with(|world| world.cut_connection(connection.id, duration));
    }

    /// Ends a cut.
    pub fn restore_connection(&self, connection: SimConnection) {
        self.shared
            .with(|world| world.restore_connection(connection.id));
    }

    /// Whether a connection is cut.
    #[must_use]
    pub fn is_connection_cut(&self, connection: SimConnection) -> bool {
        self.shared.with(|world| {
            let connection = world.network.connections.get(connection.id);
            connection.is_some_and(|connection| connection.cut.is_some())
        })
    }

    /// Lets the end `side` read nothing for `duration`, though bytes are there.
    pub fn clog_read(&self, connection: SimConnection, side: Side, duration: Duration) {
        self.shared
            .with(|world| world.clog(connection.id, side, ClogSide::Read, duration));
    }

    /// Lets the end `side` write nothing for `duration`, though there is room.
    pub fn clog_write(&self, connection: SimConnection, side: Side, duration: Duration) {
        self.shared
            .with(|world| world.clog(connection.id, side, ClogSide::Write, duration));
    }

    /// Ends what [`clog_read`](Self::clog_read) and [`clog_write`](Self::clog_write) did to an end.
    pub fn unclog(&self, connection: SimConnection, side: Side) {
        self.shared.with(|world| {
            world.unclog(connection.id, side, ClogSide::Read);
            world.unclog(connection.id, side, ClogSide::Write);
        });
    }

    /// Whether the end `side` is kept from reading.
    #[must_use]
    pub fn is_read_clogged(&self, connection: SimConnection, side: Side) -> bool {
        self.shared
            .with(|world| world.is_clogged(connection.id, side, ClogSide::Read))
    }

    /// Whether the end `side` is kept from writing.
    #[must_use]
    pub fn is_write_clogged(&self, connection: SimConnection, side: Side) -> bool {
        self.shared
            .with(|world| world.is_clogged(connection.id, side, ClogSide::Write))
    }

    /// Ends what `side` sends by FIN, after the bytes that were accepted. Its owner's next write fails
    /// with `BrokenPipe`. Does nothing to a connection that is gone.
    pub fn close_connection_graceful(&self, connection: SimConnection, side: Side) {
        self.shared.with(|world| {
            let target = FaultTarget::Connection(connection.id.number());
            if world.fault_fires(FaultKind::Close, target) {
                world.finish(connection.id, side);
            }
        });
    }

    /// Breaks both ends of a connection by RST, at once. Of what is under way in each direction a
    /// part that the seed decides still arrives: the stream is cut at any byte. Does nothing to a
    /// connection that is gone.
    pub fn close_connection_abort(&self, connection: SimConnection) {
        self.shared.with(|world| {
            let target = FaultTarget::Connection(connection.id.number());
            if world.fault_fires(FaultKind::Reset, target) {
                world.abort_connection(connection.id);
            }
        });
    }

    /// Ends directions of a connection, as `side` sees them: by FIN, or by RST of the whole
    /// connection if bytes are pending in one of them.
    pub fn close_connection_asymmetric(
        &self,
        connection: SimConnection,
        side: Side,
        direction: CloseDirection,
    ) {
        self.shared.with(|world| {
            let target = FaultTarget::Connection(connection.id.number());
            if world.fault_fires(FaultKind::Close, target) {
                world.close_directions(connection.id, side, direction, Ending::Fin);
            }
        });
    }

    /// Why the end `side` cannot go on as it did: [`CloseReason::None`] while it can, and of a connection
    /// that is forgotten, since nothing can happen on it any more.
    #[must_use]
    pub fn close_reason(&self, connection: SimConnection, side: Side) -> CloseReason {
        self.shared.with(|world| {
            let connection = world.network.connections.get(connection.id);
            connection.map_or(CloseReason::None, |connection| {
                connection.close_reason(side)
            })
        })
    }

    /// Leaves a connection half open: `crashed` is gone without a word. What the other end writes is
    /// swallowed and its reads wait, until after `error_delay` both fail with `ConnectionReset` or
    /// `TimedOut`, as the seed decides. Does nothing to a connection that is gone.
    pub fn simulate_peer_crash(
        &self,
        connection: SimConnection,
        crashed: Side,
        error_delay: Duration,
    ) {
        self.shared
            .with(|world| world.crash_end(connection.id, crashed, error_delay));
    }

    /// From now on chance leaves a connection alone, and it takes a tenth of the latency, without the
    /// long tail and without a delay that chance gave it. What a test does by call still happens to it.
    pub fn mark_stable(&self, connection: SimConnection) {
        self.shared.with(|world| {
            if let Some(connection) = world.network.connections.get_mut(connection.id) {
                for pipe in &mut connection.pipes {
                    pipe.way.stable = true;
                    if pipe.way.delayed_by == Cause::Chance {
                        pipe.way.set_delay(Duration::ZERO);
                    }
                }
            }
        });
    }

    /// Whether connections are closed by chance, if the configuration says so. They are, at first.
    pub fn set_connection_failures_enabled(&self, enabled: bool) {
        self.shared
            .with(|world| world.faults.set_failures_enabled(enabled));
    }

    /// What [`set_connection_failures_enabled`](Self::set_connection_failures_enabled) or
    /// [`enable_connection_failures`](super::enable_connection_failures) said last.
    #[must_use]
    pub fn are_connection_failures_enabled(&self) -> bool {
        self.shared.with(|world| world.faults.failures_enabled())
    }

    /// What `ask` tells of what `side` sends; nothing of a connection that is gone.
    fn pipe<R>(
        &self,
        connection: SimConnection,
        side: Side,
        ask: impl FnOnce(&Pipe) -> R,
    ) -> Option<R> {
        self.shared.with(|world| {
            let connection = world.network.connections.get(connection.id)?;
            Some(ask(&connection.pipes[side.index()]))
        })
    }

    /// How many bytes the end `side` may have accepted and not acknowledged; 0 of a connection that
    /// is gone.
    #[must_use]
    pub fn send_buffer_capacity(&self, connection: SimConnection, side: Side) -> usize {
        self.pipe(connection, side, Pipe::capacity).unwrap_or(0)
    }

    /// How many bytes the end `side` has accepted that are not acknowledged.
    #[must_use]
    pub fn send_buffer_used(&self, connection: SimConnection, side: Side) -> usize {
        self.pipe(connection, side, Pipe::in_send_buffer)
            .unwrap_or(0)
    }

    /// How many bytes the end `side` would accept now.
    #[must_use]
    pub fn available_send_buffer(&self, connection: SimConnection, side: Side) -> usize {
        self.pipe(connection, side, Pipe::room).unwrap_or(0)
    }

    /// Adds `send` to what the dialer's segments take, and `receive` to what those to it take, in
    /// place of what was added before.
    pub fn set_asymmetric_delays(
        &self,
        connection: SimConnection,
        send: Duration,
        receive: Duration,
    ) {
        self.shared.with(|world| {
            let target = FaultTarget::Connection(connection.id.number());
            if !world.fault_fires(FaultKind::AsymmetricDelay, target) {
                return;
            }
            if let Some(connection) = world.network.connections.get_mut(connection.id) {
                for (side, delay) in [(Side::Dialer, send), (Side::Acceptor, receive)] {
                    let way = &mut connection.pipe(side).way;
                    way.set_delay(delay);
                    way.delayed_by = Cause::Call;
                }
            }
        });
    }

    /// What is added to segments that the dialer sends.
    #[must_use]
    pub fn get_send_delay(&self, connection: SimConnection) -> Duration {
        let delay = self.pipe(connection, Side::Dialer, |pipe| pipe.way.delay());
        delay.unwrap_or_default()
    }

    /// What is added to segments that are sent to the dialer.
    #[must_use]
    pub fn get_recv_delay(&self, connection: SimConnection) -> Duration {
        let delay = self.pipe(connection, Side::Acceptor, |pipe| pipe.way.delay());
        delay.unwrap_or_default()
    }

    /// Sets the base latency from one address to another for connections made from now on, unless it
    /// was set or drawn before. Returns the one that holds.
    pub fn set_pair_latency_if_not_set(
        &self,
        from: IpAddr,
        to: IpAddr,
        latency: Duration,
    ) -> Duration {
        self.shared
            .with(|world| world.set_pair_latency_if_not_set(from, to, latency))
    }

    /// The base latency from one address to another, once it was set or drawn.
    #[must_use]
    pub fn get_pair_latency(&self, from: IpAddr, to: IpAddr) -> Option<Duration> {
        self.shared.with(|world| world.pair_latency(from, to))
    }

    /// The base latency of what a connection's dialer sends.
    #[must_use]
    pub fn get_connection_latency(&self, connection: SimConnection) -> Duration {
        let base = self.pipe(connection, Side::Dialer, |pipe| pipe.way.base());
        base.unwrap_or_default()
    }

    /// Ends all trouble on the network: from now on nothing goes wrong by chance, and what has gone
    /// wrong ends. Partitions, clogs and cuts are lifted, pairs can connect again, lost segments and
    /// unanswered connects are sent again soon. Connections that are broken stay broken.
    pub fn heal_network(&self) {
        self.shared.with(World::heal_network);
    }
}
