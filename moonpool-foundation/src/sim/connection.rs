//! What a connection is: two ends, a pipe each way, and what holds it up.

use std::io;
use std::net::SocketAddr;

use super::breakage::{Breakage, CloseReason};
use super::clock::SimInstant;
use super::clogs::{Clog, ClogSide};
use super::events::EventKey;
use super::pipe::{Pipe, Sender};
use super::process::ProcessRef;
use super::wakes::Waiter;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that connected.
    Dialer,
    /// The one that listened.
    Acceptor,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Dialer => 0,
            Self::Acceptor => 1,
        }
    }

    /// For digests.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Dialer => 0,
            Self::Acceptor => 1,
        }
    }
}

/// The life of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndState {
    Open,
    /// A RST came; the first call that meets it is told with this error.
    Reset(Option<io::ErrorKind>),
    /// Dropped by its owner, or dead with it: what arrives is refused.
    Closed,
    /// Its host is gone: what arrives is swallowed.
    Silent,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) owner: ProcessRef,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: EndState,
    /// What broke it, if anything did.
    pub(super) broken: Option<Breakage>,
    pub(super) reader: Option<Waiter>,
    pub(super) writer: Option<Waiter>,
    /// A RST under way to this end.
    pub(super) reset_event: Option<EventKey>,
    pub(super) read_clog: Clog,
    pub(super) write_clog: Clog,
}

impl End {
    pub(super) fn new(owner: ProcessRef, local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            owner,
            local,
            remote,
            state: EndState::Open,
            broken: None,
            reader: None,
            writer: None,
            reset_event: None,
            read_clog: Clog::Open,
            write_clog: Clog::Open,
        }
    }

    /// What a read gives that finds no bytes: the end, or an error. `None` if it is to wait.
    #[inline]
    pub(super) fn read_end(&mut self, ended: bool) -> Option<io::Result<()>> {
        match &mut self.state {
            EndState::Open | EndState::Closed | EndState::Silent if !ended => None,
            EndState::Open | EndState::Closed | EndState::Silent => Some(Ok(())),
            EndState::Reset(_) if ended => Some(Ok(())),
            EndState::Reset(error) => Some(match error.take() {
                Some(kind) => Err(kind.into()),
                None => Ok(()),
            }),
        }
    }

    /// Why nothing can be written here any more, if so.
    #[inline]
    pub(super) fn write_end(&mut self, sender: Sender) -> Option<io::ErrorKind> {
        if let EndState::Reset(error) = &mut self.state {
            return Some(error.take().unwrap_or(io::ErrorKind::BrokenPipe));
        }
        (sender == Sender::Shut).then_some(io::ErrorKind::BrokenPipe)
    }

    pub(super) fn clog(&mut self, clogs: ClogSide) -> &mut Clog {
        match clogs {
            ClogSide::Read => &mut self.read_clog,
            ClogSide::Write => &mut self.write_clog,
        }
    }

    /// Lifts its clogs. Returns their events, to be removed.
    pub(super) fn take_clogs(&mut self) -> [Option<EventKey>; 2] {
        let clogs = [&mut self.read_clog, &mut self.write_clog];
        clogs.map(|clog| std::mem::take(clog).event())
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    /// By [`Side`].
    pub(super) ends: [End; 2],
    /// By the side that sends.
    pub(super) pipes: [Pipe; 2],
    /// Nothing arrives in either direction, until this event.
    pub(super) cut: Option<EventKey>,
    /// One of its ends is gone without a word.
    pub(super) half_open: bool,
    /// When it is drawn next whether its processes part.
    pub(super) next_partition_draw: SimInstant,
}

impl Connection {
    pub(super) fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side.index()]
    }

    /// The end at `side`, and the other one.
    pub(super) fn both_ends(ends: &mut [End; 2], side: Side) -> [&mut End; 2] {
        let [dialer, acceptor] = ends;
        match side {
            Side::Dialer => [dialer, acceptor],
            Side::Acceptor => [acceptor, dialer],
        }
    }

    /// What `side` sends.
    pub(super) fn pipe(&mut self, side: Side) -> &mut Pipe {
        &mut self.pipes[side.index()]
    }

    /// Why `side` cannot go on as it did.
    pub(super) fn close_reason(&self, side: Side) -> CloseReason {
        let end = &self.ends[side.index()];
        let has_ended = self.pipes[side.index()].sender == Sender::Shut
            || self.pipes[side.other().index()].ended;
        match (end.broken, end.state) {
            (Some(Breakage::TimedOut), _) => CloseReason::TimedOut,
            (Some(Breakage::Reset), _) | (None, EndState::Silent) => CloseReason::Aborted,
            (None, _) if has_ended => CloseReason::Graceful,
            (None, _) => CloseReason::None,
        }
    }

    /// Whether chance leaves it alone.
    pub(super) fn is_stable(&self) -> bool {
        self.pipes[0].is_stable()
    }

    /// Events that would come for nothing once it is forgotten.
    pub(super) fn take_events(&mut self) -> Vec<EventKey> {
        let [dialer, acceptor] = &mut self.ends;
        let clogs = dialer.take_clogs().into_iter().chain(acceptor.take_clogs());
        let pipes = self.pipes.iter_mut().map(Pipe::take_timeout);
        clogs
            .chain(pipes)
            .chain([self.cut.take()])
            .flatten()
            .collect()
    }

    /// Nothing will ever happen on it again.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| {
            let is_gone = matches!(end.state, EndState::Closed | EndState::Silent);
            is_gone && end.reset_event.is_none()
        }) && self.pipes.iter().all(Pipe::is_idle)
    }
}
