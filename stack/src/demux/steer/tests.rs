use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::ingress::packet::FragmentInfo;

/// A frame and what `classify` makes of it.
#[derive(Debug, Clone)]
struct Made {
    frame: Vec<u8>,
    packet: IpPacket,
}

#[derive(Debug, Clone)]
struct Ingredients {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ports: (u16, u16),
    /// Options of IPv4, or extension headers of IPv6, of 8 bytes each.
    extensions: usize,
    vlans: usize,
    fragment: Option<(u16, bool)>,
}

fn ingredients() -> impl Strategy<Value = Ingredients> {
    let v4 = || any::<[u8; 4]>().prop_map(|ip| IpAddr::from(Ipv4Addr::from(ip)));
    let v6 = || any::<[u8; 16]>().prop_map(|ip| IpAddr::from(Ipv6Addr::from(ip)));
    let ends = prop_oneof![(v4(), v4()), (v6(), v6())];
    // TCP, UDP, IGMP, GRE, SCTP, no next header; no ICMP errors, which are of another flow.
    let protocol = prop::sample::select(vec![6, 17, 17, 2, 47, 132, 59]);
    let fragment = prop_oneof![
        3 => Just(None),
        1 => (prop_oneof![Just(0), 0_u16..0x1fff], any::<bool>())
            .prop_map(|(offset, more)| Some((offset, more || offset == 0))),
    ];
    (ends, protocol, any::<(u16, u16)>(), 0_usize..4, 0_usize..3, fragment).prop_map(
        |((src, dst), protocol, ports, extensions, vlans, fragment)| Ingredients {
            src,
            dst,
            protocol,
            ports,
            extensions,
            vlans,
            fragment,
        },
    )
}

fn make(of: &Ingredients) -> Made {
    let mut frame = vec![2; 12];
    for vlan in 0..of.vlans {
        frame.extend([0x81, 0, 0, vlan as u8]);
    }
    frame.extend(if of.src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
    let start = frame.len();
    match (of.src, of.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let len = 20 + 8 * of.extensions;
            frame.resize(start + len, 1);
            frame[start] = 0x40 | (len / 4) as u8;
            frame[start + 9] = of.protocol;
            let flags = of.fragment.map_or(0x4000, |(offset, more)| offset | u16::from(more) << 13);
            frame[start + 6..][..2].copy_from_slice(&flags.to_be_bytes());
            frame[start + 12..][..4].copy_from_slice(&src.octets());
            frame[start + 16..][..4].copy_from_slice(&dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            const DESTINATION_OPTIONS: u8 = 60;
            let mut headers = vec![DESTINATION_OPTIONS; of.extensions];
            headers.extend(of.fragment.map(|_| FRAGMENT));
            headers.push(of.protocol);
            frame.extend([0x60, 0, 0, 0, 0, 0, headers[0], 64]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
            for next in &headers[1..] {
                frame.extend([*next, 0, 1, 4, 0, 0, 0, 0]);
            }
            if let Some((offset, more)) = of.fragment {
                let at = frame.len() - 6;
                frame[at..][..2].copy_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
            }
        }
        _ => unreachable!("of one family"),
    }
    let transport = frame.len();
    frame.extend(of.ports.0.to_be_bytes());
    frame.extend(of.ports.1.to_be_bytes());
    frame.extend([0; 20]);
    let has_ports = matches!(of.protocol, 6 | 17) && of.fragment.is_none_or(|(offset, _)| offset == 0);
    let packet = IpPacket {
        src: of.src,
        dst: of.dst,
        start,
        transport,
        end: frame.len(),
        protocol: of.protocol,
        hop_limit: 64,
        traffic_class: 0,
        fragment: of.fragment.map(|(offset, more)| FragmentInfo {
            id: 1,
            offset: usize::from(offset) * 8,
            more,
            payload: transport,
            next_header_at: 0,
            header_at: 0,
            next_header: of.protocol,
        }),
        ports: has_ports.then_some(of.ports),
        dont_fragment: false,
        router_alert: false,
        problem: None,
    };
    Made { frame, packet }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_packet_is_where_the_kernel_put_its_frame(of in ingredients(), seed: u32, shards in 1_usize..9) {
        let steering = Steering { seed, shards };
        let Made { frame, packet } = make(&of);
        let arrived = shard_of(flow_hash(seed, &frame), shards);
        prop_assert_eq!(steering.shard_of_packet(&packet), arrived);
        prop_assert_eq!(steering.shard_of_frame(&frame), arrived);
        prop_assert_eq!(steering.shard_of_ip(&frame[packet.start..]), arrived);
        if packet.fragment.is_none() && let Some((src, dst)) = packet.ports {
            let flow = steering.shard_of_flow((of.dst, dst).into(), (of.src, src).into(), of.protocol);
            prop_assert_eq!(flow, arrived);
        }
    }
}

#[test]
fn with_one_shard_or_none_it_is_the_first() {
    let (a, b) = (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into());
    for steering in [Steering::single(), Steering { seed: 7, shards: 0 }] {
        assert_eq!(steering.shard_of_flow(a, b, 6), 0);
        assert_eq!(steering.shard_of_frame(&[]), 0);
    }
}
