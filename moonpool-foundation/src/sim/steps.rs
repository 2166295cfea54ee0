//! What a world does next, as far as that needs nobody's code: whose turn it is, and what the next
//! event changes. `drive` polls, calls and reports.

use std::borrow::Cow;

use super::clock::SimInstant;
use super::event::{Queued, key_of};
use super::events::Popped;
use super::executor::{FAR, TaskKey, Turn};
use super::polling::{AfterPoll, CancelledTask, PickedTask};
use super::wakes::TaskMeta;
use super::world::World;

/// How far a drive may move the clock.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// As far as it takes.
    Idle,
    /// As far as it takes, if some event keeps the run alive.
    Foreground,
    /// Not beyond this instant.
    Instant(SimInstant),
    /// Nowhere: only who is ready is polled.
    Now,
}

/// What processing an event came to. As small as what is returned in registers: it is asked for after
/// every event.
pub(super) enum Step {
    Moved,
    /// No event, or none before the limit.
    Nothing,
    /// The next event is beyond the time budget.
    OutOfBudget,
    /// The event was processed, but for what needs the world unborrowed.
    Ends(Box<Ends>),
}

/// What is left of an event.
pub(super) struct Ends {
    /// To be called.
    pub(super) call: Option<Box<dyn FnOnce()>>,
    /// Polls and events at this instant, if they are too many.
    pub(super) too_many: Option<u64>,
}

/// What there is to do without a borrow of the world. As small as a [`Step`].
pub(super) enum Next {
    Main,
    /// A task's, which was picked.
    Task,
    /// To finish what an event came to.
    Finish(Step),
    /// To end the run.
    Livelock(Box<Livelock>),
    /// To drop a task that was cancelled while it was polled.
    Cancelled(Box<Cancelled>),
    /// To look at what nearly always is in order, after a poll: whether invariants are due.
    Check(bool),
    /// A destructor panicked in a poll, with this message.
    #[expect(clippy::box_collection, reason = "as small as a step")]
    Panicked(Box<String>),
}

/// A task that was cancelled while it was polled.
pub(super) struct Cancelled {
    pub(super) task: CancelledTask,
    /// If that poll was one too many.
    pub(super) livelock: Option<Livelock>,
}

/// Somebody was polled so often at one instant.
pub(super) struct Livelock {
    pub(super) polls: u64,
    pub(super) task: Cow<'static, str>,
}

impl World {
    /// Whose turn it is; events are processed until it is somebody's. A task is put into `picked`, where the one
    /// before it is taken note of first.
    #[inline(never)]
    pub(super) fn next(&mut self, picked: &mut PickedTask, main_woken: bool, until: Until) -> Next {
        if picked.is_out
            && let Some(next) = self.after_turn(picked)
        {
            return next;
        }
        // Once for all events: none of them runs anybody's code before this returns.
        self.executor.collect_woken();
        loop {
            let turn =
                self.executor
                    .next_turn(main_woken, picked, &mut self.scheduler, &mut self.digest);
            match turn {
                Some(Turn::Task) => return Next::Task,
                Some(Turn::Main) => return Next::Main,
                None => {}
            }
            match self.step(until) {
                Step::Moved if self.wakes.is_empty() && self.notices.is_empty() => {}
                step => return Next::Finish(step),
            }
        }
    }

    /// Takes note of a poll, if there was one. `Some` if that was one too many, or leaves something to
    /// be dropped.
    #[inline]
    pub(super) fn after_turn(&mut self, polled: &mut PickedTask) -> Option<Next> {
        if !std::mem::take(&mut polled.is_out) {
            return None;
        }
        if self.trace.is_on() {
            let meta = polled.meta;
            self.record_poll(&meta, "");
        }
        let after = self.executor.after_poll(polled, self.clock);
        self.turns += 1;
        let together = self.turns;
        let is_fine = together <= self.turns_limit;
        match after {
            AfterPoll::Polls(polls) if is_fine && polls <= self.livelock_limit => None,
            after => self.after_odd_turn(polled, after, together),
        }
    }

    #[cold]
    fn after_odd_turn(
        &self,
        polled: &mut PickedTask,
        after: AfterPoll,
        together: u64,
    ) -> Option<Next> {
        let meta = polled.meta;
        let is_fine = together <= self.turns_limit;
        match (after, polled.body.take()) {
            (AfterPoll::Polls(polls), _) if is_fine => Some(self.ended_by(meta.key, polls)),
            (AfterPoll::Cancelled, Some(body)) => {
                Some(self.cancelled(CancelledTask { meta, body }, together))
            }
            _ if is_fine => None,
            _ => Some(self.ended_by(meta.key, together)),
        }
    }

    #[cold]
    fn ended_by(&self, task: TaskKey, polls: u64) -> Next {
        Next::Livelock(Box::new(self.livelock(task, polls)))
    }

    #[cold]
    fn cancelled(&self, task: CancelledTask, together: u64) -> Next {
        let is_fine = together <= self.turns_limit;
        let livelock = (!is_fine).then(|| self.livelock(task.meta.key, together));
        Next::Cancelled(Box::new(Cancelled { task, livelock }))
    }

    fn livelock(&self, task: TaskKey, polls: u64) -> Livelock {
        let task = self.executor.name(task);
        Livelock { polls, task }
    }

    /// Moves the clock to the next event and applies it. Nobody's code has run since [`next`](Self::next)
    /// collected what wakers have woken.
    #[inline]
    pub(super) fn step(&mut self, until: Until) -> Step {
        let limit = match until {
            Until::Foreground if self.events.foreground() == 0 => return Step::Nothing,
            Until::Now => return Step::Nothing,
            Until::Foreground | Until::Idle => SimInstant::NEVER,
            Until::Instant(limit) => limit,
        };
        let (at, event) = match self.events.pop_by(limit.min(self.budget_ends)) {
            Popped::Event(at, event) => (at, event),
            Popped::Later(at) if at <= limit => {
                return Step::OutOfBudget;
            }
            Popped::Later(_) | Popped::Nothing => return Step::Nothing,
        };
        if self.events.take_filled() && self.executor.live() > FAR {
            self.look_ahead();
        }
        let call = self.apply_event(at, event);
        self.turns += 1;
        if call.is_none() && self.turns <= self.turns_limit {
            return Step::Moved;
        }
        self.ends(call)
    }

    #[cold]
    fn ends(&self, call: Option<Box<dyn FnOnce()>>) -> Step {
        let too_many = (self.turns > self.turns_limit).then_some(self.turns);
        Step::Ends(Box::new(Ends { call, too_many }))
    }

    /// Reads what the next timers wake: so it comes from memory together, where each task would be
    /// waited for in its turn.
    #[cold]
    fn look_ahead(&self) {
        let tasks = self.events.near().filter_map(|event| match event {
            Queued::Task(number) => Some(key_of(*number)),
            _ => None,
        });
        let seen = tasks.fold(0, |seen, key| seen ^ self.executor.look_at(key));
        std::hint::black_box(seen);
    }

    #[cold]
    pub(super) fn record_poll(&mut self, polled: &TaskMeta, outcome: &str) {
        let name = self.executor.name(polled.key);
        let process = self.processes.get(polled.process.id).name.clone();
        let what = format!("poll `{name}` of `{process}`{outcome}");
        self.record(Some(polled.process.id), what);
    }
}
