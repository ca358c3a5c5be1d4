//! Deadlines.

pub mod wheel;

pub use wheel::{TimerId, Wheel};
