#![forbid(unsafe_code)]
//! Fuzz targets; see `fuzz_targets`.
