//! How calls end, and what the other end learns of it.

use std::task::Waker;
use std::time::Duration;

use moonpool_foundation::UID;
use moonpool_foundation::network::peer::{
    Expiry, PacketId, PacketTerms, PeerHandle, PeerId, SendError, SessionEnded, Withdrawal,
};
use moonpool_traits::CodecError;

use super::{Core, wake};
use crate::messaging::r#static::call_table::{
    Arrival, CallTerms, Connectivity, Due, Look, Outcome, Sent,
};
use crate::messaging::r#static::envelope;
use crate::messaging::r#static::reply_error::ReplyError;

/// How long a cancellation may wait to be written: a session that was without a connection for this
/// long is over, for most callers.
const CANCELLATION_KEPT: Duration = Duration::from_secs(10);

/// When the calls are to be looked at, as far as the timer's task knows.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// What the timer is armed for.
    armed: Option<Look>,
    waker: Option<Waker>,
}

impl Core {
    /// Starts a call. `None` when there are as many as can be.
    pub(crate) fn start_call(&self, terms: CallTerms) -> Option<UID> {
        let token = self.calls.borrow_mut().start(terms)?;
        self.wake_timer_for_next_look();
        Some(token)
    }

    /// Wakes the timer's task if a call has to be looked at before it would look by itself.
    pub(super) fn wake_timer_for_next_look(&self) {
        let next = self.next_look();
        let waker = {
            let mut looks = self.looks.borrow_mut();
            let is_later = match (looks.armed, next) {
                (_, None) => true,
                (Some(armed), Some(next)) => {
                    armed.at <= next.at && armed.is_certain >= next.is_certain
                }
                (None, Some(_)) => false,
            };
            if is_later { None } else { looks.waker.take() }
        };
        wake(waker);
    }

    /// When a call is to be looked at next.
    pub(crate) fn next_look(&self) -> Option<Look> {
        self.calls.borrow().next_look()
    }

    /// Notes whom to wake when a call has to be looked at before `armed`. The one noted before is
    /// for the caller to drop.
    pub(crate) fn await_look(&self, armed: Option<Look>, waker: &Waker) -> Option<Waker> {
        let mut looks = self.looks.borrow_mut();
        looks.armed = armed;
        looks.waker.replace(waker.clone())
    }

    /// The waker of the timer's task.
    pub(super) fn take_timer(&self) -> Option<Waker> {
        self.looks.borrow_mut().waker.take()
    }

    /// Ends the calls whose deadline has passed, and those without a working connection for longer
    /// than they put up with.
    pub(crate) fn end_due_calls(&self, now: Duration) {
        loop {
            let due = self.calls.borrow_mut().next_due(now);
            match due {
                None => return,
                Some(Due::Expired {
                    token,
                    endpoint_token,
                    sent,
                }) => self.end_expired(token, endpoint_token, sent, now),
                Some(Due::Unsure {
                    token,
                    endpoint_token,
                    peer,
                    packet,
                }) => {
                    let sent = (peer, packet);
                    self.judge_connection(now, token, endpoint_token, sent);
                }
            }
        }
    }

    /// Ends a call whose deadline has passed. Its request is taken back first: only then is known
    /// whether any of it was handed to a socket.
    fn end_expired(&self, token: UID, endpoint_token: UID, sent: Option<Sent>, now: Duration) {
        self.counters.calls_timed_out.add();
        let error = match self.give_up(token, endpoint_token, sent, now) {
            Withdrawal::NotDelivered => ReplyError::ConnectionFailed,
            Withdrawal::MaybeDelivered | Withdrawal::Unknown => ReplyError::Timeout,
        };
        let waker = self.calls.borrow_mut().fail(token, error);
        self.wake_caller(waker);
    }

    /// Ends the call if there was no working connection for too long, else looks again later.
    fn judge_connection(
        &self,
        now: Duration,
        token: UID,
        endpoint_token: UID,
        (peer, packet): (PeerId, PacketId),
    ) {
        let handle = self.peers.borrow().handle(peer).cloned();
        let connection = match &handle {
            Some(handle) if handle.is_connected() => Connectivity::Connected,
            // One that is about to dial has not begun to fail.
            handle => Connectivity::LostAt(
                handle
                    .as_ref()
                    .and_then(PeerHandle::unconnected_since)
                    .unwrap_or(now),
            ),
        };
        let is_patient = self.calls.borrow_mut().look_again(now, token, connection);
        if is_patient {
            return;
        }
        let withdrawn = handle.as_ref().map(|handle| handle.withdraw(packet));
        let error = match (withdrawn, handle) {
            (Some(Withdrawal::NotDelivered), _) => ReplyError::ConnectionFailed,
            (_, handle) => {
                if let Some(handle) = handle {
                    self.send_cancellation(&handle, token, endpoint_token, now);
                }
                ReplyError::MaybeDelivered
            }
        };
        let waker = self.calls.borrow_mut().fail(token, error);
        self.wake_caller(waker);
    }

    /// Gives a call its outcome, if it waits for one from there; then gives the token that its
    /// request went to.
    #[inline]
    pub(crate) fn end_call(
        &self,
        token: UID,
        from: Option<PeerId>,
        outcome: Outcome,
    ) -> Option<UID> {
        let arrival = self.calls.borrow_mut().reply(token, from, outcome);
        match arrival {
            Arrival::Ended {
                waker,
                endpoint_token,
            } => {
                self.counters.replies_received.add();
                self.wake_caller(waker);
                Some(endpoint_token)
            }
            Arrival::Late => {
                self.counters.replies_late.add();
                None
            }
        }
    }

    /// A call ended: wakes its future, and whoever waits for room to make one.
    pub(super) fn wake_caller(&self, waker: Option<Waker>) {
        wake(waker);
        self.note_call_room();
    }

    /// Gives a call up whose future is gone, and takes its request back as far as that can be done.
    pub(crate) fn forget_call(&self, token: UID) {
        let forgotten = self.calls.borrow_mut().forget(token);
        drop(forgotten.waker);
        self.note_call_room();
        if let Some(endpoint_token) = forgotten.endpoint_token {
            self.give_up(token, endpoint_token, forgotten.sent, self.now());
        }
    }

    /// Takes a request back. If it may have arrived, the other end is told that nobody waits.
    fn give_up(
        &self,
        token: UID,
        endpoint_token: UID,
        sent: Option<Sent>,
        now: Duration,
    ) -> Withdrawal {
        match sent {
            None => Withdrawal::NotDelivered,
            // Whoever has a promise is not known.
            Some(Sent::Elsewhere) => Withdrawal::Unknown,
            Some(Sent::Local { packet }) => {
                let withdrawn = self.local.borrow_mut().withdraw(packet);
                if withdrawn.is_none() {
                    self.handle_cancellation(None, token);
                    Withdrawal::MaybeDelivered
                } else {
                    self.note_local_room();
                    Withdrawal::NotDelivered
                }
            }
            Some(Sent::To { peer, packet }) => {
                let handle = self.peers.borrow().handle(peer).cloned();
                let Some(handle) = handle else {
                    return Withdrawal::Unknown;
                };
                let withdrawn = handle.withdraw(packet);
                tracing::trace!(%token, ?withdrawn, "a call was given up");
                if withdrawn != Withdrawal::NotDelivered {
                    self.send_cancellation(&handle, token, endpoint_token, now);
                }
                withdrawn
            }
        }
    }

    /// Tells the other end that nobody waits for the reply. If there is no room for that now, it
    /// learns it by the deadline.
    fn send_cancellation(&self, peer: &PeerHandle, token: UID, endpoint_token: UID, now: Duration) {
        let terms = PacketTerms {
            expiry: Some(Expiry {
                at: now.saturating_add(CANCELLATION_KEPT),
                remaining_offset: None,
            }),
            ..PacketTerms::default()
        };
        let sent = peer.send_reliable_under(endpoint_token, terms, |buffer| {
            envelope::put_cancellation(token, buffer);
            Ok(())
        });
        match sent {
            Ok(_) => self.counters.cancellations_sent.add(),
            Err(error) => {
                let error: SendError<CodecError> = error;
                tracing::debug!(%token, %error, "a cancellation was not sent");
            }
        }
    }

    /// Ends every call by what is known of its request, and gives the wakers.
    pub(super) fn end_all_calls(&self) -> Vec<Waker> {
        let waiting = self.calls.borrow().all_waiting();
        let ended = waiting.into_iter().filter_map(|(token, sent)| {
            let is_unsent = match sent {
                None => true,
                Some(Sent::Elsewhere) => false,
                Some(Sent::Local { packet }) => self.local.borrow_mut().withdraw(packet).is_some(),
                Some(Sent::To { peer, packet }) => {
                    let handle = self.peers.borrow().handle(peer).cloned();
                    let withdrawn = handle.map(|handle| handle.withdraw(packet));
                    withdrawn == Some(Withdrawal::NotDelivered)
                }
            };
            let error = if is_unsent {
                ReplyError::ConnectionFailed
            } else {
                ReplyError::MaybeDelivered
            };
            self.calls.borrow_mut().fail(token, error)
        });
        ended.collect()
    }

    pub(super) fn end_calls_of_session(&self, peer: PeerId, ended: &SessionEnded) {
        loop {
            let next = self.calls.borrow_mut().end_next_of_session(peer, ended);
            match next {
                Some(waker) => self.wake_caller(waker),
                None => return,
            }
        }
    }

    pub(super) fn end_calls_of(&self, peer: PeerId) {
        loop {
            let next = self.calls.borrow_mut().end_next_of_peer(peer);
            match next {
                Some(waker) => self.wake_caller(waker),
                None => return,
            }
        }
    }
}
