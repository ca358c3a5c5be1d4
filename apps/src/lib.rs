//! The programs.
#![forbid(unsafe_code)]
