//! The alphabet of what a client does, and the draw of its next operation.

use moonpool::RandomProvider;

use super::messages::Action;

#[derive(Clone, Copy, Debug)]
pub(crate) enum ClientOp {
    Send(Action),
    /// To a token that nobody has.
    SendNowhere,
    /// Wait for the outcome of the oldest request.
    Await,
    /// The same, for a limited time.
    AwaitWithTimeout {
        millis: u64,
    },
    /// Give the oldest request up.
    Forget,
    Pause {
        millis: u64,
    },
}

/// How often each operation is drawn, relative to the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    pub(crate) answers: u32,
    pub(crate) late_answers: u32,
    pub(crate) dropped: u32,
    pub(crate) refused: u32,
    pub(crate) nowhere: u32,
    pub(crate) awaits: u32,
    pub(crate) timeouts: u32,
    pub(crate) forgotten: u32,
    pub(crate) pauses: u32,
}

impl Weights {
    pub(crate) const HAPPY_PATH: Self = Self {
        answers: 50,
        late_answers: 10,
        dropped: 0,
        refused: 0,
        nowhere: 0,
        awaits: 30,
        timeouts: 0,
        forgotten: 0,
        pauses: 10,
    };

    pub(crate) const BROKEN_PROMISES: Self = Self {
        answers: 10,
        dropped: 50,
        ..Self::HAPPY_PATH
    };

    pub(crate) const ERRORS: Self = Self {
        answers: 10,
        late_answers: 10,
        dropped: 20,
        refused: 10,
        nowhere: 10,
        awaits: 20,
        timeouts: 20,
        forgotten: 10,
        pauses: 5,
    };

    pub(crate) const EVERYTHING: Self = Self {
        answers: 30,
        late_answers: 10,
        dropped: 5,
        refused: 5,
        nowhere: 5,
        awaits: 20,
        timeouts: 10,
        forgotten: 5,
        pauses: 10,
    };

    pub(crate) fn draw(&self, random: &impl RandomProvider) -> ClientOp {
        let millis = random.random_range(1..50_u64);
        let table = [
            (self.answers, ClientOp::Send(Action::Answer)),
            (
                self.late_answers,
                ClientOp::Send(Action::AnswerAfter { millis }),
            ),
            (self.dropped, ClientOp::Send(Action::DropPromise)),
            (self.refused, ClientOp::Send(Action::Refuse)),
            (self.nowhere, ClientOp::SendNowhere),
            (self.awaits, ClientOp::Await),
            (self.timeouts, ClientOp::AwaitWithTimeout { millis }),
            (self.forgotten, ClientOp::Forget),
            (self.pauses, ClientOp::Pause { millis }),
        ];
        let total: u32 = table.iter().map(|(weight, _)| weight).sum();
        let mut left = random.random_range(0..total);
        for (weight, op) in table {
            if left < weight {
                return op;
            }
            left -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }
}
