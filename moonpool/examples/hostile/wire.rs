//! What an attacker writes, byte by byte as `docs/wire-format.md` has it. It shares nothing with the
//! library but the checksum, so that it can say what the library never would.

use moonpool::foundation::{UID, WellKnownToken, serialize_packet};

/// Bytes of a Hello's payload.
pub(crate) const HELLO_BYTES: usize = 112;

/// Bytes in front of a packet's payload.
pub(crate) const HEADER_BYTES: usize = 24;

/// The fields of a Hello that an attacker plays with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hello {
    pub(crate) magic: [u8; 8],
    pub(crate) versions: (u16, u16),
    pub(crate) max_payload: u32,
    pub(crate) incarnation: UID,
    pub(crate) session: UID,
    pub(crate) generation: u64,
    /// The listening address that it claims: IPv4 octets and port.
    pub(crate) address: Option<([u8; 4], u16)>,
}

impl Hello {
    /// What an honest dialler would say.
    pub(crate) fn new(incarnation: UID, session: UID) -> Self {
        Self {
            magic: *b"moonpool",
            versions: (1, 1),
            max_payload: 1024 * 1024,
            incarnation,
            session,
            generation: 1,
            address: None,
        }
    }

    /// The whole packet.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(HELLO_BYTES);
        payload.extend(self.magic);
        payload.extend(self.versions.0.to_le_bytes());
        payload.extend(self.versions.1.to_le_bytes());
        payload.extend(self.max_payload.to_le_bytes());
        payload.extend([0; 8]);
        put_uid(&mut payload, self.incarnation);
        put_uid(&mut payload, self.session);
        payload.extend(1_u64.to_le_bytes());
        payload.extend(self.generation.to_le_bytes());
        payload.extend([0; 16]);
        if let Some((ip, port)) = self.address {
            payload.extend([4, 0]);
            payload.extend(port.to_le_bytes());
            payload.extend([0; 4]);
            payload.extend(ip);
        }
        payload.resize(HELLO_BYTES, 0);
        serialize_packet(WellKnownToken::Hello.token(), &payload)
    }
}

/// A reliable packet's frame; `sequence` counts from 1.
pub(crate) fn sequenced(sequence: u64, acknowledgement: u64, token: UID, inner: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(32 + inner.len());
    payload.extend(sequence.to_le_bytes());
    payload.extend(acknowledgement.to_le_bytes());
    put_uid(&mut payload, token);
    payload.extend(inner);
    serialize_packet(WellKnownToken::Sequenced.token(), &payload)
}

/// A request's envelope around a message.
pub(crate) fn request(reply_token: UID, message: &[u8]) -> Vec<u8> {
    let mut envelope = vec![1, 0, 1, 0];
    put_uid(&mut envelope, reply_token);
    envelope.extend(message);
    envelope
}

/// Asks for a sign of life.
pub(crate) fn ping(nonce: u64) -> Vec<u8> {
    let payload = [1_u64.to_le_bytes(), nonce.to_le_bytes()].concat();
    serialize_packet(WellKnownToken::SessionPing.token(), &payload)
}

/// A number without its packet.
pub(crate) fn skip(sequence: u64) -> Vec<u8> {
    let payload = [sequence.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    serialize_packet(WellKnownToken::Skip.token(), &payload)
}

/// The last frame of an orderly close.
pub(crate) fn close() -> Vec<u8> {
    serialize_packet(WellKnownToken::Close.token(), &1_u64.to_le_bytes())
}

/// The first bytes of a packet of this length, which may be no packet at all.
pub(crate) fn header(length: u32) -> Vec<u8> {
    let mut header = length.to_le_bytes().to_vec();
    header.resize(HEADER_BYTES, 0x5A);
    header
}

fn put_uid(bytes: &mut Vec<u8>, uid: UID) {
    bytes.extend(uid.first.to_le_bytes());
    bytes.extend(uid.second.to_le_bytes());
}
