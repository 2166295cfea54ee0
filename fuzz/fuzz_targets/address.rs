//! The texts of addresses, tokens and endpoints.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| moonpool_foundation::fuzzing::address(bytes));
