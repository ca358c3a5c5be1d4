//! The device on a port in memory.
