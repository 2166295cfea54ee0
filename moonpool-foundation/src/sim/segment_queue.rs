//! [`SegmentQueue`]: the segments of a pipe that are under way. Pure.

use std::collections::VecDeque;

use super::pipe::Segment;

/// Segments in order. Mostly there is one, or none: the first has a place of its own, and a pipe that never has
/// two takes no memory for them.
#[derive(Debug, Default)]
pub(super) struct SegmentQueue {
    first: Option<Segment>,
    /// Empty if there is no first.
    others: VecDeque<Segment>,
}

impl SegmentQueue {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.others.len() + usize::from(self.first.is_some())
    }

    #[inline]
    pub(super) fn front(&self) -> Option<&Segment> {
        self.first.as_ref()
    }

    #[inline]
    pub(super) fn back(&self) -> Option<&Segment> {
        self.others.back().or(self.first.as_ref())
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut Segment> {
        self.others.back_mut().or(self.first.as_mut())
    }

    #[inline]
    pub(super) fn push_back(&mut self, segment: Segment) {
        if self.first.is_none() {
            self.first = Some(segment);
        } else {
            self.others.push_back(segment);
        }
    }

    #[inline]
    pub(super) fn pop_front(&mut self) {
        self.first = if self.others.is_empty() {
            None
        } else {
            self.others.pop_front()
        };
    }

    pub(super) fn clear(&mut self) {
        self.first = None;
        self.others.clear();
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Segment> {
        self.first.iter_mut().chain(&mut self.others)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::clock::SimInstant;
    use super::super::pipe::Carries;
    use super::*;

    fn segment(bytes: usize) -> Segment {
        Segment {
            at: SimInstant::ZERO,
            carries: Carries::Bytes(bytes),
        }
    }

    fn bytes(segment: Option<&Segment>) -> Option<Carries> {
        segment.map(|segment| segment.carries)
    }

    proptest! {
        #[test]
        fn any_mix_of_operations_matches_a_deque(steps in proptest::collection::vec(0u8..9, 1..200)) {
            let mut queue = SegmentQueue::default();
            let mut model = VecDeque::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    0..=3 => {
                        queue.push_back(segment(number));
                        model.push_back(segment(number));
                    }
                    4..=6 => {
                        queue.pop_front();
                        model.pop_front();
                    }
                    7 => {
                        for segments in [queue.back_mut(), model.back_mut()] {
                            if let Some(last) = segments {
                                last.carries = Carries::Fin;
                            }
                        }
                    }
                    _ if number % 5 == 0 => {
                        queue.clear();
                        model.clear();
                    }
                    _ => {}
                }
                prop_assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(bytes(queue.front()), bytes(model.front()));
                prop_assert_eq!(bytes(queue.back()), bytes(model.back()));
                let all: Vec<Carries> = queue.iter_mut().map(|segment| segment.carries).collect();
                let expected: Vec<Carries> = model.iter().map(|segment| segment.carries).collect();
                prop_assert_eq!(all, expected);
            }
        }
    }
}
