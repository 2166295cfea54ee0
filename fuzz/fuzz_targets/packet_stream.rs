//! The reader of a stream's packets, fed in chunks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| moonpool_foundation::fuzzing::packet_stream(bytes));
