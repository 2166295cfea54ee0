//! The one place where the simulated network's behaviour is decided: how long an operation takes,
//! how much of a write is accepted, how a segment travels. Pure: it draws from its streams and
//! answers; the network acts.

use std::time::Duration;

use super::breakage::Breakage;
use super::clock::nanos;
use super::digest::Digest;
use super::fault_log::FaultLog;
use super::rng::{Stream, StreamId};
use crate::chaos::FaultKind;
use crate::network::{LatencyModel, NetworkConfiguration};

#[derive(Debug)]
pub(crate) struct Faults {
    config: NetworkConfiguration,
    latency: Stream,
    half_open: Stream,
    pub(super) log: FaultLog,
}

impl Faults {
    pub(crate) fn new(seed: u64, config: NetworkConfiguration) -> Self {
        Self {
            config,
            latency: Stream::new(seed, StreamId::Latency),
            half_open: Stream::new(seed, StreamId::Fault(FaultKind::HalfOpen)),
            log: FaultLog::default(),
        }
    }

    pub(crate) fn send_buffer_bytes(&self) -> usize {
        self.config.send_buffer_bytes.unwrap_or(64 << 10)
    }

    pub(crate) fn receive_buffer_bytes(&self) -> usize {
        self.config.receive_buffer_bytes
    }

    pub(crate) fn bind_latency(&mut self, digest: &mut Digest) -> Duration {
        self.draw(self.config.bind_latency, digest)
    }

    pub(crate) fn accept_latency(&mut self, digest: &mut Digest) -> Duration {
        self.draw(self.config.accept_latency, digest)
    }

    /// The way there and the way back of a connect.
    pub(crate) fn connect_latency(&mut self, digest: &mut Digest) -> (Duration, Duration) {
        let both = self.draw(self.config.connect_latency, digest);
        let there = both / 2;
        (there, both.saturating_sub(there))
    }

    /// How long a segment, a FIN or a RST travels, from the write call to the reader.
    pub(crate) fn segment_latency(&mut self, digest: &mut Digest) -> Duration {
        let write = self.draw(self.config.write_latency, digest);
        write.saturating_add(self.draw(self.config.read_latency, digest))
    }

    /// How long the news of a reader's progress takes to a sender that waits for room.
    pub(crate) fn window_latency(&mut self, digest: &mut Digest) -> Duration {
        self.draw(self.config.read_latency, digest)
    }

    /// How much of a segment of `bytes` arrives before its connection is cut.
    pub(crate) fn cut_point(&mut self, bytes: usize, digest: &mut Digest) -> usize {
        let drawn = self.half_open.between(0, bytes as u64, digest);
        usize::try_from(drawn).unwrap_or(bytes)
    }

    /// What the survivor of a half-open connection is told in the end.
    pub(crate) fn half_open_error(&mut self, digest: &mut Digest) -> Breakage {
        match self.half_open.below(2, digest) {
            0 => Breakage::Reset,
            _ => Breakage::TimedOut,
        }
    }

    fn draw(&mut self, model: LatencyModel, digest: &mut Digest) -> Duration {
        let (LatencyModel::Uniform { min, max } | LatencyModel::LongTail { min, max, .. }) = model;
        if min == max {
            return min;
        }
        Duration::from_nanos(self.latency.between(nanos(min), nanos(max), digest))
    }
}
