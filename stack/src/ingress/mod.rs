//! What a frame is, and what became of it.

pub mod checksum;
pub mod classify;
pub(crate) mod input;
pub mod packet;
pub mod verdict;

pub use checksum::verify_transport;
pub use classify::classify;
pub use packet::{Body, FragmentInfo, IpPacket, Link, Packet, Problem};
pub use verdict::Verdict;
