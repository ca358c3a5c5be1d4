//! One thread that receives: frames from a device into a buffer of the file, into the statistics, and into
//! a meter that the main thread reads.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smoltcp::time::{Duration, Instant};
use wirestack::nic::capture::{CaptureFile, Direction, FrameBuffer};
use wirestack::nic::{Counters, FrameMeta, LinkError, Nic, wait};

use super::analyze::Analyzer;
use super::analyze::report::Report;
use super::lists::Lists;

/// What all threads share.
#[derive(Debug)]
pub(super) struct Shared {
    /// One for each thread.
    pub(super) meters: Vec<Meter>,
    /// `None`: frames are not written.
    pub(super) file: Option<Mutex<CaptureFile>>,
    /// Frames to be taken altogether; `None`: no limit.
    pub(super) count_max: Option<u64>,
    /// Frames that were taken, or would have been, if there is a limit.
    pub(super) count: AtomicU64,
    /// Which addresses are wanted.
    pub(super) lists: Lists,
    /// When the capture began; earlier frames were received while the devices were being opened.
    pub(super) began: Moment,
    pub(super) end: End,
}

/// A point in time on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// On the clock of [`wait::now`].
    pub(super) instant: Instant,
    /// Nanoseconds since 1970, as timestamps of frames count.
    pub(super) nanos: u64,
}

/// How the capture ends.
#[derive(Debug, Default)]
pub(super) struct End {
    is_set: AtomicBool,
    /// Later frames are not taken.
    nanos: AtomicU64,
}

/// Figures of one thread, which it writes and the main thread reads; on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Meter {
    pub(super) frames: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// What a thread tells the main thread.
#[derive(Debug)]
pub(super) enum Event {
    /// A signal, or the last frame that was wanted.
    Stop,
    /// The interface was removed.
    Gone,
    /// The file cannot be written any more.
    FileFailed(io::Error),
}

/// What a thread has done.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// Frames that were received and that a list kept out.
    pub(super) filtered: u64,
    /// Of the device, since the capture began.
    pub(super) dropped: u64,
    /// Of the device, since it was opened.
    pub(super) counters: Counters,
    pub(super) report: Option<Report>,
}

/// A device and what becomes of its frames.
#[derive(Debug)]
pub(super) struct Worker<N> {
    nic: N,
    recorder: Recorder,
    /// Drops before the capture began.
    dropped_before: u64,
    publish_at: Instant,
    write_at: Instant,
    /// The end was seen, or the interface is gone: what is still in the ring is taken until then.
    drain_until: Option<Instant>,
}

/// What becomes of frames.
#[derive(Debug)]
struct Recorder {
    index: usize,
    shared: Arc<Shared>,
    events: Sender<Event>,
    buffer: Option<FrameBuffer>,
    analyzer: Option<Analyzer>,
    frames: u64,
    bytes: u64,
    filtered: u64,
    /// Timestamps are compared with the start: not for long, since the calendar may be set back.
    checks_start: bool,
    end_nanos: Option<u64>,
    /// A frame was seen that is not wanted any more.
    is_past_end: bool,
}

impl Shared {
    /// The file, if there is one. A thread that panicked while it wrote leaves it as it is.
    pub(super) fn lock_file(&self) -> Option<MutexGuard<'_, CaptureFile>> {
        self.file.as_ref().map(|file| file.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Moment {
    pub(super) fn now() -> Self {
        let instant = wait::now();
        Self { instant, nanos: nanos_of(instant, wait::epoch_offset()) }
    }
}

impl End {
    /// Ends the capture; whoever is in a `wait` is to be woken after this.
    pub(super) fn set(&self, moment: Moment) {
        self.nanos.store(moment.nanos, Ordering::Relaxed);
        self.is_set.store(true, Ordering::Release);
    }

    fn nanos(&self) -> Option<u64> {
        // Acquire: pairs with the Release in `set`, so that the time is there.
        self.is_set.load(Ordering::Acquire).then(|| self.nanos.load(Ordering::Relaxed))
    }
}

impl<N: Nic> Worker<N> {
    pub(super) fn new(
        mut nic: N,
        index: usize,
        shared: Arc<Shared>,
        events: Sender<Event>,
        analyzer: Option<Analyzer>,
    ) -> Self {
        let dropped_before = dropped(&nic.counters());
        let buffer = shared.lock_file().map(|file| file.buffer());
        let began = shared.began.instant;
        let recorder = Recorder {
            index,
            shared,
            events,
            buffer,
            analyzer,
            frames: 0,
            bytes: 0,
            filtered: 0,
            checks_start: true,
            end_nanos: None,
            is_past_end: false,
        };
        Self { nic, recorder, dropped_before, publish_at: began, write_at: began, drain_until: None }
    }

    /// Receives until the end.
    pub(super) fn run(mut self) -> Finished {
        loop {
            let now = wait::now();
            self.look_for_end(now);
            let received = self.receive_batch(now);
            self.publish(now);
            if received > 0 && !self.recorder.is_past_end {
                continue;
            }
            self.write_if_due(now);
            match self.drain_until {
                Some(until) if self.recorder.is_past_end || now >= until => break,
                _ => self.wait(now),
            }
        }
        self.finish()
    }

    fn look_for_end(&mut self, now: Instant) {
        let Recorder { shared, checks_start, end_nanos, .. } = &mut self.recorder;
        *checks_start &= now < shared.began.instant + START_CHECK;
        if end_nanos.is_none()
            && let Some(nanos) = shared.end.nanos()
        {
            *end_nanos = Some(nanos);
            self.drain_until = Some(now + DRAIN_TIMEOUT);
        }
    }

    /// Takes some frames; says how many there were.
    fn receive_batch(&mut self, now: Instant) -> usize {
        let Self { nic, recorder, .. } = self;
        // For devices that do not tell when a frame came.
        let fallback = nanos_of(now, wait::epoch_offset());
        for count in 0..BATCH_LEN {
            let taken = nic.receive_with(now, |frame, meta| recorder.take(frame, meta, fallback));
            if taken.is_none() || recorder.is_past_end {
                return count;
            }
            if recorder.buffer.as_ref().is_some_and(FrameBuffer::is_full) {
                recorder.write(now);
                self.write_at = now + WRITE_INTERVAL;
            }
        }
        BATCH_LEN
    }

    /// Shows the figures so far.
    fn publish(&mut self, now: Instant) {
        let Recorder { index, shared, frames, bytes, .. } = &self.recorder;
        let Some(meter) = shared.meters.get(*index) else { return };
        // Relaxed: the figures stand alone.
        meter.frames.store(*frames, Ordering::Relaxed);
        meter.bytes.store(*bytes, Ordering::Relaxed);
        // This is a system call.
        if now >= self.publish_at {
            self.publish_at = now + PUBLISH_INTERVAL;
            let dropped = dropped(&self.nic.counters()).saturating_sub(self.dropped_before);
            meter.dropped.store(dropped, Ordering::Relaxed);
        }
    }

    /// Writes what has been waiting for a while, so that whoever reads the file sees it.
    fn write_if_due(&mut self, now: Instant) {
        if now >= self.write_at {
            self.recorder.write(now);
            self.write_at = now + WRITE_INTERVAL;
        }
    }

    fn wait(&mut self, now: Instant) {
        let deadline = self.drain_until.unwrap_or(now + PUBLISH_INTERVAL);
        if let Err(LinkError::Gone) = self.nic.wait(Some(deadline))
            && self.drain_until.is_none()
        {
            // What it had received is still there, and the kernel hands it over in a moment.
            self.drain_until = Some(now + DRAIN_TIMEOUT);
            let _ = self.recorder.events.send(Event::Gone);
        }
        if self.drain_until.is_some() {
            // The device may be gone, and its `wait` at once over.
            std::thread::sleep(DRAIN_PAUSE);
        }
    }

    fn finish(mut self) -> Finished {
        let now = wait::now();
        self.recorder.write(now);
        self.publish_at = now;
        self.publish(now);
        let counters = self.nic.counters();
        let Recorder { frames, bytes, filtered, analyzer, .. } = self.recorder;
        Finished {
            frames,
            bytes,
            filtered,
            dropped: dropped(&counters).saturating_sub(self.dropped_before),
            counters,
            report: analyzer.map(Analyzer::into_report),
        }
    }
}

impl Recorder {
    fn take(&mut self, frame: &[u8], meta: &FrameMeta, fallback: u64) {
        let nanos = meta.timestamp.map_or(fallback, |timestamp| timestamp.nanos);
        if self.checks_start && nanos < self.shared.began.nanos {
            return;
        }
        if self.end_nanos.is_some_and(|end| nanos > end) {
            self.is_past_end = true;
            return;
        }
        if !self.shared.lists.pass(frame) {
            self.filtered += 1;
            return;
        }
        if !self.take_ticket() {
            self.is_past_end = true;
            return;
        }
        self.frames += 1;
        self.bytes += frame.len() as u64;
        if let Some(buffer) = &mut self.buffer {
            let direction = if meta.outgoing { Direction::Outbound } else { Direction::Inbound };
            buffer.push(nanos, direction, frame);
        }
        if let Some(analyzer) = &mut self.analyzer {
            analyzer.add(nanos, frame, meta);
        }
    }

    /// Whether this frame is among those that are wanted.
    fn take_ticket(&self) -> bool {
        let Some(count_max) = self.shared.count_max else { return true };
        let ticket = self.shared.count.fetch_add(1, Ordering::Relaxed);
        if ticket + 1 == count_max {
            // The main thread may be ending for another reason.
            let _ = self.events.send(Event::Stop);
        }
        ticket < count_max
    }

    fn write(&mut self, now: Instant) {
        let (Some(buffer), Some(mut file)) = (&mut self.buffer, self.shared.lock_file()) else { return };
        if let Err(error) = file.write(buffer, now) {
            let _ = self.events.send(Event::FileFailed(error));
        }
    }
}

/// Frames that the kernel had for us and that were not received.
fn dropped(counters: &Counters) -> u64 {
    counters.rx_ring_full + counters.rx_truncated + counters.rx_malformed + counters.rx_unsegmented
}

fn nanos_of(instant: Instant, epoch_offset: Duration) -> u64 {
    let micros = instant.total_micros().saturating_add_unsigned(epoch_offset.total_micros());
    u64::try_from(micros).unwrap_or(0).saturating_mul(1000)
}

/// Frames between two looks at the clock.
const BATCH_LEN: usize = 256;
/// How long the start of the capture matters: frames that came before it are received by then.
const START_CHECK: Duration = Duration::from_secs(1);
/// How long after the end the kernel may take to hand over what it has: the timeout of a block, and the
/// granularity of its timer.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(60);
const DRAIN_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);
/// How often drops are asked for, and the longest sleep.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
/// How long frames wait to be written.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);
