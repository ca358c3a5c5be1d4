//! Which shard a flow or a packet belongs to: what the kernel does with frames, said from here.

use std::net::{IpAddr, SocketAddr};

use crate::ingress::IpPacket;
use crate::nic::steer::{flow_hash, flow_hash_of, flow_hash_of_packet, shard_of};

/// Flow → shard, the same as that of a fanout group of devices that was opened with this seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steering {
    /// Seed of the flow hash, as given to the group.
    pub seed: u32,
    /// How many shards, and so members of the group, there are; with 0, all is for shard 0.
    pub shards: usize,
}

impl Steering {
    /// One shard for all.
    pub fn single() -> Self {
        Self { seed: 0, shards: 1 }
    }

    /// Where packets of a flow arrive: of TCP or UDP. Which end is local makes no difference.
    #[inline]
    pub fn shard_of_flow(&self, local: SocketAddr, remote: SocketAddr, protocol: u8) -> usize {
        if self.shards <= 1 {
            return 0;
        }
        shard_of(flow_hash_of(self.seed, local, remote, protocol), self.shards)
    }

    /// Where a packet belongs. Of a whole one, that is where it arrived, if the kernel steered it; but an ICMP
    /// error, which arrives where the packet that it quotes does: see
    /// [`shard_of_frame`](Self::shard_of_frame). Of a reassembled one, it is where its flow is. Of a fragment,
    /// it is where all fragments of the datagram arrive.
    ///
    /// A packet with more extension headers than the kernel's program skips (four) arrives elsewhere than its
    /// flow, and belongs to its flow.
    pub fn shard_of_packet(&self, packet: &IpPacket) -> usize {
        if self.shards <= 1 {
            return 0;
        }
        let protocol = match (packet.fragment, packet.src) {
            // Later fragments need not tell the protocol of the whole.
            (Some(_), IpAddr::V6(_)) => FRAGMENT,
            _ => packet.protocol,
        };
        let has_ports = packet.fragment.is_none() && matches!(protocol, TCP | UDP);
        let (src, dst) = packet.ports.filter(|_| has_ports).unwrap_or((0, 0));
        self.shard_of_flow((packet.src, src).into(), (packet.dst, dst).into(), protocol)
    }

    /// Where an Ethernet frame arrived, if the kernel steered it.
    pub fn shard_of_frame(&self, frame: &[u8]) -> usize {
        shard_of(flow_hash(self.seed, frame), self.shards)
    }

    /// As [`shard_of_frame`](Self::shard_of_frame), of an IP packet without a link header. Of an ICMP error
    /// about TCP or UDP, it is the shard of the flow that the error is about.
    pub fn shard_of_ip(&self, packet: &[u8]) -> usize {
        shard_of(flow_hash_of_packet(self.seed, packet), self.shards)
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
/// The number of the fragment header of IPv6.
const FRAGMENT: u8 = 44;

#[cfg(test)]
mod tests;
