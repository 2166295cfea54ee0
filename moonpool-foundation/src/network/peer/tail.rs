//! [`Tail`]: the end of a payload that leaves from where it is, and what is known of its checksum.
//!
//! Whoever receives a packet passes over all of it, to see that it is what was sent. Whoever sends the same
//! bytes on need not do so again: the checksum of the new packet is made from the one that was verified.
//! Nor need one who sends the same bytes to many. That protects them better than a new pass
//! would: if they change in between, in memory, then the next receiver finds a checksum that is
//! wrong, and not a right one for wrong bytes.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::messaging::checksum::{crc, crc_behind, moved};

/// Of fewer bytes nothing is noted: to pass over them costs little more than to do without.
pub const NOTED_BYTES: usize = 64 * 1024;

/// A place for bytes and the CRC-32C of them, written once. It is shared by all who have the same bytes.
pub type NotedChecksum = Arc<OnceLock<(Bytes, u32)>>;

/// The end of a payload: bytes that are written from where they are, and their checksum if it is known.
///
/// Most packets have none, and carry a pointer for it.
#[derive(Clone, Debug, Default)]
pub struct Tail(Option<Box<Parts>>);

#[derive(Clone, Debug)]
struct Parts {
    bytes: Bytes,
    noted: Option<NotedChecksum>,
}

impl Tail {
    /// No bytes.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self(None)
    }

    /// Bytes whose checksum is made from what is noted, or noted for the next time. What is noted is of
    /// use if its bytes end with these, in the same memory; otherwise it is left alone.
    #[must_use]
    pub fn with_noted(bytes: Bytes, noted: NotedChecksum) -> Self {
        let is_noted = bytes.len() >= NOTED_BYTES;
        let noted = is_noted.then_some(noted);
        Self(Some(Box::new(Parts { bytes, noted })))
    }

    /// Whether there are none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes alone.
    pub(super) fn into_bytes(self) -> Bytes {
        self.0.map_or_else(Bytes::new, |parts| parts.bytes)
    }

    /// CRC-32C of what `front` is that of, and then these bytes.
    #[inline]
    pub(super) fn checksum_behind(&self, front: u32) -> u32 {
        self.0
            .as_ref()
            .map_or(front, |parts| parts.checksum_behind(front))
    }

    /// Whether the bytes still are what was noted, if something was.
    pub(super) fn is_intact(&self) -> bool {
        self.0.as_ref().is_none_or(|parts| parts.is_intact())
    }
}

impl Parts {
    #[cold]
    fn checksum_behind(&self, front: u32) -> u32 {
        if let Some(noted) = &self.noted {
            let (summed, checksum) = noted.get_or_init(|| (self.bytes.clone(), crc(&self.bytes)));
            if let Some(before) = self.before(summed) {
                return moved(front ^ crc(before), self.bytes.len()) ^ checksum;
            }
        }
        crc_behind(front, &self.bytes)
    }

    fn is_intact(&self) -> bool {
        let known = self.noted.as_ref().and_then(|noted| noted.get());
        known.is_none_or(|(summed, checksum)| {
            self.before(summed).is_none() || crc(summed) == *checksum
        })
    }

    /// What comes before these bytes in `summed`, if that ends with them.
    fn before<'a>(&self, summed: &'a Bytes) -> Option<&'a [u8]> {
        let length = summed.len().checked_sub(self.bytes.len())?;
        let is_end = summed.as_ptr_range().end == self.bytes.as_ptr_range().end;
        is_end.then(|| summed.get(..length)).flatten()
    }
}

impl From<Bytes> for Tail {
    fn from(bytes: Bytes) -> Self {
        let is_empty = bytes.is_empty();
        Self((!is_empty).then(|| Box::new(Parts { bytes, noted: None })))
    }
}

impl Deref for Tail {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Some(parts) => &parts.bytes,
            None => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::checksum::PASSED;
    use proptest::prelude::*;

    const LARGE: usize = NOTED_BYTES;

    fn bytes(length: usize) -> Bytes {
        (0..=250).cycle().take(length).collect()
    }

    fn known(summed: Bytes) -> NotedChecksum {
        let checksum = crc(&summed);
        Arc::new(OnceLock::from((summed, checksum)))
    }

    /// The bytes that are passed over for its checksum.
    fn passed(tail: &Tail) -> usize {
        let before = PASSED.get();
        assert_ne!(tail.checksum_behind(7), 0);
        PASSED.get() - before
    }

    #[test]
    fn the_same_bytes_are_passed_over_once_for_many_packets() {
        let noted = NotedChecksum::default();
        let bytes = bytes(LARGE);
        let tails: Vec<_> = (0..3)
            .map(|_| Tail::with_noted(bytes.clone(), Arc::clone(&noted)))
            .collect();
        assert_eq!(tails.iter().map(passed).sum::<usize>(), LARGE);
        for (front, tail) in (7..).zip(&tails) {
            assert_eq!(tail.checksum_behind(front), crc_behind(front, &bytes));
        }
    }

    #[test]
    fn bytes_that_were_verified_are_not_passed_over() {
        let packet = bytes(LARGE + 100);
        let tail = Tail::with_noted(packet.slice(100..), known(packet.clone()));
        assert_eq!(passed(&tail), 100);
        assert_eq!(tail.checksum_behind(7), crc_behind(7, &tail));
    }

    #[test]
    fn what_is_noted_of_other_bytes_is_of_no_use() {
        let packet = bytes(2 * LARGE);
        let elsewhere = Bytes::copy_from_slice(&packet);
        for (part, summed) in [
            (packet.slice(..LARGE), packet.clone()),
            (packet.clone(), packet.slice(1..)),
            (packet.slice(LARGE..), elsewhere),
        ] {
            let tail = Tail::with_noted(part, known(summed));
            assert_eq!(passed(&tail), tail.len());
            assert_eq!(tail.checksum_behind(7), crc_behind(7, &tail));
            assert!(tail.is_intact());
        }
    }

    #[test]
    fn of_few_bytes_nothing_is_noted() {
        let noted = NotedChecksum::default();
        let tail = Tail::with_noted(bytes(LARGE - 1), Arc::clone(&noted));
        assert_eq!(tail.checksum_behind(7), crc_behind(7, &tail));
        assert_eq!(noted.get(), None);
    }

    #[test]
    fn bytes_that_changed_since_are_not_signed_anew() {
        let whole = bytes(LARGE + 10);
        let wrong = Arc::new(OnceLock::from((whole.clone(), crc(&whole) ^ 1)));
        let tail = Tail::with_noted(whole.slice(10..), wrong);
        assert_ne!(tail.checksum_behind(7), crc_behind(7, &tail));
        assert!(!tail.is_intact());
        assert!(Tail::with_noted(whole.slice(10..), known(whole)).is_intact());
        assert!(Tail::from(bytes(LARGE)).is_intact());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_end_of_what_was_verified_has_the_right_checksum(
            seed: u64, before in 0_usize..3000, length in LARGE..2 * LARGE, front: u32,
        ) {
            let mut state = seed;
            let packet: Bytes = (0..before + length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    state.to_le_bytes()[7]
                })
                .collect();
            let tail = Tail::with_noted(packet.slice(before..), known(packet.clone()));
            prop_assert_eq!(tail.checksum_behind(front), crc_behind(front, &tail));
        }
    }
}
