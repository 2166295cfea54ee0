//! The ledger of faults: each that fires gets its ordinal here, is counted, shows in the digest, and
//! is skipped if the run was told so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::digest::Digest;
use crate::chaos::{FaultCounts, FaultId, FaultKind, FaultRecord, FaultTarget};

/// Records that are kept while recording; older ones are dropped.
const MAX_RECORDS: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    /// Per kind: how many have fired, skipped ones included.
    ordinals: FaultCounts,
    counts: FaultCounts,
    skipped: Rc<BTreeSet<FaultId>>,
    /// Kept on demand only.
    records: Option<VecDeque<FaultRecord>>,
    /// Fired, and not in the trace yet: each with the digest behind it. Filled while tracing only.
    untraced: Option<Vec<(FaultRecord, u64)>>,
    /// What connections are called that the trace has named: they may be gone by the end.
    connections: BTreeMap<u64, String>,
}

impl FaultLog {
    /// These do not happen, though they are drawn and take their ordinals.
    pub(crate) fn skip(&mut self, skipped: Rc<BTreeSet<FaultId>>) {
        self.skipped = skipped;
    }

    /// From now on records are kept.
    pub(crate) fn record(&mut self) {
        self.records.get_or_insert_default();
    }

    /// Whether faults that fire from now on are to be told to the trace.
    pub(crate) fn set_traced(&mut self, traced: bool) {
        self.untraced = traced.then(Vec::new);
    }

    /// What the trace has not been told yet, oldest first.
    pub(crate) fn take_untraced(&mut self) -> Vec<(FaultRecord, u64)> {
        match &mut self.untraced {
            Some(untraced) if !untraced.is_empty() => std::mem::take(untraced),
            _ => Vec::new(),
        }
    }

    /// Remembers what `connection` is called.
    pub(crate) fn name_connection(&mut self, connection: u64, name: String) {
        if self.connections.len() < MAX_RECORDS {
            self.connections.insert(connection, name);
        }
    }

    /// What `connection` was called.
    pub(crate) fn connection_name(&self, connection: u64) -> Option<&str> {
        self.connections.get(&connection).map(String::as_str)
    }

    /// A fault was drawn: whether it happens.
    pub(crate) fn fires(
        &mut self,
        kind: FaultKind,
        target: FaultTarget,
        now: Duration,
        digest: &mut Digest,
    ) -> bool {
        self.ordinals.add(kind);
        let ordinal = self.ordinals.of(kind);
        let id = FaultId { kind, ordinal };
        let skipped = !self.skipped.is_empty() && self.skipped.contains(&id);
        if !skipped {
            self.counts.add(kind);
        }
        digest.fold(kind.index() as u64);
        digest.fold(ordinal);
        digest.fold(u64::from(skipped));
        if let Some(untraced) = &mut self.untraced {
            let record = FaultRecord::new(id, now, target, skipped);
            untraced.push((record, digest.value()));
        }
        if let Some(records) = &mut self.records {
            if records.len() == MAX_RECORDS {
                records.pop_front();
            }
            records.push_back(FaultRecord::new(id, now, target, skipped));
        }
        !skipped
    }

    /// How often each kind was drawn: those that fired, and those that were skipped.
    pub(crate) fn drawn(&self) -> FaultCounts {
        self.ordinals.clone()
    }

    pub(crate) fn counts(&self) -> FaultCounts {
        self.counts.clone()
    }

    /// What was recorded, oldest first.
    pub(crate) fn records(&self) -> Vec<FaultRecord> {
        self.records.iter().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_fault_takes_its_ordinal_and_does_not_count() {
        let mut log = FaultLog::default();
        let mut digest = Digest::new(0);
        let skipped = FaultId {
            kind: FaultKind::Cut,
            ordinal: 2,
        };
        log.skip(Rc::new([skipped].into()));
        log.record();
        let mut fires = |kind| {
            let target = FaultTarget::Connection(1);
            log.fires(kind, target, Duration::ZERO, &mut digest)
        };
        assert!(fires(FaultKind::Cut));
        assert!(fires(FaultKind::PartialWrite));
        assert!(!fires(FaultKind::Cut));
        assert!(fires(FaultKind::Cut));
        assert_eq!(log.counts().of(FaultKind::Cut), 2);
        let names: Vec<String> = log.records().iter().map(|r| r.id.to_string()).collect();
        assert_eq!(names, ["cut#1", "partial-write#1", "cut#2", "cut#3"]);
    }
}
