//! Fragments against the RFCs, and put together again in any order.

use proptest::prelude::*;
use smoltcp::time::Instant;
use smoltcp::wire::Ipv4Packet;

use super::super::reassembly::{Reassembly, ReassemblyConfig};
use super::super::testing::{ipv4_packet, ipv6_packet, read};
use super::*;
use crate::random::Random;

fn all(packet: &[u8], mtu: usize, id: u32) -> Result<Vec<Vec<u8>>, DropReason> {
    let fragments = Fragments::new(packet, mtu, id)?;
    let written = (0..fragments.count()).map(|index| {
        let mut room = vec![0xee; fragments.len_max()];
        let len = fragments.write(index, &mut room);
        assert!(len > 0 && len <= mtu);
        // Less room is no room.
        assert_eq!(fragments.write(index, &mut room.clone()[..len - 1]), 0);
        room.truncate(len);
        room
    });
    let written = written.collect();
    assert_eq!(fragments.write(fragments.count(), &mut vec![0; mtu]), 0);
    Ok(written)
}

#[test]
fn a_packet_that_fits_stays_as_it_is() {
    for packet in [ipv4_packet(&[], &[7; 80]), ipv6_packet(&[], &[7; 80])] {
        assert_eq!(all(&packet, packet.len(), 1), Ok(vec![packet.clone()]));
        assert_eq!(all(&packet, packet.len() - 1, 1).expect("two").len(), 2);
        // Padding of a frame is not part of it.
        let padded = [&packet[..], &[0; 9]].concat();
        assert_eq!(all(&padded, packet.len(), 1), Ok(vec![packet]));
    }
}

#[test]
fn only_options_with_the_copied_flag_are_copied() {
    // Record route (not copied), no operation, router alert (copied), security (copied), end.
    let record = [7, 7, 4, 0, 0, 0, 0];
    let options = [&record[..], &[1], &[0x94, 4, 0, 0], &[0x82, 3, 9], &[0]].concat();
    let list = all(&ipv4_packet(&options, &[5; 100]), 84, 0xabcd).expect("fragments");
    assert_eq!(list.len(), 3);
    for (index, fragment) in list.iter().enumerate() {
        let packet = Ipv4Packet::new_checked(&fragment[..]).expect("well-formed");
        assert!(packet.verify_checksum());
        assert_eq!(packet.ident(), 0xabcd);
        assert_eq!(usize::from(packet.frag_offset()), index * 48);
        assert_eq!(packet.more_frags(), index < 2);
        let expected = if index == 0 { &options[..] } else { &[0x94, 4, 0, 0, 0x82, 3, 9, 0] };
        assert_eq!(&fragment[20..usize::from(packet.header_len())], expected);
    }
}

#[test]
fn a_fragment_can_be_cut_again() {
    let whole = ipv4_packet(&[], &[3; 400]);
    let list = all(&whole, 220, 9).expect("fragments");
    let again: Vec<_> =
        list.iter().flat_map(|fragment| all(fragment, 100, 77).expect("smaller ones")).collect();
    let fields = |fragment: &Vec<u8>| {
        let packet = Ipv4Packet::new_unchecked(fragment);
        (packet.frag_offset(), packet.more_frags(), packet.ident())
    };
    assert_eq!(fields(&again[0]), (0, true, 9));
    assert!(again.iter().map(fields).all(|(.., id)| id == 9));
    assert_eq!(again.iter().filter(|fragment| !fields(fragment).1).count(), 1);
    assert_eq!(
        reassembled(&again),
        Some({
            let mut expected = whole;
            expected[4..6].copy_from_slice(&[0, 9]);
            fill_ipv4_checksum(&mut expected[..20]);
            expected
        })
    );
}

#[test]
fn what_cannot_be_cut_is_an_error() {
    let with = |at: usize, byte: u8, mut packet: Vec<u8>| {
        packet[at] = byte;
        packet
    };
    let v4 = || ipv4_packet(&[], &[0; 2000]);
    let v6 = || ipv6_packet(&[], &[0; 2000]);
    for (packet, mtu, error) in [
        (with(6, 0x40, v4()), 1500, DropReason::TooLong),
        // A fragment whose end is behind that of the longest packet.
        (with(6, 0x1f, with(7, 0xff, v4())), 1500, DropReason::IpMalformed),
        (v4(), 27, DropReason::TooLong),
        (v6(), 55, DropReason::TooLong),
        (with(6, 44, v6()), 1500, DropReason::TooLong),
        (with(0, 0x44, v4()), 1500, DropReason::IpMalformed),
        (with(0, 0x50, v4()), 1500, DropReason::IpMalformed),
        (v4()[..1999].to_vec(), 1500, DropReason::IpTruncated),
        (v6()[..1999].to_vec(), 1500, DropReason::IpTruncated),
        (Vec::new(), 1500, DropReason::IpTruncated),
        (vec![0x45], 1500, DropReason::IpTruncated),
        (ipv4_packet(&[0x94, 1, 0, 0], &[0; 2000]), 1500, DropReason::IpOptions),
        (ipv4_packet(&[0x94, 9, 0, 0], &[0; 2000]), 1500, DropReason::IpOptions),
        // A destination options header of 2048 bytes belongs into the first fragment as a whole.
        (ipv6_packet(&[(60, 2048)], &[0; 20]), 1500, DropReason::FragmentHeaders),
        // And one before the routing header into every fragment.
        (ipv6_packet(&[(60, 2048), (43, 8)], &[0; 20]), 1500, DropReason::TooLong),
    ] {
        assert_eq!(all(&packet, mtu, 1), Err(error), "{:?}", &packet.get(..8));
    }
}

fn reassembled(fragments: &[Vec<u8>]) -> Option<Vec<u8>> {
    let now = Instant::ZERO;
    let config = ReassemblyConfig {
        fragments_max: usize::MAX,
        holes_max: usize::MAX - 1,
        source_bytes_max: usize::MAX,
        ..Default::default()
    };
    let mut reassembly = Reassembly::new(now, config, &mut Random::new(1));
    let mut whole = None;
    for fragment in fragments {
        assert!(whole.is_none(), "not before the last one");
        whole = reassembly.push(now, fragment, &read(fragment, 0)).expect("kept");
    }
    assert!(reassembly.is_empty() && reassembly.bytes() == 0);
    whole.map(|whole| whole.bytes)
}

proptest! {
    #[test]
    fn all_fragments_in_any_order_are_the_packet(
        is_v4 in any::<bool>(),
        extensions in prop::sample::select(vec![
            vec![], vec![(0, 8)], vec![(0, 16), (60, 8), (43, 24)], vec![(60, 16)], vec![(43, 8), (60, 8)],
        ]),
        options_len in 0usize..=10,
        payload in prop::collection::vec(any::<u8>(), 30..3000),
        mtu in 120usize..1600,
        id in any::<u32>(),
        order in any::<u64>(),
    ) {
        let mut packet = if is_v4 {
            ipv4_packet(&vec![1; options_len * 4], &payload)
        } else {
            ipv6_packet(&extensions, &payload)
        };
        let mut fragments = all(&packet, mtu, id).expect("fragments");
        if fragments.len() == 1 {
            prop_assert_eq!(&fragments[0], &packet);
            return Ok(());
        }
        for (index, fragment) in fragments.iter().enumerate() {
            let ip = read(fragment, 0);
            prop_assert_eq!(ip.end, fragment.len());
            let info = ip.fragment.expect("a fragment");
            prop_assert_eq!(info.id, if is_v4 { id & 0xffff } else { id });
            prop_assert_eq!(info.more, index + 1 < fragments.len());
            // As long as can be: nobody needs more fragments than necessary.
            let first_header_len = read(&fragments[0], 0).transport;
            prop_assert!(!info.more || ip.end - info.payload + first_header_len + 8 > mtu);
            prop_assert!(!is_v4 || Ipv4Packet::new_unchecked(&fragment[..]).verify_checksum());
        }
        let mut random = Random::new(order);
        for index in (1..fragments.len()).rev() {
            fragments.swap(index, random.below(index as u32 + 1) as usize);
        }
        if is_v4 {
            packet[4..6].copy_from_slice(&(id as u16).to_be_bytes());
            fill_ipv4_checksum(&mut packet[..20 + options_len * 4]);
        }
        prop_assert_eq!(reassembled(&fragments), Some(packet));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), mtu in 0usize..200) {
        for first in [0x45, 0x4f, 0x60] {
            let mut packet = bytes.clone();
            if let [version, _, high, low, v6_high, ..] = &mut packet[..] {
                (*version, *high, *v6_high) = (first, 0, 0);
                *low = (*low).min(bytes.len() as u8);
            }
            let _ = all(&packet, mtu, 1);
        }
    }
}
