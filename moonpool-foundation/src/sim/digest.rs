//! A rolling 64-bit digest of everything that happened in a run.

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
        if !rest.is_empty() {
            last[..rest.len()].copy_from_slice(rest);
        }
        self.fold(u64::from_le_bytes(last));
        self.fold(bytes.len() as u64);
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
}
