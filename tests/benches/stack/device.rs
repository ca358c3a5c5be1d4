//! A device in memory that costs next to nothing: it lends frames that were prepared, and takes what is sent.

use std::collections::VecDeque;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use wirestack_nic::meta::ChecksumState;
use wirestack_nic::{Counters, FrameMeta, LinkError, LinkState, Nic, OffloadCapabilities, Wake, Waker, wait};

/// What a stack is fed from.
pub(crate) struct Feed {
    /// One behind the other.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    next: usize,
    /// How many of the frames, which come again and again, are to be lent now.
    pub(crate) left: usize,
    /// Where a frame is written that nobody wants.
    scratch: Vec<u8>,
    /// What was sent, if it is wanted.
    pub(crate) sent: Option<VecDeque<Vec<u8>>>,
    waker: Waker,
}

impl Feed {
    /// A device with these frames.
    pub(crate) fn new(frames: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let waker = Waker::new().expect("an eventfd");
        let (scratch, sent, ends) = (vec![0; 2048], None, Vec::new());
        let mut feed = Self { bytes: Vec::new(), ends, next: 0, left: 0, scratch, sent, waker };
        feed.load(frames);
        feed
    }

    /// Puts other frames in the place of the old ones.
    pub(crate) fn load(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.bytes.clear();
        self.ends.clear();
        (self.next, self.left) = (0, 0);
        for frame in frames {
            self.bytes.extend(frame);
            self.ends.push(self.bytes.len());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
}

impl Nic for Feed {
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
        OffloadCapabilities { checksum_tx: true, checksum_rx: true, ..OffloadCapabilities::default() }
    }

    fn receive_with<R>(&mut self, _now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        if self.left == 0 {
            return None;
        }
        let start = if self.next == 0 { 0 } else { self.ends[self.next - 1] };
        let frame = &self.bytes[start..self.ends[self.next]];
        self.left -= 1;
        self.next += 1;
        if self.next == self.ends.len() {
            self.next = 0;
        }
        // As of a device that has verified the checksum.
        let meta = FrameMeta { checksum: ChecksumState::Verified, ..FrameMeta::default() };
        Some(f(frame, &meta))
    }

    fn transmit_with<R>(
        &mut self,
        _now: Instant,
        len: usize,
        _meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        let result = f(self.scratch.get_mut(..len)?);
        if let Some(sent) = &mut self.sent {
            sent.push_back(self.scratch[..len].to_vec());
        }
        Some(result)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

/// The stack never asks by tokens.
impl Device for Feed {
    type RxToken<'t> = Never;
    type TxToken<'t> = Never;

    fn receive(&mut self, _now: Instant) -> Option<(Never, Never)> {
        None
    }

    fn transmit(&mut self, _now: Instant) -> Option<Never> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// There is no value of it.
pub(crate) enum Never {}

impl RxToken for Never {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, _f: F) -> R {
        match self {}
    }
}

impl TxToken for Never {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, _len: usize, _f: F) -> R {
        match self {}
    }
}

/// Seconds of a clock that only goes forward.
pub(crate) fn nanos(start: std::time::Instant) -> f64 {
    start.elapsed().as_nanos() as f64
}

/// Where time begins for a stack in memory.
pub(crate) fn start() -> Instant {
    wait::now()
}
