//! See `wirestack_tests::targets::cslip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wirestack_tests::targets::cslip(bytes));
