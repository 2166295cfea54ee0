//! Events: put into the queue, taken out of it before their time, and what happens when that has come.

use super::clock::SimInstant;
use super::connections::Side;
use super::event::{Event, Queued, key_of};
use super::events::{EventClass, EventKey};
use super::world::World;

impl World {
    pub(super) fn queue(&mut self, at: SimInstant, class: EventClass, event: Event) -> EventKey {
        let queued = self.spare_boxes.pack(event);
        self.events.push(at, class, queued)
    }

    /// Takes an event out before its time, to be dropped where nobody borrows the world.
    pub(super) fn take_event(&mut self, key: EventKey) -> Option<Event> {
        let queued = self.events.remove(key)?;
        Some(self.spare_boxes.unpack(queued))
    }

    /// Lets `event` happen in place of the one at `key`, which it returns.
    pub(super) fn replace_event(&mut self, key: EventKey, event: Event) -> Option<Event> {
        let place = self.events.get_mut(key)?;
        let replaced = std::mem::replace(place, self.spare_boxes.pack(event));
        Some(self.spare_boxes.unpack(replaced))
    }

    /// Moves the clock to the next event, which was just popped, and applies it. A closure is handed
    /// back, to be called without a borrow of the world.
    #[inline]
    pub(super) fn apply_event(
        &mut self,
        at: SimInstant,
        event: Queued,
    ) -> Option<Box<dyn FnOnce()>> {
        assert!(at >= self.clock, "virtual time never goes back");
        self.set_clock(at);
        self.events_processed += 1;
        self.digest.fold(at.as_nanos());
        let from = match event {
            Queued::FromDialer(_) => Side::Dialer,
            _ => Side::Acceptor,
        };
        // By far most are one of these. They fold what `Event::fold_into` does.
        match event {
            Queued::Task(number) if !self.trace.is_on() => {
                self.digest.fold(1);
                self.digest.fold(0);
                self.executor.make_ready(key_of(number));
            }
            Queued::FromDialer(number) | Queued::FromAcceptor(number) if !self.trace.is_on() => {
                self.digest.fold(2 + from.number());
                self.digest.fold(number);
                self.deliver_segment(key_of(number), from);
            }
            queued => return self.apply_packed(queued),
        }
        None
    }

    fn apply_packed(&mut self, queued: Queued) -> Option<Box<dyn FnOnce()>> {
        let event = self.spare_boxes.unpack(queued);
        event.fold_into(&mut self.digest);
        if self.trace.is_on() {
            return self.handle_traced(event);
        }
        self.handle_event(event)
    }

    #[inline]
    pub(super) fn set_clock(&mut self, at: SimInstant) {
        if self.clock != at {
            self.clock = at;
            self.turns = 0;
        }
    }

    #[cold]
    fn handle_traced(&mut self, event: Event) -> Option<Box<dyn FnOnce()>> {
        let described = format!("{event:?}");
        let call = self.handle_event(event);
        self.record(None, described);
        call
    }

    fn handle_event(&mut self, event: Event) -> Option<Box<dyn FnOnce()>> {
        match event {
            Event::Wake(waiter) => self.wake(waiter),
            Event::Segment { connection, from } => self.deliver_segment(connection, from),
            Event::Break {
                connection,
                to,
                breakage,
            } => self.break_due(connection, to, breakage),
            Event::GiveUp { connection, from } => self.give_up(connection, from),
            Event::Unclog {
                connection,
                side,
                clogs,
            } => self.unclog(connection, side, clogs),
            Event::Restore(connection) => self.restore_connection(connection),
            Event::Lift(block, cause) => self.lift(block, cause),
            Event::ConnectArrives(attempt) => self.connect_arrives(attempt),
            Event::ConnectAnswered(attempt) => self.connect_answered(attempt),
            Event::Call(closure) => return Some(closure),
            Event::Mark(_) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::sim::SimWorld;
    use crate::time::TimeProvider;

    #[test]
    fn turns_of_different_instants_are_no_livelock_together() {
        let world = SimWorld::new();
        world.shared.with(|world| world.set_livelock_limit(10));
        let time = world.time_provider();
        let sleeps = async move {
            for _ in 0..1000 {
                time.sleep(Duration::from_micros(1)).await;
            }
        };
        world.block_on(sleeps).unwrap();
    }
}
