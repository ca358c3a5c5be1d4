//! A device that writes every frame to a pcapng file, around any other device.
//!
//! The capture shows what the stack sees: a received frame is written before the stack gets it, a sent
//! one when the stack has filled it, whatever the device makes of it afterwards. So `Capture<Impair<_>>`
//! shows what is left behind a lossy wire, `Impair<Capture<_>>` what is on it.
//!
//! A frame is written as a wire would carry it: an absent checksum is filled in, in the copy that is
//! written. Super-frames are written whole, as by every tool that captures on a host. Of frames that are
//! received and sent by tokens nobody tells whether their checksum is absent; on a device that leaves
//! checksums out, one that [looks left out](crate::offload::checksum::seems_left_out) is filled in. So one
//! wrong checksum in 2^16, which happened to look so, is written as a right one.
//!
//! A capture never harms the traffic. When the writer fails (disk full), the first error is kept and
//! logged, nothing more is written (a reader could not find the next block), and the frames that are
//! missing are counted in `capture_lost`.

pub mod file;
pub mod pcap;
pub mod pcapng;

pub use file::{CaptureFile, FrameBuffer};
pub use pcap::PcapWriter;
pub use pcapng::{Direction, PcapngInterface, PcapngWriter};

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use crate::meta::{ChecksumState, FrameMeta, OffloadCapabilities};
use crate::offload::{Layout, checksum};
use crate::{Counters, LinkError, LinkState, Nic, Wake, Waker, wait};

/// A device whose frames are written to `W`.
///
/// `W` should buffer (`BufWriter`): it is called once for each frame. It is flushed before a wait that
/// sleeps, and on drop, so a program that was killed leaves what it saw until it last slept.
#[derive(Debug)]
pub struct Capture<D, W: io::Write> {
    inner: D,
    /// Shared by the two tokens of one `receive`.
    recorder: Recorder<W>,
}

/// How a capture is written.
#[derive(Debug, Clone, Copy)]
pub struct CaptureConfig<'a> {
    /// Name of the interface in the file.
    pub name: &'a str,
    /// What is added to the times of the device to make them times since 1970:
    /// [`wait::epoch_offset`] for the clock of the machine.
    pub epoch_offset: Duration,
    /// Bytes kept of each frame, at most [`pcapng::SNAP_LEN_MAX`]; 0 means that limit.
    pub snap_len: u32,
}

impl<D: Nic, W: io::Write> Capture<D, W> {
    /// Starts a capture of `inner`, whose medium decides the link type of the file.
    ///
    /// # Errors
    /// What the writer says to the head of the file, which is flushed: that a file cannot be written at
    /// all is told at once.
    pub fn new(inner: D, writer: W, config: CaptureConfig<'_>) -> io::Result<Self> {
        let CaptureConfig { name, epoch_offset, snap_len } = config;
        let medium = inner.capabilities().medium;
        let mut writer = PcapngWriter::new(writer, PcapngInterface { name, medium, snap_len })?;
        writer.flush()?;
        let recorder = Recorder {
            writer: RefCell::new(writer),
            medium,
            scratch: RefCell::new(Vec::new()),
            epoch_offset,
            dirty: Cell::new(false),
            error: OnceCell::new(),
            lost: Cell::new(0),
        };
        Ok(Self { inner, recorder })
    }

    /// The first error of the writer. With one, the capture has ended and the traffic goes on.
    pub fn error(&self) -> Option<&io::Error> {
        self.recorder.error.get()
    }

    /// The device whose frames are captured.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The device whose frames are captured. Frames taken from it or given to it this way are not.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }

    /// Ends the capture: flushes the writer and drops it.
    pub fn into_inner(self) -> D {
        self.inner
    }
}

impl<D: Nic, W: io::Write> Device for Capture<D, W> {
    type RxToken<'t>
        = RxToken<'t, D::RxToken<'t>, W>
    where
        Self: 't;
    type TxToken<'t>
        = TxToken<'t, D::TxToken<'t>, W>
    where
        Self: 't;

    fn receive(&mut self, timestamp: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let Self { inner, recorder } = self;
        let [received, sent] = Absence::of_tokens(inner);
        let (rx, tx) = inner.receive(timestamp)?;
        Some((
            RxToken { inner: rx, recorder, now: timestamp, checksum: received },
            TxToken { inner: tx, recorder, now: timestamp, checksum: sent },
        ))
    }

    fn transmit(&mut self, timestamp: Instant) -> Option<Self::TxToken<'_>> {
        let Self { inner, recorder } = self;
        let [_, checksum] = Absence::of_tokens(inner);
        Some(TxToken { inner: inner.transmit(timestamp)?, recorder, now: timestamp, checksum })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.inner.capabilities()
    }
}

impl<D: Nic, W: io::Write> Nic for Capture<D, W> {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        // A loop that only looks is busy: the writer gets its time when the loop sleeps.
        if self.recorder.dirty.get() && deadline.is_none_or(|deadline| deadline > wait::now()) {
            self.recorder.flush();
        }
        self.inner.wait(deadline)
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        self.inner.flush()
    }

    fn link_state(&mut self) -> LinkState {
        self.inner.link_state()
    }

    fn express_len(&self) -> usize {
        self.inner.express_len()
    }

    fn join_multicast(&mut self, address: EthernetAddress) -> io::Result<()> {
        self.inner.join_multicast(address)
    }

    fn leave_multicast(&mut self, address: EthernetAddress) -> io::Result<()> {
        self.inner.leave_multicast(address)
    }

    /// Those of the inner device, and the frames that are missing in the file.
    fn counters(&mut self) -> Counters {
        let mut counters = self.inner.counters();
        counters.capture_lost += self.recorder.lost.get();
        counters
    }

    fn offloads(&self) -> OffloadCapabilities {
        self.inner.offloads()
    }

    fn receive_with<R>(&mut self, now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        let Self { inner, recorder } = self;
        inner.receive_with(now, |frame, meta| {
            recorder.record(now, Direction::Inbound, frame, Absence::Told(meta.checksum));
            f(frame, meta)
        })
    }

    fn transmit_with<R>(
        &mut self,
        now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        let Self { inner, recorder } = self;
        inner.transmit_with(now, len, meta, |frame| {
            let result = f(frame);
            recorder.record(now, Direction::Outbound, frame, Absence::Told(meta.checksum));
            result
        })
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inner.descriptor()
    }
}

/// A received frame, written when it is consumed.
#[derive(Debug)]
pub struct RxToken<'t, T, W: io::Write> {
    inner: T,
    recorder: &'t Recorder<W>,
    now: Instant,
    checksum: Absence,
}

impl<T: smoltcp::phy::RxToken, W: io::Write> smoltcp::phy::RxToken for RxToken<'_, T, W> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        self.inner.consume(|frame| {
            self.recorder.record(self.now, Direction::Inbound, frame, self.checksum);
            f(frame)
        })
    }

    fn meta(&self) -> PacketMeta {
        self.inner.meta()
    }
}

/// Room for a frame, written to the capture once it is filled.
#[derive(Debug)]
pub struct TxToken<'t, T, W: io::Write> {
    inner: T,
    recorder: &'t Recorder<W>,
    now: Instant,
    checksum: Absence,
}

impl<T: smoltcp::phy::TxToken, W: io::Write> smoltcp::phy::TxToken for TxToken<'_, T, W> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.inner.consume(len, |frame| {
            let result = f(frame);
            self.recorder.record(self.now, Direction::Outbound, frame, self.checksum);
            result
        })
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.inner.set_meta(meta);
    }
}

/// What is known of the checksum of a frame that is written.
#[derive(Debug, Clone, Copy)]
enum Absence {
    Told(ChecksumState),
    /// It may be absent: the device offers that, and tokens do not tell.
    Possible,
}

impl Absence {
    /// Of frames that are received and sent by tokens. A device may fill checksums in itself and hand on
    /// none: what it tells smoltcp to leave out is absent as well.
    fn of_tokens(inner: &impl Nic) -> [Self; 2] {
        let OffloadCapabilities { checksum_rx, checksum_tx, .. } = inner.offloads();
        let tcp = inner.capabilities().checksum.tcp;
        [checksum_rx || !tcp.rx(), checksum_tx || !tcp.tx()].map(|may_be_absent| match may_be_absent {
            true => Self::Possible,
            false => Self::Told(ChecksumState::Complete),
        })
    }
}

/// The file, and whether it still is one.
#[derive(Debug)]
struct Recorder<W: io::Write> {
    /// Borrowed for the time of one write, in which no closure of the stack runs.
    writer: RefCell<PcapngWriter<W>>,
    medium: Medium,
    /// The copy of a frame in which a checksum is filled in. Borrowed as `writer` is.
    scratch: RefCell<Vec<u8>>,
    epoch_offset: Duration,
    /// Frames were written since the last flush.
    dirty: Cell<bool>,
    /// The first error. Set: nothing is written any more.
    error: OnceCell<io::Error>,
    /// Frames that were not written.
    lost: Cell<u64>,
}

impl<W: io::Write> Recorder<W> {
    fn record(&self, now: Instant, direction: Direction, frame: &[u8], checksum: Absence) {
        let mut scratch = self.scratch.borrow_mut();
        let frame = self.filled(frame, checksum, &mut scratch);
        let micros = now.total_micros().saturating_add_unsigned(self.epoch_offset.total_micros());
        let since_epoch = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        if self.attempt(|writer| writer.write_frame(since_epoch, direction, frame)) {
            self.dirty.set(true);
        } else {
            self.lost.set(self.lost.get() + 1);
        }
    }

    /// The frame as a wire would carry it: itself, or a copy in `scratch`.
    fn filled<'f>(&self, frame: &'f [u8], checksum: Absence, scratch: &'f mut Vec<u8>) -> &'f [u8] {
        let mut copied = || {
            scratch.clear();
            scratch.extend_from_slice(frame);
        };
        match checksum {
            Absence::Told(ChecksumState::Partial { start, offset }) => {
                copied();
                checksum::complete(scratch, start, offset);
            }
            Absence::Told(ChecksumState::Complete | ChecksumState::Verified) => return frame,
            Absence::Possible => match Layout::on(self.medium, frame) {
                Some(layout) if checksum::seems_left_out(frame, &layout) => {
                    copied();
                    checksum::fill(scratch, &layout);
                }
                _ => return frame,
            },
        }
        scratch
    }

    fn flush(&self) {
        self.dirty.set(false);
        self.attempt(PcapngWriter::flush);
    }

    /// Lets `write` write, unless that failed before: what comes after half a block is not readable.
    fn attempt(&self, write: impl FnOnce(&mut PcapngWriter<W>) -> io::Result<()>) -> bool {
        if self.error.get().is_some() {
            return false;
        }
        let Err(error) = write(&mut self.writer.borrow_mut()) else { return true };
        log::warn!("the capture ends here, the traffic goes on: {error}");
        // Cannot be set already: it was looked at above.
        let _ = self.error.set(error);
        false
    }
}

impl<W: io::Write> Drop for Recorder<W> {
    fn drop(&mut self) {
        if self.dirty.get() {
            self.flush();
        }
    }
}

#[cfg(test)]
mod tests;
