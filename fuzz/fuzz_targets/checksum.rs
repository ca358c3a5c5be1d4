//! See `wirestack_tests::targets::checksum`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wirestack_tests::targets::checksum(bytes));
