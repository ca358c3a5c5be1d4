//! Checksums of what comes.

use wirestack_nic::FrameMeta;
use wirestack_nic::meta::ChecksumState;
use wirestack_nic::offload::sum;

use super::IpPacket;
use crate::observe::DropReason;
use crate::udp::header::pseudo_header_sum;

/// Stop gap.
pub fn verify_transport(frame: &[u8], ip: &IpPacket, meta: &FrameMeta) -> Result<(), DropReason> {
    if meta.checksum != ChecksumState::Complete {
        return Ok(());
    }
    let bytes = frame.get(ip.transport..ip.end).unwrap_or_default();
    let (reason, has_pseudo) = match ip.protocol {
        17 => (DropReason::UdpChecksum, true),
        6 => (DropReason::TcpChecksum, true),
        58 => (DropReason::IcmpChecksum, true),
        1 => (DropReason::IcmpChecksum, false),
        _ => return Ok(()),
    };
    if ip.protocol == 17 && ip.src.is_ipv4() && bytes.get(6..8) == Some(&[0, 0]) {
        return Ok(());
    }
    let pseudo = if has_pseudo { pseudo_header_sum(ip.src, ip.dst, ip.protocol, bytes.len()) } else { 0 };
    if sum::combine(&[pseudo, sum::data(bytes)]) == 0xffff { Ok(()) } else { Err(reason) }
}
