//! Frames from a pcap or pcapng file, in their original or another time.
//!
//! ```text
//!   file ─▶ CaptureFile: records ─▶ Player: when they are due ─▶ Replay: a device that receives them
//! ```
//!
//! What is sent through a [`Replay`] goes to the device around which it is; [`Nowhere`] counts it and
//! forgets it. Frames are as they were captured: one that a sender handed over with an absent checksum has
//! a wrong one in the file.

mod file;
mod player;

use std::io::{self, Read, Seek};

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use crate::meta::OffloadCapabilities;
use crate::offload::ETHERNET_HEADER_LEN;
use crate::wait::{self, Wake, Waker};
use crate::{Counters, FrameMeta, LinkError, LinkState, Nic};

pub use file::{CaptureFile, FileStats, Record, ReplayError};
pub use player::{Player, Speed, SpeedError};

/// A device that receives the frames of a file, and sends through another device.
#[derive(Debug)]
pub struct Replay<R, N = Nowhere> {
    player: Player<R>,
    inner: N,
    rx_counters: Counters,
}

impl<R: Read + Seek> Replay<R> {
    /// Plays a file to a stack whose own frames go nowhere.
    ///
    /// # Errors
    /// What `eventfd(2)` says: no file descriptor left.
    pub fn new(player: Player<R>) -> io::Result<Self> {
        let inner = Nowhere::new(player.medium())?;
        Ok(Self::around(player, inner))
    }
}

impl<R: Read + Seek, N: Nic> Replay<R, N> {
    /// Plays a file to a stack whose own frames go through `inner`. What `inner` receives is thrown away.
    pub fn around(player: Player<R>, inner: N) -> Self {
        Self { player, inner, rx_counters: Counters::default() }
    }

    /// The file.
    pub fn player(&self) -> &Player<R> {
        &self.player
    }

    /// The device through which frames are sent.
    pub fn inner(&mut self) -> &mut N {
        &mut self.inner
    }

    fn throw_away_received(&mut self, now: Instant) {
        for _ in 0..THROWN_AWAY_MAX {
            if self.inner.receive_with(now, |_, _| ()).is_none() {
                break;
            }
        }
    }
}

impl<R: Read + Seek, N: Nic> Device for Replay<R, N> {
    type RxToken<'t>
        = FrameIn<'t, R>
    where
        Self: 't;
    type TxToken<'t>
        = N::TxToken<'t>
    where
        Self: 't;

    fn receive(&mut self, now: Instant) -> Option<(FrameIn<'_, R>, N::TxToken<'_>)> {
        if self.player.due(now)? > now {
            return None;
        }
        let Self { player, inner, rx_counters } = self;
        Some((FrameIn { player, counters: rx_counters, now }, inner.transmit(now)?))
    }

    fn transmit(&mut self, now: Instant) -> Option<N::TxToken<'_>> {
        self.inner.transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.medium = self.player.medium();
        // What the other device verifies is not what is received.
        capabilities.checksum.tcp = match capabilities.checksum.tcp {
            Checksum::Both | Checksum::Tx => Checksum::Both,
            Checksum::Rx | Checksum::None => Checksum::Rx,
        };
        capabilities
    }
}

/// A frame of a file that is due.
#[derive(Debug)]
pub struct FrameIn<'t, R> {
    player: &'t mut Player<R>,
    counters: &'t mut Counters,
    now: Instant,
}

impl<R: Read + Seek> RxToken for FrameIn<'_, R> {
    fn consume<T, F: FnOnce(&[u8]) -> T>(self, f: F) -> T {
        let frame = self.player.peek(self.now).unwrap_or_default();
        self.counters.rx_frames += 1;
        self.counters.rx_bytes += frame.len() as u64;
        let result = f(frame);
        self.player.advance();
        result
    }
}

impl<R: Read + Seek, N: Nic> Nic for Replay<R, N> {
    /// As of every device; and [`LinkError::Gone`] when the file has ended.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        let now = wait::now();
        self.throw_away_received(now);
        let Some(due) = self.player.due(now) else {
            self.inner.flush()?;
            return Err(LinkError::Gone);
        };
        if due <= now {
            // A moment that has passed: the other device sends and looks, and sleeps only if it has no room
            // for an answer or is down, without which no frame goes on.
            return Ok(match self.inner.wait(Some(now))? {
                Wake::Deadline => Wake::Ready,
                wake => wake,
            });
        }
        let wake = self.inner.wait(Some(deadline.map_or(due, |deadline| deadline.min(due))))?;
        let is_due = wake == Wake::Deadline && deadline.is_none_or(|deadline| due <= deadline);
        Ok(if is_due { Wake::Ready } else { wake })
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        self.inner.flush()
    }

    fn link_state(&mut self) -> LinkState {
        self.inner.link_state()
    }

    fn join_multicast(&mut self, address: EthernetAddress) -> io::Result<()> {
        self.inner.join_multicast(address)
    }

    fn leave_multicast(&mut self, address: EthernetAddress) -> io::Result<()> {
        self.inner.leave_multicast(address)
    }

    /// What was received from the file, and what was sent through the other device.
    fn counters(&mut self) -> Counters {
        let mut counters = self.inner.counters();
        (counters.rx_frames, counters.rx_bytes) = (self.rx_counters.rx_frames, self.rx_counters.rx_bytes);
        counters
    }

    fn offloads(&self) -> OffloadCapabilities {
        OffloadCapabilities { checksum_rx: false, ..self.inner.offloads() }
    }

    fn transmit_with<T>(
        &mut self,
        now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> T,
    ) -> Option<T> {
        self.inner.transmit_with(now, len, meta, f)
    }

    fn receive_with<T>(&mut self, now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> T) -> Option<T> {
        let frame = self.player.peek(now)?;
        self.rx_counters.rx_frames += 1;
        self.rx_counters.rx_bytes += frame.len() as u64;
        let result = f(frame, &FrameMeta::default());
        self.player.advance();
        Some(result)
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}

/// A device that never receives, and forgets what is sent.
#[derive(Debug)]
pub struct Nowhere {
    medium: Medium,
    waker: Waker,
    counters: Counters,
    scratch: Vec<u8>,
}

impl Nowhere {
    /// A device of this medium.
    ///
    /// # Errors
    /// What `eventfd(2)` says: no file descriptor left.
    pub fn new(medium: Medium) -> io::Result<Self> {
        Ok(Self { medium, waker: Waker::new()?, counters: Counters::default(), scratch: Vec::new() })
    }
}

impl Device for Nowhere {
    type RxToken<'t> = NoFrame;
    type TxToken<'t> = Forget<'t>;

    fn receive(&mut self, _now: Instant) -> Option<(NoFrame, Forget<'_>)> {
        None
    }

    fn transmit(&mut self, _now: Instant) -> Option<Forget<'_>> {
        Some(Forget { counters: &mut self.counters, scratch: &mut self.scratch })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        let header_len = if self.medium == Medium::Ethernet { ETHERNET_HEADER_LEN } else { 0 };
        capabilities.max_transmission_unit = 1500 + header_len;
        capabilities
    }
}

/// Of a device that never receives: there is no value of it.
#[derive(Debug)]
pub enum NoFrame {}

impl RxToken for NoFrame {
    fn consume<T, F: FnOnce(&[u8]) -> T>(self, _f: F) -> T {
        match self {}
    }
}

/// Room for a frame that is forgotten.
#[derive(Debug)]
pub struct Forget<'t> {
    counters: &'t mut Counters,
    scratch: &'t mut Vec<u8>,
}

impl TxToken for Forget<'_> {
    fn consume<T, F: FnOnce(&mut [u8]) -> T>(self, len: usize, f: F) -> T {
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += len as u64;
        self.scratch.resize(len, 0);
        f(self.scratch)
    }
}

impl Nic for Nowhere {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        Ok(wait::sleep(None, &self.waker, deadline).1)
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        Ok(())
    }

    fn link_state(&mut self) -> LinkState {
        LinkState::Up
    }

    fn counters(&mut self) -> Counters {
        self.counters
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

/// Frames of the other device that are thrown away at once.
const THROWN_AWAY_MAX: usize = 4096;

#[cfg(test)]
mod tests;
