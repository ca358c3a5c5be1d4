//! One received frame, by whatever way it came: what the kernel says of it, and what is done to it
//! before it is lent.
//!
//! ```text
//!   header ─▶ is it for us ─▶ virtio_net_hdr ─▶ VLAN tag put back ─▶ checksum verified ─▶ lent
//! ```

use std::num::NonZeroU16;

use smoltcp::phy::Medium;

use crate::Counters;
use crate::config::VlanTags;
use crate::meta::{ChecksumState, FrameMeta, Gso, GsoKind, Timestamp, TimestampSource};
use crate::offload::checksum;
use crate::offload::layout::{ETHERTYPE_VLAN, IpVersion, Layout, Transport};
use crate::offload::{VLAN_TAG_LEN, virtio};
use crate::received;

use super::abi::{self, HeaderLayout};

/// What a socket was opened to do with frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RxOptions {
    /// A virtio_net_hdr lies right before each frame.
    pub(crate) vnet_hdr: bool,
    /// Checksums are verified here, or filled in where they are absent and nothing tells so.
    pub(crate) verify_checksums: bool,
    pub(crate) vlan_tags: VlanTags,
    /// Frames that this host sends are wanted.
    pub(crate) outgoing: bool,
    /// Bytes of the longest frame that the wire carries: the MTU and the Ethernet header.
    pub(crate) frame_len_max: usize,
}

/// The kernel's words on a frame. The numbers may be anything.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Header {
    pub(crate) status: u32,
    /// Bytes on the wire.
    pub(crate) len: usize,
    /// Bytes of them that are here.
    pub(crate) snaplen: usize,
    /// Where the frame begins, from the start of the header.
    pub(crate) mac: usize,
    pub(crate) timestamp_nanos: u64,
    pub(crate) vlan_tci: u16,
    pub(crate) vlan_tpid: u16,
    pub(crate) hash: u32,
    pub(crate) packet_type: u8,
}

impl Header {
    /// Reads a header of a ring from its bytes, of which the first `skipped` are left out because the
    /// status word is among them. What lies outside of `bytes` reads as 0.
    pub(crate) fn read(layout: &HeaderLayout, status: u32, bytes: &[u8], skipped: usize) -> Self {
        let word = |offset: usize| -> u32 {
            let field = offset.checked_sub(skipped).and_then(|offset| bytes.get(offset..offset + 4));
            field.and_then(|field| field.try_into().ok()).map_or(0, u32::from_ne_bytes)
        };
        let half = |offset: usize| -> u16 {
            let field = offset.checked_sub(skipped).and_then(|offset| bytes.get(offset..offset + 2));
            field.and_then(|field| field.try_into().ok()).map_or(0, u16::from_ne_bytes)
        };
        let fraction = u64::from(word(layout.seconds + 4)) * u64::from(layout.fraction_nanos);
        let (vlan_tci, vlan_tpid) = match &layout.vlan {
            None => (0, 0),
            Some(vlan) if vlan.tci_len == 2 => (half(vlan.tci), half(vlan.tpid)),
            // The tag itself has 16 bits.
            Some(vlan) => (word(vlan.tci) as u16, half(vlan.tpid)),
        };
        Self {
            status,
            len: word(layout.frame_len) as usize,
            snaplen: word(layout.snaplen) as usize,
            mac: usize::from(half(layout.mac)),
            timestamp_nanos: u64::from(word(layout.seconds)) * 1_000_000_000 + fraction,
            vlan_tci,
            vlan_tpid,
            hash: layout.hash.map_or(0, word),
            packet_type: bytes.get(layout.len + abi::PACKET_TYPE - skipped).copied().unwrap_or_default(),
        }
    }

    /// Whether what the header says can be true of a slot or block that ends `room` bytes behind the
    /// header's start.
    pub(crate) fn is_within(&self, layout: &HeaderLayout, vnet_hdr: bool, room: usize) -> bool {
        let before = layout.len + abi::ADDRESS_LEN + if vnet_hdr { abi::VNET_HDR_LEN } else { 0 };
        let end = self.mac.checked_add(self.snaplen);
        self.mac >= before && self.snaplen <= self.len && end.is_some_and(|end| end <= room)
    }

    fn timestamp(&self) -> Timestamp {
        let source = if self.status & libc::TP_STATUS_TS_RAW_HARDWARE != 0 {
            TimestampSource::Hardware
        } else if self.status & libc::TP_STATUS_TS_SOFTWARE != 0 {
            TimestampSource::Software
        } else {
            TimestampSource::Ring
        };
        Timestamp { nanos: self.timestamp_nanos, source }
    }

    /// The tag to be put back, with its EtherType.
    fn tag(&self, policy: VlanTags) -> Option<[u8; VLAN_TAG_LEN]> {
        if self.status & libc::TP_STATUS_VLAN_VALID == 0 {
            return None;
        }
        // VLAN 0 is a priority without a VLAN (IEEE 802.1Q, 9.6): such a frame is untagged to most.
        if policy == VlanTags::PutBack && self.vlan_tci & 0x0fff == 0 {
            return None;
        }
        let has_tpid = self.status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
        let tpid = if has_tpid { self.vlan_tpid } else { ETHERTYPE_VLAN };
        let [[a, b], [c, d]] = [tpid.to_be_bytes(), self.vlan_tci.to_be_bytes()];
        Some([a, b, c, d])
    }
}

impl RxOptions {
    /// Whether a frame is one that the user of the socket wants at all.
    pub(crate) fn wants(&self, header: &Header) -> bool {
        // From a kernel without PACKET_IGNORE_OUTGOING, what we send ourselves is here too.
        self.outgoing || header.packet_type != libc::PACKET_OUTGOING
    }

    /// Makes a frame ready to be lent: `area` ends with it, it begins at `at`, and what is before it may
    /// be written over. Returns where it begins then, and what is known of it; `None`: it is dropped, and
    /// was counted.
    pub(crate) fn prepare(
        &self,
        counters: &mut Counters,
        header: &Header,
        area: &mut [u8],
        mut at: usize,
    ) -> Option<(usize, FrameMeta)> {
        let mut meta = FrameMeta::default();
        if self.vnet_hdr {
            let virtio = at.checked_sub(abi::VNET_HDR_LEN).and_then(|start| area.get(start..at));
            let decoded = virtio::decode(virtio.unwrap_or_default(), area.len().saturating_sub(at));
            let Ok(decoded) = decoded else {
                counters.rx_malformed += 1;
                return None;
            };
            meta = decoded;
        } else if header.status & libc::TP_STATUS_CSUM_VALID != 0 {
            meta.checksum = ChecksumState::Verified;
        }
        if let Some(tag) = header.tag(self.vlan_tags) {
            let Some(start) = put_back(area, at, tag) else {
                counters.rx_malformed += 1;
                return None;
            };
            at = start;
            if let ChecksumState::Partial { start, .. } = &mut meta.checksum {
                // In a frame of 64 KB, the kernel's word may be anything.
                let Some(moved) = start.checked_add(VLAN_TAG_LEN as u16) else {
                    counters.rx_malformed += 1;
                    return None;
                };
                *start = moved;
            }
            counters.rx_tagged += 1;
        }
        let is_absent = !self.vnet_hdr && header.status & libc::TP_STATUS_CSUMNOTREADY != 0;
        let frame = area.get_mut(at..)?;
        if is_absent {
            meta.checksum = self.absent(counters, frame)?;
        } else if self.verify_checksums && !received::verify(Medium::Ethernet, frame, &mut meta, counters) {
            return None;
        }
        if !self.vnet_hdr && header.status & TP_STATUS_GSO_TCP != 0 {
            meta.gso = self.guess(frame);
        }
        meta.timestamp = Some(header.timestamp());
        meta.rx_hash = (header.hash != 0).then_some(header.hash);
        meta.outgoing = header.packet_type == libc::PACKET_OUTGOING;
        Some((at, meta))
    }

    /// How a merged frame of TCP is to be split, where the kernel tells only that it is one: into segments
    /// that fill the wire's frames.
    fn guess(&self, frame: &[u8]) -> Option<Gso> {
        let layout = Layout::of_frame(frame)?;
        let kind = match (layout.protocol, layout.version) {
            (Transport::Tcp, IpVersion::V4) => GsoKind::TcpV4,
            (Transport::Tcp, IpVersion::V6) => GsoKind::TcpV6,
            (Transport::Udp, _) => return None,
        };
        let size = u16::try_from(self.frame_len_max.checked_sub(layout.payload)?).ok()?;
        Some(Gso { kind, size: NonZeroU16::new(size)?, ecn: false })
    }

    /// A frame whose checksum is absent, without a word on where it belongs: it is filled in, or told.
    fn absent(&self, counters: &mut Counters, frame: &mut [u8]) -> Option<ChecksumState> {
        let Some(layout) = Layout::of_frame(frame) else { return Some(ChecksumState::Complete) };
        if !self.verify_checksums {
            let (start, offset) = (layout.transport as u16, layout.protocol.checksum_offset() as u16);
            return Some(ChecksumState::Partial { start, offset });
        }
        // Several datagrams that the sender left to a device to be split; where, is not told.
        if layout.protocol == Transport::Udp && frame.len() > self.frame_len_max {
            counters.rx_unsegmented += 1;
            return None;
        }
        if checksum::fill(frame, &layout) {
            counters.rx_checksum_filled += 1;
            return Some(ChecksumState::Verified);
        }
        Some(ChecksumState::Complete)
    }
}

/// Puts a tag behind the addresses of the frame at `at`, which move forward. Returns where the frame
/// begins now; `None`: there is no room, or no whole address.
fn put_back(area: &mut [u8], at: usize, tag: [u8; VLAN_TAG_LEN]) -> Option<usize> {
    let start = at.checked_sub(VLAN_TAG_LEN)?;
    if area.len() < at + ADDRESSES_LEN {
        return None;
    }
    area.copy_within(at..at + ADDRESSES_LEN, start);
    area.get_mut(start + ADDRESSES_LEN..at + ADDRESSES_LEN)?.copy_from_slice(&tag);
    Some(start)
}

/// Several TCP segments in one frame (Linux 6.3); libc does not have it yet.
const TP_STATUS_GSO_TCP: u32 = 1 << 8;
/// Bytes of the two addresses at the start of an Ethernet frame.
const ADDRESSES_LEN: usize = 12;

#[cfg(test)]
mod tests;
