//! What the network has to say to the log. It is kept until nobody borrows the world, for a
//! subscriber is a callback, and kept only if somebody listens.
//!
//! Levels: `trace` is every operation of a socket, `debug` what chance or a test does to one, `info`
//! connections that are established or fail. All of them name the connection by the number that
//! traces and the ledger of faults show.
//!
//! And what the ledger of faults has to say to the trace.

use super::connections::ConnectionId;
use super::links::Block;
use super::process::ProcessId;
use super::world::World;
use crate::chaos::{FaultRecord, FaultTarget};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    Connection { connection: u64, what: &'static str },
    Link { what: &'static str, block: Block },
}

impl Notice {
    pub(super) fn log(self) {
        match self {
            Self::Connection { connection, what } => {
                tracing::debug!(connection, "connection {what}");
            }
            Self::Link { what, block } => tracing::debug!(?block, "{what}"),
        }
    }
}

impl World {
    pub(super) fn notice(&mut self, id: ConnectionId, what: &'static str) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            let connection = id.number();
            self.notices.push(Notice::Connection { connection, what });
        }
    }

    pub(super) fn notice_block(&mut self, what: &'static str, block: Block) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            self.notices.push(Notice::Link { what, block });
        }
    }

    /// Tells the trace of the faults that have fired since it was told last, before the step that
    /// they are part of: each by its id, as `MOONPOOL_SKIP_FAULTS` takes it.
    pub(super) fn trace_faults(&mut self) {
        for (fault, digest) in self.faults.log.take_untraced() {
            let FaultRecord {
                id,
                at,
                target,
                skipped,
            } = fault;
            let process = match target {
                FaultTarget::Process(process) | FaultTarget::Pair(process, _) => {
                    self.process_name(process)
                }
                FaultTarget::Connection(_) | FaultTarget::Site { .. } => None,
            };
            let skipped = if skipped { " (skipped)" } else { "" };
            let what = format!("fault {id}: {}{skipped}", self.name_target(target));
            self.trace.record(at, digest, process, what);
        }
    }

    /// What a fault happened to, by the names that people gave, as far as they are known.
    fn name_target(&mut self, target: FaultTarget) -> String {
        if let FaultTarget::Connection(number) = target
            && self.faults.log.connection_name(number).is_none()
            && let Some(name) = self.live_connection_name(number)
        {
            self.faults.log.name_connection(number, name);
        }
        self.target_name(target)
    }

    fn target_name(&self, target: FaultTarget) -> String {
        let named = match target {
            FaultTarget::Process(process) => self.process_name(process),
            FaultTarget::Pair(from, to) => match (self.process_name(from), self.process_name(to)) {
                (Some(from), Some(to)) => Some(format!("{from} -> {to}")),
                _ => None,
            },
            FaultTarget::Connection(connection) => {
                let ends = self.faults.log.connection_name(connection);
                ends.map(|ends| format!("{target} ({ends})"))
            }
            FaultTarget::Site { .. } => None,
        };
        named.unwrap_or_else(|| target.to_string())
    }

    /// The faults that were recorded, each with what it happened to by name. Connections have names
    /// if the run was traced.
    pub(super) fn named_faults(&self) -> Vec<(FaultRecord, String)> {
        let records = self.faults.log.records();
        let named = |fault: FaultRecord| (fault, self.target_name(fault.target));
        records.into_iter().map(named).collect()
    }

    fn process_name(&self, number: u32) -> Option<String> {
        let mut known = std::iter::once(ProcessId::WORLD).chain(self.processes.ids());
        let process = known.nth(usize::try_from(number).ok()?)?;
        Some(self.processes.get(process).name.to_string())
    }

    fn live_connection_name(&self, number: u64) -> Option<String> {
        let connection = self
            .network
            .connections
            .get(ConnectionId::of_number(number)?)?;
        let [dialer, acceptor] = &connection.ends;
        let name = |process: ProcessId| &self.processes.get(process).name;
        let (from, to) = (name(dialer.owner.id), name(acceptor.owner.id));
        Some(format!("{from} -> {to}"))
    }
}
