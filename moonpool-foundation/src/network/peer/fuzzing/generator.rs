//! Inputs for the bounded runs: the kept corpus, and a seeded stream of mutations of it.

use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Numbers at which decoders change their mind: 0, 1, the sizes of headers and frames, limits.
const INTERESTING: [u64; 16] = [
    0,
    1,
    2,
    4,
    8,
    16,
    23,
    24,
    56,
    80,
    112,
    156,
    0x7FFF,
    1024 * 1024,
    u64::MAX >> 1,
    u64::MAX,
];

/// Bytes of the longest input.
const LONGEST: usize = 4_096;

/// The kept inputs of one fuzz target: the files of `fuzz/corpus/<target>` in the repository, in
/// the order of their names.
///
/// # Panics
/// If they cannot be read. Only the repository has them, a published crate does not.
#[must_use]
pub fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let files = fs::read_dir(&dir).map(|entries| {
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<_> = paths.collect();
        paths.sort();
        paths
    });
    let inputs = files
        .unwrap_or_default()
        .into_iter()
        .filter_map(|path| fs::read(path).ok());
    let inputs: Vec<_> = inputs.collect();
    assert!(!inputs.is_empty(), "no corpus in {}", dir.display());
    inputs
}

/// Makes inputs out of valid ones: bits flipped, numbers replaced, pieces cut out, doubled, spliced.
/// The same seed gives the same inputs.
#[derive(Debug)]
pub struct Generator {
    rng: StdRng,
    valid: Vec<Vec<u8>>,
}

impl Generator {
    /// Mutates `valid`, of which there is one at least.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn new(seed: u64, valid: Vec<Vec<u8>>) -> Self {
        assert!(!valid.is_empty());
        Self {
            rng: StdRng::seed_from_u64(seed),
            valid,
        }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        if self.below(16) == 0 {
            let length = self.below(200);
            return (0..length).map(|_| self.rng.random()).collect();
        }
        let mut input = self.some_valid();
        // One of a handful is left as it is: what is valid has to be tried too.
        for _ in 0..self.below(5) {
            self.mutate(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn some_valid(&mut self) -> Vec<u8> {
        let at = self.below(self.valid.len());
        self.valid.get(at).cloned().unwrap_or_default()
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        match self.below(8) {
            0 => self.flip_bit(input, at),
            1 => self.replace_byte(input, at),
            2 => self.replace_number(input, at),
            3 => input.truncate(at),
            4 => self.remove(input, at),
            5 => self.repeat(input, at),
            6 => self.extend(input),
            _ => self.splice(input, at),
        }
    }

    fn flip_bit(&mut self, input: &mut [u8], at: usize) {
        let bit = self.below(8);
        if let Some(byte) = input.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    fn replace_byte(&mut self, input: &mut [u8], at: usize) {
        let drawn = self.rng.random();
        if let Some(byte) = input.get_mut(at) {
            *byte = drawn;
        }
    }

    /// Puts a number at which something changes, or one beside it, in place of what was there.
    fn replace_number(&mut self, input: &mut [u8], at: usize) {
        let chosen = self.below(INTERESTING.len());
        let beside = [0, 1, u64::MAX][self.below(3)];
        let number = INTERESTING.get(chosen).copied().unwrap_or_default();
        let bytes = number.wrapping_add(beside).to_le_bytes();
        let width = [1, 2, 4, 8][self.below(4)];
        // Fields begin at even offsets, mostly at multiples of four.
        let at = if self.below(2) == 0 { at & !3 } else { at };
        let places = input.iter_mut().skip(at).take(width);
        places.zip(bytes).for_each(|(place, byte)| *place = byte);
    }

    fn remove(&mut self, input: &mut Vec<u8>, at: usize) {
        let end = input.len().min(at + 1 + self.below(24));
        if at < end {
            input.drain(at..end);
        }
    }

    fn repeat(&mut self, input: &mut Vec<u8>, at: usize) {
        let end = input.len().min(at + 1 + self.below(128));
        let piece = input.get(at..end).unwrap_or_default().to_vec();
        for _ in 0..=self.below(4) {
            input.splice(at..at, piece.iter().copied());
        }
    }

    fn extend(&mut self, input: &mut Vec<u8>) {
        for _ in 0..self.below(40) {
            let byte = self.rng.random();
            input.push(byte);
        }
    }

    /// Goes on as another valid input does, from anywhere in it.
    fn splice(&mut self, input: &mut Vec<u8>, at: usize) {
        let other = self.some_valid();
        let from = self.below(other.len());
        input.truncate(at);
        input.extend_from_slice(other.get(from..).unwrap_or_default());
    }

    /// A number below `limit`; 0 if there is none.
    fn below(&mut self, limit: usize) -> usize {
        if limit == 0 {
            return 0;
        }
        self.rng.random_range(0..limit)
    }
}
