//! Frames on their way out.

pub mod packet;

pub use packet::{Outgoing, PacketSpec};
