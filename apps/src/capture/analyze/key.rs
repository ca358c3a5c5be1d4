//! To which flow a frame belongs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wirestack::nic::offload::layout::Layout;

/// One direction of a flow. Bursts have a direction, so the other one is a flow of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Who sent it.
    pub src: IpAddr,
    /// Who gets it.
    pub dst: IpAddr,
    /// Number of the protocol in the IP header; behind extension headers for TCP and UDP.
    pub protocol: u8,
    /// 0 without a TCP or UDP header: fragments, other protocols.
    pub src_port: u16,
    /// Likewise.
    pub dst_port: u16,
}

impl FlowKey {
    /// The flow of a frame; with where its payload is, if it is TCP or UDP and whole. `None`: not IP, or
    /// cut short within the IP header.
    pub fn of_frame(frame: &[u8]) -> Option<(Self, Option<Layout>)> {
        if let Some(layout) = Layout::of_frame(frame) {
            let mut key = Self::of_packet(frame.get(layout.network..)?)?;
            key.protocol = layout.protocol.number();
            key.src_port = half(frame, layout.transport)?;
            key.dst_port = half(frame, layout.transport + 2)?;
            return Some((key, Some(layout)));
        }
        let mut network = ETHERNET_HEADER_LEN;
        // Two VLAN tags at most, as in `Layout`.
        for _ in 0..2 {
            let (ETHERTYPE_VLAN | ETHERTYPE_QINQ) = half(frame, network - 2)? else { break };
            network += VLAN_TAG_LEN;
        }
        match half(frame, network - 2)? {
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Some((Self::of_packet(frame.get(network..)?)?, None)),
            _ => None,
        }
    }

    /// Addresses and protocol of an IP packet.
    fn of_packet(packet: &[u8]) -> Option<Self> {
        let (src, dst, protocol): (IpAddr, IpAddr, u8) = match packet.first()? >> 4 {
            4 => (
                Ipv4Addr::from(field::<4>(packet, 12)?).into(),
                Ipv4Addr::from(field::<4>(packet, 16)?).into(),
                *packet.get(9)?,
            ),
            6 => (
                Ipv6Addr::from(field::<16>(packet, 8)?).into(),
                Ipv6Addr::from(field::<16>(packet, 24)?).into(),
                *packet.get(6)?,
            ),
            _ => return None,
        };
        Some(Self { src, dst, protocol, src_port: 0, dst_port: 0 })
    }

    /// The protocol in words, or its number.
    pub fn protocol_name(&self) -> String {
        match self.protocol {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            number => number.to_string(),
        }
    }
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset + N)?.try_into().ok()
}

fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    field(bytes, offset).map(u16::from_be_bytes)
}

const ETHERNET_HEADER_LEN: usize = 14;
const VLAN_TAG_LEN: usize = 4;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
