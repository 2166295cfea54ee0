//! A rolling 64-bit digest of everything that happened in a run.

use std::ops::Range;

/// Odd, with well-spread bits (the golden ratio's fraction in 64 bits).
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Folds values one after the other. Each step is a bijection of the state for a given value, so
/// two runs that differ in one value differ from there on, unless a later value makes up for it.
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

    /// Folds the bytes and their number, eight at a time.
    pub(crate) fn fold_bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.fold(u64::from_le_bytes(last));
        self.fold(bytes.len() as u64);
    }

    /// Folds `range` of what `front` and `back` hold together, the same wherever they part.
    pub(crate) fn fold_pair(&mut self, front: &[u8], back: &[u8], range: Range<usize>) {
        let split = front.len();
        let first = &front[range.start.min(split)..range.end.min(split)];
        let second = &back[range.start.max(split) - split..range.end.max(split) - split];
        let straddling = (8 - first.len() % 8) % 8;
        if first.is_empty() || second.is_empty() {
            self.fold_bytes(if second.is_empty() { first } else { second });
            return;
        }
        let (words, rest) = first.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        let taken = straddling.min(second.len());
        let mut middle = [0; 8];
        middle[..rest.len()].copy_from_slice(rest);
        middle[rest.len()..rest.len() + taken].copy_from_slice(&second[..taken]);
        let mut second = &second[taken..];
        if !rest.is_empty() && rest.len() + taken == 8 {
            self.fold(u64::from_le_bytes(middle));
            middle = [0; 8];
        }
        let (words, rest) = second.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        second = rest;
        if !second.is_empty() {
            middle = [0; 8];
            middle[..second.len()].copy_from_slice(second);
        }
        self.fold(u64::from_le_bytes(middle));
        self.fold((range.end - range.start) as u64);
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
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
    fn length_and_order_change_the_digest() {
        assert_ne!(digest_of(&[0; 3]), digest_of(&[0; 4]));
        assert_ne!(digest_of(b"ab"), digest_of(b"ba"));
    }

    #[test]
    fn where_a_ring_parts_its_bytes_does_not_matter() {
        let bytes: Vec<u8> = (0..40).collect();
        for start in 0..bytes.len() {
            for end in start..=bytes.len() {
                let whole = digest_of(&bytes[start..end]);
                for split in 0..=bytes.len() {
                    let mut digest = Digest::new(1);
                    digest.fold_pair(&bytes[..split], &bytes[split..], start..end);
                    assert_eq!(digest.value(), whole, "{start}..{end} split at {split}");
                }
            }
        }
    }
}
