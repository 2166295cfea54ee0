//! Network tests.

#[path = "network/peer.rs"]
mod peer;
