//! See `wirestack_tests::targets::spec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wirestack_tests::targets::spec(bytes));
