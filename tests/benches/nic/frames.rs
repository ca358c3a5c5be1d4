//! What is sent: frames that the kernel at the other end throws away at once, since they are for another
//! station.

use std::num::NonZeroU16;

use wirestack_apps::testbed::{Wire, WireOptions};
use wirestack_nic::config::{AfPacketConfig, RxMode, TpacketVersion, TxMode};
use wirestack_nic::meta::{ChecksumState, FrameMeta, Gso, GsoKind};
use wirestack_nic::offload::fill_checksum;
use wirestack_nic::{AfPacket, Nic, wait};

/// Bytes of a small frame: the least that Ethernet carries, without its own checksum.
pub(crate) const SMALL: usize = 60;
/// Bytes of a super-frame.
pub(crate) const LARGE: usize = 14 + 60_000;

/// A wire whose peer end has no addresses, so that nothing else moves on it.
pub(crate) fn wire() -> Result<Wire, Box<dyn std::error::Error>> {
    let options = WireOptions { peer_addresses: Vec::new(), ..WireOptions::default() };
    let wire = Wire::with(&options)?;
    wire.pair().set_offloads(true)?;
    Ok(wire)
}

/// A TCP segment of this length over IPv4, to a station that does not exist.
pub(crate) fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![0x55; len];
    let total = (len - 14) as u16;
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0]);
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    let sum = frame[14..34].chunks(2).map(|half| u32::from(half[0]) << 8 | u32::from(half[1])).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34..54].copy_from_slice(&[0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    if meta(len).is_plain() {
        fill_checksum(&mut frame);
    }
    frame
}

/// What is left to be done to such a frame, if it is a super-frame.
pub(crate) fn meta(len: usize) -> FrameMeta {
    if len <= 1514 {
        return FrameMeta::default();
    }
    let size = NonZeroU16::new(1448).expect("not 0");
    FrameMeta {
        checksum: ChecksumState::Partial { start: 34, offset: 16 },
        gso: Some(Gso { kind: GsoKind::TcpV4, size, ecn: false }),
        ..FrameMeta::default()
    }
}

/// A device that only sends.
pub(crate) fn sender(
    name: &str,
    tx: TxMode,
    version: TpacketVersion,
    vnet_hdr: bool,
    qdisc_bypass: bool,
) -> AfPacket<'static> {
    let config =
        AfPacketConfig { rx: RxMode::None, tx, version, vnet_hdr, qdisc_bypass, ..AfPacketConfig::default() };
    AfPacket::open(name, config).expect("a device that sends")
}

/// Sends up to `count` copies of a frame, as many a turn as a stack would; all bytes of each are written if
/// `whole`, else its headers.
pub(crate) fn send(nic: &mut AfPacket<'_>, frame: &[u8], whole: bool, count: u64) {
    let meta = meta(frame.len());
    let written = if whole { frame.len() } else { 64.min(frame.len()) };
    let mut sent = 0;
    while sent < count {
        let now = wait::now();
        let burst = (count - sent).min(if frame.len() > 1514 { 16 } else { 64 });
        for _ in 0..burst {
            let room = nic.transmit_with(now, frame.len(), &meta, |room| {
                room[..written].copy_from_slice(&frame[..written]);
            });
            if room.is_none() {
                break;
            }
            sent += 1;
        }
        if nic.flush().is_err() {
            return;
        }
    }
}
