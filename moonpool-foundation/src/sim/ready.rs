//! [`Ready`]: whose turn it may be. Pure.

use std::collections::VecDeque;

use super::executor::TaskKey;
use super::recycle::{Recycle, recycle};

/// No task: there are never so many.
const NOBODY: u64 = u64::MAX;

/// Keys in the order in which their tasks became ready. Mostly there is one, or none: the first has a place
/// of its own.
#[derive(Debug)]
pub(super) struct Ready {
    /// Its number, or [`NOBODY`]: one word, for it is mostly read right after it was written, and the
    /// processor has to wait where it reads what was written in pieces.
    first: u64,
    /// Empty if there is no first.
    others: VecDeque<TaskKey>,
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            first: NOBODY,
            others: VecDeque::new(),
        }
    }
}

recycle!(Ready { others } Self::default());

impl Ready {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.others.len() + usize::from(self.first != NOBODY)
    }

    #[inline]
    pub(super) fn push_back(&mut self, key: TaskKey) {
        if self.first == NOBODY {
            self.first = key.number();
        } else {
            self.others.push_back(key);
        }
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<TaskKey> {
        let next = match self.others.is_empty() {
            true => None,
            false => self.others.pop_front(),
        };
        self.replace_first(next)
    }

    #[inline]
    fn replace_first(&mut self, next: Option<TaskKey>) -> Option<TaskKey> {
        let next = next.map_or(NOBODY, TaskKey::number);
        key_of(std::mem::replace(&mut self.first, next))
    }

    /// Takes out the one at `place`, and puts the last one there.
    #[inline]
    pub(super) fn swap_remove_back(&mut self, place: usize) -> Option<TaskKey> {
        if let Some(place) = place.checked_sub(1) {
            return self.others.swap_remove_back(place);
        }
        let last = self.others.pop_back();
        self.replace_first(last)
    }

    pub(super) fn get(&self, place: usize) -> Option<TaskKey> {
        match place.checked_sub(1) {
            None => key_of(self.first),
            Some(place) => self.others.get(place).copied(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = TaskKey> {
        let first = key_of(self.first).into_iter();
        first.chain(self.others.iter().copied())
    }
}

#[inline]
fn key_of(number: u64) -> Option<TaskKey> {
    if number == NOBODY {
        return None;
    }
    TaskKey::of_number(number)
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
                prop_assert_eq!(ready.get(place), model.get(place).copied());
                prop_assert!(ready.iter().eq(model.iter().copied()));
            }
        }
    }
}
