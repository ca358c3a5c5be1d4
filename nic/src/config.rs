//! How an [`AfPacket`](crate::AfPacket) is opened: three profiles, and every knob in the open.
//!
//! Ring geometry is in [`geometry`](crate::geometry).

use std::fmt;
use std::str::FromStr;

use managed::ManagedSlice;
use smoltcp::time::Duration;

use crate::filter::Program;
use crate::geometry::{RingGeometry, V3_BLOCK_SIZE};
use crate::meta::TimestampSource;
use crate::offload::virtio::VIRTIO_NET_HDR_LEN;
use crate::offload::{ETHERNET_HEADER_LEN, VLAN_TAG_LEN};
use crate::steer::Fanout;

/// A set of choices for one purpose; each gives an [`AfPacketConfig`] in which any field can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// For request and response, and servers in general: TPACKET_V2, whose frames are seen one by one.
    /// Slots hold a frame of the MTU, so that a burst of 4 000 costs 8 MB and not 280; the few frames that are
    /// longer are fetched by a system call each.
    #[default]
    Latency,
    /// For bulk: no RX ring but `recvmmsg`, with long queues. In the benchmark it takes super-frames at the
    /// rate of the best rings, and small frames at a higher rate than a ring of V2 whose reader sleeps between
    /// them, with less memory; a round trip takes twice as long as with a ring that is looked at all the time.
    /// The queue needs CAP_NET_ADMIN: without it, it ends at `net.core.rmem_max`, which is short.
    Bulk,
    /// For looking at traffic: TPACKET_V3 in large blocks, nothing is sent, frames are left as they are.
    /// A frame is seen when its block is full or after [`AfPacketConfig::block_timeout`].
    Capture,
}

/// The version of the rings, which both rings of a socket share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TpacketVersion {
    /// The oldest: no VLAN tags, timestamps in microseconds.
    V1,
    /// One frame a slot, seen when it comes.
    #[default]
    V2,
    /// RX: frames of any length one behind the other in blocks, which are seen when they are full or a
    /// time is over. TX: as V2.
    V3,
}

/// By which way frames are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RxMode {
    /// Not at all: the socket only sends, and the kernel does not hand it any frame (protocol 0).
    None,
    /// `recvmmsg`: one copy and a share of a system call a frame.
    Recv,
    /// A mapped ring.
    #[default]
    Ring,
}

/// By which way frames are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TxMode {
    /// Not at all.
    None,
    /// Frames are collected in memory of this process and handed over by `sendmmsg`.
    #[default]
    Send,
    /// A mapped ring, handed over by one `send`.
    Ring,
}

/// What happens to VLAN tags, which the kernel takes out of frames and tells beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VlanTags {
    /// Put back, so that the frame is as on the wire; but a tag of VLAN 0, which is a priority and no VLAN
    /// (IEEE 802.1Q section 9.6), stays out.
    #[default]
    PutBack,
    /// Put back, tags of VLAN 0 too.
    PutBackAll,
}

/// How to open an [`AfPacket`](crate::AfPacket). The default suits a server on any interface.
///
/// Tables may be borrowed or owned ([`ManagedSlice`]).
#[derive(Debug)]
pub struct AfPacketConfig<'a> {
    /// By which way frames are received.
    pub rx: RxMode,
    /// By which way frames are sent.
    pub tx: TxMode,
    /// Of both rings.
    pub version: TpacketVersion,
    /// Geometries of the RX ring, in the order in which they are tried: the first that the kernel has
    /// memory for is taken. Empty: [`RX_SLOTS`] slots for frames of the interface's MTU, or
    /// [`RX_BLOCKS`] blocks for [`TpacketVersion::V3`].
    ///
    /// A frame that is larger than a slot of V1 or V2 (a super-frame of up to 64 KB, from a peer on the
    /// same host with TSO on, or after GRO) is fetched whole by a system call of its own; slots of 64 KB
    /// save this call and cost memory.
    pub rx_rings: ManagedSlice<'a, RingGeometry>,
    /// The same for the TX ring. Empty: [`TX_SLOTS`] slots for frames of the interface's MTU, or
    /// [`TX_SLOTS_GSO`] slots for super-frames where those can be sent.
    pub tx_rings: ManagedSlice<'a, RingGeometry>,
    /// Where a frame that is larger than an RX slot is put; longer frames are lost and counted as
    /// `rx_truncated`. Default: [`SUPER_FRAME_LEN_MAX`] and a virtio_net_hdr. An MTU-sized buffer is too
    /// small for peers on the same host.
    pub oversize: ManagedSlice<'a, u8>,
    /// Bytes of frames that the kernel may hold for us beside a ring, or in [`RxMode::Recv`] (SO_RCVBUF).
    pub rx_queue_bytes: usize,
    /// Bytes of frames collected between two flushes in [`TxMode::Send`]. Then there is no room.
    pub tx_queue_bytes: usize,
    /// How long a block of V3 waits to be full, once it has a frame (rounded to milliseconds, at least 1).
    pub block_timeout: Duration,
    /// Absent checksums and super-frames are told and sent with a `virtio_net_hdr` (PACKET_VNET_HDR).
    /// Off: this device fills in checksums and splits frames itself.
    pub vnet_hdr: bool,
    /// Received TCP and UDP checksums that nobody has verified are verified here: a frame that fails is
    /// dropped and counted as `rx_bad_checksum`. Off: frames are lent as they came.
    pub verify_checksums: bool,
    /// Frames skip the interface's queue (PACKET_QDISC_BYPASS): faster, and not seen by `tcpdump` on this
    /// host; what the device cannot take at once is offered again. Left off, with a warning, where the
    /// device cannot split frames itself: the kernel would refuse every super-frame.
    pub qdisc_bypass: bool,
    /// The kernel throws frames that it refuses in the TX ring away (PACKET_LOSS), uncounted. Off: they are
    /// taken out of the ring and counted as `tx_rejected`.
    pub loss: bool,
    /// Where frames begin in a TX slot, in bytes from the slot's start, virtio_net_hdr included
    /// (PACKET_TX_HAS_OFF): a multiple of 64 puts them on cache lines. `None`: right behind the header.
    pub tx_offset: Option<u16>,
    /// Whose clock stamps received frames (PACKET_TIMESTAMP); falls back to what there is.
    pub timestamps: TimestampSource,
    /// What happens to VLAN tags.
    pub vlan_tags: VlanTags,
    /// Frames that this host sends on the interface are received too.
    pub outgoing: bool,
    /// Frames for other stations are received too (PACKET_MR_PROMISC), as long as the device lives.
    pub promiscuous: bool,
    /// The kernel tells its hash of each flow (TPACKET_V3 only).
    pub rx_hash: bool,
    /// Only frames that this program accepts are received. Its first instruction sees the link header.
    pub filter: Option<Program>,
    /// The sockets of a group share what is received, by these rules.
    pub fanout: Option<Fanout>,
}

impl AfPacketConfig<'_> {
    /// The choices of a profile.
    pub fn profile(profile: Profile) -> Self {
        let latency = Self {
            rx: RxMode::Ring,
            tx: TxMode::Send,
            version: TpacketVersion::V2,
            rx_rings: ManagedSlice::Owned(Vec::new()),
            tx_rings: ManagedSlice::Owned(Vec::new()),
            oversize: ManagedSlice::Owned(vec![0; SUPER_FRAME_LEN_MAX + VIRTIO_NET_HDR_LEN]),
            rx_queue_bytes: 16 << 20,
            tx_queue_bytes: 2 << 20,
            block_timeout: Duration::from_millis(4),
            vnet_hdr: true,
            verify_checksums: true,
            qdisc_bypass: false,
            loss: false,
            tx_offset: None,
            timestamps: TimestampSource::Ring,
            vlan_tags: VlanTags::PutBack,
            outgoing: false,
            promiscuous: false,
            rx_hash: false,
            filter: None,
            fanout: None,
        };
        match profile {
            Profile::Latency => latency,
            Profile::Bulk => {
                Self { rx: RxMode::Recv, rx_queue_bytes: 64 << 20, tx_queue_bytes: 4 << 20, ..latency }
            }
            Profile::Capture => {
                Self { tx: TxMode::None, version: TpacketVersion::V3, ..latency }.without_changes()
            }
        }
    }

    /// Frames as they are, both directions, all stations: what a capture wants.
    fn without_changes(self) -> Self {
        Self {
            vnet_hdr: false,
            verify_checksums: false,
            vlan_tags: VlanTags::PutBackAll,
            outgoing: true,
            promiscuous: true,
            ..self
        }
    }
}

impl Default for AfPacketConfig<'_> {
    fn default() -> Self {
        Self::profile(Profile::default())
    }
}

impl FromStr for Profile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "latency" => Ok(Self::Latency),
            "bulk" => Ok(Self::Bulk),
            "capture" => Ok(Self::Capture),
            _ => Err("latency, bulk or capture is accepted"),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Latency => "latency",
            Self::Bulk => "bulk",
            Self::Capture => "capture",
        })
    }
}

impl fmt::Display for TpacketVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "TPACKET_V1",
            Self::V2 => "TPACKET_V2",
            Self::V3 => "TPACKET_V3",
        })
    }
}

/// Slots of the default RX ring: a burst of 4 000 small frames finds room.
pub const RX_SLOTS: usize = 4096;
/// Blocks of the default RX ring of TPACKET_V3, of [`V3_BLOCK_SIZE`] bytes each.
pub const RX_BLOCKS: usize = (64 << 20) / V3_BLOCK_SIZE;
/// Slots of the default TX ring: more than a TCP window of 64 KB in frames of 1 500 bytes, for many flows.
pub const TX_SLOTS: usize = 1024;
/// Slots of the default TX ring where a slot holds a super-frame.
pub const TX_SLOTS_GSO: usize = 256;
/// Bytes of the longest super-frame: 64 KiB of packet (GSO_LEGACY_MAX_SIZE) and an Ethernet header with two
/// VLAN tags.
pub const SUPER_FRAME_LEN_MAX: usize = (64 << 10) + ETHERNET_HEADER_LEN + 2 * VLAN_TAG_LEN;
