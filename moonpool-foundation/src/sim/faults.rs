//! The one place where the simulated network's behaviour is decided: how long an operation takes,
//! how much of a write is accepted, how a segment travels, what goes wrong. Pure: it draws from its
//! streams and answers; the network acts.
//!
//! Each kind of fault has a stream of its own. A kind that is switched off costs a comparison and
//! draws nothing; one that fires is entered in the ledger, which may say that it is to be skipped.

use std::time::Duration;

use super::chance::Chance;
use super::chances::{Chances, Spans};
use super::clock::{SimInstant, nanos};
use super::digest::Digest;
use super::fault_log::FaultLog;
use super::links::Cause;
use super::rng::{Stream, StreamId};
use crate::chaos::{FaultCounts, FaultKind, FaultSet, FaultTarget};
use crate::network::{LatencyModel, NetworkConfiguration};

/// How long a sender waits before it sends a lost segment again; each time twice as long.
const RETRANSMISSION_TIMEOUT: Duration = Duration::from_millis(200);
/// Losses of one segment in a row that end its connection.
const MAX_LOSSES: u32 = 5;
/// The least and the most that a send buffer holds when it is made from bandwidth and latency.
const SEND_BUFFER: std::ops::RangeInclusive<u128> = 64 << 10..=4 << 20;
/// One draw in so many is from a model's long tail.
const LONG_TAIL_ONE_IN: u32 = 1000;
/// To what, and when: what the ledger is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occasion {
    pub(super) now: SimInstant,
    pub(super) target: FaultTarget,
}

/// What a segment's way is like.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    /// The base latency of its two addresses.
    base: Duration,
    /// What its connection has on top.
    delay: Duration,
    /// Both, in nanoseconds: what every segment asks for.
    added: u64,
    /// Who put the delay there.
    pub(super) delayed_by: Cause,
    /// It belongs to a stable connection.
    pub(super) stable: bool,
}

impl Way {
    pub(super) fn base(&self) -> Duration {
        self.base
    }

    pub(super) fn delay(&self) -> Duration {
        self.delay
    }

    pub(super) fn set_base(&mut self, base: Duration) {
        self.base = base;
        self.added = nanos(base).saturating_add(nanos(self.delay));
    }

    pub(super) fn set_delay(&mut self, delay: Duration) {
        self.delay = delay;
        self.added = nanos(self.base).saturating_add(nanos(delay));
    }
}

/// How a segment fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Travel {
    /// It takes so many nanoseconds.
    Arrives(u64),
    /// It is lost too often: its sender gives up after so long.
    Lost(Duration),
}

/// Which directions of a connection a close ends, seen from the end that closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseDirection {
    /// What it sends.
    Send,
    /// What it receives.
    Receive,
    /// Both.
    Both,
}

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Fin,
    Reset,
}

/// A random close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RandomClose {
    /// The operation fails with `ConnectionReset`.
    Explicit,
    /// It succeeds; then these directions end.
    Quiet(CloseDirection, Ending),
}

/// How a write travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segmentation {
    Whole,
    /// So many bytes, then the rest.
    Split(usize),
    /// Together with what is under way before it.
    Joined,
}

/// Who cannot reach whom, for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrawnPartition {
    pub(super) there: bool,
    pub(super) back: bool,
    pub(super) lasts: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectFailure {
    Refused,
    Hangs,
}

/// A latency model in whole nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Sampler {
    min: u64,
    max: u64,
    /// Where its long tail ends, which begins at `max`.
    tail: Option<u64>,
}

impl Sampler {
    fn of(model: LatencyModel) -> Self {
        let (min, max, tail) = match model {
            LatencyModel::Uniform { min, max } => (min, max, None),
            LatencyModel::LongTail { min, max, tail } => (min, max, Some(nanos(tail))),
        };
        Self {
            min: nanos(min),
            max: nanos(max),
            tail,
        }
    }
}

impl Sampler {
    fn is_fixed(self) -> bool {
        self.tail.is_none() && self.min == self.max
    }
}

/// What every segment's latency is made of.
#[derive(Clone, Copy, Debug)]
struct Latencies {
    write: Sampler,
    read: Sampler,
    /// The most that is added, in nanoseconds.
    jitter: u64,
    /// What they come to if none of them is drawn.
    fixed: Option<u64>,
}

impl Latencies {
    fn of(config: &NetworkConfiguration) -> Self {
        let write = Sampler::of(config.write_latency);
        let read = Sampler::of(config.read_latency);
        let jitter = nanos(config.pair_latency_jitter);
        let is_fixed = write.is_fixed() && read.is_fixed() && jitter == 0;
        Self {
            write,
            read,
            jitter,
            fixed: is_fixed.then(|| write.min.saturating_add(read.min)),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Faults {
    /// In a place of its own: it is large, and never looked at where speed matters.
    pub(super) config: Box<NetworkConfiguration>,
    pub(super) chances: Chances,
    pub(super) spans: Spans,
    /// Whether any fault may meet a write, or a read: a network without faults asks no further.
    on_write: bool,
    on_read: bool,
    /// Whether no fault may meet a write, nor what it sends on its way.
    is_calm: bool,
    /// Made from the configuration, as `chances` are.
    latencies: Latencies,
    latency: Stream,
    /// By kind.
    streams: [Stream; FaultKind::COUNT],
    pub(super) log: FaultLog,
    /// The gate of random closes that tests open and shut.
    pub(super) failures_enabled: bool,
    /// When that gate shuts by itself, if it was opened for a while.
    failures_until: Option<SimInstant>,
    /// The ends of cooldowns.
    pub(super) next_random_close: SimInstant,
    pub(super) next_bit_flip: SimInstant,
    /// Whether connects fail in this seed, once that was drawn.
    pub(super) connects_fail: Option<bool>,
}

impl Faults {
    /// Which kinds may fire by chance.
    pub(crate) fn enabled(&self) -> FaultSet {
        FaultSet::of(|kind| self.config.may_fire(kind))
    }

    /// How often each kind was to be expected by the chances that were drawn, in units of 2^-32. Kinds
    /// that are drawn elsewhere, or out of another's stream, have none.
    pub(crate) fn expected(&self) -> FaultCounts {
        FaultCounts::of_each(|kind| self.streams[kind.index()].expected())
    }

    pub(crate) fn new(seed: u64, config: Box<NetworkConfiguration>) -> Self {
        let chances = Chances::of(&config);
        Self {
            spans: Spans::of(&config),
            on_write: chances.on_write(),
            on_read: chances.on_read(),
            is_calm: chances.are_calm(),
            chances,
            latencies: Latencies::of(&config),
            config,
            latency: Stream::new(seed, StreamId::Latency),
            streams: std::array::from_fn(|index| {
                Stream::new(seed, StreamId::Fault(FaultKind::ALL[index]))
            }),
            log: FaultLog::default(),
            failures_enabled: true,
            failures_until: None,
            next_random_close: SimInstant::ZERO,
            next_bit_flip: SimInstant::ZERO,
            connects_fail: None,
        }
    }

    /// From now on nothing goes wrong by chance, and latencies have no tail.
    pub(super) fn heal(&mut self) {
        for kind in FaultKind::ALL {
            *self.config = self.config.as_ref().clone().without(*kind);
        }
        self.chances = Chances::of(&self.config);
        self.latencies = Latencies::of(&self.config);
        self.on_write = self.chances.on_write();
        self.on_read = self.chances.on_read();
        self.is_calm = self.chances.are_calm();
    }

    /// What `kind` draws from.
    pub(super) fn stream(&mut self, kind: FaultKind) -> &mut Stream {
        &mut self.streams[kind.index()]
    }

    pub(super) fn set_failures_enabled(&mut self, enabled: bool) {
        self.failures_enabled = enabled;
        self.failures_until = None;
    }

    /// Opens the gate of random closes until then, or later if that was said before.
    pub(super) fn open_failures_until(&mut self, until: SimInstant) {
        self.failures_enabled = true;
        self.failures_until = self.failures_until.max(Some(until));
    }

    /// Shuts that gate if it was opened until `now`.
    pub(super) fn close_failures_if_due(&mut self, now: SimInstant) {
        if self.failures_until.is_some_and(|until| until <= now) {
            self.set_failures_enabled(false);
        }
    }

    pub(super) fn failures_enabled(&self) -> bool {
        self.failures_enabled
    }

    /// Whether writes are made and sent as they are asked for: no fault may meet them, split them or
    /// lose what they send.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        self.is_calm
    }

    /// Whether a fault may meet a write.
    pub(super) fn meets_writes(&self) -> bool {
        self.on_write
    }

    /// Whether segments may be lost.
    pub(super) fn loses_segments(&self) -> bool {
        !self.chances.packet_loss.is_off()
    }

    /// Whether writes may travel otherwise than as they were made.
    pub(super) fn splits_writes(&self) -> bool {
        !self.chances.segmentation.is_off()
    }

    /// Whether a fault may meet a read.
    pub(super) fn meets_reads(&self) -> bool {
        self.on_read
    }

    /// What one direction of a connection may have accepted and not delivered.
    pub(crate) fn send_buffer_bytes(&self, base_latency: Duration) -> usize {
        if let Some(fixed) = self.config.send_buffer_bytes {
            return fixed;
        }
        let bit_nanos = u128::from(self.config.bandwidth_bits_per_second) * base_latency.as_nanos();
        let bytes = bit_nanos / 8 / 1_000_000_000;
        usize::try_from(bytes.clamp(*SEND_BUFFER.start(), *SEND_BUFFER.end())).unwrap_or(64 << 10)
    }

    pub(crate) fn receive_buffer_bytes(&self) -> usize {
        self.config.receive_buffer_bytes
    }

    pub(super) fn bind_latency(&mut self, on: Occasion, digest: &mut Digest) -> Duration {
        Duration::from_nanos(self.draw(Sampler::of(self.config.bind_latency), false, on, digest))
    }

    pub(super) fn accept_latency(&mut self, on: Occasion, digest: &mut Digest) -> Duration {
        Duration::from_nanos(self.draw(Sampler::of(self.config.accept_latency), false, on, digest))
    }

    /// The way there and the way back of a connect.
    pub(super) fn connect_latency(
        &mut self,
        on: Occasion,
        digest: &mut Digest,
    ) -> (Duration, Duration) {
        let model = Sampler::of(self.config.connect_latency);
        let both = Duration::from_nanos(self.draw(model, false, on, digest));
        let there = both / 2;
        (there, both.saturating_sub(there))
    }

    /// The base latency of a pair of addresses that has none yet.
    pub(super) fn pair_latency(&mut self, on: Occasion, digest: &mut Digest) -> Duration {
        Duration::from_nanos(self.draw(Sampler::of(self.config.pair_latency), false, on, digest))
    }

    /// Whether pairs of addresses have a base latency.
    pub(super) fn has_pair_latency(&self) -> bool {
        self.config.pair_latency != LatencyModel::fixed(Duration::ZERO)
    }

    /// How many nanoseconds a segment, a FIN or a RST travels, from the write call to the reader.
    #[inline]
    pub(super) fn segment_nanos(&mut self, way: &Way, on: Occasion, digest: &mut Digest) -> u64 {
        match self.latencies.fixed {
            Some(fixed) if !way.stable => fixed.saturating_add(way.added),
            _ => self.drawn_nanos(way, on, digest),
        }
    }

    fn drawn_nanos(&mut self, way: &Way, on: Occasion, digest: &mut Digest) -> u64 {
        let Latencies {
            write,
            read,
            jitter,
            ..
        } = self.latencies;
        let write = self.draw(write, way.stable, on, digest);
        let read = self.draw(read, way.stable, on, digest);
        let jitter = match jitter {
            0 => 0,
            most => self.latency.between(0, most, digest),
        };
        let nanos = [read, way.added, jitter]
            .into_iter()
            .fold(write, u64::saturating_add);
        if way.stable { nanos / 10 } else { nanos }
    }

    /// How a segment travels that TCP would send again.
    pub(super) fn travel(&mut self, way: &Way, on: Occasion, digest: &mut Digest) -> Travel {
        let latency = self.segment_nanos(way, on, digest);
        if way.stable || self.chances.packet_loss.is_off() {
            return Travel::Arrives(latency);
        }
        let mut delay = Duration::ZERO;
        for loss in 0..MAX_LOSSES {
            let chance = self.chances.packet_loss;
            let lost = chance.happens(self.stream(FaultKind::PacketLoss), digest);
            if !(lost && self.fires(FaultKind::PacketLoss, on, digest)) {
                return Travel::Arrives(latency.saturating_add(nanos(delay)));
            }
            delay += RETRANSMISSION_TIMEOUT * (1 << loss);
        }
        Travel::Lost(delay)
    }

    /// How many nanoseconds the news of a reader's progress takes to a sender that waits for room.
    pub(super) fn window_nanos(&mut self, way: &Way, on: Occasion, digest: &mut Digest) -> u64 {
        let nanos = self.draw(self.latencies.read, way.stable, on, digest);
        if way.stable { nanos / 10 } else { nanos }
    }

    /// A latency in nanoseconds; never from the tail if it is one of a `stable` connection.
    fn draw(&mut self, from: Sampler, stable: bool, on: Occasion, digest: &mut Digest) -> u64 {
        let Sampler { min, max, tail } = from;
        if from.is_fixed() {
            return min;
        }
        let (min, max) = match tail {
            Some(tail) if !stable && self.is_tail(on, digest) => (max, tail),
            _ => (min, max),
        };
        self.latency.between(min, max, digest)
    }

    fn is_tail(&mut self, on: Occasion, digest: &mut Digest) -> bool {
        let stream = self.stream(FaultKind::LongTail);
        stream.expect((1 << 32) / u64::from(LONG_TAIL_ONE_IN));
        let is_tail = stream.below(LONG_TAIL_ONE_IN, digest) == 0;
        is_tail && self.fires(FaultKind::LongTail, on, digest)
    }

    pub(super) fn fires(&mut self, kind: FaultKind, on: Occasion, digest: &mut Digest) -> bool {
        self.log
            .fires(kind, on.target, on.now.since_start(), digest)
    }

    /// Whether the fault happens by `chance` and is not skipped.
    pub(super) fn strikes(
        &mut self,
        kind: FaultKind,
        chance: Chance,
        on: Occasion,
        digest: &mut Digest,
    ) -> bool {
        chance.happens(self.stream(kind), digest) && self.fires(kind, on, digest)
    }
}
