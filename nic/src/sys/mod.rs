//! System calls that no safe crate wraps: one file per kernel interface, one call per function.
#![allow(unsafe_code)]

pub(crate) mod ethtool;
