//! The device as smoltcp knows devices: tokens, and frames without metadata.
//!
//! smoltcp takes merged TCP segments of any length, and does not look at their checksums, which this
//! device has verified. It knows nothing of merged UDP datagrams, and looks at the checksums of UDP itself
//! (it alone sees a reassembled datagram whole): merged ones are split here, absent ones filled in. A device
//! that was opened to verify nothing has smoltcp verify TCP too, and fills in its absent checksums as well.

use std::num::NonZeroU16;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;

use super::tx::{Tx, Work};
use super::{AfPacket, Rx, abi};
use crate::Counters;
use crate::config::TxMode;
use crate::meta::{ChecksumState, FrameMeta, GsoKind};
use crate::offload::checksum;
use crate::offload::segment::Segments;

/// A merged frame that is lent in pieces, and room to work on others.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    frame: Vec<u8>,
    meta: FrameMeta,
    /// Pieces that were lent already, and how many there are.
    next: usize,
    count: usize,
    /// The piece that is lent, or a frame that is completed.
    scratch: Vec<u8>,
}

impl Pieces {
    /// Whether there are none left.
    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.count
    }

    /// Keeps a frame that is to be lent in pieces.
    fn hold(&mut self, frame: &[u8], meta: &FrameMeta) {
        self.frame.clear();
        self.frame.extend_from_slice(frame);
        self.meta = *meta;
        self.next = 0;
        self.count = Segments::new(&self.frame, &self.meta).count();
    }

    /// Lends the next piece.
    pub(crate) fn lend<R>(&mut self, f: impl FnOnce(&[u8]) -> R) -> R {
        let segments = Segments::new(&self.frame, &self.meta);
        let len = segments.frame_len(self.next);
        self.scratch.resize(len.max(self.scratch.len()), 0);
        let piece = self.scratch.get_mut(..len).unwrap_or_default();
        segments.write(self.next, piece);
        self.next += 1;
        f(piece)
    }

    /// Lends a frame with the checksum at which smoltcp looks: of UDP always, of TCP if this device was not
    /// to verify it (`verifies_tcp`).
    fn lend_complete<R>(
        &mut self,
        frame: &[u8],
        meta: &FrameMeta,
        verifies_tcp: bool,
        f: impl FnOnce(&[u8]) -> R,
    ) -> R {
        let ChecksumState::Partial { start, offset } = meta.checksum else {
            return f(frame);
        };
        if verifies_tcp && offset != UDP_CHECKSUM_OFFSET {
            return f(frame);
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(frame);
        checksum::complete(&mut self.scratch, start, offset);
        f(&self.scratch)
    }
}

impl<'a> Device for AfPacket<'a> {
    type RxToken<'t>
        = FrameIn<'t, 'a>
    where
        Self: 't;
    type TxToken<'t>
        = FrameOut<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(FrameIn<'_, 'a>, FrameOut<'_>)> {
        if self.pieces.is_empty() {
            if !self.rx.find(&mut self.rx_counters, &mut self.link) {
                return None;
            }
            let is_merged = |meta: &FrameMeta| meta.gso.is_some_and(|gso| gso.kind == GsoKind::Udp);
            if self.rx.meta().is_some_and(is_merged) {
                let Self { rx, rx_counters, pieces, .. } = self;
                rx.lend(rx_counters, |frame, meta| pieces.hold(frame, meta));
            }
        }
        // A device that never sends has a token all the same: what is written to it goes nowhere.
        if self.shape.tx != TxMode::None && !self.make_room() {
            return None;
        }
        let verifies_tcp = self.shape.verify_checksums;
        let Self { rx, tx, pieces, rx_counters, tx_counters, .. } = self;
        let meta = PacketMeta::default();
        Some((
            FrameIn { rx, pieces, counters: rx_counters, verifies_tcp },
            FrameOut { tx, counters: tx_counters, meta },
        ))
    }

    fn transmit(&mut self, _now: Instant) -> Option<FrameOut<'_>> {
        let meta = PacketMeta::default();
        self.make_room().then_some(FrameOut { tx: &mut self.tx, counters: &mut self.tx_counters, meta })
    }

    /// What smoltcp is to know. Checksums of TCP are left to this device both ways, and so is the splitting
    /// of TCP over IPv4; smoltcp 0.14 does not ask for that over IPv6.
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.interface.mtu + abi::ETHERNET_HEADER_LEN;
        capabilities.checksum.tcp = if self.shape.verify_checksums { Checksum::None } else { Checksum::Rx };
        capabilities.segmentation.tcpv4 = self.tx.gso_len_max();
        capabilities
    }
}

/// One received frame, where it lies.
#[derive(Debug)]
pub struct FrameIn<'t, 'a> {
    rx: &'t mut Rx<'a>,
    pieces: &'t mut Pieces,
    counters: &'t mut Counters,
    verifies_tcp: bool,
}

impl RxToken for FrameIn<'_, '_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let Self { rx, pieces, counters, verifies_tcp } = self;
        if !pieces.is_empty() {
            return pieces.lend(f);
        }
        rx.lend(counters, |frame, meta| pieces.lend_complete(frame, meta, verifies_tcp, f))
    }

    /// The size of the segments of a merged frame.
    fn meta(&self) -> PacketMeta {
        let gso = self.rx.meta().and_then(|meta| meta.gso).filter(|_| self.pieces.is_empty());
        let mut meta = PacketMeta::default();
        meta.segmentation_offload_size = gso.map(|gso| gso.size);
        meta
    }
}

/// Room for one frame.
#[derive(Debug)]
pub struct FrameOut<'t> {
    tx: &'t mut Tx,
    counters: &'t mut Counters,
    meta: PacketMeta,
}

impl TxToken for FrameOut<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let segment_len: Option<NonZeroU16> = self.meta.segmentation_offload_size;
        self.tx.write(self.counters, len, Work::Stack(segment_len), f)
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

/// Bytes from the start of a UDP header to its checksum, by which a frame of UDP is known.
const UDP_CHECKSUM_OFFSET: u16 = 6;

#[cfg(test)]
mod tests;
