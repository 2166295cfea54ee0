//! Packets on the way that a session's take through a peer, by themselves: for the benchmark that counts what
//! they cost. Not part of the API.

use std::io::IoSlice;
use std::time::Duration;

use crate::messaging::{UID, WellKnownToken};

use super::config::PeerConfig;
use super::error::ConnectionError;
use super::frame::{BATCH_SLICES, Prefix};
use super::outbox::Outbox;
use super::reader::PacketReader;
use super::session::sequenced;
use super::terms::PacketTerms;

/// What a peer does with packets between a message's bytes and the socket's, without the peer.
#[derive(Debug)]
pub struct PacketProbe {
    outbox: Outbox,
    max_payload: usize,
    written: u64,
    reader: PacketReader,
}

impl Default for PacketProbe {
    fn default() -> Self {
        let config = PeerConfig::default();
        let max_payload = config.max_payload_bytes as usize;
        Self {
            outbox: Outbox::new(&config, true),
            max_payload,
            written: 0,
            reader: PacketReader::new(max_payload),
        }
    }
}

impl PacketProbe {
    /// Accepts `count` reliable packets, lays them out for one write, hands that to `write`, and lets go of
    /// them as when all of them were acknowledged.
    pub fn encode(
        &mut self,
        token: UID,
        payload: &[u8],
        count: u32,
        write: impl FnOnce(&[IoSlice<'_>]),
    ) {
        for _ in 0..count {
            let prefix = Prefix::Sequenced(token);
            let mut frame = self.outbox.begin(prefix, payload.len());
            frame.head().extend_from_slice(payload);
            frame.terms = PacketTerms::default();
            self.outbox.push_reliable(frame);
        }
        let ack = self.written;
        self.outbox
            .lay_out_plain(Duration::ZERO, ack, self.max_payload);
        let batch = self.outbox.take_batch();
        let mut slices = [IoSlice::new(&[]); BATCH_SLICES];
        let used = batch.slices(&mut slices);
        let slices = slices.get(..used).unwrap_or_default();
        write(slices);
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.outbox.put_back(batch, bytes);
        self.written += u64::from(count);
        let acknowledged = self.outbox.acknowledge(self.written + 1);
        debug_assert_eq!(acknowledged, Ok(()), "all of it was written");
    }

    /// Reads bytes that were [encoded](Self::encode), and hands each packet's token and payload out.
    ///
    /// # Errors
    /// If they are no packets of a session.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        mut deliver: impl FnMut(UID, &[u8]),
    ) -> Result<(), ConnectionError> {
        self.reader.make_room()?;
        self.reader.buffer().extend_from_slice(bytes);
        self.reader.handle_read(bytes.len());
        while let Some(mut block) = self.reader.next_block()? {
            while let Some((token, payload, _)) = block.next_packet()? {
                if token != WellKnownToken::Sequenced.token() {
                    deliver(token, payload);
                } else if let Some((_, _, token, payload)) = sequenced(payload) {
                    deliver(token, payload);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_benchmark_encodes_it_decodes() {
        let mut probe = PacketProbe::default();
        let token = UID::new(1, 2);
        for count in [1, 16, 100] {
            let mut wire = Vec::new();
            probe.encode(token, &[7; 64], count, |slices| {
                wire.extend(slices.iter().flat_map(|slice| slice.iter().copied()));
            });
            assert_eq!(probe.outbox.unacknowledged(), 0);
            let mut packets = 0;
            let decoded = probe.decode(&wire, |to, payload| {
                assert_eq!((to, payload), (token, &[7; 64][..]));
                packets += 1;
            });
            assert!(decoded.is_ok(), "{decoded:?}");
            assert_eq!(packets, count);
        }
    }
}
