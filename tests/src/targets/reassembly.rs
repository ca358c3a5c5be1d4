//! Fragments of a few senders, against a list of what came.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::time::{Duration, Instant};
use wirestack::ingress::packet::{FragmentInfo, IpPacket};
use wirestack::ip::reassembly::{Reassembly, ReassemblyConfig};
use wirestack::random::Random;

/// Steps of six bytes: sender and identification, offset, length, flags, content, seconds that pass. With
/// the highest bit of the flags, the fifth and sixth byte are offsets of a description that lies.
///
/// What becomes whole is what was sent, and limits hold.
pub fn reassembly(bytes: &[u8]) {
    let config = ReassemblyConfig {
        datagrams_max: 6,
        bytes_max: 16 << 10,
        source_datagrams_max: 3,
        source_bytes_max: 8 << 10,
        fragments_max: 12,
        holes_max: 4,
        ..ReassemblyConfig::default()
    };
    let mut now = Instant::from_secs(1);
    let mut table = Reassembly::new(now, config, &mut Random::new(7));
    // What came of each sender and identification since the last one was whole.
    let mut came: BTreeMap<u8, Vec<Fragment>> = BTreeMap::new();
    let (steps, _) = bytes.as_chunks::<6>();
    for &[who, unit, len, flags, content, pause] in steps {
        let is_lie = flags & 0x80 != 0;
        now += Duration::from_secs(if is_lie { 0 } else { (pause % 32).into() });
        while let Some(over) = table.poll_timeout(now) {
            assert!(over.first_fragment.is_none_or(|first| first.len() > 20));
        }
        assert!(table.next_deadline().is_none_or(|at| at > now));
        let who = who % 16;
        let offset = usize::from(unit) * if flags & 2 != 0 { 256 } else { 8 };
        let fragment = Fragment { offset, more: flags & 1 != 0, payload: vec![content; len.into()] };
        let (frame, mut ip) = frame(who, &fragment);
        if is_lie && let Some(info) = &mut ip.fragment {
            (ip.end, info.payload, info.header_at) = (content.into(), pause.into(), unit.into());
        }
        let result = table.push(now, &frame, &ip);
        assert!(table.len() <= config.datagrams_max && table.bytes() <= config.bytes_max);
        if is_lie {
            // What it is taken for is not known here.
            came.clear();
            table = Reassembly::new(now, config, &mut Random::new(7));
            continue;
        }
        let fragments = came.entry(who).or_default();
        fragments.push(fragment);
        if let Ok(Some(whole)) = result {
            check(who, &whole.bytes, fragments);
            fragments.clear();
        }
    }
    while table.poll_timeout(now + Duration::from_secs(60)).is_some() {}
    assert!(table.is_empty() && table.bytes() == 0);
}

#[derive(Debug)]
struct Fragment {
    offset: usize,
    more: bool,
    payload: Vec<u8>,
}

/// The whole is made of fragments that came, as long as one that was the last, with headers that say so.
fn check(who: u8, whole: &[u8], came: &[Fragment]) {
    let half = |at: usize| usize::from(u16::from_be_bytes([whole[at], whole[at + 1]]));
    let header_len = if is_v4(who) { 20 } else { 40 };
    if is_v4(who) {
        assert_eq!((half(2), half(6)), (whole.len(), 0));
        let sum: usize = (0..20).step_by(2).map(half).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the checksum of the header");
    } else {
        assert_eq!((half(4), whole[6]), (whole.len() - 40, 17));
    }
    // Several fragments may begin alike at one place: all places where a chain of them can end.
    let payload = &whole[header_len..];
    let mut ends = BTreeSet::from([0]);
    let mut reached = 0;
    while let Some(at) = ends.pop_first() {
        reached = at;
        ends.extend(came.iter().filter_map(|fragment| {
            let end = at + fragment.payload.len();
            let is_here = fragment.offset == at && payload[at..].starts_with(&fragment.payload);
            (is_here && end > at && (end == payload.len()) != fragment.more).then_some(end)
        }));
    }
    assert_eq!(reached, payload.len(), "every byte came in a fragment of this place");
}

fn is_v4(who: u8) -> bool {
    who < 8
}

/// A fragment with its header, as the one who has classified it describes it.
fn frame(who: u8, fragment: &Fragment) -> (Vec<u8>, IpPacket) {
    let id = u32::from(who % 4);
    let payload = &fragment.payload;
    let headers = if is_v4(who) {
        let [high, low] = (20 + payload.len() as u16).to_be_bytes();
        let field = (fragment.offset / 8) as u16 | (u16::from(fragment.more) << 13);
        let [flags, offset] = field.to_be_bytes();
        vec![0x45, 0, high, low, 0, id as u8, flags, offset, 64, 17, 0, 0, 10, 0, 0, who / 4, 10, 0, 0, 9]
    } else {
        let [high, low] = (8 + payload.len() as u16).to_be_bytes();
        let [offset, flags] = (fragment.offset as u16 | u16::from(fragment.more)).to_be_bytes();
        let addresses = [v6(who / 4), v6(9)].map(|address| address.octets()).concat();
        let fixed = [0x60, 0, 0, 0, high, low, 44, 64];
        [&fixed[..], &addresses, &[17, 0, offset, flags, 0, 0, 0, id as u8]].concat()
    };
    let (src, dst) = if is_v4(who) {
        let v4 = |host: u8| IpAddr::V4(Ipv4Addr::new(10, 0, 0, host));
        (v4(who / 4), v4(9))
    } else {
        (v6(who / 4).into(), v6(9).into())
    };
    let len = headers.len();
    let ip = IpPacket {
        src,
        dst,
        start: 0,
        transport: len,
        end: len + payload.len(),
        protocol: 17,
        hop_limit: 64,
        traffic_class: 0,
        fragment: Some(FragmentInfo {
            id,
            offset: fragment.offset,
            more: fragment.more,
            payload: len,
            next_header_at: if is_v4(who) { 9 } else { 6 },
            header_at: if is_v4(who) { len } else { 40 },
            next_header: 17,
        }),
        ports: None,
        dont_fragment: false,
        router_alert: false,
        problem: None,
    };
    ([&headers[..], payload].concat(), ip)
}

fn v6(host: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(host) << 64)
}

/// Datagrams of both families in two and three pieces, an overlap, and time that passes.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![
        [[0, 1, 5, 0, 7, 0], [0, 0, 8, 1, 6, 1]].concat(),
        [[9, 0, 16, 1, 1, 0], [9, 4, 9, 0, 3, 0], [9, 2, 16, 1, 2, 0]].concat(),
        [[4, 0, 16, 1, 1, 0], [4, 1, 16, 1, 1, 0], [4, 3, 1, 0, 1, 31], [4, 0, 8, 1, 1, 0]].concat(),
        [[1, 255, 255, 2, 1, 0], [2, 0, 8, 0x81, 60, 20], [3, 0, 8, 1, 1, 31], [3, 0, 8, 1, 1, 0]].concat(),
    ]
}
