//! Tests of the network: the same behaviour on real sockets and in the simulator.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends with a panic; clippy allows it in #[test] functions but not in helpers"
)]

mod network {
    mod conformance;
    #[cfg(feature = "sim")]
    mod latency;
    #[cfg(feature = "sim")]
    mod partition;
    mod peer;
}
