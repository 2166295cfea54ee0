//! A hash map whose hasher is fixed and fast.
//!
//! The standard hasher is seeded from the operating system: with it, the order of iteration
//! differs from run to run. Nothing here iterates to decide anything, but a fixed hasher makes that
//! mistake harmless, and it costs two multiplications where SipHash costs dozens of rounds. Keys
//! are tokens and addresses that this process chose or was configured with, never ones that a
//! remote end can insert, so nobody can aim for collisions.

use std::hash::{BuildHasherDefault, Hasher};

/// A map with [`MixHasher`].
#[expect(
    clippy::disallowed_types,
    reason = "the rule is there because of the standard hasher's random seed"
)]
pub(crate) type FixedMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<MixHasher>>;

/// Multiply and rotate, with a final avalanche so that the upper bits (which the map's control
/// bytes use) depend on every input bit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MixHasher(u64);

/// Odd, with bits spread evenly: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl MixHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER);
    }
}

impl Hasher for MixHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    #[inline]
    fn write_u16(&mut self, value: u16) {
        self.mix(u64::from(value));
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    #[inline]
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(MULTIPLIER);
        mixed ^ (mixed >> 29)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    use moonpool_foundation::UID;

    use super::*;

    fn hash(token: UID) -> u64 {
        BuildHasherDefault::<MixHasher>::default().hash_one(token)
    }

    #[test]
    fn the_hash_is_the_same_in_every_process() {
        assert_eq!(hash(UID::new(1, 2)), hash(UID::new(1, 2)));
        assert_eq!(hash(UID::new(0xCA1C, 3)), 0x4a61_5bb9_36ab_eb19);
    }

    #[test]
    fn adjacent_tokens_spread_over_upper_and_lower_bits() {
        let hashes: Vec<u64> = (0..4096).map(|i| hash(UID::new(0xCA1C, i))).collect();
        let low: BTreeSet<u64> = hashes.iter().map(|h| h & 0xfff).collect();
        let high: BTreeSet<u64> = hashes.iter().map(|h| h >> 57).collect();
        assert!(low.len() > 2000, "{} of 4096 low patterns", low.len());
        assert_eq!(high.len(), 128);
    }
}
