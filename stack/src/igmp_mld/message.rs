//! Messages about groups: those that a host receives, read; those that it sends, written.
//!
//! ```text
//!   IGMPv3   type code sum  group(4)                  S/QRV QQIC n sources…     the query of v2: 8 bytes
//!   MLDv2    type code sum  delay(2) 0(2) group(16)   S/QRV QQIC n sources…     the query of v1: 24 bytes
//!   report   type 0 sum 0(2) n, n × ( kind 0 m group sources… )
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::time::Duration;
use smoltcp::wire::checksum;

use super::Version;
use crate::egress::packet::{Outgoing, PacketSpec};
use crate::observe::DropReason;

/// What a host can make use of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Query(Query),
    /// Somebody is in this group, and says so in an older version of the protocol.
    Report(IpAddr),
}

/// A question of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) version: Version,
    /// `None`: all groups.
    pub(super) group: Option<IpAddr>,
    pub(super) max_response: Duration,
    /// Sources that are asked about; none: any.
    pub(super) sources: BTreeSet<IpAddr>,
    /// The Robustness Variable and the Query Interval of the router, where it tells them.
    pub(super) robustness: Option<u8>,
    pub(super) interval: Option<Duration>,
}

/// Reads an IGMP message, whose checksum is verified here.
pub(super) fn parse_igmp(bytes: &[u8]) -> Result<Message, DropReason> {
    let Some((&[kind, code, _, _, a, b, c, d], rest)) = bytes.split_first_chunk() else {
        return Err(DropReason::GroupMalformed);
    };
    if checksum::data(bytes) != 0xffff {
        return Err(DropReason::GroupMalformed);
    }
    let group = Ipv4Addr::new(a, b, c, d);
    match kind {
        IGMP_QUERY => {}
        IGMPV1_REPORT | IGMPV2_REPORT if group.is_multicast() => return Ok(Message::Report(group.into())),
        IGMPV1_REPORT | IGMPV2_REPORT => return Err(DropReason::GroupMalformed),
        _ => return Err(DropReason::GroupIgnored),
    }
    // A query of version 1 asks about all groups, whatever it has in this field.
    let group = (!group.is_unspecified() && (code != 0 || !rest.is_empty())).then_some(IpAddr::V4(group));
    // What is longer than 8 octets and shorter than 12 is of no version (RFC 3376 section 7.1).
    match (rest.len(), code) {
        (0, 0) => older_query(Version::Igmpv1, None, IGMPV1_RESPONSE),
        (0, _) => older_query(Version::Igmpv2, group, tenths(code.into())),
        _ => current_query(Version::Igmpv3, group, tenths(floating_8(code)), rest),
    }
}

/// Reads an MLD message, whose checksum the layer below has verified.
pub(super) fn parse_mld(bytes: &[u8]) -> Result<Message, DropReason> {
    let malformed = Err(DropReason::GroupMalformed);
    let Some((&[kind, _, _, _, high, low, _, _], rest)) = bytes.split_first_chunk() else { return malformed };
    match kind {
        MLD_QUERY | MLDV1_REPORT => {}
        _ => return Err(DropReason::GroupIgnored),
    }
    let Some((octets, rest)) = rest.split_first_chunk::<16>() else { return malformed };
    let group = Ipv6Addr::from(*octets);
    if kind == MLDV1_REPORT {
        return if group.is_multicast() { Ok(Message::Report(group.into())) } else { malformed };
    }
    let group = (!group.is_unspecified()).then_some(IpAddr::V6(group));
    let code = u16::from_be_bytes([high, low]);
    if rest.is_empty() {
        return older_query(Version::Mldv1, group, Duration::from_millis(code.into()));
    }
    current_query(Version::Mldv2, group, Duration::from_millis(floating_16(code)), rest)
}

fn older_query(
    version: Version,
    group: Option<IpAddr>,
    max_response: Duration,
) -> Result<Message, DropReason> {
    let sources = BTreeSet::new();
    checked(Query { version, group, max_response, sources, robustness: None, interval: None })
}

/// `rest` begins with S, QRV and QQIC.
fn current_query(
    version: Version,
    group: Option<IpAddr>,
    max_response: Duration,
    rest: &[u8],
) -> Result<Message, DropReason> {
    let Some((&[flags, interval, high, low], rest)) = rest.split_first_chunk() else {
        return Err(DropReason::GroupMalformed);
    };
    let count = usize::from(u16::from_be_bytes([high, low]));
    let source_len = if version == Version::Igmpv3 { 4 } else { 16 };
    let Some(list) = rest.get(..count * source_len) else { return Err(DropReason::GroupMalformed) };
    let sources = match version {
        Version::Igmpv3 => list.as_chunks::<4>().0.iter().map(|octets| IpAddr::from(*octets)).collect(),
        _ => list.as_chunks::<16>().0.iter().map(|octets| IpAddr::from(*octets)).collect(),
    };
    let robustness = Some(flags & 7).filter(|&robustness| robustness != 0);
    let interval = Some(Duration::from_secs(floating_8(interval))).filter(|&d| d != Duration::ZERO);
    checked(Query { version, group, max_response, sources, robustness, interval })
}

fn checked(query: Query) -> Result<Message, DropReason> {
    let is_right = match query.group {
        Some(group) => group.is_multicast(),
        None => query.sources.is_empty(),
    };
    if is_right { Ok(Message::Query(query)) } else { Err(DropReason::GroupMalformed) }
}

fn tenths(count: u64) -> Duration {
    Duration::from_millis(count * 100)
}

/// Max Resp Code and QQIC (RFC 3376 section 4.1.1, RFC 3810 section 5.1.9).
fn floating_8(code: u8) -> u64 {
    match code {
        0..128 => code.into(),
        128.. => u64::from(code & 0x0f | 0x10) << ((code >> 4 & 7) + 3),
    }
}

/// Maximum Response Code of MLDv2 (RFC 3810 section 5.1.3).
fn floating_16(code: u16) -> u64 {
    match code {
        0..0x8000 => code.into(),
        0x8000.. => u64::from(code & 0x0fff | 0x1000) << ((code >> 12 & 7) + 3),
    }
}

/// What a record of a report says (RFC 3376 section 4.2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    IsInclude = 1,
    IsExclude = 2,
    ToInclude = 3,
    ToExclude = 4,
    Allow = 5,
    Block = 6,
}

/// A part of a report about one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: RecordKind,
    pub(super) group: IpAddr,
    pub(super) sources: Vec<IpAddr>,
}

impl Record {
    fn write(&self, sources: &[IpAddr], to: &mut Vec<u8>) {
        to.extend([self.kind as u8, 0]);
        to.extend((sources.len() as u16).to_be_bytes());
        for address in std::iter::once(&self.group).chain(sources) {
            push_address(to, *address);
        }
    }
}

/// Writes records of one family, all of version 3 of IGMP or all of version 2 of MLD, to reports of which no
/// packet is longer than the MTU.
pub(super) fn reports(records: &[Record], mtu: u16, mut send: impl FnMut(Outgoing)) {
    let Some(first) = records.first() else { return };
    let is_v4 = first.group.is_ipv4();
    // With the Router Alert option: 24 bytes of IPv4, 40 and 8 of IPv6. Both reports begin with 8 bytes.
    let (headers, address_len) = if is_v4 { (24, 4) } else { (48, 16) };
    let room = usize::from(mtu.max(MTU_MIN)) - headers - REPORT_HEADER_LEN;
    let sources_max = (room - 4 - address_len) / address_len;
    let mut body = Vec::new();
    let mut count = 0_u16;
    for record in records {
        let is_exclude = matches!(record.kind, RecordKind::IsExclude | RecordKind::ToExclude);
        // Of an EXCLUDE list that does not fit, as much goes as fits, and of the rest nobody hears (RFC 3376
        // section 4.2.16): then more comes than is wanted, and not less. Of INCLUDE lists and changes, every part goes into a record of its own.
        let parts: Vec<&[IpAddr]> = match record.sources.len() {
            0 => vec![&[]],
            len if is_exclude => vec![&record.sources[..len.min(sources_max)]],
            _ => record.sources.chunks(sources_max).collect(),
        };
        for part in parts {
            let len = 4 + address_len * (1 + part.len());
            if count > 0 && body.len() + len > room {
                send(report(is_v4, count, &std::mem::take(&mut body)));
                count = 0;
            }
            record.write(part, &mut body);
            count += 1;
        }
    }
    send(report(is_v4, count, &body));
}

fn report(is_v4: bool, count: u16, records: &[u8]) -> Outgoing {
    let [high, low] = count.to_be_bytes();
    let (kind, dst) = if is_v4 { (IGMPV3_REPORT, ALL_IGMPV3) } else { (MLDV2_REPORT, ALL_MLDV2) };
    let mut payload = vec![kind, 0, 0, 0, 0, 0, high, low];
    payload.extend_from_slice(records);
    outgoing(dst, payload, true)
}

/// A report that names one group, of an older version.
pub(super) fn older_report(version: Version, group: IpAddr) -> Outgoing {
    let kind = match version {
        Version::Igmpv1 => IGMPV1_REPORT,
        Version::Igmpv2 | Version::Igmpv3 => IGMPV2_REPORT,
        Version::Mldv1 | Version::Mldv2 => MLDV1_REPORT,
    };
    // Routers of IGMPv1 know no options.
    outgoing(group, one_group(kind, group), version != Version::Igmpv1)
}

/// That the last one of us has left a group: Leave of IGMPv2, Done of MLDv1.
pub(super) fn leave(group: IpAddr) -> Outgoing {
    let (kind, dst) = if group.is_ipv4() { (IGMP_LEAVE, ALL_ROUTERS_V4) } else { (MLD_DONE, ALL_ROUTERS_V6) };
    outgoing(dst, one_group(kind, group), true)
}

fn one_group(kind: u8, group: IpAddr) -> Vec<u8> {
    let mut payload = vec![kind, 0, 0, 0];
    if group.is_ipv6() {
        payload.extend([0; 4]);
    }
    push_address(&mut payload, group);
    payload
}

fn outgoing(dst: IpAddr, mut payload: Vec<u8>, router_alert: bool) -> Outgoing {
    let is_v4 = dst.is_ipv4();
    if is_v4 {
        let sum = !checksum::data(&payload);
        payload[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let (protocol, traffic_class) = if is_v4 { (IGMP, INTERNETWORK_CONTROL) } else { (ICMPV6, 0) };
    let spec =
        PacketSpec { hop_limit: Some(1), traffic_class, router_alert, ..PacketSpec::new(dst, protocol) };
    Outgoing { spec, payload }
}

fn push_address(to: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => to.extend(address.octets()),
        IpAddr::V6(address) => to.extend(address.octets()),
    }
}

const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
/// TOS of IGMPv3 (RFC 3376 section 4).
const INTERNETWORK_CONTROL: u8 = 0xc0;
const IGMP_QUERY: u8 = 0x11;
const IGMPV1_REPORT: u8 = 0x12;
const IGMPV2_REPORT: u8 = 0x16;
const IGMP_LEAVE: u8 = 0x17;
const IGMPV3_REPORT: u8 = 0x22;
const MLD_QUERY: u8 = 130;
const MLDV1_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const MLDV2_REPORT: u8 = 143;
const REPORT_HEADER_LEN: usize = 8;
/// Reports are not made for less than this, whatever the link says: a record with some sources fits.
const MTU_MIN: u16 = 256;
/// What routers of IGMPv1 grant (RFC 3376 section 7.2.1).
const IGMPV1_RESPONSE: Duration = Duration::from_secs(10);
pub(super) const ALL_ROUTERS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 2));
pub(super) const ALL_ROUTERS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2));
pub(super) const ALL_IGMPV3: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 22));
pub(super) const ALL_MLDV2: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16));
