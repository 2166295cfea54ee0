//! [`MessageCodec`], its error, and the JSON implementation.

use std::io;

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::blob::{self, Blob};

/// Turns messages into bytes and bytes into messages.
///
/// A codec is a cheap value: it is cloned into every queue, promise and reply future that uses it.
/// Both ends of an endpoint have to use the same one; the transport does not negotiate it.
///
/// ```
/// use moonpool_traits::{JsonCodec, MessageCodec};
///
/// let bytes = JsonCodec.encode(&(1_u8, "one"))?;
/// assert_eq!(&bytes[..], br#"[1,"one"]"#);
/// let back: (u8, String) = JsonCodec.decode(&bytes)?;
/// assert_eq!(back, (1, "one".to_owned()));
/// # Ok::<(), moonpool_traits::CodecError>(())
/// ```
pub trait MessageCodec: Clone + 'static {
    /// Appends the encoded message to `buffer`. On the transport's hot path that is a connection's
    /// write buffer, so an implementation should not collect the bytes anywhere else first.
    ///
    /// # Errors
    /// [`CodecError::Encode`] if the message has no encoding. What was appended by then stays in
    /// the buffer; the caller takes it back.
    fn encode_into<T>(&self, message: &T, buffer: &mut impl BufMut) -> Result<(), CodecError>
    where
        T: Serialize + ?Sized;

    /// Reads one message that fills `bytes` entirely.
    ///
    /// # Errors
    /// [`CodecError::Decode`] if `bytes` are not exactly one message of this type. The bytes come
    /// from the network: no input may make an implementation panic.
    fn decode<T>(&self, bytes: &[u8]) -> Result<T, CodecError>
    where
        T: DeserializeOwned;

    /// Encodes into a buffer of its own, where no other buffer is at hand.
    ///
    /// # Errors
    /// As [`encode_into`](Self::encode_into).
    fn encode<T>(&self, message: &T) -> Result<BytesMut, CodecError>
    where
        T: Serialize + ?Sized,
    {
        let mut buffer = BytesMut::new();
        self.encode_into(message, &mut buffer)?;
        Ok(buffer)
    }

    /// [`encode_into`](Self::encode_into), except that a large [`Blob`] at the message's end may be given
    /// back, shared, in place of being appended: the encoded message is what was appended and then its
    /// bytes. Unless a codec says otherwise, it gives none. `buffer` is not empty:
    /// a codec appends to it and does nothing else with it.
    ///
    /// # Errors
    /// As [`encode_into`](Self::encode_into).
    fn encode_shared<T>(
        &self,
        message: &T,
        buffer: &mut BytesMut,
    ) -> Result<Option<Blob>, CodecError>
    where
        T: Serialize + ?Sized,
    {
        self.encode_into(message, buffer)?;
        Ok(None)
    }

    /// [`decode`](Self::decode), with a large [`Blob`] sharing `bytes`, if it makes up
    /// half of them and the codec has bytes in one piece.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn decode_shared<T>(&self, bytes: &Blob) -> Result<T, CodecError>
    where
        T: DeserializeOwned,
    {
        let _left = blob::leave(bytes);
        self.decode(bytes)
    }
}

/// A message could not be encoded or decoded. The codec's own error is the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The message has no encoding, such as a map with keys that are no strings in JSON. Change the
    /// type: the same message will fail again.
    #[error("message cannot be encoded: {0}")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The bytes are not a message of the expected type. Compare the two ends' types and codecs.
    #[error("message cannot be decoded: {0}")]
    Decode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CodecError {
    /// An encoding error with its source.
    pub fn encode(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Encode(source.into())
    }

    /// A decoding error with its source.
    pub fn decode(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Decode(source.into())
    }
}

/// Messages as JSON text: readable in a capture, and understood by every language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JsonCodec;

impl MessageCodec for JsonCodec {
    fn encode_into<T>(&self, message: &T, buffer: &mut impl BufMut) -> Result<(), CodecError>
    where
        T: Serialize + ?Sized,
    {
        serde_json::to_writer(BufMutWriter(buffer), message).map_err(CodecError::encode)
    }

    fn decode<T>(&self, bytes: &[u8]) -> Result<T, CodecError>
    where
        T: DeserializeOwned,
    {
        // Checked at once, and not every string by itself.
        let text = std::str::from_utf8(bytes).map_err(CodecError::decode)?;
        serde_json::from_str(text).map_err(CodecError::decode)
    }
}

/// Lets the serializer write into the buffer itself. `bytes::buf::Writer` goes through `Buf` for
/// every fragment; JSON consists of very short ones.
struct BufMutWriter<'a, B>(&'a mut B);

impl<B: BufMut> io::Write for BufMutWriter<'_, B> {
    #[inline]
    fn write(&mut self, fragment: &[u8]) -> io::Result<usize> {
        self.write_all(fragment)?;
        Ok(fragment.len())
    }

    #[inline]
    fn write_all(&mut self, fragment: &[u8]) -> io::Result<()> {
        if self.0.remaining_mut() < fragment.len() {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "the buffer has a fixed size and is full",
            ));
        }
        self.0.put_slice(fragment);
        Ok(())
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::error::Error;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        id: u64,
        name: String,
        ratio: f64,
    }

    fn sample() -> Sample {
        Sample {
            id: u64::MAX,
            name: "zürich \"quoted\"\n".to_owned(),
            ratio: 0.1,
        }
    }

    #[test]
    fn a_message_survives_the_round_trip() {
        let bytes = JsonCodec.encode(&sample()).unwrap();
        assert_eq!(JsonCodec.decode::<Sample>(&bytes).unwrap(), sample());
    }

    #[test]
    fn json_that_is_no_utf8_is_refused_wherever_it_is() {
        assert!(JsonCodec.decode::<String>(b"\"\xff\"").is_err());
        let unread = JsonCodec.decode::<serde::de::IgnoredAny>(b"[\"\xff\"]");
        assert!(matches!(unread, Err(CodecError::Decode(_))), "{unread:?}");
    }

    #[test]
    fn encoding_appends_to_what_the_buffer_holds() {
        let mut buffer = BytesMut::from(&b"prefix"[..]);
        JsonCodec.encode_into(&7_u32, &mut buffer).unwrap();
        assert_eq!(&buffer[..], b"prefix7");
    }

    #[test]
    fn trailing_bytes_are_a_decode_error() {
        let error = JsonCodec.decode::<u32>(b"7 8").unwrap_err();
        assert!(matches!(error, CodecError::Decode(_)));
    }

    #[test]
    fn errors_keep_their_source() {
        let error = JsonCodec.decode::<Sample>(b"{").unwrap_err();
        assert!(error.source().unwrap().is::<serde_json::Error>());
        let error = JsonCodec
            .encode(&BTreeMap::from([((1, 2), 3)]))
            .unwrap_err();
        assert!(matches!(&error, CodecError::Encode(_)));
        assert!(error.source().unwrap().is::<serde_json::Error>());
    }

    #[test]
    fn a_full_buffer_is_an_error_and_not_a_panic() {
        let mut small = [0_u8; 4];
        let error = JsonCodec
            .encode_into("longer than four", &mut &mut small[..])
            .unwrap_err();
        assert!(matches!(error, CodecError::Encode(_)));
    }
}
