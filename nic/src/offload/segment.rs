//! Splitting a frame into the frames that a wire carries.
//!
//! What the kernel does in `tcp_gso_segment`, `__udp_gso_segment`, `inet_gso_segment` and
//! `ipv6_gso_segment`. Every piece has the headers of the frame, and its own share of the payload:
//!
//! | field | in piece *i* of *n* |
//! |---|---|
//! | link header, VLAN tags, IPv6 flow label, TTL, options of IP and TCP, ports | as in the frame |
//! | IPv4 total length, IPv6 payload length, UDP length | of this piece |
//! | IPv4 identification | that of the frame + *i*, whether or not DF is set |
//! | IPv4 header checksum, TCP or UDP checksum | right; UDP over IPv4 that came without one stays so |
//! | TCP sequence number | that of the frame + *i* times the size |
//! | TCP FIN, PSH | in the last piece only |
//! | TCP CWR | in the first piece only if [`Gso::ecn`] is set, else as in the frame |
//!
//! CWR is the one field in which this and the kernel may differ: the kernel takes it from all but the
//! first piece, unless the frame is one of accurate ECN (RFC 9768), whose marks a `virtio_net_hdr` cannot
//! tell. A sender of classic ECN sets [`Gso::ecn`] with CWR; with that, both do the same.

use std::num::NonZeroUsize;

use smoltcp::phy::Medium;

use super::checksum::{self, addresses_sum};
use super::layout::{IPV6_HEADER_LEN, IpVersion, Layout, Transport, half};
use super::sum;
use crate::meta::{ChecksumState, FrameMeta, Gso, GsoKind};

/// The pieces of one frame. A frame that needs no splitting, or cannot be split, is one piece.
///
/// Nothing is allocated, and nothing is written until [`write`](Self::write). There are no more pieces
/// than bytes of payload.
#[derive(Debug, Clone, Copy)]
pub struct Segments<'a> {
    frame: &'a [u8],
    work: Work,
}

/// What is to be done to a frame.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// One piece, as it is.
    Nothing,
    /// One piece, whose checksum is absent.
    Checksum {
        start: u16,
        offset: u16,
    },
    Split(Split),
}

impl<'a> Segments<'a> {
    /// The pieces of an Ethernet frame by what `meta` says of it; each has its checksums filled in.
    ///
    /// What cannot be split as `meta` says (another protocol, cut short, lengths that contradict each
    /// other, a payload that is no longer than the size) is one piece; if its checksum is absent, it is
    /// filled in there.
    pub fn new(frame: &'a [u8], meta: &FrameMeta) -> Self {
        Self::of(Medium::Ethernet, frame, meta, None)
    }

    /// The same for an IP packet without a link header.
    pub fn of_packet(packet: &'a [u8], meta: &FrameMeta) -> Self {
        Self::of(Medium::Ip, packet, meta, None)
    }

    /// The same for an Ethernet frame to a link that carries IP packets of at most `mtu` bytes: a TCP
    /// segment that is longer, and of which `meta` does not say how it is to be split, is split so that
    /// the packets are as long as they may be. A kernel hands over such frames where it has no room for
    /// the size (TP_STATUS_GSO_TCP without PACKET_VNET_HDR).
    pub fn with_mtu(frame: &'a [u8], meta: &FrameMeta, mtu: usize) -> Self {
        Self::of(Medium::Ethernet, frame, meta, Some(mtu))
    }

    /// The general case: of a device of this medium, for an `mtu` as in [`with_mtu`](Self::with_mtu), if
    /// there is one.
    pub fn of(medium: Medium, frame: &'a [u8], meta: &FrameMeta, mtu: Option<usize>) -> Self {
        let split = || {
            let layout = Layout::on(medium, frame)?;
            match (meta.gso, mtu) {
                (Some(gso), _) => Split::by_size(frame, layout, gso, meta.checksum),
                (None, Some(mtu)) => Split::by_mtu(frame, layout, mtu, meta.checksum),
                (None, None) => None,
            }
        };
        // Most frames are shorter than an MTU: they are not even looked into.
        let may_be_long = meta.gso.is_some() || mtu.is_some_and(|mtu| frame.len() > mtu);
        let work = match (may_be_long.then(split).flatten(), meta.checksum) {
            (Some(split), _) => Work::Split(split),
            (None, ChecksumState::Partial { start, offset }) => Work::Checksum { start, offset },
            (None, ChecksumState::Complete | ChecksumState::Verified) => Work::Nothing,
        };
        Self { frame, work }
    }

    /// Number of pieces; at least 1.
    pub fn count(&self) -> usize {
        match &self.work {
            Work::Split(split) => split.count,
            Work::Nothing | Work::Checksum { .. } => 1,
        }
    }

    /// Bytes of a piece, headers included; 0 for one that there is not.
    pub fn frame_len(&self, index: usize) -> usize {
        match &self.work {
            _ if index >= self.count() => 0,
            Work::Split(split) => split.header_len() + split.payload(index).len(),
            Work::Nothing | Work::Checksum { .. } => self.frame.len(),
        }
    }

    /// Writes a piece into `room` of [`frame_len`](Self::frame_len) bytes. A longer one keeps what is
    /// behind, a shorter one stays as it is.
    pub fn write(&self, index: usize, room: &mut [u8]) {
        let Some(room) = room.get_mut(..self.frame_len(index)) else { return };
        match &self.work {
            _ if index >= self.count() => {}
            Work::Nothing => room.copy_from_slice(self.frame),
            &Work::Checksum { start, offset } => {
                room.copy_from_slice(self.frame);
                // What lies outside of the frame cannot be filled in: the receiver judges it.
                checksum::complete(room, start, offset);
            }
            Work::Split(split) => split.write(self.frame, index, room),
        }
    }
}

/// How a frame is split. Made by [`Split::new`] only, so that all offsets lie within the frame, and all
/// lengths fit into their fields.
#[derive(Debug, Clone, Copy)]
struct Split {
    layout: Layout,
    /// Bytes of payload in each piece but the last.
    size: usize,
    count: usize,
    /// Bytes behind the IPv6 header that are left out in the pieces: the hop-by-hop options with the
    /// jumbo payload option (RFC 2675), which a piece is too short to have.
    jumbo_len: usize,
    only_first_has_cwr: bool,
    has_checksum: bool,
    /// Of the IPv4 header, but the fields that change.
    network_sum: u16,
    /// Of the pseudo header and the transport's, but the fields that change.
    transport_sum: u16,
}

impl Split {
    /// By what the sender, or whoever merged the frame, says.
    fn by_size(frame: &[u8], layout: Layout, gso: Gso, state: ChecksumState) -> Option<Self> {
        let fits = matches!(
            (gso.kind, layout.protocol, layout.version),
            (GsoKind::TcpV4, Transport::Tcp, IpVersion::V4)
                | (GsoKind::TcpV6, Transport::Tcp, IpVersion::V6)
                | (GsoKind::Udp, Transport::Udp, _)
        );
        if fits { Self::new(frame, layout, gso.size.into(), gso.ecn, state) } else { None }
    }

    /// A TCP segment that is longer than the link carries.
    fn by_mtu(frame: &[u8], layout: Layout, mtu: usize, state: ChecksumState) -> Option<Self> {
        if layout.protocol != Transport::Tcp || layout.end - layout.network <= mtu {
            return None;
        }
        let headers_len = layout.payload - layout.network - jumbo_len(frame, &layout);
        let size = NonZeroUsize::new(mtu.min(PACKET_LEN_MAX).checked_sub(headers_len)?)?;
        Self::new(frame, layout, size, true, state)
    }

    fn new(
        frame: &[u8],
        layout: Layout,
        size: NonZeroUsize,
        only_first_has_cwr: bool,
        state: ChecksumState,
    ) -> Option<Self> {
        let payload_len = layout.end - layout.payload;
        let jumbo_len = jumbo_len(frame, &layout);
        let packet_len = layout.payload - layout.network - jumbo_len + size.get();
        if payload_len <= size.get() || packet_len > PACKET_LEN_MAX || !checksum::has_checksum(frame, &layout)
        {
            return None;
        }
        let field = layout.transport + layout.protocol.checksum_offset();
        let may_lack_checksum = layout.protocol == Transport::Udp && layout.version == IpVersion::V4;
        let transport = frame.get(layout.transport..layout.payload)?;
        let is_partial = matches!(state, ChecksumState::Partial { .. });
        Some(Self {
            layout,
            size: size.get(),
            count: payload_len.div_ceil(size.get()),
            jumbo_len,
            only_first_has_cwr,
            has_checksum: is_partial || !may_lack_checksum || half(frame, field)? != 0,
            network_sum: sum_without(frame.get(layout.network..layout.transport)?, &[2, 4, 10]),
            transport_sum: sum::combine(&[
                addresses_sum(frame, &layout)?,
                match layout.protocol {
                    Transport::Tcp => sum_without(transport, &[4, 6, 12, 16]),
                    Transport::Udp => sum_without(transport, &[4, 6]),
                },
            ]),
        })
    }

    /// Bytes before the payload of a piece.
    fn header_len(&self) -> usize {
        self.layout.payload - self.jumbo_len
    }

    /// Where the payload of a piece is in the frame.
    fn payload(&self, index: usize) -> std::ops::Range<usize> {
        let start = (self.layout.payload + index * self.size).min(self.layout.end);
        start..(start + self.size).min(self.layout.end)
    }

    fn write(&self, frame: &[u8], index: usize, room: &mut [u8]) {
        let (header, payload) = room.split_at_mut(self.header_len());
        self.write_header(frame, header);
        let payload_sum = sum::copy(payload, &frame[self.payload(index)]);
        self.change_network(frame, index, payload.len(), header);
        let transport = self.layout.transport - self.jumbo_len;
        let segment_len = header.len() - transport + payload.len();
        let transport = &mut header[transport..];
        let changed_sum = match self.layout.protocol {
            Transport::Tcp => self.change_tcp(index, transport),
            Transport::Udp => {
                put(transport, 4, segment_len as u16);
                segment_len as u16
            }
        };
        if self.has_checksum {
            let sum = sum::combine(&[self.transport_sum, segment_len as u16, changed_sum, payload_sum]);
            let field = self.layout.protocol.checksum_offset();
            put(transport, field, checksum::stored(!sum, self.layout.protocol));
        }
    }

    /// Copies the headers, without what the pieces do not have.
    fn write_header(&self, frame: &[u8], header: &mut [u8]) {
        if self.jumbo_len == 0 {
            header.copy_from_slice(&frame[..self.layout.payload]);
            return;
        }
        let options = self.layout.network + IPV6_HEADER_LEN;
        header[..options].copy_from_slice(&frame[..options]);
        header[options..].copy_from_slice(&frame[options + self.jumbo_len..self.layout.payload]);
        // The next header field of IPv6, from that of the options.
        header[self.layout.network + 6] = frame[options];
    }

    /// Lengths, identification and the checksum of IPv4.
    fn change_network(&self, frame: &[u8], index: usize, payload_len: usize, header: &mut [u8]) {
        let network = self.layout.network;
        let packet_len = header.len() - network + payload_len;
        match self.layout.version {
            IpVersion::V4 => {
                let id = half(frame, network + 4).unwrap_or(0).wrapping_add(index as u16);
                let ip = &mut header[network..self.layout.transport];
                put(ip, 2, packet_len as u16);
                put(ip, 4, id);
                put(ip, 10, !sum::combine(&[self.network_sum, packet_len as u16, id]));
            }
            IpVersion::V6 => put(header, network + 4, (packet_len - IPV6_HEADER_LEN) as u16),
        }
    }

    /// Sequence number and flags; returns the sum of the words in which they are.
    fn change_tcp(&self, index: usize, tcp: &mut [u8]) -> u16 {
        let first = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        // Less than the payload of one frame, which is less than 2^32.
        let sequence = first.wrapping_add((index * self.size) as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        if index + 1 < self.count {
            tcp[13] &= !(TCP_FIN | TCP_PSH);
        }
        if index > 0 && self.only_first_has_cwr {
            tcp[13] &= !TCP_CWR;
        }
        let flags = u16::from_be_bytes([tcp[12], tcp[13]]);
        sum::combine(&[(sequence >> 16) as u16, sequence as u16, flags])
    }
}

/// Bytes of the options that the kernel puts behind the IPv6 header of a packet of more than 64 KiB: one
/// option header, and in it the jumbo payload option alone. 0 if there are none.
fn jumbo_len(frame: &[u8], layout: &Layout) -> usize {
    let network = layout.network;
    let is_jumbo = layout.version == IpVersion::V6
        && half(frame, network + 4) == Some(0)
        && frame.get(network + 6) == Some(&HOP_BY_HOP)
        && frame.get(network + IPV6_HEADER_LEN + 1..network + IPV6_HEADER_LEN + 4) == Some(&JUMBO_OPTION);
    if is_jumbo { JUMBO_LEN } else { 0 }
}

/// Sum of a header without the words at these places: each is taken out by its complement.
fn sum_without(header: &[u8], changing: &[usize]) -> u16 {
    let rest = changing.iter().filter_map(|&offset| half(header, offset)).map(|word| !word);
    rest.fold(sum::data(header), |sum, word| sum::combine(&[sum, word]))
}

fn put(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}

/// Longest packet whose length fits into its field. IPv6 could have 40 bytes more.
const PACKET_LEN_MAX: usize = 65_535;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
const HOP_BY_HOP: u8 = 0;
/// Behind the next header field: a header of 8 bytes, the option's type (RFC 2675) and its length.
const JUMBO_OPTION: [u8; 3] = [0, 0xc2, 4];
const JUMBO_LEN: usize = 8;

#[cfg(test)]
pub(crate) mod tests;
