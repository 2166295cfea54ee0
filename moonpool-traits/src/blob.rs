//! [`Blob`]: many bytes in a message, which are not copied on their way.
//!
//! serde knows slices and vectors only. So what a `Blob` is encoded from, and decoded into, is left for
//! the duration of that call where codec and `Blob` both look: on this thread. Neither trusts the
//! other: bytes are shared only where they lie in the memory that was left, and copied otherwise.

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// A shorter [`Blob`] is copied: that costs less than to keep track of another piece of memory.
pub const SHARED_BYTES: usize = 16 * 1024;

/// Of the bytes that a message is decoded from, a `Blob` has to be this part to share them.
const LARGE_PART: usize = 2;

/// Elements that room is made for before they are there.
const CAUTIOUS_BYTES: usize = 4096;

thread_local! {
    /// What is being encoded.
    static OFFERED: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
    /// What is being decoded.
    static SOURCE: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// Bytes of a message that travel without being copied, if they are many.
///
/// It is encoded as `serde_bytes` does it: a codec's own form of bytes, an array of numbers in JSON.
/// Of a message in [`PostcardCodec`](crate::PostcardCodec)'s form that ends with a `Blob` of 16 KiB or
/// more, these bytes leave from where they are, and the other end's `Blob` shares the memory that they
/// were read into: a request's if they are most of it, a reply's if they are a quarter. So put it last,
/// and copy what you keep for long out of it: the smallest part of it keeps the whole.
///
/// ```
/// use moonpool_traits::{Blob, MessageCodec, PostcardCodec};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Block {
///     number: u64,
///     content: Blob,
/// }
///
/// let block = Block { number: 7, content: Blob::from(vec![1; 100_000]) };
/// let bytes = PostcardCodec.encode(&block)?.freeze();
/// let back: Block = PostcardCodec.decode_shared(&bytes)?;
/// assert_eq!(back.content, block.content);
/// assert!(bytes.as_ptr_range().contains(&back.content.as_ptr()));
/// # Ok::<(), moonpool_traits::CodecError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(Bytes);

impl Blob {
    /// The bytes, in the memory that they share.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Blob> for Bytes {
    fn from(blob: Blob) -> Self {
        blob.0
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.len() < SHARED_BYTES {
            return serializer.serialize_bytes(&self.0);
        }
        let _offered = Left::at(&OFFERED, self.0.clone());
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BlobVisitor).map(Self)
    }
}

struct BlobVisitor;

impl<'de> Visitor<'de> for BlobVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(share(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Bytes, A::Error> {
        let expected = numbers.size_hint().unwrap_or(0).min(CAUTIOUS_BYTES);
        let mut bytes = Vec::with_capacity(expected);
        while let Some(byte) = numbers.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}

/// Bytes that are left somewhere until it is dropped; then what was there before is there again.
struct Left {
    place: &'static std::thread::LocalKey<RefCell<Bytes>>,
    before: Bytes,
}

impl Left {
    fn at(place: &'static std::thread::LocalKey<RefCell<Bytes>>, bytes: Bytes) -> Self {
        let before = place.replace(bytes);
        Self { place, before }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        drop(self.place.replace(std::mem::take(&mut self.before)));
    }
}

/// The [`Blob`] whose bytes these are, if one is just being encoded.
#[cfg_attr(
    not(feature = "postcard"),
    expect(dead_code, reason = "the other codec copies")
)]
pub(crate) fn offered(bytes: &[u8]) -> Option<Bytes> {
    OFFERED.with_borrow(|offered| std::ptr::eq(&offered[..], bytes).then(|| offered.clone()))
}

/// Lets blobs share `bytes` until the result is dropped. Messages that no large one fits into have
/// nothing to do with it.
#[inline]
pub(crate) fn leave(bytes: &Bytes) -> Option<impl Drop> {
    (bytes.len() >= SHARED_BYTES).then(|| Left::at(&SOURCE, bytes.clone()))
}

/// A part of what is being decoded, if it is a large one.
fn share(part: &[u8]) -> Option<Bytes> {
    if part.len() < SHARED_BYTES {
        return None;
    }
    SOURCE.with_borrow(|source| {
        let (whole, range) = (source.as_ptr_range(), part.as_ptr_range());
        let is_part = whole.start <= range.start && range.end <= whole.end;
        let is_large = part.len().saturating_mul(LARGE_PART) >= source.len();
        (is_part && is_large).then(|| source.slice_ref(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JsonCodec, MessageCodec};

    #[test]
    fn every_codec_carries_it() {
        for length in [0, 1, SHARED_BYTES - 1, SHARED_BYTES, 3 * SHARED_BYTES] {
            let blob = Blob::from(vec![7; length]);
            let bytes = JsonCodec.encode(&blob).unwrap().freeze();
            assert_eq!(JsonCodec.decode::<Blob>(&bytes).unwrap(), blob);
            assert_eq!(JsonCodec.decode_shared::<Blob>(&bytes).unwrap(), blob);
        }
        assert!(JsonCodec.decode::<Blob>(b"[1, 256]").is_err());
    }

    #[cfg(feature = "postcard")]
    mod with_postcard {
        use bytes::BytesMut;
        use serde::{Deserialize, Serialize};

        use super::*;
        use crate::{CodecError, PostcardCodec};

        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Between {
            before: u32,
            blob: Blob,
            after: String,
        }

        /// What the buffer got, and what follows it.
        fn encoded<T: Serialize>(message: &T) -> (BytesMut, Bytes) {
            let mut buffer = BytesMut::from(&b"front"[..]);
            let tail = PostcardCodec.encode_shared(message, &mut buffer).unwrap();
            let whole = [&buffer[..], &tail[..]].concat();
            let copied = PostcardCodec.encode(message).unwrap();
            assert_eq!(whole, [b"front", &copied[..]].concat());
            (buffer, tail)
        }

        fn blob(length: usize) -> Blob {
            Blob::from(vec![7; length])
        }

        #[test]
        fn a_large_one_at_the_end_leaves_from_where_it_is() {
            let message = (7_u8, blob(SHARED_BYTES));
            let (_, tail) = encoded(&message);
            assert_eq!(tail.as_ptr(), message.1.as_ptr());
            assert!(encoded(&(7_u8, blob(SHARED_BYTES - 1))).1.is_empty());
        }

        #[test]
        fn one_that_something_follows_is_encoded_in_its_place() {
            let message = Between {
                before: 300,
                blob: blob(SHARED_BYTES),
                after: "after".into(),
            };
            let (buffer, tail) = encoded(&message);
            assert!(tail.is_empty());
            assert_eq!(
                PostcardCodec.decode::<Between>(&buffer[5..]).unwrap(),
                message
            );
            let two = (blob(SHARED_BYTES), blob(2 * SHARED_BYTES), ());
            assert_eq!(encoded(&two).1, two.1[..]);
        }

        #[test]
        fn other_bytes_than_the_blobs_are_copied() {
            struct Other(Bytes);
            impl Serialize for Other {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_bytes(&self.0)
                }
            }
            let bytes = Bytes::from(vec![7; SHARED_BYTES]);
            let _left = Left::at(&OFFERED, Bytes::from(vec![7; SHARED_BYTES]));
            assert!(encoded(&Other(bytes)).1.is_empty());
        }

        #[test]
        fn a_large_part_of_the_bytes_is_shared_and_a_small_one_copied() {
            let shares = |length: usize, padding: usize| {
                let message = (blob(length), Blob::from(vec![1; padding]));
                let bytes = PostcardCodec.encode(&message).unwrap().freeze();
                let back: (Blob, Blob) = PostcardCodec.decode_shared(&bytes).unwrap();
                assert_eq!(back, message);
                bytes.as_ptr_range().contains(&back.0.as_ptr())
            };
            assert!(shares(SHARED_BYTES, 10));
            assert!(!shares(SHARED_BYTES - 1, 10));
            assert!(!shares(SHARED_BYTES, SHARED_BYTES));
        }

        #[test]
        fn nothing_is_shared_outside_of_the_call() {
            let bytes = PostcardCodec.encode(&blob(SHARED_BYTES)).unwrap().freeze();
            let shared: Blob = PostcardCodec.decode_shared(&bytes).unwrap();
            let copied: Blob = PostcardCodec.decode(&bytes).unwrap();
            assert!(bytes.as_ptr_range().contains(&shared.as_ptr()));
            assert!(!bytes.as_ptr_range().contains(&copied.as_ptr()));
            let failed = PostcardCodec.decode_shared::<(Blob, u8)>(&bytes);
            assert!(matches!(failed, Err(CodecError::Decode(_))));
            drop((shared, failed));
            assert!(bytes.is_unique() && offered(&[]).is_none_or(|none| none.is_empty()));
        }
    }
}
