//! When each call is to be looked at next: an indexed heap, so that a call that ends takes its entry
//! along. Pure.
//!
//! Memory is that of the largest number of calls at one time; adding and removing allocate nothing
//! once that was reached, and cost O(log n). Entries of the same time come in the order in which
//! they were added.

use std::time::Duration;

use super::slot_table::SlotKey;

/// Where a slot without an entry is.
const NOWHERE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Duration,
    /// Counts the entries: which of two at the same time comes first.
    order: u64,
    key: SlotKey,
}

impl Entry {
    fn is_before(&self, other: &Self) -> bool {
        (self.at, self.order) < (other.at, other.order)
    }
}

/// See the [module's documentation](self). Each slot has at most one entry.
#[derive(Debug, Default)]
pub(crate) struct DeadlineQueue {
    /// A binary heap, the earliest first.
    heap: Vec<Entry>,
    /// Where the entry of each slot is in the heap.
    places: Vec<u32>,
    next_order: u64,
}

impl DeadlineQueue {
    /// The earliest entry.
    pub(crate) fn first(&self) -> Option<(Duration, SlotKey)> {
        self.heap.first().map(|entry| (entry.at, entry.key))
    }

    /// Sets when the slot is to be looked at, in place of an earlier setting.
    pub(crate) fn set(&mut self, key: SlotKey, at: Duration) {
        self.remove(key);
        let index = key.index as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, NOWHERE);
        }
        let order = self.next_order;
        self.next_order += 1;
        self.heap.push(Entry { at, order, key });
        self.rise(self.heap.len() - 1);
    }

    /// Takes the slot's entry out, if it has one.
    pub(crate) fn remove(&mut self, key: SlotKey) {
        let Some(place) = self.places.get_mut(key.index as usize) else {
            return;
        };
        let at = std::mem::replace(place, NOWHERE) as usize;
        if at >= self.heap.len() {
            return;
        }
        debug_assert_eq!(self.heap[at].key, key, "a slot's entry goes with its value");
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            let at = self.rise(at);
            self.sink(at);
        }
    }

    /// Moves an entry towards the front as far as it belongs. Gives where it is then.
    fn rise(&mut self, mut at: usize) -> usize {
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.heap[at].is_before(&self.heap[parent]) {
                break;
            }
            self.heap.swap(at, parent);
            self.note_place(at);
            at = parent;
        }
        self.note_place(at);
        at
    }

    /// Moves an entry towards the end as far as it belongs.
    fn sink(&mut self, mut at: usize) {
        loop {
            let mut first = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.heap[child].is_before(&self.heap[first]) {
                    first = child;
                }
            }
            if first == at {
                break;
            }
            self.heap.swap(at, first);
            self.note_place(at);
            at = first;
        }
        self.note_place(at);
    }

    fn note_place(&mut self, at: usize) {
        let index = self.heap[at].key.index as usize;
        // The slots are at most 2^32, each with one entry.
        self.places[index] = u32::try_from(at).unwrap_or(NOWHERE);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn key(index: u32) -> SlotKey {
        SlotKey {
            index,
            generation: 1,
        }
    }

    fn pop(queue: &mut DeadlineQueue) -> Option<(u64, u32)> {
        let (at, key) = queue.first()?;
        queue.remove(key);
        Some((u64::try_from(at.as_millis()).unwrap(), key.index))
    }

    #[test]
    fn entries_come_by_time_and_then_in_the_order_they_were_added() {
        let mut queue = DeadlineQueue::default();
        for (index, at) in [(0, 5), (1, 3), (2, 5), (3, 3), (4, 9)] {
            queue.set(key(index), Duration::from_millis(at));
        }
        queue.remove(key(4));
        queue.remove(key(4));
        queue.remove(key(77));
        let all: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).collect();
        assert_eq!(all, [(3, 1), (3, 3), (5, 0), (5, 2)]);
    }

    #[test]
    fn calls_that_come_and_go_need_no_more_memory() {
        let mut queue = DeadlineQueue::default();
        for round in 0..10_000_u32 {
            queue.set(key(round % 8), Duration::from_millis(u64::from(round)));
            queue.remove(key((round + 5) % 8));
        }
        assert!(queue.heap.capacity() <= 16 && queue.places.len() == 8);
    }

    proptest! {
        /// Against a model: a map from slot to time.
        #[test]
        fn the_queue_agrees_with_its_model(ops in vec((0_u32..20, prop::option::of(0_u64..50)), 1..200)) {
            let mut queue = DeadlineQueue::default();
            let mut model = BTreeMap::new();
            for (index, at) in ops {
                match at {
                    Some(at) => {
                        queue.set(key(index), Duration::from_millis(at));
                        model.insert(index, at);
                    }
                    None => {
                        queue.remove(key(index));
                        model.remove(&index);
                    }
                }
                let earliest = model.values().min().copied();
                let first = queue.first().map(|(at, key)| (at, model[&key.index]));
                prop_assert_eq!(first.map(|(at, _)| at), earliest.map(Duration::from_millis));
                prop_assert_eq!(first.map(|(_, at)| at), earliest);
            }
            let mut left: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).collect();
            let mut expected: Vec<_> = model.into_iter().map(|(index, at)| (at, index)).collect();
            prop_assert!(left.is_sorted_by_key(|(at, _)| *at));
            left.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(left, expected);
        }
    }
}
