//! See `wirestack_tests::targets::tcp_segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wirestack_tests::targets::tcp_segment(bytes));
