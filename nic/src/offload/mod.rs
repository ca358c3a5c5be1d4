//! Work that a sender or the kernel left undone in a frame, and how to say so or do it here.
//!
//! A sender on the same host (a veth pair, a bridge, a container) leaves checksums and splitting to a
//! device that is not there: frames of up to 64 KB arrive with the sum of their pseudo header only. Such
//! a checksum is absent, not wrong. With PACKET_VNET_HDR both sides tell each other so
//! ([`virtio`]); without it, and where a wire needs frames as they are, this module does the work.
//!
//! | module | what it does |
//! |---|---|
//! | [`layout`] | finds the headers of a frame |
//! | [`virtio`] | `virtio_net_hdr` to and from [`FrameMeta`](crate::meta::FrameMeta) |
//! | [`checksum`] | fills in, verifies, or leaves out a checksum |
//! | [`segment`] | splits a frame into those that a wire carries |
//! | [`software`] | both, for a device that cannot hand them on |
//! | [`sum`] | the sum that checksums are made of |

pub mod checksum;
pub mod layout;
pub mod segment;
pub mod software;
pub mod sum;
pub mod virtio;

pub use checksum::fill_checksum;
pub use layout::Layout;
pub use segment::Segments;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_HEADER_LEN: usize = 14;
/// Bytes that a VLAN tag adds.
pub const VLAN_TAG_LEN: usize = 4;
