//! Router advertisements, messages about groups, sockets that join and leave, and time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::checksum;
use wirestack::EthernetAddress;
use wirestack::igmp_mld::{FilterMode, Membership, MembershipLimits};
use wirestack::ip::slaac::{Slaac, SlaacConfig};
use wirestack::ip::stable_address::{InterfaceIdentifier, Secret};
use wirestack::random::Random;

/// A script for the parts that listen to routers: each step is a byte for its kind, a byte for a length, and
/// that many bytes.
///
/// Kind 0: a router advertisement without its first four bytes, of a router by the length. Kinds 1 and 2: a
/// message of IGMP, whose checksum is filled in, and of MLD. Kind 3: a socket, a group and a filter. Kind 4:
/// an address is taken. Other kinds: time passes.
pub fn advertisement(bytes: &[u8]) {
    let mut now = Instant::from_secs(1);
    let identifier = InterfaceIdentifier::Stable { secret: Secret([1; 16]) };
    let config =
        SlaacConfig { addresses_max: 4, routes_max: 4, routers_max: 2, ..SlaacConfig::new(identifier) };
    let mut slaac = Slaac::new(config, EthernetAddress([2, 0, 0, 0, 0, 1]), Random::new(1), now);
    let limits = MembershipLimits { groups_max: 4, memberships_max: 6, sources_max: 3, outputs_max: 16 };
    let mut membership = Membership::new(limits, 300, Random::new(2));

    let mut rest = bytes;
    while let [kind, len, tail @ ..] = rest {
        let (body, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        match kind % 6 {
            0 => advertise(&mut slaac, now, *len, body),
            1 => {
                let mut message = body.to_vec();
                if let [_, _, high, low, ..] = &mut message[..] {
                    [*high, *low] = [0, 0];
                    let sum = !checksum::data(&message);
                    message[2..4].copy_from_slice(&sum.to_be_bytes());
                }
                let dst = body.get(4..8).map_or([0; 4], |group| group.try_into().expect("four bytes"));
                let _ = membership.handle_igmp(now, Ipv4Addr::LOCALHOST, dst.into(), 1, true, &message);
            }
            2 => {
                let dst = body.get(8..24).map_or([0; 16], |group| group.try_into().expect("16 bytes"));
                let _ = membership.handle_mld(now, ROUTER, Ipv6Addr::from(dst), 1, true, body);
            }
            3 => change(&mut membership, now, body),
            4 => {
                let address = slaac.snapshot().nth(usize::from(*len) % 5).and_then(|entry| entry.address);
                if let Some(address) = address {
                    slaac.address_duplicate(now, address);
                }
            }
            _ => {
                let len = u64::from(*len);
                now += Duration::from_millis(len * len * len);
            }
        }
        drain(&mut slaac, &mut membership, now);
    }
}

fn advertise(slaac: &mut Slaac, now: Instant, router: u8, body: &[u8]) {
    let message = [&[134, 0, 0, 0], body].concat();
    let mut octets = ROUTER.octets();
    octets[15] = router % 4;
    let _ = slaac.handle_advertisement(now, octets.into(), 255, &message);
}

/// A socket, a group, a mode, and sources: a byte each.
fn change(membership: &mut Membership, now: Instant, body: &[u8]) {
    let [socket, group, mode, sources @ ..] = body else { return };
    let is_v4 = group % 2 == 0;
    let address = |v4: [u8; 4], v6: Ipv6Addr, last: u8| match is_v4 {
        true => IpAddr::from([v4[0], v4[1], v4[2], last]),
        false => {
            let mut octets = v6.octets();
            octets[15] = last;
            octets.into()
        }
    };
    let group = address([239, 1, 2, 0], GROUP6, group / 2);
    let sources: Vec<_> = sources.iter().map(|&last| address([10, 0, 0, 0], ROUTER, last)).collect();
    let mode = if mode % 2 == 0 { FilterMode::Include } else { FilterMode::Exclude };
    match membership.set_filter(now, (*socket).into(), group, mode, &sources) {
        Ok(()) => {}
        Err(error) => assert_eq!(error.to_string().lines().count(), 1),
    }
}

fn drain(slaac: &mut Slaac, membership: &mut Membership, now: Instant) {
    for _ in 0..DEADLINES_MAX {
        while slaac.poll_event().is_some() || slaac.poll_output().is_some() {}
        while let Some(outgoing) = membership.poll_output() {
            // What does not fit is a single record, and none is that long.
            assert!(outgoing.payload.len() <= 300 - 24);
        }
        while membership.poll_link().is_some() {}
        assert!(slaac.snapshot().count() <= 5 && slaac.routes().count() <= 6);
        assert!(membership.snapshot().count() <= 8);
        let deadline = slaac.next_deadline().into_iter().chain(membership.next_deadline()).min();
        let Some(deadline) = deadline.filter(|&deadline| deadline <= now) else { return };
        slaac.handle_timeout(deadline);
        membership.handle_timeout(deadline);
        let left = slaac.next_deadline().into_iter().chain(membership.next_deadline()).min();
        assert!(left.is_none_or(|left| left >= deadline), "time goes on");
    }
    // Time may jump far, over thousands of solicitations: the rest at once.
    slaac.handle_timeout(now);
    membership.handle_timeout(now);
}

/// Scripts with all that a router usually says.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let step = |kind: u8, body: &[u8]| [&[kind, body.len() as u8][..], body].concat();
    let prefix: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0);
    let advertised = [
        &[64, 0xc0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 7, 8, 0, 0, 0, 0],
        &prefix.octets(),
        &[1, 1, 2, 0, 0, 0, 0, 9, 5, 1, 0, 0, 0, 0, 5, 0, 24, 1, 0, 8, 0, 0, 0, 60],
        &[25, 3, 0, 0, 0, 0, 0, 60],
        &prefix.octets(),
        b"\x1f\x02\0\0\0\0\0\x3c\x03lan\0\0\0\0",
    ]
    .concat();
    let igmp = |tail: &[u8]| step(1, &[&[0x11, 100, 0, 0][..], tail].concat());
    let mld = |group: Ipv6Addr, tail: &[u8]| {
        step(2, &[&[130, 0, 0, 0, 0x27, 0x10, 0, 0][..], &group.octets(), tail].concat())
    };
    let any = Ipv6Addr::UNSPECIFIED;
    vec![
        [step(0, &advertised), step(4, &[0]), step(5, &[0; 20]), step(0, &advertised), step(5, &[0; 250])]
            .concat(),
        [
            step(3, &[1, 2, 1]),
            step(3, &[2, 2, 0, 5, 6]),
            igmp(&[0, 0, 0, 0, 2, 125, 0, 0]),
            igmp(&[239, 1, 2, 1, 2, 125, 0, 1, 10, 0, 0, 5]),
            step(5, &[0; 30]),
            igmp(&[0, 0, 0, 0]),
            step(1, &[0x16, 0, 0, 0, 239, 1, 2, 1]),
            step(3, &[1, 2, 0]),
            step(5, &[0; 100]),
        ]
        .concat(),
        [
            step(3, &[1, 3, 1, 7]),
            mld(any, &[2, 125, 0, 0]),
            mld(GROUP6, &[]),
            step(3, &[1, 3, 0]),
            step(5, &[9; 40]),
        ]
        .concat(),
    ]
}

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 1);
/// Deadlines that are met one by one in a step.
const DEADLINES_MAX: usize = 2000;
