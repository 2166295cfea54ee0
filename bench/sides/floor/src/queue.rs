//! Two event queues to compare with.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bench_common::{Arguments, Measurement, Numbers, Order, print};

trait Queue: Default {
    fn push(&mut self, at: u64, event: u64);
    fn pop(&mut self) -> Option<(u64, u64)>;
}

/// std's heap of 16-byte keys.
#[derive(Default)]
struct Heap(BinaryHeap<Reverse<(u64, u64)>>);

impl Queue for Heap {
    fn push(&mut self, at: u64, event: u64) {
        self.0.push(Reverse((at, event)));
    }

    fn pop(&mut self) -> Option<(u64, u64)> {
        self.0.pop().map(|Reverse(entry)| entry)
    }
}

const LEVELS: usize = 4;
const SLOTS: usize = 256;

/// A timer wheel: a slot of a level spans all slots of the level below. Nanoseconds, and 4.3 s in all.
/// Events of one slot of the lowest level have the same time, and come in no particular order.
struct Wheel {
    now: u64,
    slots: Vec<Vec<(u64, u64)>>,
    occupied: [[u64; SLOTS / 64]; LEVELS],
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            now: 0,
            slots: vec![Vec::new(); LEVELS * SLOTS],
            occupied: Default::default(),
        }
    }
}

impl Wheel {
    /// The slot of a level that is due next. The highest level goes round; below it, nothing lies
    /// before the present.
    fn first_occupied(&self, level: usize) -> Option<usize> {
        if level < LEVELS - 1 {
            return self.occupied_from(level, 0);
        }
        let present = (self.now >> (8 * level)) as usize % SLOTS;
        self.occupied_from(level, present)
            .or_else(|| self.occupied_from(level, 0))
    }

    fn occupied_from(&self, level: usize, start: usize) -> Option<usize> {
        let mut mask = u64::MAX << (start % 64);
        for index in start / 64..SLOTS / 64 {
            let word = self.occupied[level][index] & mask;
            if word != 0 {
                return Some(index * 64 + word.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }
}

impl Queue for Wheel {
    fn push(&mut self, at: u64, event: u64) {
        let differs = (at ^ self.now) | 1;
        let level = ((63 - differs.leading_zeros()) as usize / 8).min(LEVELS - 1);
        let slot = (at >> (8 * level)) as usize % SLOTS;
        self.occupied[level][slot / 64] |= 1 << (slot % 64);
        self.slots[level * SLOTS + slot].push((at, event));
    }

    fn pop(&mut self) -> Option<(u64, u64)> {
        loop {
            let (level, slot) =
                (0..LEVELS).find_map(|level| Some((level, self.first_occupied(level)?)))?;
            let index = level * SLOTS + slot;
            if level == 0 {
                let entry = self.slots[index].pop()?;
                if self.slots[index].is_empty() {
                    self.occupied[0][slot / 64] &= !(1 << (slot % 64));
                }
                self.now = entry.0;
                return Some(entry);
            }
            let mut entries = std::mem::take(&mut self.slots[index]);
            self.occupied[level][slot / 64] &= !(1 << (slot % 64));
            let width = 8 * level as u32;
            let round = self.now >> (width + 8) << (width + 8);
            let begins = round | ((slot as u64) << width);
            let next_round = begins >> width < self.now >> width;
            self.now = begins + if next_round { 1 << (width + 8) } else { 0 };
            for (at, event) in entries.drain(..) {
                self.push(at, event);
            }
            self.slots[index] = entries;
        }
    }
}

pub fn pop_and_push(arguments: &Arguments) {
    match arguments.text("kind", "heap") {
        "wheel" => measure(arguments, Wheel::default()),
        _ => measure(arguments, Heap::default()),
    }
}

fn measure(arguments: &Arguments, mut queue: impl Queue) {
    let pending: u64 = arguments.number("pending", 1000);
    let count: u64 = arguments.number("n", 1_000_000);
    let mut numbers = Numbers::new(1);
    for event in 0..pending {
        queue.push(numbers.next() % 100_000_000, event);
    }
    let mut order = Order::default();
    let mut turn = || {
        let (at, event) = queue.pop().unwrap();
        order.note(at);
        queue.push(at + numbers.next() % 100_000_000, event);
    };
    for _ in 0..pending {
        turn();
    }
    let measurement = Measurement::begin();
    for _ in 0..count {
        turn();
    }
    measurement.end(count);
    while let Some((at, event)) = queue.pop() {
        order.note_left(at, event);
    }
    print("checksum", order.checksum());
}
