//! See `wirestack_tests::targets::tcp_pair`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wirestack_tests::targets::tcp_pair(bytes));
