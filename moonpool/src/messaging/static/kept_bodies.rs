//! [`KeptBodies`]: what replies are kept in until somebody takes them. Pure.

use bytes::Bytes;
use moonpool_traits::{Blob, CodecError, MessageCodec};
use serde::de::DeserializeOwned;

/// A reply of this size or less is copied.
const SHORT: usize = 256;

/// Pieces of memory that are kept for the next replies: 128 KiB at most.
const SPARE_PIECES: usize = 256;

/// The codec's bytes of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeptBody {
    /// Short ones have memory of their own, which goes from one to the next.
    Copied(Vec<u8>),
    /// In the memory that it was read into, or a piece of that size's own.
    Shared(Blob),
}

impl KeptBody {
    /// Reads the message.
    ///
    /// # Errors
    /// As [`MessageCodec::decode`].
    #[inline]
    pub(crate) fn decode<T, C>(&self, codec: &C) -> Result<T, CodecError>
    where
        T: DeserializeOwned,
        C: MessageCodec,
    {
        match self {
            Self::Copied(bytes) => codec.decode(bytes),
            Self::Shared(blob) => codec.decode_shared(blob),
        }
    }

    /// The bytes, with what is known of their checksum.
    pub(crate) fn into_blob(self) -> Blob {
        match self {
            Self::Copied(bytes) => bytes.into(),
            Self::Shared(blob) => blob,
        }
    }

    /// The bytes, to keep.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.into_blob().into_bytes()
    }
}

/// Memory for short replies. A reply that nobody has taken yet keeps nothing of what it was read with,
/// and once the pieces are there no reply needs an allocation.
#[derive(Debug, Default)]
pub(crate) struct KeptBodies {
    spare: Vec<Vec<u8>>,
}

impl KeptBodies {
    /// A copy of these bytes. `None` if they are many.
    #[inline]
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Option<KeptBody> {
        if bytes.len() > SHORT {
            return None;
        }
        let mut piece = self.spare.pop().unwrap_or_default();
        piece.extend_from_slice(bytes);
        Some(KeptBody::Copied(piece))
    }

    /// The reply was taken.
    #[inline]
    pub(crate) fn take_back(&mut self, body: KeptBody) {
        if let KeptBody::Copied(mut piece) = body
            && self.spare.len() < SPARE_PIECES
        {
            piece.clear();
            self.spare.push(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(kept: &mut KeptBodies, bytes: &[u8]) -> (Vec<u8>, usize) {
        match kept.copy(bytes) {
            Some(KeptBody::Copied(piece)) => (piece.clone(), piece.as_ptr() as usize),
            _ => (Vec::new(), 0),
        }
    }

    #[test]
    fn memory_of_a_reply_that_was_taken_is_used_again() {
        let mut kept = KeptBodies::default();
        let first = kept.copy(&[1; 40]).unwrap();
        let KeptBody::Copied(piece) = &first else {
            panic!("short replies are copied");
        };
        let place = piece.as_ptr() as usize;
        kept.take_back(first);
        assert_eq!(copy(&mut kept, &[2; 20]), (vec![2; 20], place));
    }

    #[test]
    fn what_is_kept_for_later_is_bounded() {
        let mut kept = KeptBodies::default();
        let bodies: Vec<_> = (0..2 * SPARE_PIECES)
            .map(|_| kept.copy(&[7; SHORT]).unwrap())
            .collect();
        for body in bodies {
            kept.take_back(body);
        }
        assert_eq!(kept.spare.len(), SPARE_PIECES);
        assert!(kept.spare.iter().all(|piece| piece.capacity() <= 2 * SHORT));
        assert!(kept.copy(&[7; SHORT + 1]).is_none());
    }
}
