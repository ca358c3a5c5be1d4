//! See `wirestack_tests::targets::classify::classify`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wirestack_tests::targets::classify::classify(bytes));
