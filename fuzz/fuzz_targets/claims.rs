//! See `wirestack_tests::targets::claims`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wirestack_tests::targets::claims(bytes));
