//! A lossy wire around any device: loss, duplication, corruption, reordering, delay, rate.
//!
//! Each direction is a [`Line`], with an [`ImpairSpec`] of its own. What the stages are and in which
//! order a frame meets them is told in [`mod@line`]; how they are written as text, in [`spec`].
//!
//! ```text
//!  inner device ── receive ──▶ RX line ── due ──▶ RxToken ─▶ the stack
//!  inner device ◀── transmit ── due ── TX line ◀── TxToken ◀─ the stack
//! ```
//!
//! **Packets of MTU size.** A wire carries no super-frames. A direction that does anything splits them
//! first ([`Segments`]), whether the metadata says how or they are just longer than the MTU, and fills in
//! absent checksums before a bit is flipped. So 1 % loss means the same whatever a stack leaves to its
//! device, and the receiver finds out about flipped bits. All pieces of a frame enter the queue at once;
//! those for which there is no room are dropped, as any frame. A direction that does nothing
//! ([`ImpairSpec::is_perfect`]) hands super-frames and metadata through as they are.
//!
//! **Time.** Frames move when the device is called: `receive` and `transmit` use the time they are
//! given, `flush` the last such time, and `wait` the clock. So a caller with a virtual clock, who does
//! not call `wait`, gets the same run from the same seed each time; [`Impair::next_release`] tells it
//! when to look again.
//!
//! **Full.** A full queue drops, as a wire does, and counts it. If it is the inner device that takes no
//! frame now, that is back pressure: `transmit` gives no token until the due frames are gone.

pub mod line;
pub mod spec;

pub use line::{Line, LineCounters};
pub use spec::{ImpairSpec, ImpairSpecError, Probability};

use std::io;

use managed::ManagedSlice;
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::phy::{RxToken as _, TxToken as _};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use crate::meta::{ChecksumState, FrameMeta, OffloadCapabilities};
use crate::offload::Segments;
use crate::slot::{FRAME_LEN_MAX, Slot};
use crate::{Counters, LinkError, LinkState, Nic, Wake, Waker, wait};

/// A device behind a lossy wire. Both directions are made by the same rules, apart from each other.
///
/// It takes frames up to [`FRAME_LEN_MAX`], whatever the MTU.
#[derive(Debug)]
pub struct Impair<'a, D> {
    inner: D,
    rx: Line<'a>,
    tx: Line<'a>,
    /// The last time that a caller gave us.
    now: Instant,
    /// Where a frame to be sent is written that is split here.
    scratch: Vec<u8>,
    /// Frames that were split.
    segmented: u64,
    /// Frames that were lent to a closure.
    rx_frames: u64,
    /// Bytes of those frames.
    rx_bytes: u64,
}

/// What an [`Impair`] does in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImpairConfig {
    /// What happens to frames that are received.
    pub rx: ImpairSpec,
    /// What happens to frames that are sent.
    pub tx: ImpairSpec,
    /// Reproduces a run. The two directions draw different numbers from it.
    pub seed: u64,
}

impl<'a, D: Nic> Impair<'a, D> {
    /// Puts `inner` behind a lossy wire that owns its memory: slots for the frames of both queues, whose
    /// buffers grow as frames come.
    pub fn new(inner: D, config: ImpairConfig) -> Self {
        let ImpairConfig { rx, tx, seed } = config;
        Self::with_lines(inner, Line::new(rx, seed), Line::new(tx, tx_seed(seed)))
    }

    /// The same with the slots in which frames are held, for both directions: `Vec<Slot>` or
    /// `&mut [Slot]`. A direction holds at most as many frames as it has slots; a frame that is longer
    /// than the slot it meets is dropped and counted.
    pub fn with_slots(
        inner: D,
        config: ImpairConfig,
        rx_slots: impl Into<ManagedSlice<'a, Slot<'a>>>,
        tx_slots: impl Into<ManagedSlice<'a, Slot<'a>>>,
    ) -> Self {
        let ImpairConfig { rx, tx, seed } = config;
        Self::with_lines(
            inner,
            Line::with_slots(rx, seed, rx_slots),
            Line::with_slots(tx, tx_seed(seed), tx_slots),
        )
    }

    fn with_lines(inner: D, rx: Line<'a>, tx: Line<'a>) -> Self {
        Self {
            inner,
            rx,
            tx,
            now: Instant::ZERO,
            scratch: Vec::new(),
            segmented: 0,
            rx_frames: 0,
            rx_bytes: 0,
        }
    }

    /// Hands the frames to send that are due at `now` to the inner device. `false`: it did not take them
    /// all, and they stay queued.
    pub fn poll_release(&mut self, now: Instant) -> bool {
        self.now = now;
        forward_due(&mut self.tx, &mut self.inner, now)
    }

    /// When the next frame of either direction is due; `None`: none is held.
    pub fn next_release(&self) -> Option<Instant> {
        earliest(self.rx.next_release(), self.tx.next_release())
    }

    /// The wire from the inner device to the stack.
    pub fn rx_line(&self) -> &Line<'a> {
        &self.rx
    }

    /// The wire from the stack to the inner device.
    pub fn tx_line(&self) -> &Line<'a> {
        &self.tx
    }

    /// The device at the other end of the wire.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The device at the other end of the wire. Frames taken from it or given to it this way are not
    /// impaired.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }

    /// Takes the wire away. Frames that it holds are lost.
    pub fn into_inner(self) -> D {
        self.inner
    }

    /// Takes frames from the inner device until one is due, there are no more, or the bound is reached.
    ///
    /// It stops at a frame that is due so that the queue fills by what the spec says and not by how
    /// many frames the inner device had: a frame that need not wait never sees it full.
    fn drain_inner(&mut self, now: Instant) {
        let link = Link::of(&self.inner);
        for _ in 0..RX_BURST_MAX {
            if self.rx.is_due(now) {
                return;
            }
            let line = &mut self.rx;
            if line.spec().is_perfect() {
                // By tokens, since this is for a user who receives by tokens: what the device does for
                // such a user has to be done.
                let Some((token, _)) = self.inner.receive(now) else { return };
                let meta = token.meta();
                token.consume(|frame| {
                    let meta = FrameMeta::from_smoltcp(meta, link.medium, frame);
                    line.send(now, frame.len(), meta, |room| copy(room, frame));
                });
                continue;
            }
            let trusted = line.spec().corrupt == Probability::NEVER;
            let entered = self.inner.receive_with(now, |frame, meta| {
                let checksum = match meta.checksum {
                    ChecksumState::Verified | ChecksumState::Partial { .. } if trusted => {
                        ChecksumState::Verified
                    }
                    _ => ChecksumState::Complete,
                };
                let on_wire = FrameMeta { checksum, gso: None, ..*meta };
                link.enter(line, now, frame, meta, &on_wire)
            });
            let Some(pieces) = entered else { return };
            self.segmented += u64::from(pieces > 1);
        }
    }

    /// Room on the TX line.
    fn tx_token(&mut self, now: Instant) -> TxToken<'_, 'a, D> {
        let Self { inner, tx, scratch, segmented, .. } = self;
        TxToken { line: tx, inner, scratch, segmented, now, meta: PacketMeta::default() }
    }
}

impl<'a, D: Nic> Device for Impair<'a, D> {
    type RxToken<'t>
        = RxToken<'t, 'a>
    where
        Self: 't;
    type TxToken<'t>
        = TxToken<'t, 'a, D>
    where
        Self: 't;

    fn receive(&mut self, timestamp: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        self.poll_release(timestamp);
        self.drain_inner(timestamp);
        let (_, meta) = self.rx.peek(timestamp)?;
        let Self { inner, rx, tx, scratch, segmented, rx_frames, rx_bytes, .. } = self;
        Some((
            RxToken { line: rx, now: timestamp, meta: meta.to_smoltcp(), rx_frames, rx_bytes },
            TxToken { line: tx, inner, scratch, segmented, now: timestamp, meta: PacketMeta::default() },
        ))
    }

    fn transmit(&mut self, timestamp: Instant) -> Option<Self::TxToken<'_>> {
        if !self.poll_release(timestamp) {
            return None;
        }
        Some(self.tx_token(timestamp))
    }

    /// Those of the inner device. Only where bits are flipped, checksums are made and verified by the
    /// stack: else the inner device would put a right checksum on a wrong frame, or the stack would trust
    /// one.
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = self.inner.capabilities();
        if self.rx.spec().corrupt != Probability::NEVER {
            for_each_checksum(&mut capabilities.checksum, |checksum| match checksum {
                Checksum::Both | Checksum::Tx => Checksum::Both,
                Checksum::Rx | Checksum::None => Checksum::Rx,
            });
        }
        if self.tx.spec().corrupt != Probability::NEVER {
            for_each_checksum(&mut capabilities.checksum, |checksum| match checksum {
                Checksum::Both | Checksum::Rx => Checksum::Both,
                Checksum::Tx | Checksum::None => Checksum::Tx,
            });
            // What is to be split has no checksum that the stack could make.
            capabilities.segmentation = Default::default();
        }
        capabilities
    }
}

impl<D: Nic> Nic for Impair<'_, D> {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        let now = wait::now();
        let tx_release = if self.poll_release(now) {
            self.tx.next_release()
        } else {
            // The inner device is full. It ends the wait when it has room; this is in case it cannot.
            Some(now + INNER_FULL_RETRY)
        };
        let until = earliest(deadline, earliest(tx_release, self.rx.next_release()));
        let wake = match self.inner.wait(until) {
            // There is nothing to wait for at the inner device, but frames are on their way to us.
            Err(LinkError::Gone) if !self.rx.is_empty() => wait::sleep(None, &self.inner.waker(), until).1,
            other => other?,
        };
        match wake {
            // It was the deadline of a frame and not that of the caller.
            Wake::Deadline if until != deadline => Ok(Wake::Ready),
            wake => Ok(wake),
        }
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        // Not the clock: this is the end of the turn whose time it was, and the time may be virtual.
        self.poll_release(self.now);
        match self.inner.flush() {
            Err(LinkError::Gone) if !self.rx.is_empty() => Ok(()),
            result => result,
        }
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

    /// Those of the inner device, and what was impaired on top of it. `rx_frames` and `rx_bytes` are
    /// what this device delivered; `tx_frames` and `tx_bytes`, what the inner device took. So a frame
    /// that was dropped on the wire is in `impaired_dropped` only, in both directions.
    fn counters(&mut self) -> Counters {
        let mut counters = self.inner.counters();
        counters.impaired_segmented += self.segmented;
        counters.rx_frames = self.rx_frames;
        counters.rx_bytes = self.rx_bytes;
        for line in [self.rx.counters(), self.tx.counters()] {
            counters.impaired_dropped += line.dropped();
            counters.impaired_duplicated += line.duplicated;
            counters.impaired_corrupted += line.corrupted;
            counters.impaired_reordered += line.reordered;
        }
        counters
    }

    /// Those of the inner device, where frames go through as they are. Else work is not handed on but
    /// done here, and flipped bits are for the stack to find.
    fn offloads(&self) -> OffloadCapabilities {
        let inner = self.inner.offloads();
        let tx = if self.tx.spec().is_perfect() { inner } else { OffloadCapabilities::default() };
        let trusted = self.rx.spec().corrupt == Probability::NEVER;
        OffloadCapabilities { checksum_rx: inner.checksum_rx && trusted, ..tx }
    }

    fn receive_with<R>(&mut self, now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        self.poll_release(now);
        let is_bypassed = self.rx.spec().is_perfect() && self.rx.is_empty();
        if !is_bypassed {
            self.drain_inner(now);
        }
        let Self { inner, rx, rx_frames, rx_bytes, .. } = self;
        let lend = |frame: &[u8], meta: &FrameMeta| {
            *rx_frames += 1;
            *rx_bytes += frame.len() as u64;
            f(frame, meta)
        };
        if is_bypassed {
            inner.receive_with(now, lend)
        } else {
            rx.release(now, |frame, meta| lend(frame, &meta))
        }
    }

    fn transmit_with<R>(
        &mut self,
        now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        if !self.poll_release(now) {
            return None;
        }
        if self.tx.spec().is_perfect() {
            return self.inner.transmit_with(now, len, meta, f);
        }
        Some(self.tx_token(now).send(len, meta.is_plain(), |_| *meta, AS_TOLD, f))
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}

/// A frame that has come through the RX line. Stays there if the token is dropped.
#[derive(Debug)]
pub struct RxToken<'t, 'a> {
    line: &'t mut Line<'a>,
    now: Instant,
    meta: PacketMeta,
    rx_frames: &'t mut u64,
    rx_bytes: &'t mut u64,
}

impl smoltcp::phy::RxToken for RxToken<'_, '_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let Self { line, now, rx_frames, rx_bytes, .. } = self;
        // `receive` has seen that it is due, and nobody else has the line.
        let frame = line.peek(now).map_or(&[][..], |(frame, _)| frame);
        *rx_frames += 1;
        *rx_bytes += frame.len() as u64;
        let result = f(frame);
        line.release(now, |_, _| ());
        result
    }

    fn meta(&self) -> PacketMeta {
        self.meta
    }
}

/// Room for a frame on the TX line. If it is due at once, the inner device gets it at once.
#[derive(Debug)]
pub struct TxToken<'t, 'a, D> {
    line: &'t mut Line<'a>,
    inner: &'t mut D,
    scratch: &'t mut Vec<u8>,
    segmented: &'t mut u64,
    now: Instant,
    meta: PacketMeta,
}

impl<D: Nic> TxToken<'_, '_, D> {
    /// Puts a frame on a line that does something. `is_plain`: nothing is left to be done to it; what
    /// else is known of it may depend on what `f` writes. It goes on as `on_wire`.
    fn send<R>(
        self,
        len: usize,
        is_plain: bool,
        meta: impl FnOnce(&[u8]) -> FrameMeta,
        on_wire: FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let Self { line, inner, scratch, segmented, now, .. } = self;
        let link = Link::of(inner);
        if is_plain && len <= link.frame_len_max {
            let result = line.send(now, len, on_wire, f);
            forward_due(line, inner, now);
            return result;
        }
        if scratch.len() < len {
            scratch.resize(len, 0);
        }
        let frame = &mut scratch[..len];
        let result = f(frame);
        let meta = meta(frame);
        let pieces = link.enter(line, now, frame, &meta, &on_wire);
        *segmented += u64::from(pieces > 1);
        forward_due(line, inner, now);
        result
    }
}

impl<D: Nic> smoltcp::phy::TxToken for TxToken<'_, '_, D> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let meta = self.meta;
        let medium = self.inner.capabilities().medium;
        if !self.line.spec().is_perfect() {
            let is_plain = meta.segmentation_offload_size.is_none();
            let meta = |frame: &[u8]| FrameMeta::from_smoltcp(meta, medium, frame);
            return self.send(len, is_plain, meta, FrameMeta::default(), f);
        }
        // The inner device gets the size only, so the kind does not matter.
        let result = self.line.send(self.now, len, FrameMeta::from_smoltcp(meta, medium, &[]), f);
        forward_due(self.line, self.inner, self.now);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

/// Of a frame on the TX line whose checksum is as it was told, right or wrong. Those of frames that smoltcp
/// has written to tokens may be absent, by the rules that the inner device told it, and it fills them in.
const AS_TOLD: FrameMeta = FrameMeta {
    checksum: ChecksumState::Verified,
    gso: None,
    timestamp: None,
    rx_hash: None,
    outgoing: false,
};

/// Moves the frames that are due into `inner`. `false`: it did not take them all.
fn forward_due<D: Nic>(line: &mut Line<'_>, inner: &mut D, now: Instant) -> bool {
    let flips_bits = line.spec().corrupt != Probability::NEVER;
    while let Some((frame, meta)) = line.peek(now) {
        if flips_bits || meta == AS_TOLD {
            // Said to be complete, it is not made right again by the device.
            let sent = inner.transmit_with(now, frame.len(), &FrameMeta::default(), |room| copy(room, frame));
            if sent.is_none() {
                return false;
            }
        } else {
            let Some(mut token) = inner.transmit(now) else { return false };
            token.set_meta(meta.to_smoltcp());
            token.consume(frame.len(), |room| copy(room, frame));
        }
        line.release(now, |_, _| ());
    }
    true
}

/// What the inner device is connected to.
#[derive(Debug, Clone, Copy)]
struct Link {
    medium: Medium,
    /// Bytes of the longest packet.
    mtu: usize,
    /// Bytes of the longest frame without VLAN tags.
    frame_len_max: usize,
}

impl Link {
    fn of<D: Device>(device: &D) -> Self {
        let capabilities = device.capabilities();
        Self {
            medium: capabilities.medium,
            mtu: capabilities.ip_mtu(),
            frame_len_max: capabilities.max_transmission_unit,
        }
    }

    /// Puts what a wire carries of `frame` on `line`: the frame with its checksum, or its pieces, as
    /// `meta` says; each goes on with `on_wire`. Returns how many these are.
    fn enter(
        &self,
        line: &mut Line<'_>,
        now: Instant,
        frame: &[u8],
        meta: &FrameMeta,
        on_wire: &FrameMeta,
    ) -> usize {
        let segments = Segments::of(self.medium, frame, meta, Some(self.mtu));
        for index in 0..segments.count() {
            let len = segments.frame_len(index);
            line.send(now, len, *on_wire, |room| segments.write(index, room));
        }
        segments.count()
    }
}

/// Copies a frame. The lengths are the same, unless a device does not keep to its trait.
fn copy(room: &mut [u8], frame: &[u8]) {
    let len = room.len().min(frame.len());
    room[..len].copy_from_slice(&frame[..len]);
}

fn for_each_checksum(checksums: &mut ChecksumCapabilities, change: impl Fn(Checksum) -> Checksum) {
    for checksum in [
        &mut checksums.ipv4,
        &mut checksums.udp,
        &mut checksums.tcp,
        &mut checksums.icmpv4,
        &mut checksums.icmpv6,
    ] {
        *checksum = change(*checksum);
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

/// The seed of the TX line: any other than that of the RX line.
fn tx_seed(seed: u64) -> u64 {
    !seed
}

/// Frames taken from the inner device by one call of `receive`.
const RX_BURST_MAX: usize = 64;
/// How long to sleep at most while the inner device takes no frame.
const INNER_FULL_RETRY: Duration = Duration::from_millis(1);
// A frame of any length that the devices of this crate deliver passes.
const _: () = assert!(FRAME_LEN_MAX > 65_536 + 14);

#[cfg(test)]
mod super_frames;
#[cfg(test)]
mod tests;
