//! The event queue: ordered by (time, sequence number), with removal.
//!
//! What is due soon lies sorted in one short row; what is due later in a timing wheel of eleven levels
//! of 64 buckets, from single nanoseconds to all of virtual time (Varghese and Lauck, "Hashed and
//! Hierarchical Timing Wheels", SOSP 1987). When the row is used up, the first bucket of the wheel is
//! spread over lower levels until its first part is short enough to be sorted: only what comes due is
//! ever sorted, whatever the number of others. A queue of few events is that row and nothing else.
//!
//! A bucket is a list of chunks that all buckets take from one store and give back to it: none grows
//! by being copied, and none is freed and made again.
//!
//! Where the row may not grow, for the wheel cannot take any of it, what would push many aside goes to a heap
//! beside it ([`near`](super::near)). So whatever is pushed, popped and removed, and in whichever order: each
//! event moves once a level of the wheel, or as often as a heap moves it.
//!
//! Events of one instant always share a bucket, in the order they were pushed, and sorting keeps that
//! order: no sequence number is kept outside that heap. A dropped sleep or a closed connection frees its event at once; the
//! 16 bytes that named it stay until they are met, or until they are more than those of queued events.

use std::num::NonZeroU32;

use super::chunks::{Bucket, Chunks, Entry};
use super::clock::SimInstant;
use super::near::{Near, count_moves};
use super::recycle::Recycle;

/// Bits of a time that choose a bucket of one level.
const LEVEL_BITS: u32 = 6;
const BUCKETS: usize = 1 << LEVEL_BITS;
/// Enough for the 64 bits of a time.
const LEVELS: usize = 11;
/// Names of removed events that are kept, however few are queued.
const MIN_STALE: usize = 64;
/// A bucket of so many at most is sorted as it is. With a million queued within 100 ms these are those
/// of the third level: with half as many, each event would move once more, to a bucket of its own.
const SORTED: usize = if cfg!(test) { 4 } else { 128 };

/// Whether an event keeps a run alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventClass {
    /// Deadlock detection and `run_until_empty` wait for it.
    Foreground,
    /// Keepalives and idle closes: they run when their time comes, but nothing waits for them.
    Background,
}

/// Names a queued event until it is popped or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventKey {
    slot: u32,
    /// Never 0, so that what may have a key takes no more room than that.
    generation: NonZeroU32,
}

/// What asking for the next event gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Popped<E> {
    Event(SimInstant, E),
    /// The next one is due then, which is too late.
    Later(SimInstant),
    /// There is none.
    Nothing,
}

/// Where a million are queued each is met in memory: it must not lie across two lines of the cache.
#[derive(Debug)]
#[repr(align(32))]
struct Slot<E> {
    generation: NonZeroU32,
    /// Of a free slot: the next free one. Of another: the event's class.
    link: u32,
    event: Option<E>,
}

/// No slot.
const NONE: u32 = u32::MAX;
const FOREGROUND: u32 = 0;
const BACKGROUND: u32 = 1;

/// Events of type `E`, popped in order of (time, sequence number).
#[derive(Debug)]
pub(crate) struct EventQueue<E> {
    /// All before `near_ends`.
    near: Near,
    /// Of a queue of few, whose wheel is not in use, [`SimInstant::NEVER`].
    near_ends: SimInstant,
    /// It was filled since [`take_filled`](Self::take_filled).
    is_filled: bool,
    /// The time of the last event that was popped.
    popped: SimInstant,
    /// What the wheel is seen from: an event lies at the level of the highest six bits in which its
    /// time differs from this. It is neither after `near_ends` nor after anything in the wheel.
    base: u64,
    /// Levels with a bucket that is in use, a bit each.
    levels: u32,
    /// By level: buckets that are in use, a bit each.
    used: [u64; LEVELS],
    /// By level and bucket. Levels are added when they are needed.
    buckets: Vec<[Bucket; BUCKETS]>,
    chunks: Chunks,
    slots: Vec<Slot<E>>,
    /// The first free slot.
    free: u32,
    len: usize,
    /// Entries whose events were removed.
    stale: usize,
    foreground: usize,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self {
            near: Near::default(),
            near_ends: SimInstant::NEVER,
            is_filled: false,
            popped: SimInstant::ZERO,
            base: 0,
            levels: 0,
            used: [0; LEVELS],
            buckets: Vec::new(),
            chunks: Chunks::default(),
            slots: Vec::new(),
            free: NONE,
            len: 0,
            stale: 0,
            foreground: 0,
        }
    }
}

impl<E> Recycle for EventQueue<E> {
    fn recycled(&mut self) -> Self {
        Self {
            near: self.near.recycled(),
            buckets: self.buckets.recycled(),
            chunks: self.chunks.recycled(),
            slots: self.slots.recycled(),
            ..Self::default()
        }
    }
}

impl<E> EventQueue<E> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many queued events keep the run alive.
    pub(crate) fn foreground(&self) -> usize {
        self.foreground
    }

    /// When the earliest event is due.
    #[cfg(test)]
    pub(crate) fn next_at(&mut self) -> Option<SimInstant> {
        self.first().map(|first| first.at)
    }

    pub(crate) fn push(&mut self, at: SimInstant, class: EventClass, event: E) -> EventKey {
        let link = match class {
            EventClass::Foreground => FOREGROUND,
            EventClass::Background => BACKGROUND,
        };
        let key = self.take_slot(link, event);
        self.len += 1;
        self.foreground += usize::from(link == FOREGROUND);
        let entry = Entry { at, key };
        if at >= self.near_ends {
            self.place(entry);
        } else if self.near.push(entry) {
            self.shorten_near();
        }
        key
    }

    fn take_slot(&mut self, link: u32, event: E) -> EventKey {
        let slot = self.free;
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            self.free = entry.link;
            (entry.link, entry.event) = (link, Some(event));
            let generation = entry.generation;
            return EventKey { slot, generation };
        }
        let slot = index_u32(self.slots.len());
        let generation = NonZeroU32::MIN;
        self.slots.push(Slot {
            generation,
            link,
            event: Some(event),
        });
        EventKey { slot, generation }
    }

    /// Moves the later half of the row to the wheel, if it is not before `base`: that is where the first bucket
    /// begins that was looked at, maybe when the clock was far behind it.
    fn shorten_near(&mut self) {
        if let Some((keep, begins)) = self.near.later_half(self.popped)
            && (self.levels == 0 || begins.as_nanos() >= self.base)
        {
            if self.levels == 0 {
                // Not from where it begins: what is pushed next may be anywhere after what was popped.
                self.base = self.popped.min(begins).as_nanos();
            }
            self.near_ends = begins;
            let mut index = keep;
            while let Some(entry) = self.near.get(index) {
                self.place(entry);
                index += 1;
            }
            self.near.truncate(keep);
        }
        self.near.let_grow();
    }

    /// The earliest event, taken out if it is due by `limit`.
    #[inline]
    pub(crate) fn pop_by(&mut self, limit: SimInstant) -> Popped<E> {
        while let Some(first) = self.first() {
            if first.at > limit {
                return Popped::Later(first.at);
            }
            self.near.pop_front();
            self.popped = first.at;
            if let Some(event) = self.take(first.key) {
                return Popped::Event(first.at, event);
            }
        }
        Popped::Nothing
    }

    /// The first entry whose event is queued. It is in front of the row.
    #[inline]
    fn first(&mut self) -> Option<Entry> {
        loop {
            while let Some(first) = self.near.first() {
                if self.is_queued(first.key) {
                    return Some(first);
                }
                self.near.pop_front();
                self.stale -= 1;
            }
            if self.levels == 0 {
                return None;
            }
            self.fill_near();
        }
    }

    /// Moves the first bucket of the wheel to the row, or a part of it that is short enough.
    fn fill_near(&mut self) {
        loop {
            let level = self.levels.trailing_zeros();
            let bucket = self.used[level as usize].trailing_zeros();
            let shift = level * LEVEL_BITS;
            let above = u64::MAX.checked_shl(shift + LEVEL_BITS).unwrap_or(0);
            self.base = (self.base & above) | (u64::from(bucket) << shift);
            let due = self.empty(level as usize, bucket as usize);
            if level > 0 && due.len() > SORTED {
                self.spread(due);
                continue;
            }
            let near = &mut self.near;
            self.chunks.drain(due, |entry| near.fill(entry));
            self.look_at_slots();
            if level > 0 && self.near.len() > 1 {
                self.near.sort();
            }
            self.near.let_grow();
            self.is_filled = true;
            self.near_ends = if self.levels == 0 && self.near.len() <= SORTED {
                SimInstant::NEVER
            } else {
                SimInstant::from_nanos(self.base.saturating_add(1 << shift))
            };
            return;
        }
    }

    /// Reads all slots of the row, one right after the other: so they come from memory together, where
    /// each that is popped would be waited for.
    fn look_at_slots(&self) {
        let seen = self.near.row().fold(0, |seen, entry| {
            seen ^ self.slots[entry.key.slot as usize].generation.get()
        });
        std::hint::black_box(seen);
    }

    /// Whether other events came near since this was asked last: see [`near`](Self::near).
    #[inline]
    pub(super) fn take_filled(&mut self) -> bool {
        std::mem::take(&mut self.is_filled)
    }

    /// The events that are due soon.
    pub(super) fn near(&self) -> impl Iterator<Item = &E> {
        self.near
            .row()
            .filter_map(|entry| self.slots[entry.key.slot as usize].event.as_ref())
    }

    /// Takes an event out before its time. `None` if it was popped or removed already.
    pub(crate) fn remove(&mut self, key: EventKey) -> Option<E> {
        let event = self.take(key)?;
        if self.near.is_in_front(|first| first.key == key) {
            self.near.pop_front();
            return Some(event);
        }
        self.stale += 1;
        if self.stale > MIN_STALE && self.stale > self.len() {
            self.sweep();
        }
        Some(event)
    }

    /// The event, if it is still queued.
    pub(crate) fn get_mut(&mut self, key: EventKey) -> Option<&mut E> {
        self.slots
            .get_mut(key.slot as usize)
            .filter(|slot| slot.generation == key.generation)
            .and_then(|slot| slot.event.as_mut())
    }

    #[inline]
    fn is_queued(&self, key: EventKey) -> bool {
        self.slots[key.slot as usize].generation == key.generation
    }

    #[inline]
    fn take(&mut self, key: EventKey) -> Option<E> {
        let entry = self.slots.get_mut(key.slot as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let event = entry.event.take()?;
        entry.generation = entry.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        self.foreground -= usize::from(entry.link == FOREGROUND);
        entry.link = self.free;
        self.free = key.slot;
        self.len -= 1;
        Some(event)
    }

    /// Puts an entry into the wheel, seen from `base`.
    #[inline]
    fn place(&mut self, entry: Entry) {
        count_moves(1);
        let at = entry.at.as_nanos();
        let level = ((at ^ self.base) | 1).ilog2() / LEVEL_BITS;
        let bucket = usize::try_from((at >> (level * LEVEL_BITS)) % BUCKETS as u64).unwrap_or(0);
        let level = level as usize;
        if level >= self.buckets.len() {
            self.buckets.resize(level + 1, [Bucket::EMPTY; BUCKETS]);
        }
        self.levels |= 1 << level;
        self.used[level] |= 1 << bucket;
        self.chunks.push(&mut self.buckets[level][bucket], entry);
    }

    /// Takes a bucket out of use; its entries are to be drained.
    fn empty(&mut self, level: usize, bucket: usize) -> Bucket {
        self.used[level] &= !(1 << bucket);
        if self.used[level] == 0 {
            self.levels &= !(1 << level);
        }
        std::mem::replace(&mut self.buckets[level][bucket], Bucket::EMPTY)
    }

    /// Places all entries of a bucket, from the first to the last.
    fn spread(&mut self, mut bucket: Bucket) {
        while let Some(chunk) = self.chunks.take_first(&mut bucket) {
            for entry in chunk.entries() {
                self.place(*entry);
            }
        }
    }

    /// Forgets the entries of removed events.
    fn sweep(&mut self) {
        let slots = &self.slots;
        self.near
            .retain(|entry| slots[entry.key.slot as usize].generation == entry.key.generation);
        for level in 0..self.buckets.len() {
            let mut used = self.used[level];
            while used != 0 {
                self.sweep_bucket(level, used.trailing_zeros() as usize);
                used &= used - 1;
            }
        }
        self.stale = 0;
    }

    /// Puts back what is still queued of a bucket, in chunks of which each was just given back.
    fn sweep_bucket(&mut self, level: usize, bucket: usize) {
        let mut swept = self.empty(level, bucket);
        let mut kept = Bucket::EMPTY;
        while let Some(chunk) = self.chunks.take_first(&mut swept) {
            for entry in chunk.entries() {
                if self.is_queued(entry.key) {
                    self.chunks.push(&mut kept, *entry);
                }
            }
        }
        if kept.len() > 0 {
            self.levels |= 1 << level;
            self.used[level] |= 1 << bucket;
            self.buckets[level][bucket] = kept;
        }
    }
}

/// Four thousand million queued events do not fit this machine's memory; a slab that reached
/// them would have failed to allocate long before.
pub(crate) fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
impl<E> EventQueue<E> {
    fn pop(&mut self) -> Option<(SimInstant, E)> {
        match self.pop_by(SimInstant::NEVER) {
            Popped::Event(at, event) => Some((at, event)),
            Popped::Later(_) | Popped::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::super::near::MOVES;
    use super::*;

    fn at(nanos: u64) -> SimInstant {
        SimInstant::ZERO.after(Duration::from_nanos(nanos))
    }

    /// A few that are often the same, and some from each level of the wheel.
    fn times() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..50u64,
            (0..64u32).prop_map(|bits| 3 << bits),
            any::<u64>()
        ]
    }

    #[test]
    fn events_of_one_instant_pop_in_the_order_they_were_pushed() {
        let mut queue = EventQueue::default();
        for event in 0..20 {
            queue.push(at(5), EventClass::Foreground, event);
        }
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, e)| e).collect();
        assert_eq!(popped, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn an_earlier_event_changes_no_order_among_those_behind_it() {
        let mut queue = EventQueue::default();
        for (nanos, event) in [(10, 'b'), (10, 'c'), (5, 'a')] {
            queue.push(at(nanos), EventClass::Foreground, event);
        }
        let popped: String = std::iter::from_fn(|| queue.pop()).map(|(_, e)| e).collect();
        assert_eq!(popped, "abc");
    }

    #[test]
    fn an_event_in_front_of_a_bucket_does_not_hide_that_bucket() {
        let mut queue = EventQueue::default();
        // More than the row holds: the wheel is in use.
        for later in 0..24 {
            queue.push(at(500 + later), EventClass::Background, '-');
        }
        queue.push(at(1), EventClass::Foreground, '1');
        assert_eq!(queue.pop(), Some((at(1), '1')));
        // The first two share a bucket of the second level, the last one would have one of the first.
        queue.push(at(100), EventClass::Foreground, 'b');
        queue.push(at(70), EventClass::Foreground, 'a');
        assert_eq!(queue.pop(), Some((at(70), 'a')));
        queue.push(at(120), EventClass::Foreground, 'c');
        assert_eq!(queue.pop(), Some((at(100), 'b')));
        assert_eq!(queue.pop(), Some((at(120), 'c')));
    }

    #[test]
    fn a_key_does_not_reach_the_next_event_in_its_slot() {
        let mut queue = EventQueue::default();
        let old = queue.push(at(1), EventClass::Foreground, 'a');
        queue.pop();
        let new = queue.push(at(2), EventClass::Foreground, 'b');
        assert_eq!(queue.remove(old), None);
        assert_eq!(queue.remove(new), Some('b'));
    }

    #[test]
    fn background_events_are_counted_apart() {
        let mut queue = EventQueue::default();
        let key = queue.push(at(1), EventClass::Background, ());
        queue.push(at(2), EventClass::Foreground, ());
        assert_eq!((queue.len(), queue.foreground()), (2, 1));
        queue.remove(key);
        queue.pop();
        assert_eq!((queue.len(), queue.foreground()), (0, 0));
    }

    #[test]
    fn cancelled_events_leave_no_memory_behind() {
        let mut queue = EventQueue::default();
        for round in 0..10_000 {
            let key = queue.push(at(1_000_000 + round), EventClass::Foreground, ());
            queue.remove(key);
        }
        assert_eq!((queue.len(), queue.slots.len()), (0, 1));
    }

    #[test]
    fn entries_of_cancelled_events_are_no_more_than_those_of_queued_ones() {
        const QUEUED: u64 = 20;
        // In the row, or before it; in the wheel.
        let cancelled_at: [fn(u64) -> u64; 2] =
            [|round| 1_000_000 - round, |round| (2 << 40) + round];
        for cancelled_at in cancelled_at {
            let mut queue = EventQueue::default();
            // In front of all that are cancelled: those are left where they lie.
            queue.push(at(1), EventClass::Foreground, 0);
            for event in 1..QUEUED {
                queue.push(at((1 << 40) + event), EventClass::Foreground, event);
            }
            assert!(queue.levels != 0 && queue.near.len() > 0);
            for round in 0..10_000 {
                let key = queue.push(at(cancelled_at(round)), EventClass::Foreground, QUEUED);
                queue.remove(key);
                let buckets = queue.buckets.iter().flatten();
                let in_wheel: usize = buckets.map(|bucket| bucket.len()).sum();
                let near = queue.near.len() + queue.near.late();
                let cancelled = near + in_wheel - queue.len();
                assert!(cancelled <= MIN_STALE, "{cancelled} after {round}");
                assert_eq!(queue.stale, cancelled);
            }
            let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, e)| e).collect();
            assert_eq!(popped, (0..QUEUED).collect::<Vec<_>>());
            assert_eq!((queue.stale, queue.chunks.in_use()), (0, 0));
        }
    }

    #[test]
    fn what_was_looked_at_early_does_not_hide_what_comes_before_it() {
        let mut queue = EventQueue::default();
        for event in 0..20 {
            queue.push(at(1), EventClass::Foreground, event);
        }
        for event in 0..100 {
            let time = at(1_000_000 + event / 10);
            queue.push(time, EventClass::Foreground, 1000 + event);
        }
        for event in 0..20 {
            assert_eq!(queue.pop(), Some((at(1), event)));
        }
        assert_eq!(queue.pop_by(at(5)), Popped::Later(at(1_000_000)));
        for event in 0..500 {
            let time = at(10_000 + scattered(event) % 170);
            queue.push(time, EventClass::Foreground, event);
        }
        assert!(queue.near.late() > 300, "{}", queue.near.late());
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let mut expected = popped.clone();
        expected.sort();
        assert_eq!((popped.len(), &popped), (600, &expected));
    }

    #[test]
    fn many_events_of_one_instant_are_sorted_by_nobody_and_let_earlier_ones_pass() {
        let mut queue = EventQueue::default();
        for event in 0..1000 {
            queue.push(at(500), EventClass::Foreground, event);
        }
        for event in 0..10 {
            queue.push(at(400), EventClass::Foreground, event);
        }
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let early = (0..10).map(|event| (at(400), event));
        let late = (0..1000).map(|event| (at(500), event));
        assert_eq!(popped, early.chain(late).collect::<Vec<_>>());
    }

    /// Numbers that look like random ones.
    fn scattered(step: u64) -> u64 {
        (step + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33
    }

    const MANY: u64 = 20_000;

    /// A queue, and what was asked of it.
    #[derive(Default)]
    struct Worked {
        queue: EventQueue<u64>,
        operations: usize,
        pushed: u64,
        last: Option<(SimInstant, u64)>,
    }

    impl Worked {
        fn push(&mut self, nanos: u64) -> EventKey {
            self.operations += 1;
            self.pushed += 1;
            let event = self.pushed;
            self.queue.push(at(nanos), EventClass::Foreground, event)
        }

        /// Pops some, so that the next look is one into the wheel, where all others are to be.
        fn begin(&mut self, others: impl IntoIterator<Item = u64>) {
            for _ in 0..20 {
                self.push(1);
            }
            for nanos in others {
                self.push(nanos);
            }
            for _ in 0..20 {
                self.pop();
            }
            self.look(5);
            assert!(self.queue.base > 5);
        }

        fn look(&mut self, nanos: u64) {
            self.operations += 1;
            assert!(!matches!(self.queue.pop_by(at(nanos)), Popped::Event(..)));
        }

        /// Pops the first one. Nothing earlier is pushed afterwards, so it is behind all before it.
        fn pop(&mut self) -> Option<u64> {
            self.operations += 1;
            let popped = self.queue.pop()?;
            assert!(self.last < Some(popped), "{:?} {popped:?}", self.last);
            self.last = Some(popped);
            Some(popped.0.as_nanos())
        }

        fn remove(&mut self, key: EventKey) {
            self.operations += 1;
            assert!(self.queue.remove(key).is_some());
        }
    }

    /// What a pattern moved, for each thing asked of the queue, until it is empty again.
    fn moves_each(pattern: impl FnOnce(&mut Worked)) -> usize {
        let mut worked = Worked::default();
        MOVES.set(0);
        pattern(&mut worked);
        while worked.pop().is_some() {}
        assert_eq!((worked.queue.stale, worked.queue.chunks.in_use()), (0, 0));
        MOVES.get() / worked.operations
    }

    /// Once a level of the wheel, or the logarithm of how many there are: whatever is greater, and some.
    const MOST_MOVES: usize = 2 * LEVELS;

    #[test]
    fn events_of_one_instant_are_moved_by_none_of_what_is_pushed_while_they_pop() {
        // As nodes whose timers fire together: each sends something, and sleeps again.
        let moves = moves_each(|worked| {
            for _ in 0..MANY {
                worked.push(1_000_000_000);
            }
            for _ in 0..3 * MANY {
                let now = worked.pop().unwrap();
                if now % 1_000_000_000 == 0 {
                    worked.push(now + 1_000_000);
                    worked.push(now + 1_000_000_000);
                }
                // Nor is a heap of them made: there is a wheel for what is later.
                assert_eq!(worked.queue.near.late(), 0);
            }
        });
        assert!(moves <= MOST_MOVES, "{moves}");
    }

    #[test]
    fn no_order_of_pushes_before_what_was_looked_at_moves_many() {
        let orders: [fn(u64) -> u64; 4] = [
            scattered,
            |step| step,
            |step| MANY - step,
            |step| scattered(step) % 3,
        ];
        for (order, time) in orders.into_iter().enumerate() {
            for looks in [MANY, 100, 1] {
                let moves = moves_each(|worked| {
                    worked.begin((0..MANY).map(|step| (1 << 50) + scattered(step)));
                    for step in 0..MANY {
                        if step % looks == 0 {
                            worked.look(5);
                        }
                        worked.push(10 + time(step));
                    }
                });
                assert!(moves <= MOST_MOVES, "{order}, {looks}: {moves}");
            }
        }
    }

    #[test]
    fn what_is_pushed_after_the_last_one_popped_needs_no_heap() {
        // Many of one instant are not in the way either, due or not.
        for (many, instant) in [(0, 0), (MANY, 0), (MANY, 1 << 20)] {
            let moves = moves_each(|worked| {
                for _ in 0..many {
                    worked.push(instant);
                }
                let mut now = 0;
                for step in 0..2 * MANY {
                    worked.push(now + scattered(step));
                    if step >= MANY {
                        now = worked.pop().unwrap();
                    }
                    assert_eq!(worked.queue.near.late(), 0, "{many}, {instant}, {step}");
                }
            });
            assert!(moves <= MOST_MOVES, "{many}, {instant}: {moves}");
        }
    }

    #[test]
    fn pushes_into_the_middle_of_a_long_row_move_few() {
        let moves = moves_each(|worked| {
            worked.begin([1 << 50, 1 << 51]);
            // They are appended to the row.
            for step in 1..MANY {
                worked.push(10 * step);
            }
            assert!(worked.queue.near.len() > 10_000);
            for step in 0..MANY {
                worked.push(10 + scattered(step) % (10 * MANY));
            }
            assert!(worked.queue.near.late() > 10_000);
        });
        assert!(moves <= MOST_MOVES, "{moves}");
    }

    #[test]
    fn a_flood_of_equal_times_is_not_moved_for_a_few_that_come_before_it() {
        for few in [1, 3, 20, 200] {
            let moves = moves_each(|worked| {
                worked.begin((0..MANY).map(|_| 1 << 40));
                for round in 1..100 {
                    worked.look(5);
                    for step in 0..few {
                        worked.push(round * 1000 + scattered(step) % 1000);
                    }
                    for _ in 0..few {
                        worked.pop();
                    }
                }
            });
            assert!(moves <= MOST_MOVES, "{few}: {moves}");
        }
    }

    #[test]
    fn removing_nearly_all_moves_few_and_leaves_little() {
        // In the wheel; in the heap; at one instant.
        let times: [fn(u64) -> u64; 3] = [
            |step| (1 << 50) + scattered(step),
            |step| 10 + scattered(step),
            |_| 500,
        ];
        for time in times {
            let moves = moves_each(|worked| {
                worked.begin((0..20).map(|step| (1 << 50) + scattered(step)));
                for _ in 0..3 {
                    let all: Vec<_> = (0..MANY).map(|step| worked.push(time(step))).collect();
                    for key in &all[10..] {
                        worked.remove(*key);
                    }
                    let queue = &worked.queue;
                    assert!(queue.stale <= MIN_STALE.max(queue.len), "{}", queue.stale);
                    let near = queue.near.len() + queue.near.late();
                    assert!(near + queue.chunks.in_use() < 300);
                }
            });
            assert!(moves <= MOST_MOVES, "{moves}");
        }
    }

    /// What to do, and with which time or event. Three out of so many are no push.
    fn steps() -> impl Strategy<Value = Vec<(u8, u64)>> {
        let of = 5..13u8;
        of.prop_flat_map(|of| proptest::collection::vec((0..of, times()), 1..400))
    }

    /// What the cases of the property below have led to.
    #[derive(Debug, Default)]
    struct Reached {
        /// The most that lay in the heap.
        late: Cell<usize>,
        /// How often something was due when others of the row and of the heap were.
        both: Cell<usize>,
        spread: Cell<bool>,
    }

    impl Reached {
        fn look_at(&self, queue: &EventQueue<usize>) {
            self.late.set(self.late.get().max(queue.near.late()));
            let is_both = queue.near.is_first_of_both();
            self.both.set(self.both.get() + usize::from(is_both));
            let longest = queue.buckets.iter().flatten().any(|b| b.len() > SORTED);
            self.spread.set(self.spread.get() || longest);
        }
    }

    fn matches_a_map(steps: Vec<(u8, u64)>, reached: &Reached) -> Result<(), TestCaseError> {
        let mut queue = EventQueue::default();
        let mut model = BTreeMap::new();
        let mut keys = Vec::new();
        for (sequence, (step, value)) in steps.into_iter().enumerate() {
            match step {
                0 => {
                    let limit = at(value);
                    let first = model.keys().next().copied();
                    let expected = match first {
                        None => Popped::Nothing,
                        Some((v, _)) if at(v) > limit => Popped::Later(at(v)),
                        Some((v, s)) => Popped::Event(at(v), s),
                    };
                    if matches!(expected, Popped::Event(..)) {
                        model.pop_first();
                    }
                    prop_assert_eq!(queue.pop_by(limit), expected);
                }
                1 => {
                    let expected = model.pop_first().map(|((v, s), ())| (at(v), s));
                    prop_assert_eq!(queue.pop(), expected);
                }
                2 if keys.is_empty() => {}
                2 => {
                    let pick = usize::try_from(value % 1_000).unwrap() % keys.len();
                    let (key, v, s) = keys.swap_remove(pick);
                    let expected = model.remove(&(v, s)).map(|()| s);
                    prop_assert_eq!(queue.remove(key), expected);
                }
                _ => {
                    let key = queue.push(at(value), EventClass::Foreground, sequence);
                    model.insert((value, sequence), ());
                    keys.push((key, value, sequence));
                }
            }
            reached.look_at(&queue);
            prop_assert_eq!(queue.len(), model.len());
            prop_assert_eq!(queue.next_at(), model.keys().next().map(|(v, _)| at(*v)));
        }
        Ok(())
    }

    #[test]
    fn any_mix_of_push_pop_and_remove_matches_an_ordered_map() {
        let reached = Reached::default();
        let mut runner = TestRunner::new(ProptestConfig::with_source_file(file!()));
        let outcome = runner.run(&steps(), |steps| matches_a_map(steps, &reached));
        outcome.unwrap_or_else(|failure| panic!("{failure}"));
        // With limits as small as they are in tests, the cases go everywhere.
        assert!(reached.late.get() > 8, "{reached:?}");
        assert!(
            reached.both.get() > 0 && reached.spread.get(),
            "{reached:?}"
        );
    }
}
