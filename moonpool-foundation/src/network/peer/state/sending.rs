//! Packets that handles send: admitted or refused, begun, taken.

use bytes::Bytes;

use crate::messaging::{UID, WellKnownToken};
use crate::network::peer::error::PeerError;
use crate::network::peer::frame::{Frame, Prefix};
use crate::network::peer::packet::PacketId;
use crate::network::peer::terms::{Account, PacketTerms};

use super::PeerState;

/// Room that is made for a payload whose size is not known yet.
pub(in crate::network::peer) const EXPECTED_PAYLOAD: usize = 192;

/// Why a packet is not taken; the payload's owner makes a [`PeerError`] of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::network::peer) enum Refusal {
    Full,
    TooLarge { size: usize, limit: usize },
    Closed,
    Reserved { token: UID },
}

impl Refusal {
    #[cold]
    pub(in crate::network::peer) fn into_error(self, payload: Bytes) -> PeerError {
        match self {
            Self::Full => PeerError::QueueFull { payload },
            Self::TooLarge { size, limit } => PeerError::PayloadTooLarge {
                size,
                limit,
                payload,
            },
            Self::Closed => PeerError::Closed {
                payload: Some(payload),
            },
            Self::Reserved { token } => PeerError::ReservedToken { token, payload },
        }
    }
}

impl PeerState {
    /// Begins a reliable packet, with room for a payload of `room` bytes, if one of `size` bytes is
    /// admitted: as far as that can be said before it is encoded. To be [sent](Self::send_reliable) or
    /// given [back](Self::end_packet).
    pub(in crate::network::peer) fn begin_reliable(
        &mut self,
        token: UID,
        terms: &PacketTerms,
        size: usize,
        room: usize,
    ) -> Result<Box<Frame>, Refusal> {
        self.admit_reliable(size, terms.account)?;
        check_token(token)?;
        let prefix = if self.exchange.is_some() {
            Prefix::Sequenced(token)
        } else {
            Prefix::Plain(token)
        };
        let mut frame = self.outbox.begin(prefix, room);
        frame.terms = *terms;
        Ok(frame)
    }

    /// Begins an unreliable packet likewise.
    pub(in crate::network::peer) fn begin_unreliable(
        &mut self,
        token: UID,
        size: usize,
        room: usize,
    ) -> Result<Box<Frame>, Refusal> {
        self.admit_unreliable(size)?;
        check_token(token)?;
        let mut frame = self.outbox.begin(Prefix::Plain(token), room);
        frame.terms = PacketTerms::default();
        Ok(frame)
    }

    /// A packet that was begun is not sent.
    #[cold]
    pub(in crate::network::peer) fn end_packet(&mut self, frame: Box<Frame>) {
        self.outbox.reuse(frame);
    }

    /// Takes a reliable packet.
    pub(in crate::network::peer) fn send_reliable(
        &mut self,
        mut frame: Box<Frame>,
    ) -> Result<PacketId, (Refusal, Box<Frame>)> {
        // An encoder may have done anything meanwhile.
        if let Err(refusal) = self.admit_reliable(frame.payload_size(), frame.terms.account) {
            return Err((refusal, frame));
        }
        if frame.terms.account == Account::Owed {
            // Once it is taken there is no difference.
            frame.terms.account = Account::Own;
        }
        self.was_used = true;
        if let Some(closing) = &mut self.closing {
            // What the other end says now does not cover this one.
            closing.asked = false;
        }
        Ok(self.outbox.push_reliable(frame))
    }

    /// Takes an unreliable packet. Without a connection it is dropped and counted.
    pub(in crate::network::peer) fn send_unreliable(
        &mut self,
        frame: Box<Frame>,
    ) -> Result<(), (Refusal, Box<Frame>)> {
        if let Err(refusal) = self.admit_unreliable(frame.payload_size()) {
            return Err((refusal, frame));
        }
        self.was_used = true;
        if self.is_open() {
            self.outbox.push_unreliable(frame);
        } else {
            self.outbox.reuse(frame);
            self.outbox.count_unreliable_dropped();
        }
        Ok(())
    }

    fn admit_unreliable(&self, size: usize) -> Result<(), Refusal> {
        self.admit(size, Account::Own, self.outbox.accepts_unreliable())
    }

    #[inline]
    fn admit_reliable(&self, size: usize, account: Account) -> Result<(), Refusal> {
        match self.outbox.accepts(account) {
            Some(has_room) => self.admit(size, account, has_room),
            None => Err(Refusal::Closed),
        }
    }

    #[inline]
    fn admit(&self, size: usize, account: Account, has_room: bool) -> Result<(), Refusal> {
        let limit = self.max_payload() as usize;
        let is_closed = match account {
            Account::Own => self.is_closed(),
            Account::Owed | Account::Answer(_) | Account::Refusal => self.has_said_goodbye(),
        };
        if is_closed {
            Err(Refusal::Closed)
        } else if size > limit {
            Err(Refusal::TooLarge { size, limit })
        } else if has_room {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
    }

    pub(in crate::network::peer) fn accepts_reliable(&self) -> bool {
        self.outbox.accepts_reliable()
    }
}

#[inline]
fn check_token(token: UID) -> Result<(), Refusal> {
    if WellKnownToken::session_frame(token).is_some() {
        return Err(Refusal::Reserved { token });
    }
    Ok(())
}
