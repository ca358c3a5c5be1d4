//! What must hold for every frame that a stack sends, found with smoltcp's parsers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv6Packet, IgmpPacket, IpProtocol,
    Ipv4Packet, Ipv6Packet, UdpPacket,
};

use super::packets::{Mac, TCP, TcpView, group_mac, is_sum_right};

/// Who may send what.
#[derive(Debug, Clone)]
pub struct Permit {
    /// Hardware address of the sender.
    pub mac: Mac,
    /// Bytes of an IP packet at most.
    pub mtu: usize,
    /// Addresses that may be sources, beside the unspecified one.
    pub sources: BTreeSet<IpAddr>,
}

/// Checks a frame as it is on the wire.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn check_frame(frame: &[u8], permit: &Permit) -> Result<(), String> {
    let ethernet =
        EthernetFrame::new_checked(frame).map_err(|_| "a frame without a whole header".to_owned())?;
    let says = |what: &str| Err(what.to_owned());
    if ethernet.src_addr().0 != permit.mac {
        return says("from a hardware address that is not ours");
    }
    if frame.len() > permit.mtu + 14 {
        return Err(format!("{} bytes are longer than the MTU allows", frame.len()));
    }
    match ethernet.ethertype() {
        EthernetProtocol::Arp => check_arp(ethernet.payload(), permit),
        EthernetProtocol::Ipv4 => check_v4(ethernet.dst_addr().0, ethernet.payload(), permit),
        EthernetProtocol::Ipv6 => check_v6(ethernet.dst_addr().0, ethernet.payload(), permit),
        other => Err(format!("an EtherType that nobody speaks: {other}")),
    }
}

fn check_arp(bytes: &[u8], permit: &Permit) -> Result<(), String> {
    let packet = ArpPacket::new_checked(bytes).map_err(|_| "ARP is cut".to_owned())?;
    let repr = ArpRepr::parse(&packet).map_err(|_| "ARP cannot be read".to_owned())?;
    let ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, .. } = repr else {
        return Err("ARP for something else".to_owned());
    };
    if source_hardware_addr.0 != permit.mac {
        return Err("ARP tells another hardware address".to_owned());
    }
    check_source(source_protocol_addr.into(), true, permit)
}

fn check_source(src: IpAddr, may_be_unspecified: bool, permit: &Permit) -> Result<(), String> {
    if permit.sources.contains(&src) || src.is_unspecified() && may_be_unspecified {
        return Ok(());
    }
    Err(format!("from {src}, which is not ours (now)"))
}

fn check_link_dst(dst_mac: Mac, dst: IpAddr) -> Result<(), String> {
    let is_group = dst_mac[0] & 1 == 1 && dst_mac != [0xff; 6];
    if dst.is_multicast() && dst_mac != group_mac(dst) && dst_mac[0] & 1 == 1 {
        return Err(format!("{dst} to {dst_mac:02x?}, which is not its group"));
    }
    if is_group && !dst.is_multicast() {
        return Err(format!("{dst} to a group of the link"));
    }
    if dst.is_loopback() || dst.is_unspecified() {
        return Err(format!("{dst} must not be on a wire"));
    }
    Ok(())
}

fn check_v4(dst_mac: Mac, bytes: &[u8], permit: &Permit) -> Result<(), String> {
    let packet = Ipv4Packet::new_checked(bytes).map_err(|_| "IPv4 is cut".to_owned())?;
    if !packet.verify_checksum() {
        return Err("checksum of the IPv4 header".to_owned());
    }
    if usize::from(packet.total_len()) != bytes.len() {
        return Err("the total length is not that of the frame".to_owned());
    }
    let (src, dst) = (IpAddr::V4(packet.src_addr()), IpAddr::V4(packet.dst_addr()));
    let is_dhcp = packet.next_header() == IpProtocol::Udp;
    check_source(src, is_dhcp || packet.next_header() == IpProtocol::Igmp, permit)?;
    check_link_dst(dst_mac, dst)?;
    if packet.hop_limit() == 0 {
        return Err("TTL 0".to_owned());
    }
    if packet.more_frags() && packet.payload().len() % 8 != 0 {
        return Err("a fragment whose length is no multiple of 8".to_owned());
    }
    if packet.more_frags() || packet.frag_offset() != 0 {
        return Ok(());
    }
    match packet.next_header() {
        IpProtocol::Udp => check_udp(packet.payload(), src, dst),
        IpProtocol::Tcp => check_tcp(packet.payload(), src, dst),
        IpProtocol::Icmp => check_icmp_v4(packet.payload(), packet.dst_addr()),
        IpProtocol::Igmp => {
            let igmp = IgmpPacket::new_checked(packet.payload()).map_err(|_| "IGMP is cut".to_owned())?;
            if !igmp.verify_checksum() || packet.hop_limit() != 1 {
                return Err("IGMP with a wrong checksum or TTL".to_owned());
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check_udp(bytes: &[u8], src: IpAddr, dst: IpAddr) -> Result<(), String> {
    let udp = UdpPacket::new_checked(bytes).map_err(|_| "UDP is cut".to_owned())?;
    let has_checksum = udp.checksum() != 0 || src.is_ipv4();
    if !has_checksum || !udp.verify_checksum(&src.into(), &dst.into()) {
        return Err("checksum of UDP".to_owned());
    }
    if usize::from(udp.len()) != bytes.len() {
        return Err("the length of UDP is not that of the packet".to_owned());
    }
    Ok(())
}

/// What every segment of ours is like, whatever it is for.
fn check_tcp(bytes: &[u8], src: IpAddr, dst: IpAddr) -> Result<(), String> {
    let tcp = TcpView::new(bytes).ok_or("TCP is cut")?;
    let says = |what: &str| Err(format!("{what}: {tcp}"));
    if !is_sum_right(src, dst, TCP, bytes) {
        return says("checksum of TCP");
    }
    if tcp.src_port() == 0 || tcp.dst_port() == 0 || tcp.reserved() != 0 {
        return says("port 0, or reserved bits");
    }
    if dst.is_multicast() {
        return says("TCP to a group");
    }
    let [fin, syn, rst, _, ack, urg, ..] = [0, 1, 2, 3, 4, 5, 6, 7].map(|bit| tcp.flags() >> bit & 1 == 1);
    if syn && (fin || rst) || rst && fin || urg || tcp.urgent() != 0 {
        return says("flags that do not go together, or urgent data");
    }
    if !ack && !syn && !rst || !ack && tcp.ack() != 0 {
        return says("no ACK where one belongs, or a number without it");
    }
    if (syn || rst) && !tcp.payload().is_empty() {
        return says("data with SYN or RST");
    }
    for option in tcp.each_option() {
        let Some((kind, content)) = option else { return says("an option that is cut") };
        let is_right = match (kind, content.len()) {
            (2, 2) => syn && content != [0, 0],
            (3, 1) => syn && content[0] <= 14,
            (4, 0) => syn,
            // Blocks of SACK have 8 bytes each, and no first number behind the second.
            (5, len) => ack && len > 0 && len % 8 == 0 && content.chunks(8).all(is_block),
            (8, 8) => true,
            _ => false,
        };
        if !is_right {
            return says("an option that does not belong there");
        }
    }
    Ok(())
}

fn is_block(block: &[u8]) -> bool {
    let word = |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let len = word(4).wrapping_sub(word(0));
    len > 0 && len < 1 << 31
}

fn check_icmp_v4(bytes: &[u8], dst: Ipv4Addr) -> Result<(), String> {
    let icmp = Icmpv4Packet::new_checked(bytes).map_err(|_| "ICMP is cut".to_owned())?;
    if !icmp.verify_checksum() {
        return Err("checksum of ICMP".to_owned());
    }
    if !is_error_v4(bytes[0]) {
        return Ok(());
    }
    if dst.is_multicast() || dst.is_broadcast() {
        return Err("an ICMP error to many".to_owned());
    }
    let quoted = bytes.get(8..).unwrap_or_default();
    let (Some(&first), Some(&protocol)) = (quoted.first(), quoted.get(9)) else {
        return Err("an ICMP error without a quote".to_owned());
    };
    let inner = quoted.get(usize::from(first & 15) * 4..).unwrap_or_default();
    let offset = u16::from_be_bytes([quoted[6], quoted[7]]) & 0x1fff;
    if protocol == 1 && offset == 0 && inner.first().is_some_and(|kind| is_error_v4(*kind)) {
        return Err("an ICMP error in answer to an ICMP error".to_owned());
    }
    if offset != 0 {
        return Err("an ICMP error in answer to a later fragment".to_owned());
    }
    if quoted.get(16).is_some_and(|first| *first >= 224) {
        return Err("an ICMP error in answer to what was for many".to_owned());
    }
    Ok(())
}

fn is_error_v4(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

fn check_v6(dst_mac: Mac, bytes: &[u8], permit: &Permit) -> Result<(), String> {
    let packet = Ipv6Packet::new_checked(bytes).map_err(|_| "IPv6 is cut".to_owned())?;
    if packet.total_len() != bytes.len() {
        return Err("the payload length is not that of the frame".to_owned());
    }
    let (src, dst) = (packet.src_addr(), packet.dst_addr());
    let (protocol, body) = match behind_extensions(packet.next_header().into(), packet.payload()) {
        Chain::Transport(protocol, body) => (protocol, body),
        Chain::Fragment => return check_source(src.into(), false, permit),
        Chain::Cut => return Err("extension headers are cut".to_owned()),
    };
    check_source(src.into(), protocol == 58, permit)?;
    check_link_dst(dst_mac, dst.into())?;
    if packet.hop_limit() == 0 {
        return Err("hop limit 0".to_owned());
    }
    match protocol {
        17 => check_udp(body, src.into(), dst.into()),
        6 => check_tcp(body, src.into(), dst.into()),
        58 => check_icmp_v6(body, src, dst, packet.hop_limit()),
        _ => Ok(()),
    }
}

fn check_icmp_v6(bytes: &[u8], src: Ipv6Addr, dst: Ipv6Addr, hop_limit: u8) -> Result<(), String> {
    // Reports of MLDv1 smoltcp does not know.
    let is_right = match bytes.first() {
        Some(131 | 132) => bytes.len() == 24 && is_sum_right(src.into(), dst.into(), 58, bytes),
        _ => Icmpv6Packet::new_checked(bytes)
            .map_err(|_| "ICMPv6 is cut".to_owned())?
            .verify_checksum(&src, &dst),
    };
    if !is_right {
        return Err("checksum of ICMPv6".to_owned());
    }
    match bytes[0] {
        133..=137 if hop_limit != 255 => Err("NDP without hop limit 255".to_owned()),
        130..=132 | 143 if hop_limit != 1 => Err("MLD without hop limit 1".to_owned()),
        0..128 => {
            if dst.is_multicast() || src.is_unspecified() {
                return Err("an ICMPv6 error to many, or from nobody".to_owned());
            }
            let quoted = bytes.get(8..).unwrap_or_default();
            let (Some(&next), Some(rest)) = (quoted.get(6), quoted.get(40..)) else {
                return Err("an ICMPv6 error without a quote".to_owned());
            };
            match behind_extensions(next, rest) {
                Chain::Transport(58, [kind, ..]) if *kind < 128 => {
                    Err("an ICMPv6 error in answer to an ICMPv6 error".to_owned())
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

enum Chain<'a> {
    Transport(u8, &'a [u8]),
    Fragment,
    Cut,
}

fn behind_extensions(mut next: u8, mut rest: &[u8]) -> Chain<'_> {
    loop {
        let len = match (next, rest) {
            (44, [_, _, a, b, ..]) if u16::from_be_bytes([*a, *b]) & !6 != 0 => return Chain::Fragment,
            (44, _) => 8,
            (0 | 43 | 60, [_, len, ..]) => 8 + usize::from(*len) * 8,
            (0 | 43 | 60, _) => return Chain::Cut,
            _ => return Chain::Transport(next, rest),
        };
        let (Some(&following), Some(tail)) = (rest.first(), rest.get(len..)) else { return Chain::Cut };
        next = following;
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::super::packets;
    use super::*;

    #[test]
    fn what_is_wrong_is_found() {
        let [ours, theirs]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().expect("an address"));
        let [ours6, theirs6]: [IpAddr; 2] = ["fd00::1", "fd00::2"].map(|ip| ip.parse().expect("an address"));
        let permit = Permit { mac: [2; 6], mtu: 1500, sources: [ours, ours6].into() };
        let frame = |packet: &[u8]| packets::framed([4; 6], [2; 6], packet);
        for (src, dst) in [(ours, theirs), (ours6, theirs6)] {
            let datagram = packets::udp_packet((src, 1).into(), (dst, 2).into(), b"data");
            let error = |quoted: &[u8]| {
                frame(&packets::icmp_packet(src, dst, if src.is_ipv4() { 3 } else { 1 }, 1, 0, quoted))
            };
            assert_eq!(check_frame(&frame(&datagram), &permit), Ok(()));
            assert_eq!(check_frame(&error(&datagram), &permit), Ok(()));
            let answered = error(&error(&datagram)[14..]);
            assert!(check_frame(&answered, &permit).is_err_and(|text| text.contains("in answer to an ICMP")));
            let mut bent = frame(&datagram);
            *bent.last_mut().expect("not empty") ^= 1;
            assert_eq!(check_frame(&bent, &permit), Err("checksum of UDP".to_owned()));
            let foreign = packets::udp_packet((dst, 1).into(), (src, 2).into(), b"data");
            assert!(check_frame(&frame(&foreign), &permit).is_err_and(|text| text.contains("not ours")));
            let long = packets::udp_packet((src, 1).into(), (dst, 2).into(), &[0; 1500]);
            assert!(check_frame(&frame(&long), &permit).is_err_and(|text| text.contains("MTU")));
        }
    }
}
