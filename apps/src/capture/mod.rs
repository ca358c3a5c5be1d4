//! `wirestack capture`.

pub mod analyze;
