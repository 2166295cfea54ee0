//! A slab whose keys die with their entries: a key that was kept too long finds nothing.

use super::events::index_u32;
use super::recycle::Recycle;

#[cfg(test)]
thread_local! {
    /// How many slots of this thread's slabs were looked at by iterations.
    pub(super) static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Names an entry until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// That of the first entry ever.
    pub(crate) const FIRST: Self = Self {
        index: 0,
        generation: 0,
    };

    /// The entry's place.
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    /// For digests, traces and reports.
    pub(crate) fn number(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// The key with this [`number`](Self::number).
    pub(crate) fn of_number(number: u64) -> Option<Self> {
        Some(Self {
            index: u32::try_from(number & u64::from(u32::MAX)).ok()?,
            generation: u32::try_from(number >> 32).ok()?,
        })
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Recycle for Slab<T> {
    fn recycled(&mut self) -> Self {
        Self {
            slots: self.slots.recycled(),
            free: self.free.recycled(),
        }
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds the entry that `make` gives for its key, and passes on what else it gives.
    pub(crate) fn insert_with<R>(&mut self, make: impl FnOnce(Key) -> (T, R)) -> (Key, R) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                entry: None,
            });
            index_u32(self.slots.len() - 1)
        });
        let slot = &mut self.slots[index as usize];
        let key = Key {
            index,
            generation: slot.generation,
        };
        let (entry, rest) = make(key);
        slot.entry = Some(entry);
        (key, rest)
    }

    pub(crate) fn insert(&mut self, entry: T) -> Key {
        self.insert_with(|_| (entry, ())).0
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.slots
            .get(key.index as usize)
            .filter(|slot| slot.generation == key.generation)
            .and_then(|slot| slot.entry.as_ref())
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slots
            .get_mut(key.index as usize)
            .filter(|slot| slot.generation == key.generation)
            .and_then(|slot| slot.entry.as_mut())
    }

    /// The entry at a place, whichever that is.
    pub(crate) fn at(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.entry.as_ref()
    }

    /// As [`at`](Self::at), to be changed.
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.entry.as_mut()
    }

    /// The key of the entry at a place.
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + usize::from(index != u32::MAX));
        let slot = self.slots.get(index as usize)?;
        let generation = slot.generation;
        slot.entry.is_some().then_some(Key { index, generation })
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self
            .slots
            .get_mut(key.index as usize)
            .filter(|slot| slot.generation == key.generation)?;
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(entry)
    }

    /// All entries, by index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            #[cfg(test)]
            LOOKS.set(LOOKS.get() + 1);
            let key = Key {
                index: index_u32(index),
                generation: slot.generation,
            };
            slot.entry.as_ref().map(|entry| (key, entry))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_nothing_once_its_entry_is_removed() {
        let mut slab = Slab::default();
        let old = slab.insert('a');
        assert_eq!(slab.remove(old), Some('a'));
        let new = slab.insert('b');
        assert_eq!((slab.get(old), slab.get(new)), (None, Some(&'b')));
        assert_eq!((slab.remove(old), slab.len()), (None, 1));
        assert_eq!(Key::of_number(new.number()), Some(new));
    }
}
