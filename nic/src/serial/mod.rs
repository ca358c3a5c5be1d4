//! Serial lines: packets over bytes.

pub mod framing;
