//! Deadlines.

pub mod wheel;
