//! What goes wrong on purpose: which faults there are, and how code under test says what must hold.

#[cfg(feature = "sim")]
pub(crate) mod config;
#[cfg(feature = "sim")]
mod fault;

#[cfg(feature = "sim")]
pub use config::{ChaosConfiguration, ConnectFailureMode};
#[cfg(feature = "sim")]
pub use fault::{FaultCounts, FaultId, FaultIdError, FaultKind, FaultRecord, FaultTarget};
