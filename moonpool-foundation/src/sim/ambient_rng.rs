//! Draws without a provider: from the current process's stream inside a simulation, from a stream of
//! the thread outside.
//!
//! Providers are the better way: they say whose draw it is. These stay for code that has none at hand.

use std::cell::RefCell;

use rand::RngExt;
use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::distr::{Distribution, StandardUniform};

use super::context;
use super::digest::Digest;
use super::rng::{Draws, Stream, StreamId};

struct ThreadStream {
    seed: u64,
    stream: Stream,
    digest: Digest,
}

impl ThreadStream {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            stream: Stream::new(seed, StreamId::Workload(0)),
            digest: Digest::new(seed),
        }
    }
}

thread_local! {
    static THREAD: RefCell<Option<ThreadStream>> = const { RefCell::new(None) };
}

fn draw<R>(f: impl FnOnce(&mut Draws<'_>) -> R) -> R {
    if let (Some(current), Some(world)) = (context::current(), context::world())
        && let Some(world) = world.upgrade()
    {
        return world.workload_draws(current.process, f);
    }
    THREAD.with_borrow_mut(|thread| {
        let thread = thread.get_or_insert_with(|| ThreadStream::new(0));
        f(&mut thread.stream.draws(&mut thread.digest))
    })
}

/// A value of the standard distribution.
#[must_use]
pub fn sim_random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    draw(|draws| draws.random())
}

/// A value of `range`, uniformly.
///
/// # Panics
/// If `range` is empty.
pub fn sim_random_range<T, R>(range: R) -> T
where
    T: SampleUniform,
    R: SampleRange<T>,
{
    draw(|draws| draws.random_range(range))
}

/// A value of `range`, uniformly; `T`'s default if it is empty. An empty range draws nothing.
pub fn sim_random_range_or_default<T, R>(range: R) -> T
where
    T: SampleUniform + Default,
    R: SampleRange<T>,
{
    if range.is_empty() {
        return T::default();
    }
    sim_random_range(range)
}

/// Starts the thread's own stream anew from `seed`. It has no effect on a simulation: a world has
/// the seed it was made with.
pub fn set_sim_seed(seed: u64) {
    let replaced = THREAD.replace(Some(ThreadStream::new(seed)));
    drop(replaced);
}

/// Starts the thread's own stream anew from the seed it had.
pub fn reset_sim_rng() {
    let seed = THREAD.with_borrow(|thread| thread.as_ref().map_or(0, |thread| thread.seed));
    set_sim_seed(seed);
}

/// The seed of the simulation that runs here, or else of the thread's own stream.
#[must_use]
pub fn get_current_sim_seed() -> u64 {
    match context::world().and_then(|world| world.upgrade()) {
        Some(world) => world.seed(),
        None => THREAD.with_borrow(|thread| thread.as_ref().map_or(0, |thread| thread.seed)),
    }
}
