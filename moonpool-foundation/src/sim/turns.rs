//! Taking turns: task after task is polled, with no borrow of the world, and events are processed, until
//! there is something else to do.
//!
//! One `catch_unwind` is around all of that. What panics in there is a task if one's code runs right then,
//! and else this simulator.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::SimWorld;
use super::context::{self, Current};
use super::drive::{Grace, MainWaker};
use super::polling::{self, PickedTask};
use super::steps::{Next, Until};
use super::wakes::{self, TaskRole};
use super::world::Shared;
use crate::error::{SimulationError, SimulationResult};
use crate::task::panic_message;

/// The [place](PickedTask) for those whose turn it is, for as long as a world is driven.
pub(super) struct Place<'a> {
    shared: &'a Shared,
    pub(super) picked: PickedTask,
}

impl<'a> Place<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        // Of code that nobody polls.
        crate::wait::take_each(drop);
        Self {
            shared,
            picked: PickedTask::default(),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(waker) = self.picked.waker.take() {
            self.shared.with(|world| world.executor.give_back(waker));
        }
    }
}

impl SimWorld {
    /// Polls whose turn it is until there is something else to do.
    ///
    /// # Errors
    /// [`SimulationError::Panic`], or what else a panic of a task comes to.
    pub(super) fn take_turns(
        &self,
        place: &mut Place<'_>,
        main: Option<&MainWaker>,
        grace: &mut Grace<'_>,
        until: Until,
    ) -> SimulationResult<Next> {
        let picked = &mut place.picked;
        let turns = AssertUnwindSafe(|| self.poll_in_turn(picked, main, grace, until));
        let message = match catch_unwind(turns) {
            Ok(Next::Panicked(message)) => *message,
            Ok(next) => return Ok(next),
            Err(payload) if context::current().is_none() => resume_unwind(payload),
            Err(payload) => polling::panicked(&mut place.picked, panic_message(&*payload)),
        };
        context::with_current(|current| current.set(None));
        Err(self.panicked(&mut place.picked, message))
    }

    #[inline]
    fn poll_in_turn(
        &self,
        picked: &mut PickedTask,
        main: Option<&MainWaker>,
        grace: &mut Grace<'_>,
        until: Until,
    ) -> Next {
        context::with_current(|current| {
            loop {
                let is_main_woken = main.is_some_and(MainWaker::is_woken);
                let next = self
                    .shared
                    .with(|world| world.next(picked, is_main_woken, until));
                if !matches!(next, Next::Task) {
                    return next;
                }
                let meta = &picked.meta;
                if meta.role == TaskRole::Ordinary {
                    grace.end();
                }
                let process = meta.process;
                current.set(Some(Current { process }));
                let panicked = if tracing::enabled!(tracing::Level::ERROR) {
                    self.poll_in_span(picked)
                } else {
                    polling::run(picked)
                };
                if let Some(message) = panicked {
                    return Next::Panicked(Box::new(message));
                }
                current.set(None);
                let is_main_woken_abroad = main.is_some_and(MainWaker::is_woken_abroad);
                let is_abroad = is_main_woken_abroad || wakes::is_any_abroad();
                let are_invariants_due = self.are_invariants_due();
                if is_abroad || are_invariants_due {
                    return Next::Check(are_invariants_due);
                }
            }
        })
    }

    #[cold]
    fn poll_in_span(&self, picked: &mut PickedTask) -> Option<String> {
        let (key, process) = (picked.meta.key, picked.meta.process.id);
        let span = self.span(|world| (process, world.executor.name(key)));
        span.in_scope(|| polling::run(picked))
    }

    #[cold]
    fn panicked(&self, picked: &mut PickedTask, message: String) -> SimulationError {
        let site = context::take_panic_site();
        let meta = picked.meta;
        let name = self.shared.with(|world| {
            if world.trace.is_on() {
                world.record_poll(&meta, ": it panics");
            }
            let name = world.executor.name(meta.key);
            world.executor.after_panic(picked);
            name
        });
        self.shared.panic_error(name, meta.process, message, site)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    use crate::sim::SimWorld;
    use crate::task::{TaskProvider, panic_message};
    use crate::time::TimeProvider;

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker");
        }
    }

    #[test]
    fn what_panics_between_two_polls_is_no_tasks_panic() {
        let world = SimWorld::new();
        let time = world.time_provider();
        let sleeps = async move {
            let mut sleep = time.sleep(Duration::from_secs(1));
            let waker = Waker::from(Arc::new(Panics));
            let asked = poll_fn(|_| {
                let mut cx = Context::from_waker(&waker);
                Poll::Ready(Pin::new(&mut sleep).poll(&mut cx))
            });
            assert!(asked.await.is_pending());
            pending::<()>().await;
        };
        drop(world.task_provider().spawn_task("sleeps", sleeps));
        let driven = catch_unwind(AssertUnwindSafe(|| world.run_until_empty()));
        assert_eq!(panic_message(&*driven.unwrap_err()), "a waker");
    }

    #[test]
    fn the_waker_that_tasks_are_lent_serves_the_next_drive() {
        let world = SimWorld::new();
        drop(world.task_provider().spawn_task("ends", async {}));
        world.run_until_empty().unwrap();
        assert!(world.shared.with(|world| world.executor.has_waker()));
    }
}
