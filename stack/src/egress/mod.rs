//! Frames on their way out.

pub mod outbox;
pub(crate) mod output;
pub mod packet;
pub(crate) mod paths;

pub use outbox::Outbox;
pub use packet::{Outgoing, PacketSpec};
