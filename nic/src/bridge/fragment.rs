//! Fragments of an IPv4 packet that is longer than the other side carries (RFC 791 section 2.3 and 3.2).

use smoltcp::wire::Ipv4Packet;

/// A frame with an IPv4 packet, as frames that are short enough.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragments<'a> {
    frame: &'a [u8],
    /// Where the packet begins.
    network: usize,
    header_len: usize,
    /// Bytes of payload in the whole packet, and in each fragment but the last (a multiple of 8).
    payload_len: usize,
    chunk_len: usize,
    /// The packet may be a fragment itself.
    offset: u16,
    more: bool,
}

impl<'a> Fragments<'a> {
    /// Fragments of at most `packet_len_max` bytes, header included. `None`: it is no whole IPv4 packet, or
    /// so little fits that no fragment would have payload.
    pub(super) fn new(frame: &'a [u8], network: usize, packet_len_max: usize) -> Option<Self> {
        let packet = Ipv4Packet::new_checked(frame.get(network..)?).ok()?;
        let header_len = usize::from(packet.header_len());
        let chunk_len = packet_len_max.checked_sub(header_len)? & !7;
        let payload_len = usize::from(packet.total_len()) - header_len;
        let (offset, more) = (packet.frag_offset(), packet.more_frags());
        // 65 536 bytes is what the offset can say.
        let ends_within = usize::from(offset) + payload_len <= 1 << 16;
        (chunk_len > 0 && ends_within).then_some(Self {
            frame,
            network,
            header_len,
            payload_len,
            chunk_len,
            offset,
            more,
        })
    }

    /// Number of fragments; at least 1.
    pub(super) fn count(&self) -> usize {
        self.payload_len.div_ceil(self.chunk_len).max(1)
    }

    /// Bytes of one as a frame.
    pub(super) fn frame_len(&self, index: usize) -> usize {
        self.network + self.header_len + self.chunk(index).len()
    }

    /// Writes one into `room` of exactly [`frame_len`](Self::frame_len) bytes.
    pub(super) fn write(&self, index: usize, room: &mut [u8]) {
        let Self { frame, network, header_len, .. } = *self;
        let headers_len = network + header_len;
        room[..headers_len].copy_from_slice(&frame[..headers_len]);
        let chunk = self.chunk(index);
        let payload = network + header_len;
        room[headers_len..].copy_from_slice(&frame[payload + chunk.start..payload + chunk.end]);
        let mut packet = Ipv4Packet::new_unchecked(&mut room[network..]);
        // The whole packet is shorter than 64 KiB, and offsets were checked to end below it.
        packet.set_total_len((header_len + chunk.len()) as u16);
        packet.set_frag_offset(self.offset.wrapping_add(chunk.start as u16));
        packet.set_more_frags(self.more || index + 1 < self.count());
        if index > 0 {
            let options = packet.into_inner().get_mut(20..header_len);
            blank_options(options.unwrap_or_default());
            packet = Ipv4Packet::new_unchecked(&mut room[network..]);
        }
        packet.fill_checksum();
    }

    /// Where the payload of one is in that of the packet.
    fn chunk(&self, index: usize) -> std::ops::Range<usize> {
        let start = (index * self.chunk_len).min(self.payload_len);
        start..(start + self.chunk_len).min(self.payload_len)
    }
}

/// Options without the copied flag belong in the first fragment only; in later ones there is nothing (no
/// operation) in their place, as Linux does it (`ip_options_fragment`).
fn blank_options(mut options: &mut [u8]) {
    while let Some(&kind) = options.first() {
        let len = match kind {
            END_OF_OPTIONS => return,
            NO_OPERATION => 1,
            // A length that cannot be leaves the rest as it is: receivers judge it.
            _ => match options.get(1).map(|len| usize::from(*len)) {
                Some(len) if (2..=options.len()).contains(&len) => len,
                _ => return,
            },
        };
        let (option, rest) = options.split_at_mut(len);
        if kind & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        options = rest;
    }
}

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const COPIED: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::IpProtocol;

    fn frame(header_len: usize, payload: &[u8], offset: u16, more: bool) -> Vec<u8> {
        let mut frame = vec![0; 14 + header_len + payload.len()];
        frame[12..14].copy_from_slice(&[8, 0]);
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        packet.set_version(4);
        packet.set_header_len(header_len as u8);
        packet.set_total_len((header_len + payload.len()) as u16);
        packet.set_ident(7);
        packet.set_frag_offset(offset);
        packet.set_more_frags(more);
        packet.set_hop_limit(9);
        packet.set_next_header(IpProtocol::Udp);
        packet.payload_mut().copy_from_slice(payload);
        packet.fill_checksum();
        frame
    }

    proptest! {
        /// The oracle is reassembly: put together by their offsets they are the packet.
        #[test]
        fn fragments_put_together_are_the_packet(
            payload in proptest::collection::vec(any::<u8>(), 1..9000),
            options in 0..=10usize,
            first in 0..100u16,
            more: bool,
            mtu in 68..9100usize,
        ) {
            let header_len = 20 + 4 * options;
            // A fragment that is not the last has a multiple of 8 bytes.
            let payload = if more { &payload[..payload.len() & !7] } else { &payload[..] };
            let frame = frame(header_len, payload, first * 8, more);
            let fragments = Fragments::new(&frame, 14, mtu).expect("68 bytes hold any header and 8 more");
            let mut whole = Vec::new();
            for index in 0..fragments.count() {
                let mut room = vec![0xee; fragments.frame_len(index)];
                fragments.write(index, &mut room);
                prop_assert!(room.len() <= 14 + mtu);
                let packet = Ipv4Packet::new_checked(&room[14..]).expect("a packet");
                prop_assert!(packet.verify_checksum());
                prop_assert_eq!(usize::from(packet.total_len()), room.len() - 14);
                prop_assert_eq!(usize::from(packet.frag_offset()), usize::from(first) * 8 + whole.len());
                prop_assert_eq!(packet.more_frags(), more || index + 1 < fragments.count());
                prop_assert_eq!((packet.ident(), packet.hop_limit()), (7, 9));
                whole.extend_from_slice(packet.payload());
            }
            prop_assert_eq!(&whole[..], payload);
        }
    }

    #[test]
    fn only_copied_options_are_in_later_fragments() {
        let mut frame = frame(32, &[5; 64], 0, false);
        // Record route (not copied), router alert (copied), end.
        frame[34..46].copy_from_slice(&[7, 7, 4, 1, 2, 3, 4, 0x94, 4, 0, 0, 0]);
        let fragments = Fragments::new(&frame, 14, 68).expect("fits");
        assert_eq!(fragments.count(), 2);
        let options = |index: usize| {
            let mut room = vec![0; fragments.frame_len(index)];
            fragments.write(index, &mut room);
            room[34..46].to_vec()
        };
        assert_eq!(options(0), [7, 7, 4, 1, 2, 3, 4, 0x94, 4, 0, 0, 0]);
        assert_eq!(options(1), [1, 1, 1, 1, 1, 1, 1, 0x94, 4, 0, 0, 0]);
    }

    #[test]
    fn lies_are_survived() {
        let mut frame = frame(24, &[5; 64], 0xfff8, false);
        assert!(Fragments::new(&frame, 14, 68).is_none(), "it ends beyond 64 KiB");
        frame[20..22].copy_from_slice(&[0, 0]);
        assert!(Fragments::new(&frame, 14, 31).is_none(), "no payload fits");
        for bad in [[7, 0, 0, 0], [7, 9, 0, 0], [7, 1, 0, 0], [1, 1, 1, 7]] {
            frame[34..38].copy_from_slice(&bad);
            let fragments = Fragments::new(&frame, 14, 40).expect("fits");
            let mut room = vec![0; fragments.frame_len(1)];
            fragments.write(1, &mut room);
            assert_eq!(room[34..38], bad, "left to the receiver");
        }
    }
}
