//! What a client can do next, and how often it does it.

use std::time::Duration;

use moonpool_foundation::RandomProvider;

/// One step of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    SendReliable {
        padding: usize,
    },
    SendUnreliable {
        padding: usize,
    },
    /// Takes what has arrived.
    Receive,
    /// Drops the connection from this end.
    ForceReconnect,
    /// A connection of this client's is reset from outside, in the middle of a segment.
    AbortConnection,
    /// The other end of one falls silent, and is noticed after a while.
    HalfOpen {
        error_after: Duration,
    },
    /// The server dies, and lives again after a while.
    RebootServer,
    Wait(Duration),
}

/// How often each kind of operation is drawn, relative to the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    pub(crate) reliable: u32,
    pub(crate) unreliable: u32,
    pub(crate) receive: u32,
    pub(crate) reconnect: u32,
    pub(crate) abort: u32,
    pub(crate) half_open: u32,
    pub(crate) reboot: u32,
    pub(crate) wait: u32,
}

impl Weights {
    /// Reliable packets, and time for them to travel.
    pub(crate) const CALM: Self = Self {
        reliable: 10,
        unreliable: 0,
        receive: 2,
        reconnect: 0,
        abort: 0,
        half_open: 0,
        reboot: 0,
        wait: 8,
    };

    /// Everything, with connections that do not last.
    pub(crate) const BROKEN: Self = Self {
        unreliable: 5,
        reconnect: 1,
        abort: 2,
        half_open: 1,
        reboot: 1,
        ..Self::CALM
    };

    pub(crate) fn draw(&self, random: &impl RandomProvider) -> Operation {
        let padding = || match random.random_range(0..10) {
            0 => random.random_range(2_000..20_000),
            _ => random.random_range(0..100),
        };
        let millis =
            |range: std::ops::Range<u64>| Duration::from_millis(random.random_range(range));
        let choices: [(u32, &dyn Fn() -> Operation); 8] = [
            (self.reliable, &|| Operation::SendReliable {
                padding: padding(),
            }),
            (self.unreliable, &|| Operation::SendUnreliable {
                padding: padding(),
            }),
            (self.receive, &|| Operation::Receive),
            (self.reconnect, &|| Operation::ForceReconnect),
            (self.abort, &|| Operation::AbortConnection),
            (self.half_open, &|| Operation::HalfOpen {
                error_after: millis(1..500),
            }),
            (self.reboot, &|| Operation::RebootServer),
            (self.wait, &|| Operation::Wait(millis(0..30))),
        ];
        let mut drawn = random.random_range(0..choices.iter().map(|(weight, _)| weight).sum());
        for (weight, operation) in choices {
            if drawn < weight {
                return operation();
            }
            drawn -= weight;
        }
        unreachable!("the draw is below the sum of all weights")
    }
}
