//! The seed's random streams. Each is a ChaCha8 stream of its own, so that a draw added in one
//! place does not reshuffle the others.

use std::convert::Infallible;

use rand::SeedableRng;
use rand::rand_core::TryRng;
use rand_chacha::ChaCha8Rng;

use super::digest::Digest;
use crate::chaos::FaultKind;

/// Who draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamId {
    /// Which ready task is polled next.
    Scheduler,
    /// Where a `select!` starts.
    Select,
    /// How long connects, accepts, reads and writes take.
    Latency,
    /// When the phase of a run ends.
    Phases,
    /// The values of a drawn configuration.
    Configuration,
    /// Which faults a drawn configuration leaves out.
    Swarm,
    /// Which processes die or stand still, when and for how long.
    Attrition,
    /// The values of a drawn attrition.
    RandomAttrition,
    /// What address a network address translator shows.
    DisplayedAddress,
    /// Whether and how a fault of this kind happens.
    Fault(FaultKind),
    /// A workload's own draws, per process.
    Workload(u32),
    /// The library's draws in a process: jitter, tokens, incarnations.
    Library(u32),
}

/// Fault kinds get the numbers from here up to the processes'.
const FIRST_FAULT_STREAM: u64 = 256;
const FIRST_PROCESS_STREAM: u64 = 1 << 16;

impl StreamId {
    fn number(self) -> u64 {
        match self {
            Self::Scheduler => 0,
            Self::Select => 1,
            Self::Latency => 2,
            Self::Phases => 16,
            Self::Configuration => 3,
            Self::Swarm => 4,
            Self::Attrition => 5,
            Self::RandomAttrition => 6,
            Self::DisplayedAddress => 7,
            Self::Fault(kind) => FIRST_FAULT_STREAM + kind.index() as u64,
            Self::Workload(process) => FIRST_PROCESS_STREAM + 2 * u64::from(process),
            Self::Library(process) => FIRST_PROCESS_STREAM + 2 * u64::from(process) + 1,
        }
    }
}

/// One stream, made at its first draw: most worlds use few of theirs.
#[derive(Debug)]
pub(crate) struct Stream {
    id: StreamId,
    seed: u64,
    rng: Option<Box<ChaCha8Rng>>,
    /// What its chances come to, in units of 2^-32 of a firing.
    expected: u64,
}

impl Stream {
    pub(crate) fn new(seed: u64, id: StreamId) -> Self {
        Self {
            id,
            seed,
            rng: None,
            expected: 0,
        }
    }

    /// Something had this chance to happen, in units of 2^-32.
    pub(super) fn expect(&mut self, chance: u64) {
        self.expected = self.expected.saturating_add(chance);
    }

    /// How often something was to be expected to happen, in units of 2^-32.
    pub(super) fn expected(&self) -> u64 {
        self.expected
    }

    /// The generator, with every draw folded into `digest`.
    pub(crate) fn draws<'a>(&'a mut self, digest: &'a mut Digest) -> Draws<'a> {
        let (seed, id) = (self.seed, self.id);
        let rng = self.rng.get_or_insert_with(|| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(id.number());
            Box::new(rng)
        });
        Draws { rng, digest }
    }

    /// A number below `bound`, uniform to within `bound / 2^32`; 0 if `bound` is 0.
    pub(crate) fn below(&mut self, bound: u32, digest: &mut Digest) -> u32 {
        let drawn = u64::from(self.draws(digest).next_u32());
        // The product is below 2^64 and its upper half below `bound`.
        u32::try_from((drawn * u64::from(bound)) >> 32).unwrap_or(0)
    }

    /// What the next draws of 32 bits will be; zeros before the first one. None of them is drawn by this.
    pub(crate) fn peek<const N: usize>(&self) -> [u32; N] {
        let mut rng = self.rng.clone();
        std::array::from_fn(|_| match &mut rng {
            Some(rng) => {
                let Ok(drawn) = rng.try_next_u32();
                drawn
            }
            None => 0,
        })
    }

    /// A number in `low..=high`; `low` if the range is inverted. One draw.
    pub(crate) fn between(&mut self, low: u64, high: u64, digest: &mut Digest) -> u64 {
        let span = u128::from(high.saturating_sub(low)) + 1;
        let drawn = u128::from(self.draws(digest).next_u64());
        low + u64::try_from((drawn * span) >> 64).unwrap_or(0)
    }
}

/// A stream lent for drawing; also a generator for `rand`'s distributions.
#[derive(Debug)]
pub(crate) struct Draws<'a> {
    rng: &'a mut ChaCha8Rng,
    digest: &'a mut Digest,
}

impl Draws<'_> {
    pub(crate) fn next_u32(&mut self) -> u32 {
        let Ok(drawn) = self.rng.try_next_u32();
        self.digest.fold(u64::from(drawn));
        drawn
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        let Ok(drawn) = self.rng.try_next_u64();
        self.digest.fold(drawn);
        drawn
    }
}

impl TryRng for Draws<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.rng.try_fill_bytes(bytes)?;
        self.digest.fold_bytes(bytes);
        Ok(())
    }
}

/// Draws for code whose world is gone: always the same, and seen by nobody.
pub(crate) fn inert_draws<R>(f: impl FnOnce(&mut Draws<'_>) -> R) -> R {
    let mut digest = Digest::new(0);
    f(&mut Stream::new(0, StreamId::Workload(0)).draws(&mut digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_draws(seed: u64, id: StreamId) -> Vec<u64> {
        let mut digest = Digest::new(seed);
        let mut stream = Stream::new(seed, id);
        (0..4)
            .map(|_| stream.draws(&mut digest).next_u64())
            .collect()
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let ids = [
            StreamId::Scheduler,
            StreamId::Latency,
            StreamId::Workload(0),
            StreamId::Library(0),
            StreamId::Workload(1),
        ];
        for (i, a) in ids.iter().enumerate() {
            assert_eq!(first_draws(7, *a), first_draws(7, *a));
            assert_ne!(first_draws(7, *a), first_draws(8, *a));
            for b in &ids[i + 1..] {
                assert_ne!(first_draws(7, *a), first_draws(7, *b));
            }
        }
    }

    #[test]
    fn the_first_draws_of_a_seed_never_change() {
        // Seeds in bug reports must mean the same in every release: these are written down.
        assert_eq!(
            first_draws(42, StreamId::Scheduler),
            [
                12_578_764_544_318_200_737,
                17_529_487_244_874_322_312,
                7_886_285_670_807_131_020,
                11_572_758_976_476_374_866,
            ],
            "a changed generator changes the meaning of every recorded seed"
        );
    }

    #[test]
    fn what_is_peeked_at_is_drawn_next_and_changes_nothing() {
        let mut digest = Digest::new(0);
        let mut stream = Stream::new(3, StreamId::Scheduler);
        assert_eq!(stream.peek::<3>(), [0; 3], "there is no generator yet");
        stream.draws(&mut digest).next_u32();
        for _ in 0..100 {
            let (before, peeked) = (digest, stream.peek::<3>());
            assert_eq!(digest, before);
            let drawn = peeked.map(|_| stream.draws(&mut digest).next_u32());
            assert_eq!(drawn, peeked);
        }
    }

    #[test]
    fn ranges_stay_within_their_bounds() {
        let mut digest = Digest::new(0);
        let mut stream = Stream::new(3, StreamId::Latency);
        for _ in 0..1000 {
            assert!(stream.below(3, &mut digest) < 3);
            assert!((5..=9).contains(&stream.between(5, 9, &mut digest)));
        }
        assert_eq!(stream.between(9, 5, &mut digest), 9);
        stream.between(0, u64::MAX, &mut digest);
    }
}
