//! Lists of entries in chunks: what the buckets of the event queue's wheel hold.

use super::clock::SimInstant;
use super::events::{EventKey, index_u32};
use super::recycle::{Recycle, recycle};

/// Entries of one chunk: with its head it fills eight lines of the cache.
const CHUNK: usize = 31;
/// No chunk.
const NONE: u32 = u32::MAX;

/// An event's place in the queue. Its event is gone if the slot's generation is another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) at: SimInstant,
    pub(super) key: EventKey,
}

/// A list of entries, in the order they were pushed. [`Chunks`] holds them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    first: u32,
    last: u32,
    len: u32,
}

impl Bucket {
    pub(super) const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
        len: 0,
    };

    pub(super) fn len(self) -> usize {
        self.len as usize
    }
}

/// Some entries of one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    entries: [Entry; CHUNK],
    len: u32,
    /// The bucket's next one; of a free chunk, the next free one.
    next: u32,
}

impl Chunk {
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries[..self.len as usize]
    }
}

/// The store of all buckets' chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    all: Vec<Chunk>,
    /// The first free one.
    free: u32,
}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            free: NONE,
        }
    }
}

recycle!(Chunks { all } Self::default());

impl Chunks {
    /// Adds an entry to the end of a bucket.
    #[inline]
    pub(super) fn push(&mut self, bucket: &mut Bucket, entry: Entry) {
        bucket.len += 1;
        if let Some(chunk) = self.all.get_mut(bucket.last as usize)
            && let Some(place) = chunk.entries.get_mut(chunk.len as usize)
        {
            *place = entry;
            chunk.len += 1;
            return;
        }
        let added = self.add(entry);
        match self.all.get_mut(bucket.last as usize) {
            Some(last) => last.next = added,
            None => bucket.first = added,
        }
        bucket.last = added;
    }

    /// A chunk with this entry.
    fn add(&mut self, entry: Entry) -> u32 {
        let added = self.free;
        if let Some(chunk) = self.all.get_mut(added as usize) {
            self.free = chunk.next;
            chunk.entries[0] = entry;
            (chunk.len, chunk.next) = (1, NONE);
            return added;
        }
        self.all.push(Chunk {
            entries: [entry; CHUNK],
            len: 1,
            next: NONE,
        });
        index_u32(self.all.len() - 1)
    }

    /// Takes the first chunk out of a bucket.
    pub(super) fn take_first(&mut self, bucket: &mut Bucket) -> Option<Chunk> {
        let index = bucket.first;
        let chunk = self.all.get_mut(index as usize)?;
        let taken = *chunk;
        chunk.next = self.free;
        self.free = index;
        bucket.first = taken.next;
        Some(taken)
    }

    /// Hands out all entries of a bucket, from the first to the last.
    pub(super) fn drain(&mut self, mut bucket: Bucket, mut each: impl FnMut(Entry)) {
        while let Some(chunk) = self.all.get_mut(bucket.first as usize) {
            for entry in chunk.entries() {
                each(*entry);
            }
            let next = chunk.next;
            chunk.next = self.free;
            self.free = bucket.first;
            bucket.first = next;
        }
    }

    /// How many chunks all buckets in use hold.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        let mut free = 0;
        let mut next = self.free;
        while let Some(chunk) = self.all.get(next as usize) {
            free += 1;
            next = chunk.next;
        }
        self.all.len() - free
    }
}
