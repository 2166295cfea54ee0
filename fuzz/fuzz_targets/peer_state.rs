//! A peer's state machine under arbitrary packets.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| moonpool_foundation::fuzzing::peer_state(bytes));
