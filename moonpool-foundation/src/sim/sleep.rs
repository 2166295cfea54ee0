//! [`SleepFuture`]: a timer of virtual time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::clock::SimInstant;
use super::connections::Asked;
use super::context;
use super::event::Event;
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
    class: EventClass,
    state: State,
}

#[derive(Debug)]
enum State {
    New {
        /// Over when it began: it only lets other tasks run.
        is_zero: bool,
    },
    Queued(EventKey),
    Done,
}

impl SleepFuture {
    /// Completes `duration` from now, or later if the world lengthens it. In a world that is gone it
    /// never does.
    pub(crate) fn of_process(
        world: WeakSimWorld,
        owner: ProcessRef,
        duration: Duration,
        class: EventClass,
    ) -> Self {
        let (created, slept) = match world.upgrade() {
            Some(world) => world.with(|world| (world.clock, world.slept(owner, duration))),
            None => (SimInstant::ZERO, duration),
        };
        Self::starting_at(created, world, owner, slept, class)
    }

    /// Completes `duration` after `created`, which is now.
    pub(super) fn starting_at(
        created: SimInstant,
        world: WeakSimWorld,
        owner: ProcessRef,
        duration: Duration,
        class: EventClass,
    ) -> Self {
        let deadline = created.after(duration);
        Self {
            world,
            owner,
            deadline,
            class,
            state: State::New {
                is_zero: deadline == created,
            },
        }
    }

    /// Whether it is over. If not, its event is queued or `waker` is still to be stored.
    fn ask(&mut self, world: &mut World, waker: &Waker) -> Asked<()> {
        match self.state {
            State::Done => Asked::Ready(()),
            State::Queued(key) => match world.events.get_mut(key) {
                Some(Event::Wake(armed)) => {
                    let polled = world.executor.polled_task(waker);
                    armed.asked_by(polled, waker)
                }
                _ => Asked::Ready(()),
            },
            // A sleep of zero still lets other tasks run: it is queued for this very instant.
            State::New { is_zero: false } if self.deadline <= world.clock => Asked::Ready(()),
            State::New { .. } if self.deadline == SimInstant::NEVER => Asked::Parked,
            State::New { .. } => match world.executor.polled_task(waker) {
                Some(task) => {
                    context::check_not_blocking();
                    self.arm(world, Waiter::Task(task));
                    Asked::Parked
                }
                None => Asked::Park,
            },
        }
    }

    /// Lets its event wake `waiter`. Returns whom it would have woken.
    fn arm(&mut self, world: &mut World, waiter: Waiter) -> Option<Event> {
        let event = Event::Wake(waiter);
        if let State::Queued(key) = self.state {
            let queued = world.events.get_mut(key)?;
            return Some(std::mem::replace(queued, event));
        }
        let key = world.events.push(self.deadline, self.class, event);
        self.state = State::Queued(key);
        None
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
                this.state = State::Done;
                return Poll::Ready(());
            }
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
