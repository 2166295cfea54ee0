//! The draws of single faults: whether one happens on this occasion, and how. Pure, as `faults` is.

use std::time::Duration;

use super::breakage::Breakage;
use super::chance::{Chance, Span};
use super::digest::Digest;
use super::faults::{
    CloseDirection, ConnectFailure, DrawnPartition, Ending, Faults, Occasion, RandomClose,
    Segmentation,
};
use crate::chaos::FaultKind;

/// FoundationDB's bounds for what a random close closes, in parts of [`CLOSE_PARTS`].
const CLOSES_RECEIVE_BELOW: u32 = 6_600;
const CLOSES_SEND_ABOVE: u32 = 3_300;
const CLOSE_PARTS: u32 = 10_000;

impl Faults {
    /// How much of a segment of `bytes` arrives before its connection is cut.
    pub(crate) fn cut_point(&mut self, bytes: usize, digest: &mut Digest) -> usize {
        let drawn = self
            .stream(FaultKind::HalfOpen)
            .between(0, bytes as u64, digest);
        usize::try_from(drawn).unwrap_or(bytes)
    }

    /// What the survivor of a half-open connection is told in the end.
    pub(crate) fn half_open_error(&mut self, digest: &mut Digest) -> Breakage {
        match self.stream(FaultKind::HalfOpen).below(2, digest) {
            0 => Breakage::Reset,
            _ => Breakage::TimedOut,
        }
    }

    /// The delays of a new connection's two directions, if it has any.
    pub(super) fn asymmetric_delays(
        &mut self,
        on: Occasion,
        digest: &mut Digest,
    ) -> Option<[Duration; 2]> {
        let chance = self.chances.asymmetric_delay;
        let span = self.spans.asymmetric_delay;
        let stream = self.stream(FaultKind::AsymmetricDelay);
        if !chance.happens(stream, digest) {
            return None;
        }
        let delays = [span.draw(stream, digest), span.draw(stream, digest)];
        self.fires(FaultKind::AsymmetricDelay, on, digest)
            .then_some(delays)
    }

    /// How a write of `bytes` travels; `can_join` if something is under way that it could join.
    pub(super) fn segmentation(
        &mut self,
        bytes: usize,
        can_join: bool,
        on: Occasion,
        digest: &mut Digest,
    ) -> Segmentation {
        let chance = self.chances.segmentation;
        let stream = self.stream(FaultKind::Segmentation);
        if !chance.happens(stream, digest) {
            return Segmentation::Whole;
        }
        let joins = stream.below(2, digest) == 0;
        let at = stream.between(1, (bytes as u64).saturating_sub(1).max(1), digest);
        let drawn = match usize::try_from(at) {
            _ if joins && can_join => Segmentation::Joined,
            Ok(at) if !joins && at < bytes => Segmentation::Split(at),
            _ => return Segmentation::Whole,
        };
        if self.fires(FaultKind::Segmentation, on, digest) {
            drawn
        } else {
            Segmentation::Whole
        }
    }

    /// How many of `room` bytes a write accepts of those it is offered: at least one.
    pub(super) fn partial_write(
        &mut self,
        offered: usize,
        room: usize,
        on: Occasion,
        digest: &mut Digest,
    ) -> usize {
        let most = offered.min(self.config.partial_write_max_bytes);
        self.part(FaultKind::PartialWrite, most, room, on, digest)
    }

    /// How many of the bytes that are there a read returns: at least one.
    pub(super) fn partial_read(
        &mut self,
        available: usize,
        on: Occasion,
        digest: &mut Digest,
    ) -> usize {
        self.part(FaultKind::PartialRead, available, available, on, digest)
    }

    /// 1 to `most`, if that is less than `all`; mostly `all`.
    fn part(
        &mut self,
        kind: FaultKind,
        most: usize,
        all: usize,
        on: Occasion,
        digest: &mut Digest,
    ) -> usize {
        let chance = match kind {
            FaultKind::PartialWrite => self.chances.partial_write,
            _ => self.chances.partial_read,
        };
        let stream = self.stream(kind);
        if !chance.happens(stream, digest) {
            return all;
        }
        let part = stream.between(1, most as u64, digest);
        match usize::try_from(part) {
            Ok(part) if part < all && self.fires(kind, on, digest) => part,
            _ => all,
        }
    }

    /// How long a write finds its direction clogged.
    pub(super) fn write_clog(&mut self, on: Occasion, digest: &mut Digest) -> Option<Duration> {
        let (chance, span) = (self.chances.write_clog, self.spans.clog);
        self.lasting(FaultKind::WriteClog, chance, span, on, digest)
    }

    /// How long a read finds its direction clogged.
    pub(super) fn read_clog(&mut self, on: Occasion, digest: &mut Digest) -> Option<Duration> {
        let (chance, span) = (self.chances.read_clog, self.spans.clog);
        self.lasting(FaultKind::ReadClog, chance, span, on, digest)
    }

    /// How long a write's connection is cut.
    pub(super) fn cut(&mut self, on: Occasion, digest: &mut Digest) -> Option<Duration> {
        let (chance, span) = (self.chances.cut, self.spans.cut);
        self.lasting(FaultKind::Cut, chance, span, on, digest)
    }

    fn lasting(
        &mut self,
        kind: FaultKind,
        chance: Chance,
        span: Span,
        on: Occasion,
        digest: &mut Digest,
    ) -> Option<Duration> {
        let stream = self.stream(kind);
        if !chance.happens(stream, digest) {
            return None;
        }
        let lasts = span.draw(stream, digest);
        self.fires(kind, on, digest).then_some(lasts)
    }

    /// Whether partitions happen by chance.
    pub(super) fn partitions(&self) -> bool {
        !self.chances.partition.is_off()
    }

    /// A partition between the two processes of the occasion.
    pub(super) fn partition(
        &mut self,
        on: Occasion,
        digest: &mut Digest,
    ) -> Option<DrawnPartition> {
        let (chance, long) = (self.chances.partition, self.chances.long_partition);
        let spans = [self.spans.partition, self.spans.long_partition];
        let stream = self.stream(FaultKind::Partition);
        if !chance.happens(stream, digest) {
            return None;
        }
        let way = stream.below(4, digest);
        let is_long = long.happens(stream, digest);
        let drawn = DrawnPartition {
            there: way != 2,
            back: way != 3,
            lasts: spans[usize::from(is_long)].draw(stream, digest),
        };
        self.fires(FaultKind::Partition, on, digest)
            .then_some(drawn)
    }

    /// Whether a read or write closes its connection, and how. FoundationDB: `fdbrpc/sim2.actor.cpp`,
    /// `Sim2Conn::rollRandomClose`.
    pub(super) fn random_close(
        &mut self,
        on: Occasion,
        digest: &mut Digest,
    ) -> Option<RandomClose> {
        if !self.failures_enabled || on.now < self.next_random_close {
            return None;
        }
        let (chance, explicit) = (self.chances.random_close, self.chances.explicit);
        let stream = self.stream(FaultKind::RandomClose);
        if !chance.happens(stream, digest) {
            return None;
        }
        let closes = stream.below(CLOSE_PARTS, digest);
        let is_explicit = explicit.happens(stream, digest);
        let ending = match stream.below(2, digest) {
            0 => Ending::Fin,
            _ => Ending::Reset,
        };
        let direction = match (closes < CLOSES_RECEIVE_BELOW, closes > CLOSES_SEND_ABOVE) {
            (true, true) => CloseDirection::Both,
            (true, false) => CloseDirection::Receive,
            (false, _) => CloseDirection::Send,
        };
        self.next_random_close = on.now.after(self.config.random_close_cooldown);
        let drawn = if is_explicit {
            RandomClose::Explicit
        } else {
            RandomClose::Quiet(direction, ending)
        };
        self.fires(FaultKind::RandomClose, on, digest)
            .then_some(drawn)
    }

    /// Whether a stream that is dropped sends RST for FIN.
    pub(super) fn resets(&mut self, on: Occasion, digest: &mut Digest) -> bool {
        self.strikes(FaultKind::Reset, self.chances.reset, on, digest)
    }

    /// Whether no bit is ever flipped.
    pub(super) fn spares_bits(&self) -> bool {
        self.chances.bit_flip.is_off()
    }

    /// How many bits of a delivery are flipped, after FoundationDB's `fdbrpc/FlowTransport.actor.cpp`,
    /// `scanPackets`: one in half of the cases, two in a quarter, and so on up to 32.
    pub(super) fn bit_flips(&mut self, on: Occasion, digest: &mut Digest) -> u32 {
        if on.now < self.next_bit_flip {
            return 0;
        }
        let chance = self.chances.bit_flip;
        let stream = self.stream(FaultKind::BitFlip);
        if !chance.happens(stream, digest) {
            return 0;
        }
        let bits = (1 + stream.draws(digest).next_u32().leading_zeros()).clamp(1, 32);
        self.next_bit_flip = on.now.after(self.config.chaos.bit_flip_cooldown);
        if self.fires(FaultKind::BitFlip, on, digest) {
            bits
        } else {
            0
        }
    }

    /// Which of `bits` bits is flipped next.
    pub(super) fn flipped_bit(&mut self, bits: u64, digest: &mut Digest) -> u64 {
        let stream = self.stream(FaultKind::BitFlip);
        stream.between(0, bits.saturating_sub(1), digest)
    }

    /// Whether a connect fails, and how. FoundationDB: `fdbrpc/sim2.actor.cpp`, `Sim2::connect`.
    pub(super) fn connect_failure(
        &mut self,
        on: Occasion,
        digest: &mut Digest,
    ) -> Option<ConnectFailure> {
        let (activation, firing) = (self.chances.connect_activation, self.chances.connect_firing);
        let refused = self.chances.connect_refused;
        if firing.is_off() {
            return None;
        }
        let known = self.connects_fail;
        let stream = self.stream(FaultKind::ConnectRefused);
        let fails = known.unwrap_or_else(|| activation.happens(stream, digest));
        let picked = fails && firing.happens(stream, digest);
        let is_refused = picked && refused.happens(stream, digest);
        self.connects_fail = Some(fails);
        let (kind, failure) = match (picked, is_refused) {
            (false, _) => return None,
            (true, true) => (FaultKind::ConnectRefused, ConnectFailure::Refused),
            (true, false) => (FaultKind::ConnectHang, ConnectFailure::Hangs),
        };
        self.fires(kind, on, digest).then_some(failure)
    }
}
