//! A switch that learns where hosts are, and listens to who is in which group (RFC 4541).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Frame;
use super::packets::Mac;

/// A switch.
#[derive(Debug, Default)]
pub struct Switch {
    ports: usize,
    /// Whether frames to groups go to members only.
    snoops: bool,
    hosts: BTreeMap<Mac, usize>,
    members: BTreeMap<IpAddr, BTreeSet<usize>>,
}

impl Switch {
    /// A switch; `snoops`: frames to groups go to members only.
    pub fn new(snoops: bool) -> Self {
        Self { snoops, ..Self::default() }
    }

    pub(super) fn add_port(&mut self) -> usize {
        self.ports += 1;
        self.ports - 1
    }

    /// Ports behind which there are members of a group.
    pub fn members(&self, group: IpAddr) -> Vec<usize> {
        self.members.get(&group).into_iter().flatten().copied().collect()
    }

    pub(super) fn forward(&mut self, from: usize, frame: Frame) -> Vec<(usize, Frame)> {
        let Some(header) = frame.bytes.first_chunk::<14>() else { return Vec::new() };
        let mac = |at: usize| -> Mac { std::array::from_fn(|index| header[at + index]) };
        let (dst, src) = (mac(0), mac(6));
        if src[0] & 1 == 0 {
            self.hosts.insert(src, from);
        }
        self.listen(from, &frame.bytes[14..], header[12..14] == [8, 0]);
        let group = group_of(&frame.bytes);
        let all = (0..self.ports).filter(|&port| port != from);
        let to: Vec<usize> = match (self.hosts.get(&dst), group) {
            (Some(&port), _) if dst[0] & 1 == 0 => all.filter(|&other| other == port).collect(),
            (_, Some(group)) if self.snoops && dst[0] & 1 == 1 && !is_flooded(group) => {
                let members = self.members.get(&group);
                all.filter(|port| members.is_some_and(|members| members.contains(port))).collect()
            }
            _ => all.collect(),
        };
        to.into_iter().map(|port| (port, frame.clone())).collect()
    }

    fn listen(&mut self, port: usize, packet: &[u8], is_v4: bool) {
        let changes = if is_v4 { igmp_changes(packet) } else { mld_changes(packet) };
        for (group, joins) in changes.unwrap_or_default() {
            let members = self.members.entry(group).or_default();
            if joins {
                members.insert(port);
            } else {
                members.remove(&port);
            }
        }
    }
}

/// The group of a frame's IP packet.
fn group_of(frame: &[u8]) -> Option<IpAddr> {
    let ip = match frame.get(12..14)? {
        [8, 0] => IpAddr::from(<[u8; 4]>::try_from(frame.get(30..34)?).ok()?),
        [0x86, 0xdd] => IpAddr::from(<[u8; 16]>::try_from(frame.get(38..54)?).ok()?),
        _ => return None,
    };
    ip.is_multicast().then_some(ip)
}

/// RFC 4541 section 2.1.2 (2): groups of the link go everywhere.
fn is_flooded(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xf == 2,
    }
}

/// Whether a record of IGMPv3 or MLDv2 leaves somebody in the group: its type and number of sources.
fn record_joins(kind: u8, sources: u16) -> Option<bool> {
    match kind {
        2 | 4 | 5 => Some(true),
        1 | 3 => Some(sources > 0),
        _ => None,
    }
}

fn igmp_changes(packet: &[u8]) -> Option<Vec<(IpAddr, bool)>> {
    let header_len = usize::from(packet.first()? & 15) * 4;
    if *packet.get(9)? != 2 {
        return None;
    }
    let igmp = packet.get(header_len..)?;
    let group =
        |at: usize| Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(igmp.get(at..at + 4)?).ok()?)));
    match igmp.first()? {
        0x12 | 0x16 => Some(vec![(group(4)?, true)]),
        0x17 => Some(vec![(group(4)?, false)]),
        0x22 => {
            let count = u16::from_be_bytes([*igmp.get(6)?, *igmp.get(7)?]);
            let (mut at, mut changes) = (8, Vec::new());
            for _ in 0..count {
                let sources = u16::from_be_bytes([*igmp.get(at + 2)?, *igmp.get(at + 3)?]);
                changes
                    .extend(record_joins(igmp[at], sources).and_then(|joins| Some((group(at + 4)?, joins))));
                at += 8 + 4 * usize::from(sources);
            }
            Some(changes)
        }
        _ => None,
    }
}

fn mld_changes(packet: &[u8]) -> Option<Vec<(IpAddr, bool)>> {
    // MLD always comes behind a hop-by-hop header of 8 bytes, with the router alert.
    if *packet.get(6)? != 0 || *packet.get(40)? != 58 {
        return None;
    }
    let mld = packet.get(48..)?;
    let group =
        |at: usize| Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(mld.get(at..at + 16)?).ok()?)));
    match mld.first()? {
        131 => Some(vec![(group(8)?, true)]),
        132 => Some(vec![(group(8)?, false)]),
        143 => {
            let count = u16::from_be_bytes([*mld.get(6)?, *mld.get(7)?]);
            let (mut at, mut changes) = (8, Vec::new());
            for _ in 0..count {
                let sources = u16::from_be_bytes([*mld.get(at + 2)?, *mld.get(at + 3)?]);
                changes
                    .extend(record_joins(mld[at], sources).and_then(|joins| Some((group(at + 4)?, joins))));
                at += 20 + 16 * usize::from(sources);
            }
            Some(changes)
        }
        _ => None,
    }
}
