//! CRC-32C, and the checksum of a whole made from those of its parts.
//!
//! A checksum is a remainder of polynomials over two elements: bytes that follow multiply what is there
//! by a power of x, and add their own. So the checksum of one part and then another is that of the first,
//! [moved](moved) by the length of the second, and that of the second, added: exclusive or.

/// CRC-32C's polynomial without its highest term, x^31 in the lowest bit.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// 1, in the same order of bits.
const ONE: u32 = 1 << 31;

/// x^8: what a byte multiplies by.
const BYTE: u32 = ONE >> 8;

/// Digits to the base 16 that a length has.
const DIGITS: usize = 16;

/// What so many bytes multiply by: those of each digit of a length, and in each place.
static POWERS: [[u32; 16]; DIGITS] = powers();

#[cfg(test)]
thread_local! {
    /// Bytes that were passed over on this thread.
    pub(crate) static PASSED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// CRC-32C of these bytes.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc_behind(0, bytes)
}

/// CRC-32C of what `front` is that of, and then these bytes.
pub(crate) fn crc_behind(front: u32, bytes: &[u8]) -> u32 {
    #[cfg(test)]
    PASSED.set(PASSED.get() + bytes.len());
    crc32c::crc32c_append(front, bytes)
}

/// What a checksum adds to the one of a whole in which so many bytes follow.
pub(crate) fn moved(checksum: u32, bytes: usize) -> u32 {
    let (mut moved, mut rest) = (checksum, bytes);
    for powers in &POWERS {
        if rest == 0 {
            break;
        }
        if let Some(power) = powers.get(rest % 16)
            && *power != ONE
        {
            moved = product(*power, moved);
        }
        rest /= 16;
    }
    moved
}

/// The product of two polynomials, as a remainder.
const fn product(one: u32, other: u32) -> u32 {
    let (mut left, mut term, mut sum) = (one, other, 0);
    while left != 0 {
        if left & ONE != 0 {
            sum ^= term;
        }
        left <<= 1;
        let lowest = 0_u32.wrapping_sub(term & 1);
        term = (term >> 1) ^ (POLYNOMIAL & lowest);
    }
    sum
}

const fn powers() -> [[u32; 16]; DIGITS] {
    let mut powers = [[ONE; 16]; DIGITS];
    let (mut place, mut step) = (0, BYTE);
    while place < DIGITS {
        let mut digit = 1;
        while digit < 16 {
            powers[place][digit] = product(step, powers[place][digit - 1]);
            digit += 1;
        }
        step = product(step, powers[place][15]);
        place += 1;
    }
    powers
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The checksum is RFC 3720's CRC-32C, seen from its published check values.
    #[test]
    fn the_checksum_is_castagnoli() {
        assert_eq!(crc(b"123456789"), 0xE306_9283);
        assert_eq!(crc(&[0u8; 32]), 0x8A91_36AA);
        for cut in 0..=9 {
            let (first, second) = b"123456789".split_at(cut);
            assert_eq!(crc_behind(crc(first), second), 0xE306_9283);
        }
    }

    #[test]
    fn a_checksum_that_nothing_follows_stays_where_it_is() {
        assert_eq!(moved(0xE306_9283, 0), 0xE306_9283);
        assert_eq!(moved(0, usize::MAX), 0);
    }

    #[test]
    fn every_digit_of_a_length_counts() {
        let zeroes = vec![0; 1 << 24];
        for length in (0..=24).map(|bit| 1 << bit).chain([0xFE_DCBA, 0x12_3456]) {
            let behind = &zeroes[..length];
            let whole = crc_behind(crc(b"front"), behind);
            assert_eq!(
                moved(crc(b"front"), length) ^ crc(behind),
                whole,
                "{length}"
            );
        }
    }

    #[test]
    fn lengths_add_up_however_large_they_are() {
        let half = usize::MAX / 2;
        assert_eq!(moved(moved(7, half), half + 1), moved(7, usize::MAX));
    }

    proptest! {
        #[test]
        fn the_checksum_of_a_whole_is_made_from_those_of_its_parts(
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
            cut in any::<prop::sample::Index>(),
        ) {
            let (front, rest) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(moved(crc(front), rest.len()) ^ crc(rest), crc(&bytes));
        }
    }
}
