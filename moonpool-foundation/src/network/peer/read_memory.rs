//! [`ReadMemory`]: what the connections of a transport read into.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::budget::SharedBudget;

/// Memory that is kept to be read into again, all of it together.
const SPARE_BYTES: usize = 8 * 1024 * 1024;

/// A piece that is larger is not kept: it would leave no room for others.
pub(super) const LARGEST_SPARE: usize = SPARE_BYTES / 2;

/// Pieces that are kept at most: those that are looked through for one that is free.
const SPARES: usize = 8;

/// A piece that is so many times as large as what is asked for stays for those who need it.
const TOO_LARGE: usize = 4;

/// Where in a piece is read. A socket fills its pages from their beginning, and the processor copies slowly
/// between places that are a little more than a whole number of pages apart: with pieces that began like
/// pages, `writev` of a megabyte took five times as long.
pub(super) const PIECE_OFFSET: usize = 1024;

/// Pieces that were of no use for this long are let go of.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// A piece of memory that was read into. Parts of it may still be with whom they were handed to.
#[derive(Debug)]
struct Spare {
    piece: BytesMut,
    bytes: usize,
}

/// How much the connections of a transport may read into together, and pieces of memory for large
/// packets that are used again: to ask the system for a megabyte, touch it and give it back costs
/// more than to read it.
///
/// A piece is free once nobody has a part of it any more. What is kept counts against the budget,
/// goes when memory is short, with the last connection, and when no large packet came for a second.
#[derive(Debug)]
pub(super) struct ReadMemory {
    budget: SharedBudget,
    spares: RefCell<VecDeque<Spare>>,
    /// Bytes of them.
    kept: Cell<usize>,
    used_at: Cell<Duration>,
    readers: Cell<usize>,
}

impl ReadMemory {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            budget: SharedBudget::new(limit),
            spares: RefCell::default(),
            kept: Cell::new(0),
            used_at: Cell::new(Duration::ZERO),
            readers: Cell::new(0),
        }
    }

    pub(super) fn budget(&self) -> &SharedBudget {
        &self.budget
    }

    /// Whether so many bytes more are within the limit, if need be without what is only kept.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        if !self.budget.fits(bytes) {
            self.clear();
        }
        self.budget.fits(bytes)
    }

    /// Whether half of the limit is taken, not counting what is only kept.
    pub(super) fn is_short(&self) -> bool {
        if self.budget.is_short() {
            self.clear();
        }
        self.budget.is_short()
    }

    pub(super) fn handle_reader_added(&self) {
        self.readers.set(self.readers.get() + 1);
    }

    pub(super) fn handle_reader_removed(&self) {
        self.readers.set(self.readers.get() - 1);
        if self.readers.get() == 0 {
            self.clear();
        }
    }

    /// An empty piece with room for so many bytes, and the bytes of the memory that it is part of.
    pub(super) fn take(&self, bytes: usize) -> (BytesMut, usize) {
        let bytes = bytes + PIECE_OFFSET;
        let (mut piece, memory) = match self.take_free(bytes) {
            Some(spare) => (spare.piece, spare.bytes),
            None => (BytesMut::with_capacity(bytes), bytes),
        };
        piece.resize(PIECE_OFFSET, 0);
        piece.advance(PIECE_OFFSET);
        (piece, memory)
    }

    /// The one that was used last: most of it may still be in a cache.
    fn take_free(&self, bytes: usize) -> Option<Spare> {
        let mut spares = self.spares.borrow_mut();
        let fits = bytes..=bytes.saturating_mul(TOO_LARGE);
        let at = spares
            .iter_mut()
            .rposition(|spare| fits.contains(&spare.bytes) && spare.piece.try_reclaim(bytes))?;
        let spare = spares.remove(at)?;
        self.forget(spare.bytes);
        Some(spare)
    }

    /// Large packets come: what is kept for them is of use.
    pub(super) fn note_use(&self, now: Duration) {
        self.used_at.set(now);
    }

    /// Keeps a piece of `bytes` that was read into, unless memory is short. What of it is still in
    /// `piece` is of no use any more.
    pub(super) fn keep(&self, mut piece: BytesMut, bytes: usize) {
        if bytes > LARGEST_SPARE || self.budget.is_short() || !self.budget.fits(bytes) {
            return;
        }
        piece.clear();
        let mut spares = self.spares.borrow_mut();
        while spares.len() >= SPARES || self.kept.get() + bytes > SPARE_BYTES {
            match spares.pop_front() {
                Some(oldest) => self.forget(oldest.bytes),
                None => break,
            }
        }
        spares.push_back(Spare { piece, bytes });
        self.kept.set(self.kept.get() + bytes);
        self.budget.add(bytes);
    }

    /// A connection has nothing to read: lets go of what was not used for long.
    pub(super) fn handle_blocked(&self, now: Duration) {
        if self.kept.get() > 0 && now >= self.used_at.get() + KEPT_FOR {
            self.clear();
        }
    }

    fn clear(&self) {
        for spare in self.spares.take() {
            self.forget(spare.bytes);
        }
    }

    fn forget(&self, bytes: usize) {
        self.kept.set(self.kept.get() - bytes);
        self.budget.remove(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 1 << 20;

    /// Keeps a piece that was read into, and gives what was read.
    fn kept(memory: &ReadMemory, bytes: usize) -> bytes::Bytes {
        let (mut piece, whole) = memory.take(bytes);
        piece.resize(bytes, 7);
        let read = piece.split().freeze();
        memory.keep(piece, whole);
        read
    }

    #[test]
    fn a_piece_is_used_again_once_nobody_has_a_part_of_it() {
        let memory = ReadMemory::new(usize::MAX);
        let first = kept(&memory, PIECE);
        let place = first.as_ptr();
        let second = kept(&memory, PIECE);
        assert_ne!(second.as_ptr(), place, "it is not free");
        drop(first);
        assert_eq!(memory.take(PIECE).0.as_ptr(), place);
        assert_ne!(memory.take(PIECE).0.as_ptr(), second.as_ptr());
    }

    #[test]
    fn no_more_is_kept_than_the_limit_says() {
        let memory = ReadMemory::new(usize::MAX);
        let blocks: Vec<_> = (0..40).map(|_| kept(&memory, PIECE)).collect();
        assert_eq!(memory.spares.borrow().len(), SPARE_BYTES / PIECE - 1);
        let before = memory.kept.get();
        assert!(before <= SPARE_BYTES);
        drop(blocks);
        drop(kept(&memory, LARGEST_SPARE));
        assert_eq!(memory.kept.get(), before);
        let small = ReadMemory::new(usize::MAX);
        let blocks: Vec<_> = (0..40).map(|_| kept(&small, 1000)).collect();
        assert_eq!(small.spares.borrow().len(), SPARES);
        drop(blocks);
    }

    #[test]
    fn what_is_kept_counts_and_makes_room_for_what_is_needed() {
        let memory = ReadMemory::new(4 * PIECE);
        drop((kept(&memory, PIECE), kept(&memory, PIECE)));
        assert!(!memory.budget.fits(3 * PIECE));
        assert!(memory.fits(4 * PIECE));
        assert_eq!(memory.kept.get(), 0);
        drop(kept(&memory, PIECE));
        assert_eq!(memory.kept.get(), PIECE + PIECE_OFFSET);
        memory.budget.add(2 * PIECE);
        assert!(!memory.is_short(), "but for what is kept");
        assert_eq!(memory.kept.get(), 0);
        memory.budget.add(1);
        drop(kept(&memory, PIECE));
        assert_eq!(memory.kept.get(), 0, "memory is short");
        let little = ReadMemory::new(PIECE + PIECE / 2);
        little.budget.add(PIECE / 2);
        drop(kept(&little, PIECE));
        assert_eq!(
            little.kept.get(),
            0,
            "it is not, but would be beyond its limit"
        );
    }

    #[test]
    fn what_is_not_used_for_a_second_is_let_go_of() {
        let memory = ReadMemory::new(usize::MAX);
        drop(kept(&memory, PIECE));
        memory.handle_blocked(KEPT_FOR / 2);
        assert!(memory.kept.get() > 0);
        memory.note_use(KEPT_FOR / 2);
        memory.handle_blocked(KEPT_FOR);
        assert!(memory.kept.get() > 0, "it was used since");
        memory.handle_blocked(KEPT_FOR * 3 / 2);
        assert_eq!(memory.kept.get(), 0);
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let memory = ReadMemory::new(usize::MAX);
        memory.handle_reader_added();
        memory.handle_reader_added();
        drop(kept(&memory, PIECE));
        memory.handle_reader_removed();
        assert!(memory.kept.get() > 0);
        memory.handle_reader_removed();
        assert_eq!(memory.kept.get(), 0);
    }

    #[test]
    fn a_small_need_leaves_large_pieces_alone() {
        let memory = ReadMemory::new(usize::MAX);
        drop(kept(&memory, PIECE));
        let (piece, bytes) = memory.take(PIECE / TOO_LARGE - PIECE_OFFSET);
        assert!(bytes < PIECE && piece.is_empty());
        assert!(memory.take(PIECE / TOO_LARGE).1 > PIECE);
    }
}
