//! helper congestion
