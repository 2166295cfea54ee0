//! The first packet of a session.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| moonpool_foundation::fuzzing::hello(bytes));
