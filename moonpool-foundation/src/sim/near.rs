//! What is due soon: a sorted row of entries, and a heap of those that would be costly to sort in.
//!
//! An entry is put into the row where it belongs if that moves few others, as it nearly always does. Else
//! it goes to the heap, and as long as any is there, all others follow it: so of one instant, those of the
//! row are the older ones, and those of the heap carry a number.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use super::chunks::Entry;
use super::clock::SimInstant;
use super::recycle::{Recycle, recycle};

/// Entries that may lie in the row before half of them go to the wheel.
const LENGTH: usize = if cfg!(test) { 8 } else { 64 };
/// Entries that one may push aside. A row that is no longer than twice this has all sorted in.
const MOVED: usize = if cfg!(test) { 4 } else { 128 };

/// Entries in the order of (time, push).
#[derive(Debug)]
pub(super) struct Near {
    row: VecDeque<Entry>,
    /// How long that may become.
    limit: usize,
    late: BinaryHeap<Late>,
    /// Of the next one there.
    number: u64,
}

/// An entry in the heap: the greatest is the earliest.
#[derive(Debug)]
struct Late {
    entry: Entry,
    number: u64,
}

impl Ord for Late {
    fn cmp(&self, other: &Self) -> Ordering {
        let (own, others) = (self.entry.at, other.entry.at);
        others.cmp(&own).then(other.number.cmp(&self.number))
    }
}

impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Late {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Late {}

impl Default for Near {
    fn default() -> Self {
        Self {
            row: VecDeque::new(),
            limit: LENGTH,
            late: BinaryHeap::new(),
            number: 0,
        }
    }
}

recycle!(Near { row } Self::default());

impl Near {
    /// Puts an entry behind those of the same time. Whether the row is too long now, and all there is.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) -> bool {
        if !self.late.is_empty() {
            self.push_late(entry);
            return false;
        }
        match self.row.back() {
            Some(last) if entry.at < last.at => return self.sort_in(entry),
            _ => self.row.push_back(entry),
        }
        self.row.len() > self.limit
    }

    fn sort_in(&mut self, entry: Entry) -> bool {
        let place = self.row.partition_point(|near| near.at <= entry.at);
        // The shorter side is what moves.
        let aside = place.min(self.row.len() - place);
        if aside > MOVED {
            self.push_late(entry);
            return false;
        }
        count_moves(aside);
        self.row.insert(place, entry);
        self.row.len() > self.limit
    }

    #[cold]
    fn push_late(&mut self, entry: Entry) {
        let number = self.number;
        self.number += 1;
        self.late.push(Late { entry, number });
        count_moves(self.late.len().ilog2() as usize);
    }

    /// The first one. What follows asks for it first: it is in front of the row.
    #[inline]
    pub(super) fn first(&mut self) -> Option<Entry> {
        if !self.late.is_empty() {
            self.bring_in();
        }
        self.row.front().copied()
    }

    /// Puts the heap's first one in front of the row, if that is where it belongs.
    #[cold]
    fn bring_in(&mut self) {
        let front = self.row.front().map(|front| front.at);
        let is_first = |late: &Late| front.is_none_or(|front| late.entry.at < front);
        if self.late.peek().is_some_and(is_first)
            && let Some(late) = self.late.pop()
        {
            count_moves(self.late.len().max(1).ilog2() as usize);
            self.row.push_front(late.entry);
        }
    }

    /// Takes out what is in front of the row.
    #[inline]
    pub(super) fn pop_front(&mut self) {
        self.row.pop_front();
    }

    /// Whether an entry is in front of the row.
    #[inline]
    pub(super) fn is_in_front(&self, is_it: impl FnOnce(&Entry) -> bool) -> bool {
        self.row.front().is_some_and(is_it)
    }

    /// How many lie in the row.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.row.len()
    }

    /// The row, in its order.
    #[inline]
    pub(super) fn row(&self) -> impl Iterator<Item = &Entry> {
        self.row.iter()
    }

    /// Adds an entry to an empty row, which is [sorted](Self::sort) later.
    #[inline]
    pub(super) fn fill(&mut self, entry: Entry) {
        self.row.push_back(entry);
    }

    /// Sorts the row by time alone.
    pub(super) fn sort(&mut self) {
        count_moves(self.row.len());
        self.row.make_contiguous().sort_by_key(|entry| entry.at);
    }

    /// Where the row's later half begins, and when: behind what is of the first instant, if that is half of it. It
    /// never parts entries of one instant. Many of one that comes after `popped` would be in the way of all that
    /// may come before them: with those, everything is the later half.
    pub(super) fn later_half(&self, popped: SimInstant) -> Option<(usize, SimInstant)> {
        let middle = self.row.get(self.row.len() / 2)?.at;
        let before = self.row.partition_point(|near| near.at < middle);
        if before > 0 {
            return Some((before, middle));
        }
        let keep = self.row.partition_point(|near| near.at <= middle);
        if keep > MOVED && middle > popped {
            return Some((0, middle));
        }
        let begins = self.row.get(keep).map_or(middle.next(), |first| first.at);
        Some((keep, begins))
    }

    /// The row's entry at this place.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<Entry> {
        self.row.get(index).copied()
    }

    /// Forgets the row from this place on.
    pub(super) fn truncate(&mut self, keep: usize) {
        self.row.truncate(keep);
    }

    /// Lets the row grow to twice its length. What it is relieved of by then is no more than what was put in
    /// since, so that no entry is moved back and forth at the cost of a few others.
    pub(super) fn let_grow(&mut self) {
        self.limit = LENGTH.max(2 * self.row.len());
    }

    /// Keeps what is to be kept.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        count_moves(self.row.len() + self.late.len());
        self.row.retain(&mut keep);
        self.late.retain(|late| keep(&late.entry));
    }
}

#[cfg(test)]
thread_local! {
    /// How often entries of this thread's queues changed their place.
    pub(super) static MOVES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// So many entries changed their place: for the tests that hold the bound.
#[inline]
pub(super) fn count_moves(entries: usize) {
    #[cfg(test)]
    MOVES.set(MOVES.get() + entries);
    let _ = entries;
}

#[cfg(test)]
impl Near {
    /// How many lie in the heap.
    pub(super) fn late(&self) -> usize {
        self.late.len()
    }

    /// Whether the row and the heap begin with the same time.
    pub(super) fn is_first_of_both(&self) -> bool {
        let late = self.late.peek().map(|late| late.entry.at);
        late.is_some() && late == self.row.front().map(|front| front.at)
    }
}
