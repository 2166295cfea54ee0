//! [`AnswerSizes`]: how large the next answer of a stream may be. Pure.

/// Of what an answer lacks to the largest one of late, this part is forgotten with it.
const FORGOTTEN: usize = 64;

/// How large a stream's answers were of late: the largest, forgotten little by little as smaller ones
/// follow. So a large one counts for some hundreds of answers, and not for the rest of the process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AnswerSizes {
    largest: usize,
}

impl AnswerSizes {
    /// What an answer that is still to be made is to count as, in bytes. 0 before the first one.
    pub(crate) fn expected(self) -> usize {
        self.largest
    }

    /// An answer of so many bytes was made.
    #[must_use]
    pub(crate) fn with(self, bytes: usize) -> Self {
        let less = self.largest.saturating_sub(bytes);
        Self {
            largest: self.largest.max(bytes) - less.div_ceil(FORGOTTEN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_answer_is_expected_again() {
        let sizes = AnswerSizes::default().with(10).with(1_000).with(1_000);
        assert_eq!(sizes.expected(), 1_000);
    }

    #[test]
    fn a_large_answer_is_forgotten_after_some_hundreds_of_small_ones() {
        let mut sizes = AnswerSizes::default().with(1 << 20);
        for _ in 0..50 {
            sizes = sizes.with(100);
        }
        assert!(sizes.expected() > 1 << 18, "{sizes:?}");
        for _ in 0..950 {
            sizes = sizes.with(100);
        }
        assert_eq!(sizes.expected(), 100);
    }
}
