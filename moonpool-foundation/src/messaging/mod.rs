//! What travels: tokens, addresses, endpoints, and the packet they are framed in.

pub(crate) mod checksum;
mod types;
mod well_known;
pub mod wire;

pub use types::{
    Endpoint, NetworkAddress, ParseAddressError, ParseEndpointError, ParseUidError,
    ReservedInterfaceId, UID,
};
pub use well_known::{InvalidWellKnownId, WELL_KNOWN_RESERVED_COUNT, WellKnownId, WellKnownToken};
pub use wire::{
    HEADER_SIZE, MAX_PAYLOAD_SIZE, PacketHeader, WireError, deserialize_packet, serialize_packet,
    try_deserialize_packet, try_serialize_packet,
};
