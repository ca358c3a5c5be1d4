//! wirestack
#![forbid(unsafe_code)]
