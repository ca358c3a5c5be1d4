//! Serial lines: packets over bytes.

mod crc;
pub mod cslip;
pub mod framing;
pub mod slip;
