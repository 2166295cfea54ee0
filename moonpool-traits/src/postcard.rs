//! [`PostcardCodec`]: the compact binary codec.

use ::postcard::ser_flavors::Flavor;
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::blob::{self, Blob};
use crate::codec::{CodecError, MessageCodec};

/// Messages in [postcard's](https://docs.rs/postcard) binary form: small and several times faster
/// than JSON, and not self-describing.
///
/// Both ends must agree on the exact type: fields are told apart by their order alone, so adding,
/// removing or reordering one is a different message. What may change is said by new enum variants
/// at the end, or by new methods.
///
/// ```
/// use moonpool_traits::{MessageCodec, PostcardCodec};
///
/// let bytes = PostcardCodec.encode(&(1_u8, "one"))?;
/// assert_eq!(&bytes[..], b"\x01\x03one");
/// let back: (u8, String) = PostcardCodec.decode(&bytes)?;
/// assert_eq!(back, (1, "one".to_owned()));
/// # Ok::<(), moonpool_traits::CodecError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostcardCodec;

impl MessageCodec for PostcardCodec {
    fn encode_into<T>(&self, message: &T, buffer: &mut impl BufMut) -> Result<(), CodecError>
    where
        T: Serialize + ?Sized,
    {
        ::postcard::serialize_with_flavor(message, BufMutFlavor(buffer)).map_err(CodecError::encode)
    }

    fn encode_shared<T>(
        &self,
        message: &T,
        buffer: &mut BytesMut,
    ) -> Result<Option<Blob>, CodecError>
    where
        T: Serialize + ?Sized,
    {
        let mut shared = None;
        let flavor = SharingFlavor {
            buffer,
            shared: &mut shared,
        };
        ::postcard::serialize_with_flavor(message, flavor).map_err(CodecError::encode)?;
        Ok(match shared {
            None => None,
            Some(last) => last.at_the_end_of(buffer),
        })
    }

    fn decode<T>(&self, bytes: &[u8]) -> Result<T, CodecError>
    where
        T: DeserializeOwned,
    {
        let (message, rest) = ::postcard::take_from_bytes(bytes).map_err(CodecError::decode)?;
        if rest.is_empty() {
            Ok(message)
        } else {
            let left = rest.len();
            Err(CodecError::decode(format!(
                "{left} bytes are left after the message"
            )))
        }
    }
}

/// Lets the serializer write into the buffer itself.
struct BufMutFlavor<'a, B>(&'a mut B);

impl<B: BufMut> Flavor for BufMutFlavor<'_, B> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> ::postcard::Result<()> {
        self.try_extend(&[byte])
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> ::postcard::Result<()> {
        if self.0.remaining_mut() < bytes.len() {
            return Err(::postcard::Error::SerializeBufferFull);
        }
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> ::postcard::Result<()> {
        Ok(())
    }
}

/// A large [`Blob`]'s bytes, which were not copied yet.
struct Shared {
    /// The length that the buffer had when they came.
    at: usize,
    bytes: Blob,
}

impl Shared {
    /// The bytes, if nothing follows them. Otherwise they are put in their place.
    #[cold]
    fn at_the_end_of(self, buffer: &mut BytesMut) -> Option<Blob> {
        if self.at == buffer.len() {
            return Some(self.bytes);
        }
        self.insert(buffer);
        None
    }

    fn insert(self, buffer: &mut BytesMut) {
        // In the buffer's own memory, which grows by doubling however many are put in their place.
        let (end, count) = (buffer.len(), self.bytes.len());
        buffer.resize(end + count, 0);
        buffer.copy_within(self.at..end, self.at + count);
        if let Some(place) = buffer.get_mut(self.at..self.at + count) {
            place.copy_from_slice(&self.bytes);
        }
    }
}

/// The same, but for a large [`Blob`], which is not copied.
struct SharingFlavor<'a> {
    buffer: &'a mut BytesMut,
    /// The last one. It is somewhere else, so that the flavor itself is light to pass on.
    shared: &'a mut Option<Shared>,
}

impl SharingFlavor<'_> {
    /// Apart, so that what small messages need is small enough to be inlined.
    #[cold]
    #[inline(never)]
    fn extend_by_many(&mut self, bytes: &[u8]) {
        let Some(offered) = blob::offered(bytes) else {
            return self.buffer.put_slice(bytes);
        };
        if let Some(before) = self.shared.take() {
            before.insert(self.buffer);
        }
        *self.shared = Some(Shared {
            at: self.buffer.len(),
            bytes: offered,
        });
    }
}

impl Flavor for SharingFlavor<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> ::postcard::Result<()> {
        self.buffer.put_u8(byte);
        Ok(())
    }

    #[inline(always)]
    fn try_extend(&mut self, bytes: &[u8]) -> ::postcard::Result<()> {
        if let [byte] = bytes {
            // Most lengths and many numbers are one byte.
            self.buffer.put_u8(*byte);
        } else if bytes.len() < blob::SHARED_BYTES {
            self.buffer.put_slice(bytes);
        } else {
            self.extend_by_many(bytes);
        }
        Ok(())
    }

    #[inline]
    fn finalize(self) -> ::postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn encoding_appends_to_what_the_buffer_holds() {
        let mut buffer = bytes::BytesMut::from(&b"prefix"[..]);
        PostcardCodec.encode_into(&300_u32, &mut buffer).unwrap();
        assert_eq!(&buffer[..], b"prefix\xac\x02");
        assert_eq!(PostcardCodec.decode::<u32>(&buffer[6..]).unwrap(), 300);
    }

    #[test]
    fn trailing_and_missing_bytes_are_decode_errors_with_a_source() {
        for bytes in [&b"\x07\x08"[..], b"\x80"] {
            let error = PostcardCodec.decode::<u32>(bytes).unwrap_err();
            assert!(matches!(error, CodecError::Decode(_)));
            assert!(error.source().is_some());
        }
    }

    #[test]
    fn a_length_beyond_the_input_is_an_error_and_allocates_nothing_for_it() {
        let claims_2_to_the_62 = b"\xff\xff\xff\xff\xff\xff\xff\xff\x3f";
        let error = PostcardCodec.decode::<Vec<u64>>(claims_2_to_the_62);
        assert!(matches!(error, Err(CodecError::Decode(_))));
    }

    #[test]
    fn a_full_buffer_is_an_error_and_not_a_panic() {
        let mut small = [0_u8; 4];
        let error = PostcardCodec.encode_into("longer than four", &mut &mut small[..]);
        assert!(matches!(error, Err(CodecError::Encode(_))));
    }
}
