//! [`PostcardCodec`]: the compact binary codec.

use ::postcard::ser_flavors::Flavor;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::blob;
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

    fn encode_shared<T>(&self, message: &T, buffer: &mut BytesMut) -> Result<Bytes, CodecError>
    where
        T: Serialize + ?Sized,
    {
        let flavor = SharingFlavor {
            buffer,
            shared: None,
        };
        ::postcard::serialize_with_flavor(message, flavor).map_err(CodecError::encode)
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

/// The same, but for a large [`Blob`](crate::Blob), which is not copied.
struct SharingFlavor<'a> {
    buffer: &'a mut BytesMut,
    /// The last one, and the length that the buffer had then.
    shared: Option<(usize, Bytes)>,
}

impl SharingFlavor<'_> {
    /// Puts the shared bytes in their place, since something follows them.
    #[cold]
    fn insert(&mut self) {
        if let Some((at, bytes)) = self.shared.take() {
            let behind = self.buffer.split_off(at);
            self.buffer.reserve(bytes.len() + behind.len());
            self.buffer.put_slice(&bytes);
            self.buffer.put_slice(&behind);
        }
    }
}

impl Flavor for SharingFlavor<'_> {
    type Output = Bytes;

    #[inline]
    fn try_push(&mut self, byte: u8) -> ::postcard::Result<()> {
        self.buffer.put_u8(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> ::postcard::Result<()> {
        if bytes.len() >= blob::SHARED_BYTES
            && let Some(shared) = blob::offered(bytes)
        {
            self.insert();
            self.shared = Some((self.buffer.len(), shared));
        } else {
            self.buffer.put_slice(bytes);
        }
        Ok(())
    }

    fn finalize(mut self) -> ::postcard::Result<Bytes> {
        if self
            .shared
            .as_ref()
            .is_some_and(|(at, _)| *at < self.buffer.len())
        {
            self.insert();
        }
        Ok(self
            .shared
            .take()
            .map(|(_, bytes)| bytes)
            .unwrap_or_default())
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
