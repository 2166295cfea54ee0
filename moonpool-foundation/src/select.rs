//! [`select!`](crate::select): tokio's macro, with a branch order that the seed decides.

/// Where a `select!` of `branches` branches starts polling. Called by [`select!`](crate::select).
#[doc(hidden)]
#[must_use]
pub fn select_start(branches: u32) -> u32 {
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::driven_world().and_then(|world| world.upgrade())
        && crate::sim::current().is_some()
    {
        return world.select_start(branches);
    }
    let bits = crate::ambient::random_u64() >> 32;
    u32::try_from((bits * u64::from(branches)) >> 32).unwrap_or(0)
}

/// Waits on several futures and runs the branch of the first that is ready; the others are dropped.
///
/// The grammar is that of `tokio::select!`, `biased;` and `else` included. The branch that is polled
/// first is drawn from the seed inside a simulation, and at random outside. Use this one in code that
/// is simulated: tokio's own draws from a generator that no seed controls.
///
/// # Cancel safety
/// As with `tokio::select!`: a branch that loses is dropped where it stands, so each future should
/// be cancel safe by its own documentation.
///
/// ```
/// use moonpool_foundation::{SimWorld, TimeProvider, select};
/// use std::time::Duration;
///
/// let world = SimWorld::new();
/// let time = world.time_provider();
/// let first = world.block_on(async move {
///     select! {
///         () = time.sleep(Duration::from_secs(1)) => "timer",
///         never = std::future::pending::<&str>() => never,
///     }
/// })?;
/// assert_eq!(first, "timer");
/// # Ok::<(), moonpool_foundation::SimulationError>(())
/// ```
#[macro_export]
macro_rules! select {
    (biased; $($branches:tt)*) => {
        $crate::__private::tokio::select! { biased; $($branches)* }
    };
    (else => $otherwise:expr $(,)?) => {
        $crate::__private::tokio::select! { else => $otherwise }
    };
    // The entry of tokio's macro that its public ones expand to. It is not public API: the range of
    // tokio's versions is capped, and `tests/sim/select.rs` fails with an explanation if it changes.
    ($pattern:pat = $($branches:tt)*) => {
        $crate::__private::tokio::select!(@{
            start = { $crate::__private::select_start(BRANCHES) }; () } $pattern = $($branches)*)
    };
}
