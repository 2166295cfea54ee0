//! A generational slot table: values behind tokens that are never valid twice.
//!
//! A token's lower half is `generation << 32 | index`. A slot's generation grows with each value it
//! takes, so a token that outlived its value finds nothing instead of its successor's value. A slot
//! whose generation is used up is retired. Memory is that of the largest number of values at one
//! time.

/// The lower half of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl SlotKey {
    /// `generation << 32 | index`: adding `n` gives the n-th slot of an adjacent run.
    pub(crate) fn to_bits(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of 64 bits, each taken whole"
    )]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

#[derive(Debug)]
struct Slot<V> {
    /// Of the value, or of the next one if there is none. Starts at 1.
    generation: u32,
    value: Option<V>,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct SlotTable<V> {
    slots: Vec<Slot<V>>,
    /// Indices of slots without a value, each once; retired slots are in no list.
    free: Vec<u32>,
    len: usize,
}

impl<V> SlotTable<V> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes the value in and names its slot. `None` gives it back when all 2^32 slots are in use.
    #[inline]
    pub(crate) fn insert(&mut self, value: V) -> Result<SlotKey, V> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => match self.grow(1) {
                Some(index) => index,
                None => return Err(value),
            },
        };
        Ok(self.fill(index, value))
    }

    /// Names a slot for the value, which is made in its place. `None` when all 2^32 slots are in use.
    #[inline]
    pub(crate) fn insert_with(&mut self, make: impl FnOnce() -> V) -> Option<SlotKey> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.grow(1)?,
        };
        Some(self.fill(index, make()))
    }

    /// Takes the values into adjacent slots of one generation, and names the first: the i-th
    /// value's key has the same generation and `index + i`. `None` if there is no room, or no value.
    pub(crate) fn insert_run(&mut self, values: Vec<V>) -> Option<SlotKey> {
        let count = u32::try_from(values.len())
            .ok()
            .filter(|&count| count > 0)?;
        let start = match self.free_run(count) {
            Some(start) => start,
            None => self.grow(count)?,
        };
        let range = start as usize..start as usize + values.len();
        let generation = self.slots[range].iter().map(|slot| slot.generation).max()?;
        for (index, value) in (start..).zip(values) {
            self.slots[index as usize].generation = generation;
            self.fill(index, value);
        }
        let slots = &self.slots;
        self.free
            .retain(|&index| slots[index as usize].value.is_none());
        Some(SlotKey {
            index: start,
            generation,
        })
    }

    /// The value, unless it was removed.
    #[inline]
    pub(crate) fn get(&self, key: SlotKey) -> Option<&V> {
        let slot = self.slots.get(key.index as usize)?;
        (slot.generation == key.generation).then_some(slot.value.as_ref()?)
    }

    /// The value, unless it was removed.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: SlotKey) -> Option<&mut V> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation {
            slot.value.as_mut()
        } else {
            None
        }
    }

    /// Gives the value back and ends the key.
    pub(crate) fn remove(&mut self, key: SlotKey) -> Option<V> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        self.vacate(key.index);
        Some(value)
    }

    /// Drops the value where it is and ends the key, without moving it. What its destructor does must
    /// not reach the table.
    #[inline]
    pub(crate) fn discard(&mut self, key: SlotKey) {
        if let Some(value) = self.value_mut(key)
            && value.is_some()
        {
            *value = None;
            self.vacate(key.index);
        }
    }

    fn value_mut(&mut self, key: SlotKey) -> Option<&mut Option<V>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        (slot.generation == key.generation).then_some(&mut slot.value)
    }

    /// The slot has no value any more, and its key ends.
    #[inline]
    fn vacate(&mut self, index: u32) {
        self.len -= 1;
        if let Some(slot) = self.slots.get_mut(index as usize)
            && let Some(next) = slot.generation.checked_add(1)
        {
            slot.generation = next;
            self.free.push(index);
        }
    }

    /// Removes all values, in order of their slots.
    pub(crate) fn drain(&mut self) -> Vec<V> {
        let keys: Vec<SlotKey> = self.keys().collect();
        keys.into_iter()
            .filter_map(|key| self.remove(key))
            .collect()
    }

    /// The keys of all values, in order of their slots.
    pub(crate) fn keys(&self) -> impl Iterator<Item = SlotKey> + '_ {
        (0..).zip(&self.slots).filter_map(|(index, slot)| {
            slot.value.as_ref().map(|_| SlotKey {
                index,
                generation: slot.generation,
            })
        })
    }

    #[inline]
    fn fill(&mut self, index: u32, value: V) -> SlotKey {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.value.is_none(), "a free slot holds no value");
        slot.value = Some(value);
        self.len += 1;
        SlotKey {
            index,
            generation: slot.generation,
        }
    }

    /// Adds `count` slots and gives the first one's index.
    #[cold]
    fn grow(&mut self, count: u32) -> Option<u32> {
        let start = u32::try_from(self.slots.len()).ok()?;
        start.checked_add(count)?;
        for _ in 0..count {
            self.slots.push(Slot {
                generation: 1,
                value: None,
            });
        }
        Some(start)
    }

    /// First fit. A scan, but runs are made when an interface is registered, not per message, and
    /// without it alternating runs of different lengths would make the table grow for ever.
    fn free_run(&self, count: u32) -> Option<u32> {
        let mut length = 0;
        for (index, slot) in (0_u32..).zip(&self.slots) {
            let usable = slot.value.is_none() && slot.generation < u32::MAX;
            length = if usable { length + 1 } else { 0 };
            if length == count {
                return Some(index + 1 - count);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_key_never_finds_its_successor() {
        let mut table = SlotTable::new();
        let first = table.insert("first").unwrap();
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second").unwrap();
        assert_eq!(second.index, first.index);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&"second"));
    }

    #[test]
    fn runs_are_adjacent_and_reuse_freed_slots() {
        let mut table = SlotTable::new();
        let single = table.insert(0).unwrap();
        for _ in 0..100 {
            let base = table.insert_run(vec![1, 2, 3]).unwrap();
            for i in 0..3 {
                let key = SlotKey::from_bits(base.to_bits() + i);
                assert_eq!(table.remove(key), Some(i + 1_u64));
            }
        }
        assert_eq!(table.slots.len(), 4);
        assert_eq!(table.free.len(), 3);
        assert_eq!(table.remove(single), Some(0));
    }

    #[test]
    fn a_used_up_slot_is_retired() {
        let mut table = SlotTable::new();
        let key = table.insert(()).unwrap();
        table.slots[0].generation = u32::MAX;
        let last = SlotKey {
            generation: u32::MAX,
            ..key
        };
        assert_eq!(table.remove(last), Some(()));
        assert_eq!(table.insert(()).unwrap().index, 1);
        assert_eq!(table.insert_run(vec![(), ()]).unwrap().index, 2);
    }

    #[test]
    fn a_run_of_nothing_is_refused() {
        assert_eq!(SlotTable::<()>::new().insert_run(Vec::new()), None);
    }
}
