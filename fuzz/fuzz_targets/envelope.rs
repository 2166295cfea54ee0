//! What precedes the codec's bytes in a message or reply.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| moonpool::fuzzing::envelope(bytes));
