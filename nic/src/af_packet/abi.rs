//! The kernel's layout of a TPACKET_V2 slot: include/uapi/linux/if_packet.h.
//!
//! ```text
//!   RX slot:  0 tpacket2_hdr  32 sockaddr_ll  52 gap  tp_mac  frame …
//!   TX slot:  0 tpacket2_hdr  32 frame …
//! ```

use std::mem::offset_of;

/// TPACKET_ALIGNMENT: slots and headers are multiples of it, in bytes.
pub(crate) const ALIGNMENT: usize = 16;

/// Bytes of an Ethernet header without tags.
pub(crate) const ETHERNET_HEADER_LEN: usize = 14;

/// Bytes of `struct tpacket2_hdr`, aligned; in an RX slot the `sockaddr_ll` follows.
pub(crate) const HEADER_LEN: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(ALIGNMENT);

/// Where the frame begins in a TX slot: `tp_hdrlen - sizeof(struct sockaddr_ll)` (`tpacket_parse_header`).
pub(crate) const TX_FRAME_OFFSET: usize = HEADER_LEN;

/// Bytes before the frame in an RX slot, at most: `tpacket_rcv` puts the network header at
/// `TPACKET_ALIGN(TPACKET2_HDRLEN + max(maclen, 16))`, and the link header right before it.
pub(crate) const RX_HEADROOM: usize =
    (HEADER_LEN + size_of::<libc::sockaddr_ll>() + 16).next_multiple_of(ALIGNMENT);

/// `tp_len`: bytes of the frame on the wire.
pub(crate) const LEN: usize = offset_of!(libc::tpacket2_hdr, tp_len);
/// `tp_snaplen`: bytes of it that are in the slot.
pub(crate) const SNAPLEN: usize = offset_of!(libc::tpacket2_hdr, tp_snaplen);
/// `tp_mac`: where in the slot the frame begins.
pub(crate) const MAC: usize = offset_of!(libc::tpacket2_hdr, tp_mac);
/// `tp_vlan_tci`: tag that was taken out of the frame, valid with TP_STATUS_VLAN_VALID.
pub(crate) const VLAN_TCI: usize = offset_of!(libc::tpacket2_hdr, tp_vlan_tci);
/// `sll_pkttype` of the `sockaddr_ll` in an RX slot.
pub(crate) const PACKET_TYPE: usize = HEADER_LEN + offset_of!(libc::sockaddr_ll, sll_pkttype);

/// The status words are part of the ABI; a change of libc's types must not go unseen.
const _: () = {
    assert!(HEADER_LEN == 32);
    assert!(offset_of!(libc::tpacket2_hdr, tp_status) == 0);
    assert!(RX_HEADROOM == 80);
};
