//! Where a peer's packets and reports go: to a sink, or into an inbox.

use std::rc::Rc;
use std::time::Duration;

use super::handle::PeerHandle;
use super::inbox::Inbox;
use super::packet::{PeerSink, ReceivedPacket};
use super::state::Event;

/// Where received packets and reports go.
pub(super) enum Receiver {
    Sink(Rc<dyn PeerSink>),
    Inbox(Rc<Inbox>),
}

impl Receiver {
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Sink(_) => false,
            Self::Inbox(inbox) => inbox.is_full(),
        }
    }

    #[inline]
    pub(super) fn deliver(&self, handle: &PeerHandle, packet: ReceivedPacket<'_>) {
        match self {
            Self::Sink(sink) => sink.handle_packet(handle, packet),
            Self::Inbox(inbox) => inbox.push(packet),
        }
    }

    #[inline]
    pub(super) fn expects_replies(&self, handle: &PeerHandle) -> bool {
        match self {
            Self::Sink(sink) => sink.expects_replies(handle),
            Self::Inbox(_) => false,
        }
    }

    pub(super) fn patience(&self, handle: &PeerHandle) -> Option<Duration> {
        match self {
            Self::Sink(sink) => sink.patience(handle),
            Self::Inbox(_) => None,
        }
    }

    /// Hands the packets out that turned out to be for this process.
    pub(super) fn keep(&self, handle: &PeerHandle) {
        let ceded = handle.state().cede();
        let (Self::Sink(sink), Some(frames)) = (self, ceded) else {
            return;
        };
        let packets = frames.into_iter().filter_map(|frame| frame.into_packet());
        sink.handle_ours(handle, packets.collect());
    }

    pub(super) fn report(&self, handle: &PeerHandle, event: Event) {
        match (self, event) {
            (Self::Sink(sink), Event::SessionEnded(ended)) => {
                sink.handle_session_ended(handle, ended);
            }
            (Self::Sink(sink), Event::Withdrawn { id, limit }) => {
                sink.handle_withdrawn(handle, id, limit);
            }
            (Self::Sink(sink), Event::Connection(change)) => sink.handle_connection(handle, change),
            (Self::Inbox(inbox), Event::SessionEnded(ended)) => inbox.push_report(ended),
            (Self::Inbox(_), Event::Connection(_)) => {}
            // Plain mode learns of no limit of the other end's.
            (Self::Inbox(_), Event::Withdrawn { .. }) => {}
        }
    }
}
