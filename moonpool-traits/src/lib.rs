//! The codec trait of moonpool: how a message becomes bytes and comes back.
//!
//! It is a crate of its own so that message types and codecs can be written without depending on
//! the transport. Users of `moonpool` find everything here re-exported there.

mod blob;
mod codec;
#[cfg(feature = "postcard")]
mod postcard;

pub use blob::{Blob, NotedChecksum, SHARED_BYTES};
pub use codec::{CodecError, JsonCodec, MessageCodec};
#[cfg(feature = "postcard")]
pub use postcard::PostcardCodec;
