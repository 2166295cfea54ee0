//! What the network has to say to the log. It is kept until nobody borrows the world, for a
//! subscriber is a callback, and kept only if somebody listens.
//!
//! Levels: `trace` is every operation of a socket, `debug` what chance or a test does to one and
//! operations that fail, `info` listeners and connections that begin and end. All of them name the connection by the number that
//! traces and the ledger of faults show.

use super::connections::ConnectionId;
use super::links::Block;
use super::world::World;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    Connection { connection: u64, what: &'static str },
    Link { what: &'static str, block: Block },
}

impl Notice {
    pub(super) fn log(self) {
        match self {
            Self::Connection { connection, what } => {
                tracing::debug!(connection, "connection {what}");
            }
            Self::Link { what, block } => tracing::debug!(?block, "{what}"),
        }
    }
}

impl World {
    pub(super) fn notice(&mut self, id: ConnectionId, what: &'static str) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            let connection = id.number();
            self.notices.push(Notice::Connection { connection, what });
        }
    }

    pub(super) fn notice_block(&mut self, what: &'static str, block: Block) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            self.notices.push(Notice::Link { what, block });
        }
    }
}
