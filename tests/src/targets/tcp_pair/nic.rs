//! The device of an end: packets in memory, whose work is left undone if it is asked for.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::OnceLock;

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use wirestack::nic::meta::{ChecksumState, GsoKind};
use wirestack::nic::{Counters, FrameMeta, LinkError, LinkState, Nic, OffloadCapabilities, Wake, Waker};

use crate::sim::packets::checksum;

/// A packet with what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) meta: FrameMeta,
}

impl Packet {
    /// A packet whose TCP checksum nobody asks for.
    pub(super) fn forged(bytes: Vec<u8>) -> Self {
        Self { bytes, meta: FrameMeta { checksum: ChecksumState::Verified, ..FrameMeta::default() } }
    }

    pub(super) fn ip_len(&self) -> usize {
        if self.bytes.first().is_some_and(|first| first >> 4 == 4) { 20 } else { 40 }
    }

    /// The segment, if it is one.
    pub(super) fn tcp(&self) -> Option<&[u8]> {
        let protocol = self.bytes.get(if self.ip_len() == 20 { 9 } else { 6 })?;
        self.bytes.get(self.ip_len()..).filter(|tcp| *protocol == 6 && tcp.len() >= 20)
    }

    pub(super) fn is_syn(&self) -> bool {
        self.tcp().is_some_and(|tcp| tcp[13] & 2 != 0)
    }

    pub(super) fn tcp_mut(&mut self) -> Option<&mut [u8]> {
        self.tcp()?;
        let ip_len = self.ip_len();
        self.bytes.get_mut(ip_len..)
    }

    /// The lengths and the sum of the IP header are right again after a change.
    pub(super) fn mend(&mut self) {
        let len = self.bytes.len() as u16;
        if self.ip_len() == 20 && self.bytes.len() >= 20 {
            self.bytes[2..4].copy_from_slice(&len.to_be_bytes());
            self.bytes[10..12].fill(0);
            let sum = checksum(&[&self.bytes[..20]]);
            self.bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        } else if self.bytes.len() >= 40 {
            self.bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        }
    }

    /// Bytes of the longest packet that it is on a wire.
    pub(super) fn longest(&self) -> usize {
        let Some(gso) = self.meta.gso else { return self.bytes.len() };
        let header = self.tcp().map_or(20, |tcp| usize::from(tcp[12] >> 4) * 4);
        self.bytes.len().min(self.ip_len() + header + usize::from(gso.size.get()))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct PairNic {
    pub(super) rx: VecDeque<Rc<Packet>>,
    pub(super) tx: Vec<Packet>,
    pub(super) mtu: usize,
    pub(super) splits: bool,
    /// Packets that it takes before somebody looks.
    pub(super) tx_max: usize,
    pub(super) was_refused: bool,
}

impl PairNic {
    pub(super) fn new(mtu: usize, splits: bool, tx_max: usize) -> Self {
        Self { rx: VecDeque::new(), tx: Vec::new(), mtu, splits, tx_max, was_refused: false }
    }

    fn take(&mut self, bytes: Vec<u8>, meta: FrameMeta) {
        let packet = Packet { bytes, meta };
        assert!(packet.longest() <= self.mtu, "{} bytes of {}", packet.longest(), self.mtu);
        if let Some(gso) = meta.gso {
            assert!(self.splits && packet.bytes.len() <= usize::from(u16::MAX));
            assert_eq!(gso.kind, if packet.ip_len() == 20 { GsoKind::TcpV4 } else { GsoKind::TcpV6 });
        }
        self.tx.push(packet);
    }

    fn has_room(&mut self) -> bool {
        let has_room = self.tx.len() < self.tx_max;
        self.was_refused |= !has_room;
        has_room
    }
}

pub(super) struct RxToken(Rc<Packet>);

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0.bytes)
    }
}

pub(super) struct TxToken<'a>(&'a mut PairNic);

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.take(bytes, FrameMeta::default());
        result
    }
}

impl Device for PairNic {
    type RxToken<'t> = RxToken;
    type TxToken<'t> = TxToken<'t>;

    fn receive(&mut self, _now: Instant) -> Option<(RxToken, TxToken<'_>)> {
        let packet = self.rx.pop_front()?;
        Some((RxToken(packet), TxToken(self)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_>> {
        self.has_room().then_some(TxToken(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

impl Nic for PairNic {
    fn wait(&mut self, _deadline: Option<Instant>) -> Result<Wake, LinkError> {
        Ok(Wake::Ready)
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        Ok(())
    }

    fn link_state(&mut self) -> LinkState {
        LinkState::Up
    }

    fn counters(&mut self) -> Counters {
        Counters::default()
    }

    fn offloads(&self) -> OffloadCapabilities {
        let gso = NonZeroUsize::new(usize::from(u16::MAX)).filter(|_| self.splits);
        OffloadCapabilities {
            checksum_tx: true,
            checksum_rx: true,
            gso_tcpv4: gso,
            gso_tcpv6: gso,
            ..OffloadCapabilities::default()
        }
    }

    fn receive_with<R>(&mut self, _now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        let packet = self.rx.pop_front()?;
        Some(f(&packet.bytes, &packet.meta))
    }

    fn transmit_with<R>(
        &mut self,
        _now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        if !self.has_room() {
            return None;
        }
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.take(bytes, *meta);
        Some(result)
    }

    fn waker(&self) -> Waker {
        static WAKER: OnceLock<Waker> = OnceLock::new();
        WAKER.get_or_init(|| Waker::new().expect("an eventfd")).clone()
    }
}
