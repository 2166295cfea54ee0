//! When each call is to be looked at next: a line, and a heap, in which the entry of a call that ended
//! stays behind, since nearly every call ends long before its time. Pure.
//!
//! What comes in order, as calls with the same timeout do, waits in the line, and only the rest in the
//! heap. Entries that were left behind never outnumber the others by more than [`SPARE`]: adding and
//! removing are O(1) for deadlines that come in order, O(log n) else, and allocate nothing once
//! the memory for the largest number of calls at one time is there. Entries of the same time come
//! in the order in which they were added.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::slot_table::SlotKey;

/// Entries without a call that are kept in any case: clearing out fewer is not worth it.
const SPARE: usize = 64;

/// The order of a slot without an entry.
const NONE: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Duration,
    /// Counts the entries: which of two at the same time comes first, and which of a slot's is the
    /// one that counts.
    order: u64,
    key: SlotKey,
}

/// See the [module's documentation](self). Each slot has at most one entry.
#[derive(Debug, Default)]
pub(crate) struct DeadlineQueue {
    /// Entries that came in order, those that were left behind among them.
    line: VecDeque<Entry>,
    /// The others likewise, the earliest first.
    heap: BinaryHeap<Reverse<Entry>>,
    /// The order of each slot's entry.
    orders: Vec<u64>,
    /// Slots with an entry.
    len: usize,
    next_order: u64,
}

impl DeadlineQueue {
    /// When [`take_due`](Self::take_due) is to be asked next: no entry is earlier. There may be none
    /// at this very time. `None`: there is no entry.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.first().map(|entry| entry.at)
    }

    /// The earliest entry of both, left behind or not.
    #[inline]
    fn first(&self) -> Option<&Entry> {
        let heap = self.heap.peek().map(|Reverse(entry)| entry);
        match (self.line.front(), heap) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Sets when the slot is to be looked at, in place of an earlier setting.
    pub(crate) fn set(&mut self, key: SlotKey, at: Duration) {
        let index = key.index as usize;
        if self.orders.len() <= index {
            self.orders.resize(index + 1, NONE);
        }
        let order = self.next_order;
        self.next_order += 1;
        if std::mem::replace(&mut self.orders[index], order) == NONE {
            self.len += 1;
        }
        let entry = Entry { at, order, key };
        if self.line.back().is_none_or(|last| last.at <= at) {
            self.line.push_back(entry);
        } else {
            self.heap.push(Reverse(entry));
        }
        self.clear_out();
    }

    /// Takes the slot's entry out, if it has one.
    pub(crate) fn remove(&mut self, key: SlotKey) {
        let Some(order) = self.orders.get_mut(key.index as usize) else {
            return;
        };
        if std::mem::replace(order, NONE) != NONE {
            self.len -= 1;
            self.shorten_line();
            self.clear_out();
        }
    }

    /// Lets go of what was left behind at the line's front. Calls end much in the order in which they
    /// began: so hardly anything is left that would have to be searched for.
    #[inline]
    fn shorten_line(&mut self) {
        while let Some(front) = self.line.front()
            && !is_current(&self.orders, front)
        {
            self.line.pop_front();
        }
    }

    /// Takes the earliest entry out, if its time has come.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<SlotKey> {
        while let Some(&entry) = self.first().filter(|first| first.at <= now) {
            if self.line.front() == Some(&entry) {
                self.line.pop_front();
            } else {
                self.heap.pop();
            }
            if self.is_current(&entry) {
                self.remove(entry.key);
                return Some(entry.key);
            }
        }
        None
    }

    fn is_current(&self, entry: &Entry) -> bool {
        is_current(&self.orders, entry)
    }

    /// Entries, those that were left behind included.
    fn entries(&self) -> usize {
        self.line.len() + self.heap.len()
    }

    /// Lets go of what was left behind, when that is most of all.
    #[inline]
    fn clear_out(&mut self) {
        if self.len == 0 {
            self.heap.clear();
        } else if self.entries() > 2 * self.len + SPARE {
            self.retain_current();
        }
    }

    #[cold]
    fn retain_current(&mut self) {
        let orders = &self.orders;
        self.line.retain(|entry| is_current(orders, entry));
        if !self.heap.is_empty() {
            self.heap.retain(|Reverse(entry)| is_current(orders, entry));
        }
    }
}

/// Whether the entry was not left behind.
fn is_current(orders: &[u64], entry: &Entry) -> bool {
    orders.get(entry.key.index as usize) == Some(&entry.order)
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

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn entries_come_by_time_and_then_in_the_order_they_were_added() {
        let mut queue = DeadlineQueue::default();
        for (index, at) in [(0, 5), (1, 3), (2, 5), (3, 3), (4, 9)] {
            queue.set(key(index), ms(at));
        }
        queue.remove(key(4));
        queue.remove(key(4));
        queue.remove(key(77));
        let due = |queue: &mut DeadlineQueue, at| queue.take_due(ms(at)).map(|key| key.index);
        assert_eq!(due(&mut queue, 2), None);
        let all: Vec<_> = std::iter::from_fn(|| due(&mut queue, 100)).collect();
        assert_eq!(all, [1, 3, 0, 2]);
    }

    #[test]
    fn calls_that_come_and_go_need_no_more_memory() {
        let mut queue = DeadlineQueue::default();
        for round in 0..10_000_u32 {
            queue.set(key(round % 8), ms(u64::from(round)));
            queue.remove(key((round + 5) % 8));
        }
        let capacity = queue.heap.capacity() + queue.line.capacity();
        assert!(capacity <= 4 * SPARE && queue.orders.len() == 8);
    }

    #[test]
    fn a_queue_without_entries_has_no_time() {
        let mut queue = DeadlineQueue::default();
        queue.set(key(0), ms(5));
        queue.set(key(1), ms(6));
        queue.remove(key(0));
        queue.remove(key(1));
        assert_eq!(queue.next_at(), None);
    }

    proptest! {
        /// Against a model: a map from slot to time.
        #[test]
        fn the_queue_agrees_with_its_model(
            ops in vec((0_u32..20, prop::option::of(0_u64..50)), 1..400)
        ) {
            let mut queue = DeadlineQueue::default();
            let mut model = BTreeMap::new();
            for (index, at) in ops {
                match at {
                    Some(at) => {
                        queue.set(key(index), ms(at));
                        model.insert(index, at);
                    }
                    None => {
                        queue.remove(key(index));
                        model.remove(&index);
                    }
                }
                let earliest = model.values().min().copied().map(ms);
                prop_assert_eq!(queue.next_at().is_some(), earliest.is_some());
                prop_assert!(queue.next_at() <= earliest);
                prop_assert!(queue.entries() <= 2 * model.len() + SPARE);
            }
            for now in 0..50 {
                let mut due: Vec<_> =
                    std::iter::from_fn(|| queue.take_due(ms(now))).map(|key| key.index).collect();
                due.sort_unstable();
                let expected: Vec<_> =
                    model.iter().filter(|(_, at)| **at == now).map(|(index, _)| *index).collect();
                prop_assert_eq!(due, expected);
            }
            prop_assert_eq!(queue.next_at(), None);
        }
    }
}
