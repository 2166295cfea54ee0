//! What a world does next, as far as that needs nobody's code: whose turn it is, and what the next
//! event changes. `drive` polls, calls and reports.

use std::time::Duration;

use super::clock::SimInstant;
use super::events::Popped;
use super::executor::{FAR, Turn};
use super::polling::Polled;
use super::wakes::{TaskMeta, Waiter};
use super::world::{Event, World};

/// All tasks together may be polled this many times as often at one instant as one of them: a task
/// that spawns its successor is a new one each time.
const TOGETHER_FACTOR: u64 = 16;

/// How far a drive may move the clock.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// As far as it takes.
    Idle,
    /// As far as it takes, if some event keeps the run alive.
    Foreground,
    /// Not beyond this instant.
    Instant(SimInstant),
}

/// What processing an event came to.
pub(super) enum Step {
    Moved,
    /// No event, or none before the limit.
    Nothing,
    /// The next event is beyond the time budget.
    OutOfBudget(Duration),
    /// The event was processed, but for what needs the world unborrowed.
    Ends {
        /// To be called.
        call: Option<Box<dyn FnOnce()>>,
        /// Polls and events at this instant, if they are too many.
        too_many: Option<u64>,
    },
}

/// What there is to do without a borrow of the world.
pub(super) enum Next {
    Turn(Turn),
    /// To finish what an event came to.
    Finish(Step),
}

impl World {
    /// Whose turn it is; events are processed until it is somebody's.
    pub(super) fn next(&mut self, main_woken: bool, until: Until) -> Next {
        loop {
            if let Some(turn) = self.next_turn(main_woken) {
                return Next::Turn(turn);
            }
            match self.step(until) {
                Step::Moved if self.wakes.is_empty() && self.notices.is_empty() => {}
                step => return Next::Finish(step),
            }
        }
    }

    pub(super) fn next_turn(&mut self, main_woken: bool) -> Option<Turn> {
        self.executor
            .next_turn(main_woken, &mut self.scheduler, &mut self.digest)
    }

    /// Moves the clock to the next event and applies it.
    pub(super) fn step(&mut self, until: Until) -> Step {
        let limit = match until {
            Until::Foreground if self.events.foreground() == 0 => return Step::Nothing,
            Until::Foreground | Until::Idle => SimInstant::NEVER,
            Until::Instant(limit) => limit,
        };
        let (at, event) = match self.events.pop_by(limit.min(self.budget_ends)) {
            Popped::Event(at, event) => (at, event),
            Popped::Later(at) if at <= limit => {
                return Step::OutOfBudget(self.budget_ends.since_start());
            }
            Popped::Later(_) | Popped::Nothing => return Step::Nothing,
        };
        if self.events.take_filled() && self.executor.live() > FAR {
            self.look_ahead();
        }
        let call = self.apply_event(at, event);
        let turns = self.turns.count(self.clock);
        let too_many = (turns > self.turns_limit()).then_some(turns);
        if call.is_none() && too_many.is_none() {
            return Step::Moved;
        }
        Step::Ends { call, too_many }
    }

    /// Reads what the next timers wake: so it comes from memory together, where each task would be
    /// waited for in its turn.
    #[cold]
    fn look_ahead(&self) {
        let tasks = self.events.near().filter_map(|event| match event {
            Event::Wake(Waiter::Task(key)) => Some(*key),
            _ => None,
        });
        let seen = tasks.fold(0, |seen, key| seen ^ self.executor.look_at(key));
        std::hint::black_box(seen);
    }

    /// How many polls and events at one instant are still no livelock.
    pub(super) fn turns_limit(&self) -> u64 {
        self.livelock_limit.saturating_mul(TOGETHER_FACTOR)
    }

    pub(super) fn record_poll(&mut self, meta: &TaskMeta, polled: &Polled) {
        let name = self.executor.name(meta.key);
        let process = self.processes.get(meta.process.id).name.clone();
        let outcome = match polled {
            Polled::Fine => "",
            Polled::Panicked(_) => ": it panics",
        };
        let what = format!("poll `{name}` of `{process}`{outcome}");
        self.record(Some(meta.process.id), what);
    }
}
