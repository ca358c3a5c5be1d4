//! See `wirestack_tests::targets::dhcp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wirestack_tests::targets::dhcp(bytes));
