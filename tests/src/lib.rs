#![forbid(unsafe_code)]
//! Shared parts of the integration tests.
