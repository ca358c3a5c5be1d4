//! helper congestion

/// helper congestion
#[derive(Debug, Clone)]
pub struct Cubic {}
