//! Arbitrary bytes as a source of values.

use crate::messaging::UID;

/// Takes values off arbitrary bytes. Total: once they are used up, everything is zero.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything is used up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next bytes, `count` of them or as many as there are.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (front, rest) = self.rest.split_at(self.rest.len().min(count));
        self.rest = rest;
        front
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// The next sixteen bytes.
    pub fn uid(&mut self) -> UID {
        UID::from_le_bytes(self.array())
    }

    /// A number below `limit`, which is above 0, from one byte, or from two if one is too few.
    pub fn below(&mut self, limit: usize) -> usize {
        let drawn = if limit <= 256 {
            usize::from(self.u8())
        } else {
            usize::from(self.u16())
        };
        drawn % limit
    }
}
