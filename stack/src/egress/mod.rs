//! Frames on their way out.

pub mod outbox;
pub mod packet;

pub use outbox::Outbox;
pub use packet::{Outgoing, PacketSpec};
