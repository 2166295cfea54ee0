//! [`ByteQueue`]: bytes in one piece of memory, added behind and taken in front.

/// Bytes in order. What is taken leaves a gap in front that is closed when room is needed behind,
/// once it is as long as what is left: so a byte is moved once more on average at most, and all of
/// them can be read, sent and digested as one slice.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    buffer: Vec<u8>,
    /// Taken bytes in front.
    taken: usize,
}

impl ByteQueue {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.buffer.len() - self.taken
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    #[inline]
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        if self.buffer.capacity() - self.buffer.len() < bytes.len() {
            self.make_room();
        }
        self.buffer.extend_from_slice(bytes);
    }

    #[cold]
    fn make_room(&mut self) {
        if self.taken >= self.len() {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
    }

    /// Takes the first `count` bytes.
    #[inline]
    pub(super) fn take(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.buffer.len());
        if self.taken == self.buffer.len() {
            self.clear();
        }
    }

    /// Keeps the first `count` bytes.
    pub(super) fn truncate(&mut self, count: usize) {
        self.buffer.truncate(self.taken + count);
    }

    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.taken = 0;
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut u8> {
        self.buffer.get_mut(self.taken + index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_queue_that_is_never_empty_does_not_grow() {
        let mut queue = ByteQueue::default();
        queue.extend(&[0; 100]);
        for _ in 0..10_000 {
            queue.extend(&[1; 64]);
            queue.take(64);
        }
        assert_eq!(queue.len(), 100);
        assert!(
            queue.buffer.capacity() <= 1_024,
            "{}",
            queue.buffer.capacity()
        );
    }

    proptest! {
        #[test]
        fn any_mix_of_operations_matches_a_deque(
            steps in proptest::collection::vec((0u8..6, 0usize..40), 1..200)
        ) {
            let mut queue = ByteQueue::default();
            let mut model = VecDeque::new();
            for (step, count) in steps {
                match step {
                    0..=2 => {
                        let bytes: Vec<u8> = (0..40).map(|byte| byte + step).take(count).collect();
                        queue.extend(&bytes);
                        model.extend(bytes);
                    }
                    3 | 4 => {
                        let count = count.min(model.len());
                        queue.take(count);
                        model.drain(..count);
                    }
                    _ => {
                        queue.truncate(count);
                        model.truncate(count);
                    }
                }
                prop_assert_eq!(queue.as_slice(), &*model.make_contiguous());
                prop_assert_eq!(queue.get_mut(3).copied(), model.get(3).copied());
            }
        }
    }
}
