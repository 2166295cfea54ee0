//! The names of faults: kinds, single firings, and counts of them. Pure: who fires what, and when,
//! is decided by the simulator.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

macro_rules! fault_kinds {
    ($($(#[$doc:meta])* $kind:ident => $name:literal,)+) => {
        /// A kind of fault. Its name is what reports print and `MOONPOOL_SKIP_FAULTS` takes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)+
        }

        impl FaultKind {
            /// Every kind, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The kind's name: lower case, words parted by hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

fault_kinds! {
    /// A segment's latency came from the long tail of its model.
    LongTail => "long-tail",
    /// A connection got different delays for its two directions.
    AsymmetricDelay => "asymmetric-delay",
    /// A write accepted only a part of what it could have.
    PartialWrite => "partial-write",
    /// A read returned only a part of what was there.
    PartialRead => "partial-read",
    /// A direction stopped taking bytes from its writer for a while.
    WriteClog => "write-clog",
    /// A direction stopped giving bytes to its reader for a while.
    ReadClog => "read-clog",
    /// All connections between two processes stopped for a while.
    PairClog => "pair-clog",
    /// A connection stalled in both directions, and went on later.
    Cut => "cut",
    /// Two processes could not reach each other, in one direction or both.
    Partition => "partition",
    /// All connections between two processes were reset, and new ones refused.
    Disconnect => "disconnect",
    /// A segment was lost, and retransmitted later.
    PacketLoss => "packet-loss",
    /// A read or write closed its connection, by chance. One that a test closes is a `close`.
    RandomClose => "random-close",
    /// A close that would have been a FIN was a RST, or a test reset a connection.
    Reset => "reset",
    /// An end of a connection fell silent.
    HalfOpen => "half-open",
    /// Bits of a delivery were flipped.
    BitFlip => "bit-flip",
    /// A connect was refused though somebody listened.
    ConnectRefused => "connect-refused",
    /// A connect was never answered.
    ConnectHang => "connect-hang",
    /// A process's clock drifted ahead.
    ClockDrift => "clock-drift",
    /// A sleep took longer than asked for.
    BuggifiedDelay => "buggified-delay",
    /// A process was killed.
    Kill => "kill",
    /// A process stood still for a while.
    Pause => "pause",
    /// A `buggify!` site fired.
    Buggify => "buggify",
    /// A write arrived in pieces, or together with the one before.
    Segmentation => "segmentation",
    /// A process was asked to end, and killed when its grace was over.
    Graceful => "graceful",
    /// A process was killed, to live again a while later.
    Reboot => "reboot",
    /// A test closed a connection, or a direction of it. Never by chance: no configuration has it.
    Close => "close",
}

impl FaultKind {
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Its place in [`ALL`](Self::ALL).
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FaultKind {
    type Err = FaultIdError;

    fn from_str(name: &str) -> Result<Self, FaultIdError> {
        let found = Self::ALL.iter().find(|kind| kind.name() == name);
        found.copied().ok_or_else(|| FaultIdError::UnknownKind {
            name: name.to_owned(),
        })
    }
}

impl Serialize for FaultKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One firing of one kind in one seed: `kind#ordinal`, the ordinals of each kind from 1 upward. A
/// firing that is skipped keeps its ordinal, so that skipping one does not rename the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultId {
    /// The kind.
    pub kind: FaultKind,
    /// Which of its firings.
    pub ordinal: u64,
}

/// A text that names no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultIdError {
    /// No kind has that name.
    #[error("there is no fault kind `{name}`")]
    UnknownKind {
        /// What stood there.
        name: String,
    },
    /// It is not a kind and a number from 1 upward, with `#` between them.
    #[error("`{text}` is not of the form kind#ordinal")]
    Malformed {
        /// What stood there.
        text: String,
    },
}

impl fmt::Display for FaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.kind, self.ordinal)
    }
}

impl FromStr for FaultId {
    type Err = FaultIdError;

    fn from_str(text: &str) -> Result<Self, FaultIdError> {
        let malformed = || FaultIdError::Malformed {
            text: text.to_owned(),
        };
        let (kind, ordinal) = text.split_once('#').ok_or_else(malformed)?;
        let kind = kind.parse()?;
        match ordinal.parse() {
            Ok(ordinal) if ordinal > 0 => Ok(Self { kind, ordinal }),
            _ => Err(malformed()),
        }
    }
}

impl Serialize for FaultId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a fault happened to. Numbers are those that traces show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum FaultTarget {
    /// A connection.
    Connection(u64),
    /// A process.
    Process(u32),
    /// From the first process to the second.
    Pair(u32, u32),
    /// A place in the source.
    Site {
        /// Its file.
        file: &'static str,
        /// Its line.
        line: u32,
        /// Its column.
        column: u32,
    },
}

impl fmt::Display for FaultTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(connection) => write!(f, "connection {connection}"),
            Self::Process(process) => write!(f, "process {process}"),
            Self::Pair(from, to) => write!(f, "processes {from} and {to}"),
            Self::Site { file, line, column } => write!(f, "{file}:{line}:{column}"),
        }
    }
}

/// A fault that fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FaultRecord {
    /// Which.
    pub id: FaultId,
    /// When, in virtual time.
    pub at: Duration,
    /// To what.
    pub target: FaultTarget,
    /// It was to be skipped, so nothing happened.
    pub skipped: bool,
}

impl FaultRecord {
    pub(crate) fn new(id: FaultId, at: Duration, target: FaultTarget, skipped: bool) -> Self {
        Self {
            id,
            at,
            target,
            skipped,
        }
    }
}

impl fmt::Display for FaultRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}: {}", self.at, self.id, self.target)?;
        if self.skipped {
            f.write_str(" (skipped)")?;
        }
        Ok(())
    }
}

/// Some kinds of fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FaultSet(u64);

impl FaultSet {
    /// The kinds for which `is_in` holds.
    pub(crate) fn of(is_in: impl Fn(FaultKind) -> bool) -> Self {
        let kinds = FaultKind::ALL.iter().filter(|kind| is_in(**kind));
        Self(kinds.fold(0, |bits, kind| bits | 1 << kind.index()))
    }

    pub(crate) fn contains(self, kind: FaultKind) -> bool {
        self.0 & 1 << kind.index() != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds the kinds of `other`.
    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How often each kind fired; skipped firings are not counted. Of a run in which none did it takes the room
/// of a pointer: campaigns keep one for each seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts(
    /// Only if some count is above 0, so that equal counts are equal.
    Option<Box<[u64; FaultKind::COUNT]>>,
);

impl FaultCounts {
    /// How often this kind fired.
    #[must_use]
    pub fn of(&self, kind: FaultKind) -> u64 {
        self.0.as_ref().map_or(0, |counts| counts[kind.index()])
    }

    /// How often any kind fired.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.as_ref().map_or(0, |counts| counts.iter().sum())
    }

    /// The kinds that fired, and how often.
    pub fn fired(&self) -> impl Iterator<Item = (FaultKind, u64)> + '_ {
        let counts = self.0.as_deref().into_iter().flatten();
        let all = FaultKind::ALL.iter().zip(counts);
        all.map(|(kind, count)| (*kind, *count))
            .filter(|(_, count)| *count > 0)
    }

    pub(crate) fn add(&mut self, kind: FaultKind) {
        self.all_mut()[kind.index()] += 1;
    }

    /// The counts that `count` gives.
    pub(crate) fn of_each(count: impl Fn(FaultKind) -> u64) -> Self {
        let mut counts = Self::default();
        for kind in FaultKind::ALL {
            let count = count(*kind);
            if count > 0 {
                counts.all_mut()[kind.index()] = count;
            }
        }
        counts
    }

    /// Raises each count to that of another seed, if that is higher.
    pub(crate) fn raise(&mut self, other: &Self) {
        self.combine(other, u64::max);
    }

    /// Adds the counts of another seed.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    /// Makes each count `f` of it and that of `other`, where `f` of any count and 0 is that count.
    fn combine(&mut self, other: &Self, f: impl Fn(u64, u64) -> u64) {
        let Some(others) = other.0.as_deref() else {
            return;
        };
        for (count, other) in self.all_mut().iter_mut().zip(others) {
            *count = f(*count, *other);
        }
    }

    /// All counts, one of which is about to be above 0.
    fn all_mut(&mut self) -> &mut [u64; FaultKind::COUNT] {
        self.0
            .get_or_insert_with(|| Box::new([0; FaultKind::COUNT]))
    }
}

impl Serialize for FaultCounts {
    /// A map from names to counts, of the kinds that fired.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (kind, count) in self.fired() {
            map.serialize_entry(&kind, &count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name_and_number() {
        for (index, kind) in FaultKind::ALL.iter().enumerate() {
            assert_eq!(kind.index(), index);
            assert_eq!(kind.name().parse(), Ok(*kind));
        }
    }

    #[test]
    fn a_fault_is_named_by_kind_and_ordinal() {
        let id: FaultId = "partial-write#17".parse().unwrap();
        assert_eq!(id.kind, FaultKind::PartialWrite);
        assert_eq!(id.ordinal, 17);
        assert_eq!(id.to_string(), "partial-write#17");
        for malformed in ["partial-write", "cut#0", "cut#x", "#1", "snow#1"] {
            assert!(malformed.parse::<FaultId>().is_err(), "{malformed}");
        }
    }

    #[test]
    fn counts_are_equal_if_each_is_whatever_they_went_through() {
        let none = FaultCounts::of_each(|_| 0);
        let mut merged = FaultCounts::default();
        merged.merge(&none);
        merged.raise(&none);
        assert_eq!((&merged, merged.total()), (&FaultCounts::default(), 0));
        let cut = FaultCounts::of_each(|kind| u64::from(kind == FaultKind::Cut));
        merged.add(FaultKind::Cut);
        assert_eq!(merged, cut);
        merged.raise(&cut);
        assert_eq!(merged, cut);
        merged.merge(&cut);
        assert_eq!(merged.fired().collect::<Vec<_>>(), [(FaultKind::Cut, 2)]);
    }

    #[test]
    fn counts_are_serialised_by_name() {
        let mut counts = FaultCounts::default();
        counts.add(FaultKind::Cut);
        counts.add(FaultKind::Cut);
        assert_eq!(serde_json::to_string(&counts).unwrap(), r#"{"cut":2}"#);
    }
}
