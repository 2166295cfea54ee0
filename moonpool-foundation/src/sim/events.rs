//! The event queue: ordered by (time, sequence number), with removal.
//!
//! A timing wheel of eleven levels of 64 buckets, from single nanoseconds to all of virtual time,
//! over a slab of events (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987).
//! An event lies in the bucket of the highest six bits in which its time differs from the time that
//! was popped last; when the earliest bucket is reached, it is spread over lower levels, seen from
//! its own earliest event. So an event moves a few times, whatever the number of others, and along
//! contiguous memory.
//!
//! Events of one instant always share a bucket, in the order they were pushed: no sequence number
//! is kept. A dropped sleep or a closed connection frees its event at once; the 16 bytes that named
//! it in a bucket stay until they are met, or until they are more than those of queued events.

use super::clock::SimInstant;

/// Bits of a time that choose a bucket of one level.
const LEVEL_BITS: u32 = 6;
const BUCKETS: usize = 1 << LEVEL_BITS;
/// Enough for the 64 bits of a time.
const LEVELS: usize = 11;
/// Names of removed events that buckets may hold, however few are queued.
const MIN_STALE: usize = 64;
/// The largest buffer, in names of events, that an emptied bucket leaves to the next one.
const MAX_SPARE: usize = 1 << 10;

/// When a bucket of so many events at most is spread, they are all looked at: asked for together, they
/// come from memory at once, where each that is popped would be waited for.
const FETCHED: usize = 512;

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
    generation: u32,
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

/// An event's place in a bucket. Its event is gone if the slot's generation is another one.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: SimInstant,
    key: EventKey,
}

#[derive(Debug)]
struct Slot<E> {
    generation: u32,
    class: EventClass,
    event: Option<E>,
}

/// Events of type `E`, popped in order of (time, sequence number).
#[derive(Debug)]
pub(crate) struct EventQueue<E> {
    /// One that is earlier than all others, and in no bucket: where little is queued, that is the next
    /// one, and it takes neither a bucket nor a search. While there is one, nothing is due.
    front: Option<Entry>,
    /// No queued event is earlier.
    base: SimInstant,
    /// Events at `base`, from `next_due` on.
    due: Vec<EventKey>,
    next_due: usize,
    /// Levels with a bucket that is in use, a bit each.
    levels: u32,
    /// By level: buckets that are in use, a bit each.
    used: [u64; LEVELS],
    /// By level and bucket, if that is in use: which buffer it has. Levels are added when they are
    /// needed.
    buckets: Vec<[u16; BUCKETS]>,
    buffers: Vec<Vec<Entry>>,
    /// Empty ones.
    spare: Vec<u16>,
    /// The earliest event that is not due, if that is known, and unless it was removed since.
    earliest: Option<Entry>,
    slots: Vec<Slot<E>>,
    free: Vec<u32>,
    /// Entries whose events were removed.
    stale: usize,
    foreground: usize,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self {
            front: None,
            base: SimInstant::ZERO,
            due: Vec::new(),
            next_due: 0,
            levels: 0,
            used: [0; LEVELS],
            buckets: Vec::new(),
            buffers: Vec::new(),
            spare: Vec::new(),
            earliest: None,
            slots: Vec::new(),
            free: Vec::new(),
            stale: 0,
            foreground: 0,
        }
    }
}

impl<E> EventQueue<E> {
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many queued events keep the run alive.
    pub(crate) fn foreground(&self) -> usize {
        self.foreground
    }

    /// When the earliest event is due.
    #[cfg(test)]
    pub(crate) fn next_at(&mut self) -> Option<SimInstant> {
        if let Some(front) = self.front {
            return Some(front.at);
        }
        self.skip_stale_due();
        if self.next_due < self.due.len() {
            return Some(self.base);
        }
        self.earliest_in_buckets().map(|entry| entry.at)
    }

    fn earliest_in_buckets(&mut self) -> Option<Entry> {
        let known = self.earliest;
        if let Some(known) = known
            && self.is_queued(known.key)
        {
            return Some(known);
        }
        self.earliest = self.find_earliest();
        self.earliest
    }

    pub(crate) fn push(&mut self, at: SimInstant, class: EventClass, event: E) -> EventKey {
        let key = match self.free.pop() {
            Some(slot) => {
                let entry = &mut self.slots[slot as usize];
                (entry.class, entry.event) = (class, Some(event));
                EventKey {
                    slot,
                    generation: entry.generation,
                }
            }
            None => {
                self.slots.push(Slot {
                    generation: 0,
                    class,
                    event: Some(event),
                });
                EventKey {
                    slot: index_u32(self.slots.len() - 1),
                    generation: 0,
                }
            }
        };
        if class == EventClass::Foreground {
            self.foreground += 1;
        }
        if at < self.base {
            self.move_base_back(at);
        }
        self.put(Entry { at, key });
        key
    }

    /// Puts a new entry in front, or where it belongs behind that.
    #[inline]
    fn put(&mut self, entry: Entry) {
        match self.front {
            Some(front) if entry.at > front.at => self.place_new(entry),
            Some(front) if entry.at == front.at => {
                self.front = None;
                self.place_new(front);
                self.place_new(entry);
            }
            Some(front) => {
                self.place_new(front);
                self.front = Some(entry);
            }
            None if self.is_before_all(entry.at) => self.front = Some(entry),
            None => self.place_new(entry),
        }
    }

    /// Whether an event at `at` is known to be earlier than all there are.
    fn is_before_all(&self, at: SimInstant) -> bool {
        let is_before_buckets =
            self.levels == 0 || self.earliest.is_some_and(|earliest| at < earliest.at);
        is_before_buckets && self.due.is_empty()
    }

    fn place_new(&mut self, entry: Entry) {
        if self.earliest.is_some_and(|earliest| entry.at < earliest.at) {
            self.earliest = Some(entry);
        }
        self.place(entry);
    }

    /// The earliest event, taken out if it is due by `limit`.
    #[inline]
    pub(crate) fn pop_by(&mut self, limit: SimInstant) -> Popped<E> {
        let Some(front) = self.front else {
            return self.pop_behind(limit);
        };
        if front.at > limit {
            return Popped::Later(front.at);
        }
        self.front = None;
        if self.levels == 0 {
            // Buckets are seen from here: it must not move while one is in use.
            self.base = front.at;
        }
        match self.take(front.key) {
            Some(event) => Popped::Event(front.at, event),
            None => self.pop_behind(limit),
        }
    }

    /// As [`pop_by`](Self::pop_by), of those that are not in front.
    fn pop_behind(&mut self, limit: SimInstant) -> Popped<E> {
        loop {
            if self.next_due < self.due.len() {
                self.skip_stale_due();
                let is_due = self.next_due < self.due.len();
                if is_due && self.base > limit {
                    return Popped::Later(self.base);
                }
                if let Some(event) = self.pop_due() {
                    return Popped::Event(self.base, event);
                }
            }
            let Some(earliest) = self.earliest_in_buckets() else {
                return Popped::Nothing;
            };
            if earliest.at > limit {
                return Popped::Later(earliest.at);
            }
            if let Some(event) = self.advance(earliest.at) {
                return Popped::Event(earliest.at, event);
            }
        }
    }

    /// The first event at `base`.
    fn pop_due(&mut self) -> Option<E> {
        while let Some(key) = self.due.get(self.next_due).copied() {
            self.next_due += 1;
            if self.next_due == self.due.len() {
                self.due.clear();
                self.next_due = 0;
            }
            if let Some(event) = self.take(key) {
                return Some(event);
            }
            self.stale -= 1;
        }
        None
    }

    /// Takes an event out before its time. `None` if it was popped or removed already.
    pub(crate) fn remove(&mut self, key: EventKey) -> Option<E> {
        let event = self.take(key)?;
        if self.front.is_some_and(|front| front.key == key) {
            self.front = None;
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

    fn is_queued(&self, key: EventKey) -> bool {
        self.slots[key.slot as usize].generation == key.generation
    }

    fn take(&mut self, key: EventKey) -> Option<E> {
        let entry = self.slots.get_mut(key.slot as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let event = entry.event.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        if entry.class == EventClass::Foreground {
            self.foreground -= 1;
        }
        self.free.push(key.slot);
        Some(event)
    }

    /// Puts an entry where it belongs, seen from `base`.
    fn place(&mut self, entry: Entry) {
        let (at, base) = (entry.at.as_nanos(), self.base.as_nanos());
        let differs = at ^ base;
        if differs == 0 {
            self.due.push(entry.key);
            return;
        }
        let level = differs.ilog2() / LEVEL_BITS;
        let bucket = usize::try_from((at >> (level * LEVEL_BITS)) % BUCKETS as u64).unwrap_or(0);
        let level = level as usize;
        let bit = 1 << bucket;
        if self.used[level] & bit == 0 {
            self.levels |= 1 << level;
            self.used[level] |= bit;
            if level >= self.buckets.len() {
                self.buckets.resize(level + 1, [0; BUCKETS]);
            }
            self.buckets[level][bucket] = self.spare.pop().unwrap_or_else(|| {
                self.buffers.push(Vec::new());
                // There are no more of them than buckets.
                u16::try_from(self.buffers.len() - 1).unwrap_or(u16::MAX)
            });
        }
        self.buffers[usize::from(self.buckets[level][bucket])].push(entry);
    }

    /// The bucket that holds the earliest events.
    fn first_bucket(&self) -> Option<(usize, usize)> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros() as usize;
        Some((level, self.used[level].trailing_zeros() as usize))
    }

    fn disuse(&mut self, level: usize, bucket: usize) {
        self.used[level] &= !(1 << bucket);
        if self.used[level] == 0 {
            self.levels &= !(1 << level);
        }
    }

    /// Takes a bucket out of use; its buffer is to be handed back.
    fn empty(&mut self, level: usize, bucket: usize) -> (u16, Vec<Entry>) {
        self.disuse(level, bucket);
        let buffer = self.buckets[level][bucket];
        (
            buffer,
            std::mem::take(&mut self.buffers[usize::from(buffer)]),
        )
    }

    fn hand_back(&mut self, buffer: u16, mut entries: Vec<Entry>) {
        if entries.capacity() <= MAX_SPARE {
            entries.clear();
            self.buffers[usize::from(buffer)] = entries;
        }
        self.spare.push(buffer);
    }

    /// When the first event is due that is in a bucket. Removed ones are dropped on the way.
    fn find_earliest(&mut self) -> Option<Entry> {
        loop {
            let (level, bucket) = self.first_bucket()?;
            let entries = &self.buffers[usize::from(self.buckets[level][bucket])];
            let first = match entries.as_slice() {
                [alone] => Some(*alone),
                entries => entries.iter().min_by_key(|entry| entry.at).copied(),
            };
            if first.is_some_and(|first| self.is_queued(first.key)) {
                return first;
            }
            let (buffer, mut entries) = self.empty(level, bucket);
            self.drop_stale(&mut entries);
            for entry in &entries {
                self.place(*entry);
            }
            self.hand_back(buffer, entries);
        }
    }

    /// Moves `base` to the earliest event that is in a bucket, and spreads that bucket. An event that
    /// is alone in it is handed out at once.
    fn advance(&mut self, earliest: SimInstant) -> Option<E> {
        let (level, bucket) = self.first_bucket()?;
        self.base = earliest;
        self.earliest = None;
        let buffer = self.buckets[level][bucket];
        let entries = &mut self.buffers[usize::from(buffer)];
        if entries.len() == 1
            && let Some(alone) = entries.pop()
        {
            self.disuse(level, bucket);
            self.spare.push(buffer);
            return self.take(alone.key);
        }
        let (buffer, mut entries) = self.empty(level, bucket);
        if entries.len() <= FETCHED {
            self.drop_stale(&mut entries);
        }
        for entry in &entries {
            self.place(*entry);
        }
        self.hand_back(buffer, entries);
        None
    }

    fn drop_stale(&mut self, entries: &mut Vec<Entry>) {
        let before = entries.len();
        entries.retain(|entry| self.is_queued(entry.key));
        self.stale -= before - entries.len();
    }

    fn skip_stale_due(&mut self) {
        while let Some(key) = self.due.get(self.next_due).copied()
            && !self.is_queued(key)
        {
            self.next_due += 1;
            self.stale -= 1;
        }
        if self.next_due == self.due.len() {
            self.due.clear();
            self.next_due = 0;
        }
    }

    /// Forgets the entries of removed events.
    fn sweep(&mut self) {
        self.due.drain(..self.next_due);
        self.next_due = 0;
        let mut due = std::mem::take(&mut self.due);
        due.retain(|key| self.is_queued(*key));
        self.due = due;
        for level in 0..self.buckets.len() {
            let mut left = self.used[level];
            while left != 0 {
                let bucket = left.trailing_zeros() as usize;
                left &= left - 1;
                let (buffer, mut entries) = self.empty(level, bucket);
                entries.retain(|entry| self.is_queued(entry.key));
                for entry in &entries {
                    self.place(*entry);
                }
                self.hand_back(buffer, entries);
            }
        }
        self.stale = 0;
    }

    /// Makes room for an event before all that were popped. The clock never goes back, so that no
    /// world does this.
    fn move_base_back(&mut self, to: SimInstant) {
        let mut all: Vec<Entry> = self.front.take().into_iter().collect();
        self.earliest = None;
        let due = self.due.drain(..).skip(self.next_due);
        all.extend(due.map(|key| Entry { at: self.base, key }));
        self.next_due = 0;
        while let Some((level, bucket)) = self.first_bucket() {
            let (buffer, mut entries) = self.empty(level, bucket);
            all.append(&mut entries);
            self.hand_back(buffer, entries);
        }
        self.base = to;
        for entry in all {
            self.place(entry);
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
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

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
        let mut queue = EventQueue::default();
        queue.push(at(1 << 40), EventClass::Foreground, ());
        for round in 0..10_000 {
            let key = queue.push(at(1_000_000 + round), EventClass::Foreground, ());
            queue.remove(key);
            let entries: usize = queue.buffers.iter().map(Vec::len).sum();
            assert!(entries <= MIN_STALE + 1, "{entries} after {round}");
        }
    }

    proptest! {
        #[test]
        fn any_mix_of_push_pop_and_remove_matches_an_ordered_map(
            steps in proptest::collection::vec((0u8..5, times()), 1..400)
        ) {
            let mut queue = EventQueue::default();
            let mut model = BTreeMap::new();
            let mut keys = Vec::new();
            for (sequence, (step, value)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        let key = queue.push(at(value), EventClass::Foreground, sequence);
                        model.insert((value, sequence), ());
                        keys.push((key, value, sequence));
                    }
                    2 => {
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
                    3 => {
                        let expected = model.pop_first().map(|((v, s), ())| (at(v), s));
                        prop_assert_eq!(queue.pop(), expected);
                    }
                    _ if keys.is_empty() => {}
                    _ => {
                        let pick = usize::try_from(value % 1_000).unwrap() % keys.len();
                        let (key, v, s) = keys.swap_remove(pick);
                        let expected = model.remove(&(v, s)).map(|()| s);
                        prop_assert_eq!(queue.remove(key), expected);
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.next_at(), model.keys().next().map(|(v, _)| at(*v)));
            }
        }
    }
}
