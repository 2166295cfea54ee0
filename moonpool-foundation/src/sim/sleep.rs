//! [`SleepFuture`]: a timer of virtual time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::clock::SimInstant;
use super::connections::Asked;
use super::context;
use super::event::{Event, Queued};
use super::events::{EventClass, EventKey};
use super::process::ProcessRef;
use super::wakes::Waiter;
use super::world::{WeakSimWorld, World};
use crate::wait::{self, WaitReason};

/// Completes at a point in virtual time. Dropping it removes its event from the queue.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct SleepFuture {
    world: WeakSimWorld,
    owner: ProcessRef,
    deadline: SimInstant,
    state: State,
}

/// Where a sleep is. There are worlds of a million of these: this takes no more room than a key.
#[derive(Debug)]
enum State {
    Queued(EventKey),
    Unqueued(Phase, EventClass),
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    New,
    /// Over when it began: it only lets other tasks run.
    NewAndZero,
    Done,
}

impl SleepFuture {
    /// Completes `duration` from now, or later if the world lengthens it. In a world that is gone it
    /// never does.
    #[inline]
    pub(crate) fn of_process(
        world: WeakSimWorld,
        owner: ProcessRef,
        duration: Duration,
        class: EventClass,
    ) -> Self {
        let (created, deadline) = match world.upgrade() {
            Some(world) => world.sleep_ends(owner, duration),
            None => (SimInstant::ZERO, SimInstant::ZERO.after(duration)),
        };
        Self::until(deadline, created, world, owner, class)
    }

    /// Completes `duration` after `created`, which is now.
    pub(super) fn starting_at(
        created: SimInstant,
        world: WeakSimWorld,
        owner: ProcessRef,
        duration: Duration,
        class: EventClass,
    ) -> Self {
        Self::until(created.after(duration), created, world, owner, class)
    }

    #[inline]
    fn until(
        deadline: SimInstant,
        created: SimInstant,
        world: WeakSimWorld,
        owner: ProcessRef,
        class: EventClass,
    ) -> Self {
        let phase = if deadline == created {
            Phase::NewAndZero
        } else {
            Phase::New
        };
        Self {
            world,
            owner,
            deadline,
            state: State::Unqueued(phase, class),
        }
    }

    /// Whether it is over. If not, its event is queued or `waker` is still to be stored.
    #[inline]
    fn ask(&mut self, world: &mut World, waker: &Waker) -> Asked<()> {
        let until = self.deadline.as_nanos();
        let (phase, class) = match self.state {
            State::Unqueued(phase, class) => (phase, class),
            State::Queued(key) => {
                let Some(queued) = world.events.get_mut(key) else {
                    return Asked::Ready(());
                };
                return match (queued, world.executor.polled_task(waker)) {
                    // A task takes another's place at once.
                    (Queued::Task(number), Some(polled)) => {
                        *number = polled.number();
                        world.executor.note(polled, |entry| entry.note_sleep(until));
                        Asked::Noted
                    }
                    (Queued::Other(event), _) if event.would_wake(waker) => Asked::Parked,
                    // A waker is neither cloned nor dropped while the world is borrowed.
                    _ => Asked::Park,
                };
            }
        };
        match phase {
            Phase::Done => return Asked::Ready(()),
            // A sleep of zero still lets other tasks run: it is queued for this very instant.
            Phase::New if self.deadline <= world.clock => return Asked::Ready(()),
            _ if self.deadline == SimInstant::NEVER => return Asked::Parked,
            Phase::New | Phase::NewAndZero => {}
        }
        let Some(task) = world.executor.polled_task(waker) else {
            return Asked::Park;
        };
        context::check_not_entered();
        let wakes = Queued::Task(task.number());
        let key = world.events.push(self.deadline, class, wakes);
        self.state = State::Queued(key);
        world.executor.note(task, |entry| entry.note_sleep(until));
        Asked::Noted
    }

    /// Lets its event wake `waiter`. Returns whom it would have woken.
    fn arm(&mut self, world: &mut World, waiter: Waiter) -> Option<Event> {
        match self.state {
            State::Queued(key) => world.replace_event(key, Event::Wake(waiter)),
            State::Unqueued(_, class) => {
                let key = world.queue(self.deadline, class, Event::Wake(waiter));
                self.state = State::Queued(key);
                None
            }
        }
    }
}

impl Future for SleepFuture {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // Without a world, or in a sealed process, no time ever passes.
        let Some(shared) = this.world.upgrade() else {
            return Poll::Pending;
        };
        let asked = shared.with_live(this.owner, |world| this.ask(world, cx.waker()));
        match asked {
            None => return Poll::Pending,
            Some(Asked::Ready(())) => {
                this.state = State::Unqueued(Phase::Done, EventClass::Foreground);
                return Poll::Ready(());
            }
            Some(Asked::Noted) => return Poll::Pending,
            Some(Asked::Parked) => {}
            Some(Asked::Park) => {
                let waker = shared.register(cx.waker());
                drop(shared.with(|world| this.arm(world, Waiter::Other(waker))));
            }
        }
        wait::note(WaitReason::Sleep {
            until: this.deadline.since_start(),
        });
        Poll::Pending
    }
}

impl Drop for SleepFuture {
    fn drop(&mut self) {
        if let State::Queued(key) = self.state
            && let Some(world) = self.world.upgrade()
        {
            world.disarm_timer(key);
        }
    }
}
