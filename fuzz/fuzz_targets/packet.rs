//! The packet decoder.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| moonpool_foundation::fuzzing::packet(bytes));
