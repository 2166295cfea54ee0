//! [`KeptPayloads`]: memory for what is kept longer than what it came with.

use bytes::{Bytes, BytesMut};

use super::packet::ReceivedPacket;

/// Memory that is shared without a look at what part of it is kept.
const SMALL_BLOCK: usize = 8 * 1024;

/// A payload that is this part of its block, or more, stays in it.
const LARGE_PART: usize = 4;

/// Short payloads are copied side by side into pieces of this size.
const CHUNK: usize = 4 * 1024;

/// Keeps payloads that may not be looked at for a long time.
///
/// A connection reads up to 128 KiB at once, and a payload that shares that memory keeps all of it.
/// So what is a small part of it is copied: short payloads next to each other, so that they need no
/// allocation each and keep 4 KiB at most. What came in a small block, or makes up a quarter of it,
/// is shared.
#[derive(Debug, Default)]
pub struct KeptPayloads {
    chunk: BytesMut,
}

impl KeptPayloads {
    /// This part of a packet's payload, to keep: it has to lie in the payload.
    pub fn keep(&mut self, packet: &ReceivedPacket<'_>, part: &[u8]) -> Bytes {
        let block = packet.block_bytes();
        if block <= SMALL_BLOCK || part.len().saturating_mul(LARGE_PART) >= block {
            packet.share(part)
        } else if part.len() > CHUNK / LARGE_PART {
            Bytes::copy_from_slice(part)
        } else {
            self.copy(part)
        }
    }

    fn copy(&mut self, part: &[u8]) -> Bytes {
        if self.chunk.capacity() - self.chunk.len() < part.len() {
            self.chunk.reserve(CHUNK);
        }
        self.chunk.extend_from_slice(part);
        self.chunk.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::UID;

    /// Keeps the first bytes of a packet that was read into so much memory. Gives whether they are
    /// shared, and what was kept.
    fn kept(store: &mut KeptPayloads, length: usize, memory: usize) -> (bool, Bytes) {
        let block = Bytes::from(vec![7; memory]);
        let packet = ReceivedPacket::new(UID::new(1, 1), &block[..], true, &block, memory);
        let bytes = store.keep(&packet, &block[..length]);
        assert_eq!(bytes, block[..length]);
        (
            bytes.is_empty() || block.as_ptr_range().contains(&bytes.as_ptr()),
            bytes,
        )
    }

    #[test]
    fn a_small_part_of_much_memory_is_copied() {
        let store = &mut KeptPayloads::default();
        let is_shared = |store: &mut _, length, memory| kept(store, length, memory).0;
        assert!(is_shared(store, 1, SMALL_BLOCK));
        assert!(!is_shared(store, 1, SMALL_BLOCK + 1));
        assert!(!is_shared(store, 32 * 1024 - 1, 128 * 1024));
        assert!(is_shared(store, 32 * 1024, 128 * 1024));
        assert!(is_shared(store, 0, 128 * 1024));
    }

    #[test]
    fn short_payloads_are_kept_side_by_side() {
        let store = &mut KeptPayloads::default();
        let all: Vec<Bytes> = (0..64).map(|_| kept(store, 64, 128 * 1024).1).collect();
        let neighbours = all
            .windows(2)
            .filter(|pair| pair[0].as_ptr_range().end == pair[1].as_ptr());
        assert_eq!(neighbours.count(), 63, "64 of 64 bytes are one piece");
    }
}
