//! One-way messages: what a call sends that nobody waits for.

use bytes::{Bytes, BytesMut};
use moonpool_foundation::Endpoint;
use moonpool_foundation::network::peer::PacketTerms;
use moonpool_traits::{CodecError, MessageCodec};
use serde::Serialize;

use super::call::CallOptions;
use super::core::Admission;
use super::envelope::{self, MessageHead};
use super::request::Outgoing;
use crate::error::{NotSent, TransportError};

/// Whether a message waits for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Reliable,
    Unreliable,
}

/// Sends a message, or gives it back.
pub(crate) fn tell<Req, C>(
    transport: &dyn Outgoing,
    endpoint: &Endpoint,
    options: &CallOptions,
    message: Req,
    codec: &C,
    delivery: Delivery,
) -> Result<(), NotSent<Req>>
where
    Req: Serialize,
    C: MessageCodec,
{
    let sent = send_message(transport, endpoint, options, &message, codec, delivery);
    sent.map_err(|error| NotSent {
        request: message,
        error,
    })
}

fn send_message<Req, C>(
    transport: &dyn Outgoing,
    endpoint: &Endpoint,
    options: &CallOptions,
    message: &Req,
    codec: &C,
    delivery: Delivery,
) -> Result<(), TransportError>
where
    Req: Serialize,
    C: MessageCodec,
{
    if !options.extras_fit() {
        return Err(TransportError::MetadataTooLarge);
    }
    let head = MessageHead {
        trace: options.trace(),
        metadata: options.metadata(),
        ..MessageHead::default()
    };
    let in_parts = |buffer: &mut BytesMut| -> Result<Bytes, CodecError> {
        envelope::put_head(&head, buffer);
        codec.encode_shared(message, buffer)
    };
    let core = transport.core();
    core.check_open()?;
    if core.is_local(&endpoint.address) {
        core.send_local(endpoint.token, Admission::WithinLimits, in_parts)?;
        transport.deliver_locally();
        return Ok(());
    }
    let peer = transport.peer(&endpoint.address)?;
    match delivery {
        Delivery::Reliable => {
            peer.send_reliable_parts(endpoint.token, PacketTerms::default(), in_parts)?;
        }
        Delivery::Unreliable => peer.send_unreliable_with(endpoint.token, |buffer| {
            envelope::put_head(&head, buffer);
            codec.encode_into(message, buffer)
        })?,
    }
    Ok(())
}
