//! See `wirestack_tests::targets::dns`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wirestack_tests::targets::dns(bytes));
