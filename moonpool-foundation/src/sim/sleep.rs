//! [`SleepFuture`]: a timer of virtual time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::clock::SimInstant;
use super::events::{EventClass, EventKey};
use super::process::ProcessRef;
use super::world::WeakSimWorld;
use crate::wait::{self, WaitReason};

/// Completes at a point in virtual time. Dropping it removes its event from the queue.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct SleepFuture {
    world: WeakSimWorld,
    owner: ProcessRef,
    created: SimInstant,
    deadline: SimInstant,
    class: EventClass,
    state: State,
}

#[derive(Debug)]
enum State {
    New,
    Queued(EventKey),
    Done,
}

impl SleepFuture {
    /// Completes `duration` from now, or later if the world lengthens it.
    pub(crate) fn of_process(
        world: WeakSimWorld,
        owner: ProcessRef,
        duration: Duration,
        class: EventClass,
    ) -> Self {
        let slept = match world.upgrade() {
            Some(world) => world.with(|world| world.slept(owner, duration)),
            None => duration,
        };
        Self::starting_now(world, owner, slept, class)
    }

    /// Completes `duration` from now. In a world that is gone it never does.
    pub(crate) fn starting_now(
        world: WeakSimWorld,
        owner: ProcessRef,
        duration: Duration,
        class: EventClass,
    ) -> Self {
        let created = match world.upgrade() {
            Some(world) => world.instant(),
            None => SimInstant::ZERO,
        };
        let deadline = created.after(duration);
        Self {
            world,
            owner,
            created,
            deadline,
            class,
            state: State::New,
        }
    }
}

impl Future for SleepFuture {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Without a world, or in a sealed process, no time ever passes.
        let Some(world) = self.world.live(self.owner) else {
            return Poll::Pending;
        };
        match self.state {
            State::Done => return Poll::Ready(()),
            State::Queued(key) if world.rearm_timer(key, cx.waker()) => {}
            State::Queued(_) => {
                self.state = State::Done;
                return Poll::Ready(());
            }
            // A sleep of zero still lets other tasks run: it is queued for this very instant.
            State::New if self.created < self.deadline && self.deadline <= world.instant() => {
                self.state = State::Done;
                return Poll::Ready(());
            }
            State::New if self.deadline == SimInstant::NEVER => {}
            State::New => {
                let key = world.arm_timer(self.deadline, self.class, cx.waker());
                self.state = State::Queued(key);
            }
        }
        wait::note(WaitReason::Sleep {
            until: self.deadline.since_start(),
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
