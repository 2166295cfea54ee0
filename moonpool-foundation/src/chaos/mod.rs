//! What goes wrong on purpose: which faults there are, and how code under test says what must hold.

#[cfg(feature = "sim")]
pub(crate) mod assertions;
#[cfg(feature = "sim")]
mod attrition;
#[cfg(feature = "sim")]
pub(crate) mod buggify;
#[cfg(feature = "sim")]
pub(crate) mod config;
#[cfg(feature = "sim")]
mod fault;
#[cfg(feature = "sim")]
pub(crate) mod invariants;
pub(crate) mod macros;
#[cfg(feature = "sim")]
pub mod oracle;
#[cfg(feature = "sim")]
mod site_table;
#[cfg(feature = "sim")]
mod state_registry;

#[cfg(feature = "sim")]
pub use assertions::{AssertionKind, Place};
#[cfg(feature = "sim")]
pub use attrition::{Attrition, AttritionError, AttritionKind};
#[cfg(feature = "sim")]
pub use buggify::{BuggifyProbabilities, BuggifyProbabilityError, buggify_init, buggify_reset};
#[cfg(feature = "sim")]
pub use config::{ChaosConfiguration, ConnectFailureMode};
#[cfg(feature = "sim")]
pub(crate) use fault::FaultSet;
#[cfg(feature = "sim")]
pub use fault::{FaultCounts, FaultId, FaultIdError, FaultKind, FaultRecord, FaultTarget};
#[cfg(feature = "sim")]
pub use invariants::{InvariantCheck, InvariantOutcome};
#[cfg(feature = "sim")]
pub use state_registry::{StateRegistry, States};
