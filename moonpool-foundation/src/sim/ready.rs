//! [`Ready`]: whose turn it may be. Pure.

use std::collections::VecDeque;

use super::executor::TaskKey;

/// Keys in the order in which their tasks became ready. Mostly there is one, or none: the first has a place
/// of its own.
#[derive(Debug, Default)]
pub(super) struct Ready {
    first: Option<TaskKey>,
    /// Empty if there is no first.
    others: VecDeque<TaskKey>,
}

impl Ready {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.others.len() + usize::from(self.first.is_some())
    }

    #[inline]
    pub(super) fn push_back(&mut self, key: TaskKey) {
        if self.first.is_none() {
            self.first = Some(key);
        } else {
            self.others.push_back(key);
        }
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<TaskKey> {
        let first = self.first.take();
        if !self.others.is_empty() {
            self.first = self.others.pop_front();
        }
        first
    }

    /// Takes out the one at `place`, and puts the last one there.
    #[inline]
    pub(super) fn swap_remove_back(&mut self, place: usize) -> Option<TaskKey> {
        match place.checked_sub(1) {
            None => std::mem::replace(&mut self.first, self.others.pop_back()),
            Some(place) => self.others.swap_remove_back(place),
        }
    }

    pub(super) fn get(&self, place: usize) -> Option<&TaskKey> {
        match place.checked_sub(1) {
            None => self.first.as_ref(),
            Some(place) => self.others.get(place),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &TaskKey> {
        self.first.iter().chain(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_mix_of_operations_matches_a_deque(
            steps in proptest::collection::vec((0u8..6, 0usize..8), 1..200)
        ) {
            let mut ready = Ready::default();
            let mut model = VecDeque::new();
            for (number, (step, place)) in (0..).zip(steps) {
                match step {
                    0..=2 => {
                        let key = TaskKey::of_number(number).unwrap();
                        ready.push_back(key);
                        model.push_back(key);
                    }
                    3 => prop_assert_eq!(ready.pop_front(), model.pop_front()),
                    _ => prop_assert_eq!(ready.swap_remove_back(place), model.swap_remove_back(place)),
                }
                prop_assert_eq!(ready.len(), model.len());
                prop_assert_eq!(ready.get(place), model.get(place));
                prop_assert!(ready.iter().eq(&model));
            }
        }
    }
}
