//! The kernel's layout of ring slots and blocks in all three versions: include/uapi/linux/if_packet.h.
//!
//! ```text
//!   RX slot:  0 tpacket*_hdr  sockaddr_ll  gap  [virtio_net_hdr]  tp_mac: frame …
//!   TX slot:  0 tpacket*_hdr  [virtio_net_hdr]  frame …
//!   V3 block: 0 tpacket_block_desc  48 RX frame, each as a slot ▸ tp_next_offset ▸ RX frame …
//! ```

use std::mem::offset_of;

use crate::config::TpacketVersion;

/// TPACKET_ALIGNMENT: slots and headers are multiples of it, in bytes.
pub(crate) const ALIGNMENT: usize = 16;

/// Bytes of an Ethernet header without tags.
pub(crate) const ETHERNET_HEADER_LEN: usize = crate::offload::ETHERNET_HEADER_LEN;

/// Bytes of a `sockaddr_ll`, which follows the header in an RX slot.
pub(crate) const ADDRESS_LEN: usize = size_of::<libc::sockaddr_ll>();

/// Offset of `sll_pkttype` in it.
pub(crate) const PACKET_TYPE: usize = offset_of!(libc::sockaddr_ll, sll_pkttype);

/// Where things are in the header of one version, in bytes from its start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeaderLayout {
    /// Bytes of the header, aligned; the `sockaddr_ll` or the frame to be sent follows.
    pub(crate) len: usize,
    /// The word that says whose the slot is; of frames in a V3 block, only what is known of them.
    pub(crate) status: usize,
    /// Bytes of the status word: an `unsigned long` in V1, of which the kernel uses 32 bits.
    pub(crate) status_len: usize,
    /// `tp_len`: bytes of the frame on the wire.
    pub(crate) frame_len: usize,
    /// `tp_snaplen`: bytes of it that are here.
    pub(crate) snaplen: usize,
    /// `tp_mac`: where the frame begins.
    pub(crate) mac: usize,
    /// `tp_sec`; the fraction of a second follows.
    pub(crate) seconds: usize,
    /// Nanoseconds of a unit of that fraction.
    pub(crate) fraction_nanos: u32,
    /// `tp_vlan_tci`; `tp_vlan_tpid` is in the half word that `tpid` says.
    pub(crate) vlan: Option<Vlan>,
    /// `tp_rxhash`.
    pub(crate) hash: Option<usize>,
}

impl HeaderLayout {
    /// Where the status word is.
    pub(crate) const fn status_bytes(&self) -> std::ops::Range<usize> {
        let start = self.status & !(self.status_len - 1);
        start..start + self.status_len
    }
}

/// Offsets of the tag that the kernel took out of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Vlan {
    /// Offset of the tag.
    pub(crate) tci: usize,
    /// Bytes of the tag's field: 2 or 4.
    pub(crate) tci_len: usize,
    /// Offset of its EtherType.
    pub(crate) tpid: usize,
}

impl TpacketVersion {
    pub(crate) const fn layout(self) -> &'static HeaderLayout {
        match self {
            Self::V1 => &V1,
            Self::V2 => &V2,
            Self::V3 => &V3,
        }
    }

    /// Bytes before the frame in an RX slot, at most: `tpacket_rcv` puts the network header at
    /// `TPACKET_ALIGN(tp_hdrlen + max(maclen, 16)) + tp_reserve` and the virtio_net_hdr, and the link
    /// header right before it.
    pub(crate) const fn rx_headroom(self) -> usize {
        (self.layout().len + ADDRESS_LEN + 16).next_multiple_of(ALIGNMENT) + VNET_HDR_LEN
    }

    /// Where the frame, or its virtio_net_hdr, begins in a TX slot: `tp_hdrlen - sizeof(struct
    /// sockaddr_ll)` (`tpacket_parse_header`).
    pub(crate) const fn tx_offset(self) -> usize {
        self.layout().len
    }
}

const V1: HeaderLayout = HeaderLayout {
    len: size_of::<libc::tpacket_hdr>().next_multiple_of(ALIGNMENT),
    // The low half of an `unsigned long`.
    status: if cfg!(target_endian = "big") { size_of::<libc::c_ulong>() - 4 } else { 0 },
    status_len: size_of::<libc::c_ulong>(),
    frame_len: offset_of!(libc::tpacket_hdr, tp_len),
    snaplen: offset_of!(libc::tpacket_hdr, tp_snaplen),
    mac: offset_of!(libc::tpacket_hdr, tp_mac),
    seconds: offset_of!(libc::tpacket_hdr, tp_sec),
    fraction_nanos: 1000,
    vlan: None,
    hash: None,
};

const V2: HeaderLayout = HeaderLayout {
    len: size_of::<libc::tpacket2_hdr>().next_multiple_of(ALIGNMENT),
    status: 0,
    status_len: 4,
    frame_len: offset_of!(libc::tpacket2_hdr, tp_len),
    snaplen: offset_of!(libc::tpacket2_hdr, tp_snaplen),
    mac: offset_of!(libc::tpacket2_hdr, tp_mac),
    seconds: offset_of!(libc::tpacket2_hdr, tp_sec),
    fraction_nanos: 1,
    vlan: Some(Vlan {
        tci: offset_of!(libc::tpacket2_hdr, tp_vlan_tci),
        tci_len: 2,
        tpid: offset_of!(libc::tpacket2_hdr, tp_vlan_tpid),
    }),
    hash: None,
};

/// `tp_rxhash` and the tag are in a union (`hv1`) that begins at `hash`.
const V3: HeaderLayout = HeaderLayout {
    len: size_of::<libc::tpacket3_hdr>().next_multiple_of(ALIGNMENT),
    status: 20,
    status_len: 4,
    frame_len: 16,
    snaplen: 12,
    mac: 24,
    seconds: 4,
    fraction_nanos: 1,
    vlan: Some(Vlan { tci: 32, tci_len: 4, tpid: 36 }),
    hash: Some(28),
};

/// `tp_next_offset` of V3: bytes from this frame's header to the next one's.
pub(crate) const NEXT_OFFSET: usize = 0;

/// Bytes of `struct tpacket_block_desc` before the first frame of a block, at least.
pub(crate) const BLOCK_HEADER_LEN: usize = 48;
/// `block_status` in it.
pub(crate) const BLOCK_STATUS: usize = 8;
/// `num_pkts`.
pub(crate) const BLOCK_FRAMES: usize = 12;
/// `offset_to_first_pkt`.
pub(crate) const BLOCK_FIRST: usize = 16;

/// Bytes of a `struct virtio_net_hdr`.
pub(crate) const VNET_HDR_LEN: usize = crate::offload::virtio::VIRTIO_NET_HDR_LEN;

/// The offsets are part of the ABI; a change of libc's types must not go unseen.
const _: () = {
    assert!(V1.len == 32 || size_of::<libc::c_ulong>() == 4);
    assert!(V2.len == 32);
    assert!(V3.len == 48);
    assert!(offset_of!(libc::tpacket2_hdr, tp_status) == V2.status);
    assert!(offset_of!(libc::tpacket3_hdr, tp_next_offset) == NEXT_OFFSET);
    assert!(offset_of!(libc::tpacket3_hdr, tp_sec) == V3.seconds);
    assert!(offset_of!(libc::tpacket3_hdr, tp_snaplen) == V3.snaplen);
    assert!(offset_of!(libc::tpacket3_hdr, tp_len) == V3.frame_len);
    assert!(offset_of!(libc::tpacket3_hdr, tp_status) == V3.status);
    assert!(offset_of!(libc::tpacket3_hdr, tp_mac) == V3.mac);
    assert!(offset_of!(libc::tpacket3_hdr, hv1) == 28);
    assert!(size_of::<libc::tpacket_block_desc>() == BLOCK_HEADER_LEN);
};
