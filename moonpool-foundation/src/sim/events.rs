//! The event queue: ordered by (time, sequence number), with removal.
//!
//! A four-ary heap of 24-byte keys over a slab of events; each event knows its place in the heap,
//! so that a dropped sleep or a closed connection takes its events along. Nothing cancelled stays
//! queued, keeps a run alive or makes memory grow.

use super::clock::SimInstant;

/// Children of a heap node. Four fit one cache line and halve the depth of a binary heap.
const ARITY: usize = 4;

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

#[derive(Clone, Copy, Debug)]
struct HeapEntry {
    at: SimInstant,
    sequence: u64,
    slot: u32,
}

impl HeapEntry {
    fn before(&self, other: &Self) -> bool {
        (self.at, self.sequence) < (other.at, other.sequence)
    }
}

#[derive(Debug)]
struct Slot<E> {
    generation: u32,
    /// Meaningful while `event` is there.
    heap_index: u32,
    event: Option<(E, EventClass)>,
}

/// Events of type `E`, popped in order of (time, sequence number).
#[derive(Debug)]
pub(crate) struct EventQueue<E> {
    heap: Vec<HeapEntry>,
    slots: Vec<Slot<E>>,
    free: Vec<u32>,
    next_sequence: u64,
    foreground: usize,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self {
            heap: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            next_sequence: 0,
            foreground: 0,
        }
    }
}

impl<E> EventQueue<E> {
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// How many queued events keep the run alive.
    pub(crate) fn foreground(&self) -> usize {
        self.foreground
    }

    pub(crate) fn next_at(&self) -> Option<SimInstant> {
        self.heap.first().map(|entry| entry.at)
    }

    pub(crate) fn push(&mut self, at: SimInstant, class: EventClass, event: E) -> EventKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                heap_index: 0,
                event: None,
            });
            index_u32(self.slots.len() - 1)
        });
        let key = EventKey {
            slot,
            generation: self.slots[slot as usize].generation,
        };
        self.slots[slot as usize].event = Some((event, class));
        if class == EventClass::Foreground {
            self.foreground += 1;
        }
        self.heap.push(HeapEntry {
            at,
            sequence: self.next_sequence,
            slot,
        });
        self.next_sequence += 1;
        self.sift_up(self.heap.len() - 1);
        key
    }

    /// The earliest event, taken out.
    pub(crate) fn pop(&mut self) -> Option<(SimInstant, E)> {
        let first = *self.heap.first()?;
        let event = self.take(first.slot)?;
        self.remove_at(0);
        Some((first.at, event))
    }

    /// Takes an event out before its time. `None` if it was popped or removed already.
    pub(crate) fn remove(&mut self, key: EventKey) -> Option<E> {
        if !self.contains(key) {
            return None;
        }
        let heap_index = self.slots[key.slot as usize].heap_index as usize;
        let event = self.take(key.slot)?;
        self.remove_at(heap_index);
        Some(event)
    }

    pub(crate) fn contains(&self, key: EventKey) -> bool {
        self.slots
            .get(key.slot as usize)
            .is_some_and(|slot| slot.generation == key.generation && slot.event.is_some())
    }

    /// The event, if it is still queued.
    pub(crate) fn get_mut(&mut self, key: EventKey) -> Option<&mut E> {
        self.slots
            .get_mut(key.slot as usize)
            .filter(|slot| slot.generation == key.generation)
            .and_then(|slot| slot.event.as_mut().map(|(event, _)| event))
    }

    fn take(&mut self, slot: u32) -> Option<E> {
        let entry = &mut self.slots[slot as usize];
        let (event, class) = entry.event.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
        if class == EventClass::Foreground {
            self.foreground -= 1;
        }
        Some(event)
    }

    fn remove_at(&mut self, index: usize) {
        let last = self.heap.len() - 1;
        self.heap.swap_remove(index);
        if index == last {
            return;
        }
        self.sift_down(index);
        self.sift_up(index);
    }

    fn sift_up(&mut self, mut index: usize) {
        let entry = self.heap[index];
        while index > 0 {
            let parent = (index - 1) / ARITY;
            if !entry.before(&self.heap[parent]) {
                break;
            }
            self.place(index, self.heap[parent]);
            index = parent;
        }
        self.place(index, entry);
    }

    fn sift_down(&mut self, mut index: usize) {
        let entry = self.heap[index];
        loop {
            let first_child = index * ARITY + 1;
            let children = first_child..(first_child + ARITY).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| {
                let child = &self.heap[child];
                (child.at, child.sequence)
            }) else {
                break;
            };
            if !self.heap[least].before(&entry) {
                break;
            }
            self.place(index, self.heap[least]);
            index = least;
        }
        self.place(index, entry);
    }

    fn place(&mut self, index: usize, entry: HeapEntry) {
        self.heap[index] = entry;
        self.slots[entry.slot as usize].heap_index = index_u32(index);
    }
}

/// Four thousand million queued events do not fit this machine's memory; a slab that reached
/// them would have failed to allocate long before.
pub(crate) fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
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

    proptest! {
        #[test]
        fn any_mix_of_push_pop_and_remove_matches_an_ordered_map(
            steps in proptest::collection::vec((0u8..4, 0u64..50), 1..400)
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
                        let expected = model.pop_first().map(|((v, s), ())| (at(v), s));
                        prop_assert_eq!(queue.pop(), expected);
                    }
                    _ if keys.is_empty() => {}
                    _ => {
                        let pick = usize::try_from(value).unwrap() % keys.len();
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
