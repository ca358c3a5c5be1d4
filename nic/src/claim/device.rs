//! A device that shows its user only frames that are ours.

use std::io;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, PacketMeta, RxToken};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use super::ClaimSet;
use crate::meta::{FrameMeta, OffloadCapabilities};
use crate::wait;
use crate::{Counters, LinkError, LinkState, Nic, Wake, Waker};

/// A device around `D` that skips, and counts in `rx_not_ours`, the frames that are not ours.
///
/// If no address is shared with the kernel, frames are lent by the inner device as they are. On a
/// shared address a frame that is ours is copied once into a buffer of this device: a token can be
/// looked into only by consuming it, and what was judged is then what is delivered. A frame that is
/// not ours is not copied. [`Nic::receive_with`] judges a frame where it is and copies none.
#[derive(Debug)]
pub struct Claimed<D> {
    inner: D,
    claims: ClaimSet,
    /// The frame that is ours and waits for its user, if `held`; reused for the next one.
    buffer: Vec<u8>,
    meta: PacketMeta,
    held: bool,
    /// [`Device::receive`] stopped at its bound; more frames may be there, though it said `None`.
    stopped_early: bool,
    not_ours_frames: u64,
    not_ours_bytes: u64,
}

impl<D: Nic> Claimed<D> {
    /// Filters `inner` by `claims`.
    pub fn new(inner: D, claims: ClaimSet) -> Self {
        Self {
            inner,
            claims,
            buffer: Vec::new(),
            meta: PacketMeta::default(),
            held: false,
            stopped_early: false,
            not_ours_frames: 0,
            not_ours_bytes: 0,
        }
    }

    /// Filters by `claims` from the next frame on.
    pub fn set_claims(&mut self, claims: ClaimSet) {
        self.claims = claims;
    }

    /// The inner device, for what only it can do.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }

    /// What is filtered by.
    pub fn claims(&self) -> &ClaimSet {
        &self.claims
    }

    /// The inner device.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    fn count_skipped(&mut self, frame_len: u64) {
        self.not_ours_frames += 1;
        self.not_ours_bytes += frame_len;
    }

    /// Takes frames from the inner device until one is ours and held, at most [`SKIPPED_MAX`].
    fn fetch(&mut self, timestamp: Instant) {
        let medium = self.inner.capabilities().medium;
        self.stopped_early = false;
        for _ in 0..SKIPPED_MAX {
            let Some((rx, _)) = self.inner.receive(timestamp) else {
                return;
            };
            let (claims, buffer) = (&self.claims, &mut self.buffer);
            let meta = rx.meta();
            let skipped_len = rx.consume(|frame| {
                if !is_ours(claims, medium, frame) {
                    return Some(frame.len() as u64);
                }
                buffer.clear();
                buffer.extend_from_slice(frame);
                None
            });
            let Some(skipped_len) = skipped_len else {
                self.meta = meta;
                self.held = true;
                return;
            };
            self.count_skipped(skipped_len);
        }
        self.stopped_early = true;
    }
}

impl<D: Nic> Device for Claimed<D> {
    type RxToken<'a>
        = ClaimedRx<'a, D::RxToken<'a>>
    where
        Self: 'a;
    type TxToken<'a>
        = D::TxToken<'a>
    where
        Self: 'a;

    /// The next frame that is ours. At most 64 others are skipped in one call: `None` after that many
    /// lets the loop do its other work, and the next [`Nic::wait`] returns at once.
    fn receive(&mut self, timestamp: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        if !self.held {
            if !self.claims.filters() {
                self.stopped_early = false;
                let (rx, tx) = self.inner.receive(timestamp)?;
                return Some((ClaimedRx(Source::Lent(rx)), tx));
            }
            self.fetch(timestamp);
            if !self.held {
                return None;
            }
        }
        // The token that came with the frame went with it (a loop cannot keep it for its caller).
        // Without room to answer the frame stays held, as it would have stayed in the inner device.
        let tx = self.inner.transmit(timestamp)?;
        self.held = false;
        Some((ClaimedRx(Source::Held { frame: &self.buffer, meta: self.meta }), tx))
    }

    fn transmit(&mut self, timestamp: Instant) -> Option<Self::TxToken<'_>> {
        self.inner.transmit(timestamp)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.inner.capabilities()
    }
}

impl<D: Nic> Nic for Claimed<D> {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        if self.stopped_early {
            self.stopped_early = false;
            // A deadline that has passed: flush and look, but do not sleep.
            return Ok(match self.inner.wait(Some(Instant::ZERO))? {
                Wake::Deadline => Wake::Ready,
                wake => wake,
            });
        }
        if !self.held {
            return self.inner.wait(deadline);
        }
        // A held frame waits for room to send; the inner device need not know that anybody does.
        let retry = wait::now() + HELD_RETRY;
        let sooner = deadline.map_or(retry, |deadline| deadline.min(retry));
        match self.inner.wait(Some(sooner))? {
            Wake::Deadline if Some(sooner) != deadline => Ok(Wake::Ready),
            wake => Ok(wake),
        }
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

    /// What the inner device counted; frames that were not ours are moved from `rx_frames` and
    /// `rx_bytes` to `rx_not_ours`.
    fn counters(&mut self) -> Counters {
        let mut counters = self.inner.counters();
        counters.rx_frames = counters.rx_frames.saturating_sub(self.not_ours_frames);
        counters.rx_bytes = counters.rx_bytes.saturating_sub(self.not_ours_bytes);
        counters.rx_not_ours += self.not_ours_frames;
        counters
    }

    fn offloads(&self) -> OffloadCapabilities {
        self.inner.offloads()
    }

    /// Skips as [`Device::receive`] does. A frame that a token of it has left behind comes first.
    fn receive_with<R>(&mut self, now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        let medium = self.inner.capabilities().medium;
        self.stopped_early = false;
        if std::mem::take(&mut self.held) {
            return Some(f(&self.buffer, &FrameMeta::from_smoltcp(self.meta, medium, &self.buffer)));
        }
        let mut f = Some(f);
        for _ in 0..SKIPPED_MAX {
            let claims = &self.claims;
            let lent = self.inner.receive_with(now, |frame, meta| {
                // Taken at most once: the first frame that is ours ends the loop.
                let f = if is_ours(claims, medium, frame) { f.take() } else { None };
                f.map(|f| f(frame, meta)).ok_or(frame.len() as u64)
            })?;
            match lent {
                Ok(result) => return Some(result),
                Err(skipped_len) => self.count_skipped(skipped_len),
            }
        }
        self.stopped_early = true;
        None
    }

    fn transmit_with<R>(
        &mut self,
        now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        self.inner.transmit_with(now, len, meta, f)
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}

/// A frame that is ours: lent by the inner device, or held by [`Claimed`].
#[derive(Debug)]
pub struct ClaimedRx<'a, T>(Source<'a, T>);

#[derive(Debug)]
enum Source<'a, T> {
    Lent(T),
    Held { frame: &'a [u8], meta: PacketMeta },
}

impl<T: RxToken> RxToken for ClaimedRx<'_, T> {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        match self.0 {
            Source::Lent(token) => token.consume(f),
            Source::Held { frame, .. } => f(frame),
        }
    }

    fn meta(&self) -> PacketMeta {
        match &self.0 {
            Source::Lent(token) => token.meta(),
            Source::Held { meta, .. } => *meta,
        }
    }
}

fn is_ours(claims: &ClaimSet, medium: Medium, frame: &[u8]) -> bool {
    match medium {
        Medium::Ethernet => claims.is_ours(frame),
        Medium::Ip => claims.is_ours_ip(frame),
        #[allow(unreachable_patterns, reason = "smoltcp has more media with other features")]
        _ => true,
    }
}

/// Frames skipped by one call of `receive`, so that foreign traffic cannot hold up a turn of the loop.
const SKIPPED_MAX: u32 = 64;

/// How long a held frame waits before room to send is looked for again.
pub(super) const HELD_RETRY: Duration = Duration::from_millis(1);
