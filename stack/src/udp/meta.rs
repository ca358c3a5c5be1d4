//! What is known of a received datagram beside its payload.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU16;

use smoltcp::time::Instant;
use wirestack_nic::meta::{Timestamp, TimestampSource};

/// What is known of a received datagram beside its payload: what `recvmsg` of the kernel tells in control
/// messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramMeta {
    /// Who sent it. The flow label of IPv6 is not kept.
    pub src: SocketAddr,
    /// The address it came to: one of ours, a group, or broadcast. Of the same family as `src`.
    pub dst: SocketAddr,
    /// TTL or hop limit as received.
    pub hop_limit: u8,
    /// DSCP, and ECN in the two low bits.
    pub traffic_class: u8,
    /// When the device or the kernel received it, if they say so.
    pub timestamp: Option<Timestamp>,
    /// When the shard received it.
    pub received: Instant,
    /// Set if these are several datagrams in one run: bytes of each but the last, which may be shorter.
    pub segment_bytes: Option<NonZeroU16>,
    /// Set by [`Socket::recv`](super::Socket::recv) if the room given was too short, and the rest is lost.
    pub truncated: bool,
}

impl DatagramMeta {
    /// Of a datagram about which nothing else is known.
    pub fn new(src: SocketAddr, dst: SocketAddr, received: Instant) -> Self {
        Self {
            src,
            dst,
            hop_limit: 0,
            traffic_class: 0,
            timestamp: None,
            received,
            segment_bytes: None,
            truncated: false,
        }
    }
}

/// The same in as few bytes as go, since a queue of short datagrams is mostly this.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedMeta {
    nanos: u64,
    received: Instant,
    /// Both addresses are of one interface.
    scope_id: u32,
    src_port: u16,
    dst_port: u16,
    src: IpAddr,
    dst: IpAddr,
    hop_limit: u8,
    traffic_class: u8,
    source: Option<TimestampSource>,
}

impl PackedMeta {
    pub(super) fn pack(meta: &DatagramMeta) -> Self {
        Self {
            nanos: meta.timestamp.map_or(0, |timestamp| timestamp.nanos),
            received: meta.received,
            scope_id: scope_id(meta.src).max(scope_id(meta.dst)),
            src_port: meta.src.port(),
            dst_port: meta.dst.port(),
            src: meta.src.ip(),
            dst: meta.dst.ip(),
            hop_limit: meta.hop_limit,
            traffic_class: meta.traffic_class,
            source: meta.timestamp.map(|timestamp| timestamp.source),
        }
    }

    pub(super) fn unpack(&self, segment_bytes: Option<NonZeroU16>) -> DatagramMeta {
        DatagramMeta {
            src: self.address(self.src, self.src_port),
            dst: self.address(self.dst, self.dst_port),
            hop_limit: self.hop_limit,
            traffic_class: self.traffic_class,
            timestamp: self.source.map(|source| Timestamp { nanos: self.nanos, source }),
            received: self.received,
            segment_bytes,
            truncated: false,
        }
    }

    fn address(&self, ip: IpAddr, port: u16) -> SocketAddr {
        match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, port),
            IpAddr::V6(ip) => {
                let scope_id = if needs_scope(ip) { self.scope_id } else { 0 };
                SocketAddrV6::new(ip, port, 0, scope_id).into()
            }
        }
    }
}

/// Addresses that mean something on one link only (RFC 4007 section 6, RFC 4291 section 2.7).
fn needs_scope(ip: Ipv6Addr) -> bool {
    ip.is_unicast_link_local() || matches!(ip.octets(), [0xff, flags, ..] if matches!(flags & 0xf, 1 | 2))
}

fn scope_id(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(address) if needs_scope(*address.ip()) => address.scope_id(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_is_short_and_loses_nothing() {
        assert!(size_of::<PackedMeta>() <= 64, "{}", size_of::<PackedMeta>());
        for (src, dst, scope_id) in [
            ("10.0.0.1:5", "10.0.0.2:7", 0),
            ("[fe80::1]:5", "[fe80::2]:7", 3),
            ("[fd00::1]:5", "[ff02::2]:7", 3),
            ("[fd00::1]:5", "[fd00::2]:7", 0),
        ] {
            let [src, dst] = [src, dst].map(|text| {
                let mut address: SocketAddr = text.parse().expect("an address");
                if let SocketAddr::V6(v6) = &mut address
                    && needs_scope(*v6.ip())
                {
                    v6.set_scope_id(scope_id);
                }
                address
            });
            for timestamp in [None, Some(Timestamp { nanos: 9, source: TimestampSource::Ring })] {
                let meta = DatagramMeta {
                    hop_limit: 64,
                    traffic_class: 3,
                    timestamp,
                    ..DatagramMeta::new(src, dst, Instant::from_micros(77))
                };
                assert_eq!(PackedMeta::pack(&meta).unpack(None), meta);
            }
        }
    }
}
