//! Simulated tasks behind the provider trait.

use std::borrow::Cow;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{JoinError, JoinHandle, RawTask, TaskProvider, panic_message};
use crate::sim::{
    EventClass, JoinState, ProcessRef, SimProcess, SimWorld, SleepFuture, TaskRole, WeakSimWorld,
};

/// Tasks of one simulated process, polled in an order that the seed decides.
#[derive(Clone, Debug)]
pub struct SimTaskProvider {
    world: WeakSimWorld,
    owner: ProcessRef,
}

impl SimWorld {
    /// Starts tasks of the world's own process.
    #[must_use]
    pub fn task_provider(&self) -> SimTaskProvider {
        self.world_process().task_provider()
    }
}

impl SimProcess {
    /// Starts tasks of this process, in its current life.
    #[must_use]
    pub fn task_provider(&self) -> SimTaskProvider {
        SimTaskProvider {
            world: self.world.clone(),
            owner: self.life(),
        }
    }
}

impl SimTaskProvider {
    fn spawn<F>(
        &self,
        name: Cow<'static, str>,
        role: TaskRole,
        spawned_at: &'static Location<'static>,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let state = self
            .world
            .upgrade()
            .and_then(|world| world.spawn(name, self.owner, role, spawned_at, future));
        JoinHandle::of_sim(SimTask {
            world: self.world.clone(),
            state,
        })
    }

    /// The world, if this process still lives in it.
    pub(crate) fn world(&self) -> Option<SimWorld> {
        self.world.live(self.owner).map(SimWorld::borrowed)
    }
}

impl TaskProvider for SimTaskProvider {
    #[track_caller]
    fn spawn_task<F>(&self, name: impl Into<Cow<'static, str>>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.spawn(name.into(), TaskRole::Ordinary, Location::caller(), future)
    }

    #[track_caller]
    fn spawn_driver<F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.spawn(name.into(), TaskRole::Driver, Location::caller(), future)
    }

    fn yield_now(&self) -> impl Future<Output = ()> {
        YieldNow { yielded: false }
    }

    async fn run_blocking<F, R>(&self, work: F) -> Result<R, JoinError>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let waits = BlockingWaits::drawn(self.internal_random());
        let (world, owner) = (self.world.clone(), self.owner);
        let sleep =
            move |wait| SleepFuture::of_process(world.clone(), owner, wait, EventClass::Foreground);
        // A task of its own: work that was handed over is done, whether or not its caller waits.
        self.spawn_task("blocking work", async move {
            sleep(waits.for_thread).await;
            let done = catch_unwind(AssertUnwindSafe(work));
            sleep(waits.for_work).await;
            done.map_err(|payload| JoinError::Panicked(panic_message(&*payload)))
        })
        .await
        .flatten()
    }

    fn internal_random(&self) -> u64 {
        match self.world.upgrade() {
            Some(world) => world.library_u64(self.owner),
            None => 0,
        }
    }
}

/// How long blocking work waits for a thread, and how long it takes: so the order in which several are
/// done is not that in which they were handed over, and much can happen meanwhile.
#[derive(Debug)]
struct BlockingWaits {
    for_thread: Duration,
    for_work: Duration,
}

impl BlockingWaits {
    fn drawn(random: u64) -> Self {
        let [a, b, c, d, e, f, ..] = random.to_le_bytes();
        Self {
            for_thread: blocking_wait(a, u16::from_le_bytes([b, c])),
            for_work: blocking_wait(d, u16::from_le_bytes([e, f])),
        }
    }
}

/// Up to 256 us, as a warm file cache takes; one in 16 takes up to 66 ms, as a busy disk does.
fn blocking_wait(kind: u8, length: u16) -> Duration {
    let long = u64::from(length);
    Duration::from_micros(if kind < 16 { long } else { long / 256 })
}

/// A task's side of its handle. One of a sealed process gives [`JoinError::Cancelled`].
pub(super) struct SimTask<T> {
    world: WeakSimWorld,
    /// `None` if the task was never taken up.
    state: Option<Rc<JoinState<T>>>,
}

impl<T> RawTask<T> for SimTask<T> {
    fn poll_join(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        match &self.state {
            Some(state) => state.poll(cx),
            None => Poll::Ready(Err(JoinError::Cancelled)),
        }
    }

    fn abort(&self) {
        if let (Some(state), Some(world)) = (&self.state, self.world.upgrade()) {
            world.abort(state.key);
        }
    }

    fn is_finished(&self) -> bool {
        self.state.as_ref().is_none_or(|state| state.is_finished())
    }
}

impl<T> Drop for SimTask<T> {
    /// The task need not keep its output for anybody.
    fn drop(&mut self) {
        if let Some(state) = &self.state
            && Rc::strong_count(state) > 1
            && let Some(world) = self.world.upgrade()
        {
            world.detach(state.key);
        }
    }
}

/// Ready at its second poll; the first lets the other ready tasks go before.
#[derive(Debug)]
struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
