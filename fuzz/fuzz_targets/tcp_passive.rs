//! See `wirestack_tests::targets::tcp_passive`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wirestack_tests::targets::tcp_passive(bytes));
