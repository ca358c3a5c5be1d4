//! A device that writes every frame to a pcapng file, around any other device.
//!
//! The capture shows what the stack sees: a received frame is written before the stack gets it, a sent
//! one when the stack has filled it, whatever the device makes of it afterwards. So `Capture<Impair<_>>`
//! shows what is left behind a lossy wire, `Impair<Capture<_>>` what is on it.
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

use smoltcp::phy::{Device, DeviceCapabilities, PacketMeta};
use smoltcp::time::{Duration, Instant};

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

impl<D: Device, W: io::Write> Capture<D, W> {
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

impl<D: Device, W: io::Write> Device for Capture<D, W> {
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
        let (rx, tx) = inner.receive(timestamp)?;
        Some((
            RxToken { inner: rx, recorder, now: timestamp },
            TxToken { inner: tx, recorder, now: timestamp },
        ))
    }

    fn transmit(&mut self, timestamp: Instant) -> Option<Self::TxToken<'_>> {
        let Self { inner, recorder } = self;
        Some(TxToken { inner: inner.transmit(timestamp)?, recorder, now: timestamp })
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

    /// Those of the inner device, and the frames that are missing in the file.
    fn counters(&mut self) -> Counters {
        let mut counters = self.inner.counters();
        counters.capture_lost += self.recorder.lost.get();
        counters
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}

/// A received frame, written when it is consumed.
#[derive(Debug)]
pub struct RxToken<'t, T, W: io::Write> {
    inner: T,
    recorder: &'t Recorder<W>,
    now: Instant,
}

impl<T: smoltcp::phy::RxToken, W: io::Write> smoltcp::phy::RxToken for RxToken<'_, T, W> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        self.inner.consume(|frame| {
            self.recorder.record(self.now, Direction::Inbound, frame);
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
}

impl<T: smoltcp::phy::TxToken, W: io::Write> smoltcp::phy::TxToken for TxToken<'_, T, W> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.inner.consume(len, |frame| {
            let result = f(frame);
            self.recorder.record(self.now, Direction::Outbound, frame);
            result
        })
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.inner.set_meta(meta);
    }
}

/// The file, and whether it still is one.
#[derive(Debug)]
struct Recorder<W: io::Write> {
    /// Borrowed for the time of one write, in which no closure of the stack runs.
    writer: RefCell<PcapngWriter<W>>,
    epoch_offset: Duration,
    /// Frames were written since the last flush.
    dirty: Cell<bool>,
    /// The first error. Set: nothing is written any more.
    error: OnceCell<io::Error>,
    /// Frames that were not written.
    lost: Cell<u64>,
}

impl<W: io::Write> Recorder<W> {
    fn record(&self, now: Instant, direction: Direction, frame: &[u8]) {
        let micros = now.total_micros().saturating_add_unsigned(self.epoch_offset.total_micros());
        let since_epoch = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        if self.attempt(|writer| writer.write_frame(since_epoch, direction, frame)) {
            self.dirty.set(true);
        } else {
            self.lost.set(self.lost.get() + 1);
        }
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
