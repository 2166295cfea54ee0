//! The event queue by itself, for the benchmark that compares it with others. Not part of the API.

use std::time::Duration;

use super::clock::SimInstant;
use super::events::{EventClass, EventQueue, Popped};

/// An event queue outside a world. Times are nanoseconds.
#[derive(Debug, Default)]
pub struct QueueProbe(EventQueue<u64>);

impl QueueProbe {
    /// Queues `event` for that time.
    pub fn push(&mut self, at_nanos: u64, event: u64) {
        let at = SimInstant::ZERO.after(Duration::from_nanos(at_nanos));
        self.0.push(at, EventClass::Foreground, event);
    }

    /// Takes the earliest event out, with its time.
    pub fn pop(&mut self) -> Option<(u64, u64)> {
        match self.0.pop_by(SimInstant::NEVER) {
            Popped::Event(at, event) => Some((at.as_nanos(), event)),
            Popped::Later(_) | Popped::Nothing => None,
        }
    }
}
