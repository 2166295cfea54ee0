//! [`Blob`]: many bytes in a message, which are not copied on their way.
//!
//! serde knows slices and vectors only. So what a `Blob` is encoded from, and decoded into, is left for
//! the duration of that call where codec and `Blob` both look: on this thread. Neither trusts the
//! other: bytes are shared only where they lie in the memory that was left, and copied otherwise.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

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
    static OFFERED: RefCell<Blob> = const { RefCell::new(Blob::new()) };
    /// What is being decoded.
    static SOURCE: RefCell<Blob> = const { RefCell::new(Blob::new()) };
}

/// A place for bytes that end with a blob's, in the same memory, and their CRC-32C. Written once.
pub type NotedChecksum = Arc<OnceLock<(Bytes, u32)>>;

/// Bytes of a message that travel without being copied, if they are many.
///
/// It is encoded as `serde_bytes` does it: a codec's own form of bytes, an array of numbers in JSON.
/// Of a message in [`PostcardCodec`](crate::PostcardCodec)'s form that ends with a `Blob` of 16 KiB or
/// more, these bytes leave from where they are, and the other end's `Blob` shares the memory that they
/// were read into: a request's if they are most of it, a reply's if they are a quarter. So put it last,
/// and copy what you keep for long out of it: the smallest part of it keeps the whole.
///
/// Its bytes never change, so that a transport computes their checksum once: that of a `Blob` which was
/// received is known already when it is sent on, and clones share what is known.
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
/// let bytes = Blob::from(PostcardCodec.encode(&block)?.freeze());
/// let back: Block = PostcardCodec.decode_shared(&bytes)?;
/// assert_eq!(back.content, block.content);
/// assert!(bytes.as_ptr_range().contains(&back.content.as_ptr()));
/// # Ok::<(), moonpool_traits::CodecError>(())
/// ```
#[derive(Clone, Default)]
pub struct Blob {
    bytes: Bytes,
    /// Of bytes that may be shared.
    noted: Option<NotedChecksum>,
}

impl Blob {
    /// No bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Bytes::new(),
            noted: None,
        }
    }

    /// The bytes, in the memory that they share.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// For transports: bytes that are the end of `summed`, in the same memory, which was verified against
    /// its CRC-32C. Whoever says so and is wrong sends packets that nobody accepts.
    #[must_use]
    pub fn from_verified(bytes: Bytes, summed: Bytes, checksum: u32) -> Self {
        Self {
            bytes,
            noted: Some(Arc::new(OnceLock::from((summed, checksum)))),
        }
    }

    /// For transports: the bytes, and, of [`SHARED_BYTES`] or more, where their checksum is noted.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, Option<NotedChecksum>) {
        (self.bytes, self.noted)
    }

    /// These bytes, which are a part of the own ones. What is known of the whole's end is known of theirs.
    fn part(&self, part: &[u8]) -> Self {
        let is_end = self.bytes.as_ptr_range().end == part.as_ptr_range().end;
        let known = self.noted.as_ref().filter(|noted| noted.get().is_some());
        match known.filter(|_| is_end) {
            None => Self::from(self.bytes.slice_ref(part)),
            Some(noted) => Self {
                bytes: self.bytes.slice_ref(part),
                noted: Some(Arc::clone(noted)),
            },
        }
    }
}

impl From<Bytes> for Blob {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        let is_shared = bytes.len() >= SHARED_BYTES;
        Self {
            bytes,
            noted: is_shared.then(NotedChecksum::default),
        }
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<Blob> for Bytes {
    fn from(blob: Blob) -> Self {
        blob.bytes
    }
}

impl Deref for Blob {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Blob {}

impl PartialOrd for Blob {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Blob {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

impl Hash for Blob {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.bytes.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.bytes.len() < SHARED_BYTES {
            return serializer.serialize_bytes(&self.bytes);
        }
        let _offered = Left::at(&OFFERED, self.clone());
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BlobVisitor)
    }
}

struct BlobVisitor;

impl<'de> Visitor<'de> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(share(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes).into()))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
        Ok(bytes.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Blob, A::Error> {
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
    place: &'static std::thread::LocalKey<RefCell<Blob>>,
    before: Blob,
}

impl Left {
    fn at(place: &'static std::thread::LocalKey<RefCell<Blob>>, bytes: Blob) -> Self {
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
pub(crate) fn offered(bytes: &[u8]) -> Option<Blob> {
    OFFERED.with_borrow(|offered| std::ptr::eq(&offered[..], bytes).then(|| offered.clone()))
}

/// Lets blobs share `bytes` until the result is dropped. Messages that no large one fits into have
/// nothing to do with it.
#[inline]
pub(crate) fn leave(bytes: &Blob) -> Option<impl Drop> {
    (bytes.len() >= SHARED_BYTES).then(|| Left::at(&SOURCE, bytes.clone()))
}

/// A part of what is being decoded, if it is a large one.
fn share(part: &[u8]) -> Option<Blob> {
    if part.len() < SHARED_BYTES {
        return None;
    }
    SOURCE.with_borrow(|source| {
        let (whole, range) = (source.as_ptr_range(), part.as_ptr_range());
        let is_part = whole.start <= range.start && range.end <= whole.end;
        let is_large = part.len().saturating_mul(LARGE_PART) >= source.len();
        (is_part && is_large).then(|| source.part(part))
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
            let bytes = Blob::from(JsonCodec.encode(&blob).unwrap().freeze());
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
        fn encoded<T: Serialize>(message: &T) -> (BytesMut, Blob) {
            let mut buffer = BytesMut::from(&b"front"[..]);
            let tail = PostcardCodec.encode_shared(message, &mut buffer).unwrap();
            let tail = tail.unwrap_or_default();
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
            assert_eq!(encoded(&two).1, two.1);
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
            let _left = Left::at(&OFFERED, Blob::from(vec![7; SHARED_BYTES]));
            assert!(encoded(&Other(bytes)).1.is_empty());
        }

        #[test]
        fn a_large_part_of_the_bytes_is_shared_and_a_small_one_copied() {
            let shares = |length: usize, padding: usize| {
                let message = (blob(length), Blob::from(vec![1; padding]));
                let bytes = Blob::from(PostcardCodec.encode(&message).unwrap().freeze());
                let back: (Blob, Blob) = PostcardCodec.decode_shared(&bytes).unwrap();
                assert_eq!(back, message);
                bytes.as_ptr_range().contains(&back.0.as_ptr())
            };
            assert!(shares(SHARED_BYTES, 10));
            assert!(!shares(SHARED_BYTES - 1, 10));
            assert!(!shares(SHARED_BYTES, SHARED_BYTES));
        }

        /// What is noted for a blob that was decoded from the end of what was verified.
        fn noted<T>(message: &T, blob: fn(T) -> Blob) -> Option<(Bytes, u32)>
        where
            T: Serialize + serde::de::DeserializeOwned,
        {
            let packet: Bytes = [b"head", &PostcardCodec.encode(message).unwrap()[..]]
                .concat()
                .into();
            let bytes = Blob::from_verified(packet.slice(4..), packet, 7);
            let blob = blob(PostcardCodec.decode_shared::<T>(&bytes).unwrap());
            let (_, noted) = blob.into_parts();
            noted?.get().cloned()
        }

        #[test]
        fn what_was_verified_is_known_of_a_blob_at_its_end_alone() {
            let large = || blob(SHARED_BYTES);
            let last = noted(&(7_u8, large()), |message| message.1).unwrap();
            assert!(last.0.starts_with(b"head") && last.0.ends_with(&large()) && last.1 == 7);
            assert_eq!(noted(&(large(), 7_u8), |message| message.0), None);
            let small = blob(SHARED_BYTES - 1);
            assert_eq!(noted(&(7_u8, small), |message| message.1), None, "copied");
            let two = (large(), blob(3 * SHARED_BYTES));
            assert_eq!(noted(&two, |message| message.0), None, "copied");
            assert!(noted(&two, |message| message.1).is_some());
        }

        #[test]
        fn clones_and_what_leaves_share_the_place_for_a_checksum() {
            let message = (7_u8, blob(SHARED_BYTES));
            let place = |blob: Blob| blob.into_parts().1.unwrap();
            let own = place(message.1.clone());
            assert!(Arc::ptr_eq(&own, &place(message.1.clone())));
            assert!(Arc::ptr_eq(&own, &place(encoded(&message).1)));
            assert!(!Arc::ptr_eq(&own, &place(blob(SHARED_BYTES))));
            assert!(blob(SHARED_BYTES - 1).into_parts().1.is_none());
            let of_its_bytes = Blob::from(Bytes::from(message.1));
            assert!(
                !Arc::ptr_eq(&own, &place(of_its_bytes)),
                "they could be written to"
            );
        }

        #[test]
        fn nothing_is_shared_outside_of_the_call() {
            let bytes = Blob::from(PostcardCodec.encode(&blob(SHARED_BYTES)).unwrap().freeze());
            let shared: Blob = PostcardCodec.decode_shared(&bytes).unwrap();
            let copied: Blob = PostcardCodec.decode(&bytes).unwrap();
            assert!(bytes.as_ptr_range().contains(&shared.as_ptr()));
            assert!(!bytes.as_ptr_range().contains(&copied.as_ptr()));
            let failed = PostcardCodec.decode_shared::<(Blob, u8)>(&bytes);
            assert!(matches!(failed, Err(CodecError::Decode(_))));
            drop((shared, failed));
            assert!(
                bytes.into_bytes().is_unique() && offered(&[]).is_none_or(|none| none.is_empty())
            );
        }
    }
}
