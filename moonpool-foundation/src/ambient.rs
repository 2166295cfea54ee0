//! Random bits for code that has no provider at hand, such as [`UID::random`](crate::UID::random).
//!
//! Inside a simulation they come from the current process's stream; elsewhere from the system.

#[cfg(feature = "sim")]
use std::cell::Cell;

use rand::RngExt;

/// Gives bits while simulated code runs, and `None` otherwise.
#[cfg(feature = "sim")]
pub(crate) type Source = fn() -> Option<u64>;

#[cfg(feature = "sim")]
thread_local! {
    static SOURCE: Cell<Option<Source>> = const { Cell::new(None) };
}

/// Lets a simulation be asked first, on this thread, from now on.
#[cfg(feature = "sim")]
pub(crate) fn install(source: Source) {
    SOURCE.set(Some(source));
}

/// 64 random bits.
#[cfg(feature = "sim")]
pub(crate) fn random_u64() -> u64 {
    match SOURCE.get().and_then(|source| source()) {
        Some(bits) => bits,
        None => system_u64(),
    }
}

/// 64 random bits.
#[cfg(not(feature = "sim"))]
pub(crate) fn random_u64() -> u64 {
    system_u64()
}

#[expect(
    clippy::disallowed_methods,
    reason = "outside a simulation there is nothing to repeat"
)]
fn system_u64() -> u64 {
    rand::rng().random()
}
