//! One shard, and the other end of its wire in the hands of the test.

use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;
use wirestack_nic::loopback::{Loopback, LoopbackConfig};
use wirestack_nic::{FrameMeta, Nic};

use super::super::*;
use crate::config::parse_cidr;
use crate::egress::PacketSpec;
use crate::icmp;
use crate::ip::header;
use crate::udp::header::{Ends, write_datagram};

/// The shard's own hardware address.
pub(super) const OURS: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
/// That of 10.0.0.2 and fd00::2, which the shard knows.
pub(super) const PEER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);

pub(super) struct Lone {
    pub(super) now: Instant,
    pub(super) shard: Shard,
    pub(super) nic: Loopback<'static>,
    pub(super) wire: Loopback<'static>,
}

impl Lone {
    /// 10.0.0.1/24 and fd00::1/64 without probes, unless `change` says otherwise.
    pub(super) fn with(change: impl FnOnce(&mut ShardConfig)) -> Self {
        let now = Instant::from_millis(1_000);
        let (nic, wire) = Loopback::pair(&LoopbackConfig::default()).expect("a wire");
        let mut config = ShardConfig::new(OURS);
        for cidr in ["10.0.0.1/24", "fd00::1/64"] {
            config = config.address(parse_cidr(cidr).expect("an address"));
        }
        config.neighbor.probes = crate::neighbor::AddressProbes::None;
        change(&mut config);
        let mut shard = Shard::new(config, now).expect("a shard");
        for ip in ["10.0.0.2", "fd00::2"] {
            let ip: IpAddr = ip.parse().expect("an address");
            shard.neighbors.insert_static(now, ip, PEER).expect("room");
        }
        Self { now, shard, nic, wire }
    }

    /// The shard that has said all that it says at its start.
    pub(super) fn quiet(change: impl FnOnce(&mut ShardConfig)) -> Self {
        let mut lone = Self::with(change);
        lone.advance(Duration::from_secs(15));
        lone
    }

    /// Turns until nothing comes out any more, and returns what did.
    pub(super) fn settle(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for _ in 0..100 {
            let deadline = self.shard.turn(self.now, &mut self.nic, |_| {});
            let before = frames.len();
            while let Some(frame) = self.wire.receive_with(self.now, |frame, _| frame.to_vec()) {
                frames.push(frame);
            }
            if frames.len() == before && deadline.is_none_or(|deadline| deadline > self.now) {
                return frames;
            }
        }
        panic!("still something to do after 100 turns");
    }

    pub(super) fn advance(&mut self, duration: Duration) -> Vec<Vec<u8>> {
        let end = self.now + duration;
        let mut frames = self.settle();
        while let Some(deadline) = self.shard.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            frames.extend(self.settle());
        }
        self.now = end;
        frames.extend(self.settle());
        frames
    }

    /// A frame comes; what it makes the shard send.
    pub(super) fn put(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.wire
            .transmit_with(self.now, frame.len(), &FrameMeta::default(), |room| room.copy_from_slice(frame))
            .expect("room on the wire");
        self.settle()
    }

    pub(super) fn drops(&self, reason: DropReason) -> u64 {
        self.shard.drops.get(reason)
    }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An Ethernet frame.
pub(super) fn ether(dst: EthernetAddress, src: EthernetAddress, ethertype: u16, body: &[u8]) -> Vec<u8> {
    [&dst.0[..], &src.0, &ethertype.to_be_bytes(), body].concat()
}

/// A frame with an IP packet from the peer to us.
pub(super) fn framed(packet: &[u8]) -> Vec<u8> {
    ether(OURS, PEER, if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }, packet)
}

/// An IP packet.
pub(super) fn packet(src: &str, dst: &str, protocol: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let spec = PacketSpec { hop_limit: Some(hop_limit), ..PacketSpec::new(ip(dst), protocol) };
    let mut packet = vec![0; header::header_len(&spec)];
    header::write(&spec, ip(src), hop_limit, payload.len(), 7, &mut packet).expect("a header");
    packet.extend(payload);
    packet
}

/// An IP packet with a datagram, its checksum right.
pub(super) fn udp(src: (&str, u16), dst: (&str, u16), payload: &[u8]) -> Vec<u8> {
    let ends = Ends { src: ip(src.0), dst: ip(dst.0), src_port: src.1, dst_port: dst.1 };
    let mut datagram = vec![0; 8 + payload.len()];
    write_datagram(ends, payload, &mut datagram);
    packet(src.0, dst.0, 17, 64, &datagram)
}

/// An IP packet with an ICMP or ICMPv6 message, whose checksum is filled in.
pub(super) fn icmp(src: &str, dst: &str, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    icmp::error::fill_checksum(&mut message, Some(ip(src)), ip(dst));
    packet(src, dst, icmp::protocol_for(ip(dst)), hop_limit, &message)
}

/// Destinations and protocols of the IP packets of frames: the last 4 or 16 bytes of the address, the protocol.
pub(super) fn destinations(frames: &[Vec<u8>]) -> Vec<(IpAddr, u8)> {
    let classified = frames.iter().filter_map(|frame| crate::ingress::classify(Medium::Ethernet, frame).ok());
    classified
        .filter_map(|packet| match packet.body {
            crate::ingress::Body::Ip(ip) => Some((ip.dst, ip.protocol)),
            crate::ingress::Body::Arp(_) => None,
        })
        .collect()
}
