//! A rolling 64-bit digest of everything that happened in a run.

/// Odd, with well-spread bits (the golden ratio's fraction in 64 bits).
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Folds values one after the other. A step with one value is a bijection of the state for that value,
/// so two runs that differ in it differ from there on, unless a later value makes up for it. A step with
/// bytes is not quite one: two different states may meet with a chance of about 2^-63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn new(seed: u64) -> Self {
        let mut digest = Self(MULTIPLIER);
        digest.fold(seed);
        digest
    }

    #[inline]
    pub(crate) fn fold(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(MULTIPLIER);
        self.0 = mixed ^ (mixed >> 29);
    }

    /// Folds the bytes and their number, sixteen at a time: both halves of the product of two words, which
    /// every bit of either changes.
    #[inline]
    pub(crate) fn fold_bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let (pairs, single) = words.as_chunks::<2>();
        let mut state = self.0;
        for [first, second] in pairs {
            state = multiplied(state, *first, *second);
        }
        let single = single.first();
        if single.is_some() || !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            state = multiplied(state, *single.unwrap_or(&last), last);
        }
        self.0 = state;
        self.fold(bytes.len() as u64);
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

/// Each of the two words is made odd-looking by something that the other has no part in, so that zeros
/// are no weaker than other bytes. It is lost who was before only if the second is one of 2^64.
#[inline]
fn multiplied(state: u64, first: [u8; 8], second: [u8; 8]) -> u64 {
    let one = state ^ u64::from_le_bytes(first);
    let other = MULTIPLIER ^ u64::from_le_bytes(second);
    let (low, high) = one.carrying_mul(other, 0);
    low ^ high
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(bytes: &[u8]) -> u64 {
        let mut digest = Digest::new(1);
        digest.fold_bytes(bytes);
        digest.value()
    }

    #[test]
    fn one_changed_byte_changes_the_digest() {
        let bytes = [7_u8; 37];
        for index in 0..bytes.len() {
            let mut changed = bytes;
            changed[index] ^= 1;
            assert_ne!(digest_of(&bytes), digest_of(&changed), "byte {index}");
        }
    }

    #[test]
    fn two_changed_bits_change_the_digest() {
        let digests: crate::collections::HashSet<u64> = (0..64 * 8)
            .flat_map(|first| (first..64 * 8).map(move |second| (first, second)))
            .map(|(first, second)| {
                let mut bytes = [7_u8; 64];
                bytes[first / 8] ^= 1 << (first % 8);
                bytes[second / 8] ^= 1 << (second % 8);
                digest_of(&bytes)
            })
            .collect();
        // Where both are the same bit, nothing has changed.
        assert_eq!(digests.len(), 512 * 511 / 2 + 1);
    }

    #[test]
    fn length_and_order_change_the_digest() {
        assert_ne!(digest_of(&[0; 3]), digest_of(&[0; 4]));
        assert_ne!(digest_of(b"ab"), digest_of(b"ba"));
        for (one, other) in [(0, 8), (0, 16), (0, 24), (8, 40), (32, 48), (3, 11)] {
            let mut bytes = [0; 56];
            bytes
                .iter_mut()
                .zip(0..)
                .for_each(|(byte, index)| *byte = index);
            let before = digest_of(&bytes);
            for byte in 0..8 {
                bytes.swap(one + byte, other + byte);
            }
            assert_ne!(digest_of(&bytes), before, "words at {one} and {other}");
        }
    }
}
