//! Hash maps and sets that iterate in the same order in every run.
//!
//! The standard library's are seeded by the operating system, so their order differs from run to run
//! and, through anything that iterates them, so does a simulation. These have a fixed hasher. It is
//! fast and not made to withstand keys that an attacker chose: bound what a peer can insert, or use
//! a [`SeededHashMap`].
//!
//! ```
//! use moonpool_foundation::collections::HashMap;
//!
//! let mut ports: HashMap<&str, u16> = HashMap::default();
//! ports.insert("http", 80);
//! assert_eq!(ports["http"], 80);
//! ```

#![expect(
    clippy::disallowed_types,
    reason = "this module is the replacement that the lint names"
)]

use std::hash::{BuildHasherDefault, Hasher};

/// The standard hash map with a fixed hasher. Make one with `HashMap::default()`.
pub type HashMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<FixedHasher>>;

/// The standard hash set with a fixed hasher. Make one with `HashSet::default()`.
pub type HashSet<T> = std::collections::HashSet<T, BuildHasherDefault<FixedHasher>>;

/// The standard hash map with a hasher that starts from a seed: for keys that another party chooses.
/// Make one with [`seeded_hash_map`].
pub type SeededHashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::FixedState>;

/// A map whose hashes nobody can foresee who does not know the seed: draw that from a random provider
/// and tell it to nobody. Who does not know it cannot choose keys that collide.
///
/// ```
/// use moonpool_foundation::collections::{SeededHashMap, seeded_hash_map};
///
/// let mut requests: SeededHashMap<u64, &str> = seeded_hash_map(0x5EED);
/// requests.insert(7, "a key that came from a peer");
/// assert_eq!(requests[&7], "a key that came from a peer");
/// ```
#[must_use]
pub fn seeded_hash_map<K, V>(seed: u64) -> SeededHashMap<K, V> {
    SeededHashMap::with_hasher(foldhash::fast::FixedState::with_seed(seed))
}

/// Odd, with well-spread bits (the golden ratio's fraction in 64 bits).
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Mixes eight bytes at a time by multiplication; the same result in every process.
#[derive(Clone, Copy, Debug, Default)]
pub struct FixedHasher(u64);

impl Hasher for FixedHasher {
    #[inline]
    fn finish(&self) -> u64 {
        // Maps look at the upper and the lower bits: both depend on all of the key.
        self.0 ^ (self.0 >> 32)
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.write_u64(u64::from_le_bytes(last));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(MULTIPLIER).rotate_left(29);
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    #[inline]
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_iteration_is_the_same_in_every_run() {
        let set: HashSet<u64> = (0..8).collect();
        // Written down from a run: a hasher with a random seed would not repeat it.
        let order: Vec<u64> = set.into_iter().collect();
        assert_eq!(order, [0, 7, 3, 6, 1, 4, 2, 5]);
    }

    #[test]
    fn the_order_under_a_seed_is_the_seeds() {
        let order = |seed| {
            let mut map = seeded_hash_map(seed);
            map.extend((0..100_u64).map(|key| (key, ())));
            map.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(
            order(1),
            order(2),
            "whoever does not know the seed knows no order"
        );
    }
}
