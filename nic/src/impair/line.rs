//! One direction of a lossy wire: frames go in, and come out later, changed, twice or never.
//!
//! The core of [`Impair`](super::Impair). It does no I/O and reads no clock: `now` is an argument, and
//! all chance comes from one seed. The same seed and the same calls give the same frames.
//!
//! ```text
//!            ┌ lost                          ┌ held back: goes out after those that overtake it
//!  send ─▶ loss ─▶ duplicate ─▶ queue ─▶ corrupt ─▶ rate ─▶ delay ± jitter ─▶ release
//!                      └ copy ─▶ ┘ └ full: dropped
//! ```
//!
//! The stages, in this order:
//!
//! 1. **loss**: the frame vanishes, and the later stages do not see it.
//! 2. **duplicate**: a copy goes through all later stages on its own, right before the frame. It is
//!    neither lost nor copied again.
//! 3. **queue**: with `queue` frames held already, the newest is dropped (drop-tail). As in netem, all
//!    held frames count, those on their way too: `rate * delay` must fit.
//! 4. **corrupt**: one bit, drawn from the whole frame, is flipped.
//! 5. **rate**: frames are serialised one after the other; one is complete when its last bit is.
//! 6. **delay**: from then on. Jitter never lets a frame overtake another, as a queue in a router would
//!    not: a frame is due no earlier than the one before it.
//! 7. **reorder**: the frame is held back until one to three later frames were let past (how many is
//!    drawn), and released right behind the last of them. If they do not come, or come too late, it is
//!    released by itself, at most [`HOLD_BACK_MAX`] (plus the time that the rate needs for those frames)
//!    after it was due. At most [`HELD_BACK_LEN_MAX`] frames are held back at once, and such frames do
//!    not count as overtakers; so `reorder=100%` still reorders, and no frame waits for ever.

use managed::ManagedSlice;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use smoltcp::time::{Duration, Instant};

use super::spec::{DELAY_MAX, ImpairSpec, Probability, QUEUE_LEN_MAX, RATE_MAX};
use crate::meta::FrameMeta;
use crate::slot::{Slot, owned_slots};

/// One direction of a lossy wire.
///
/// Memory: one [`Slot`] for each frame that may be held, and one that is being written. They are reused;
/// when each has grown to the longest frame, nothing is allocated any more.
#[derive(Debug)]
pub struct Line<'a> {
    spec: ImpairSpec,
    rng: Pcg64Mcg,
    slots: ManagedSlice<'a, Slot<'a>>,
    /// The frame that is being sent; its buffer moves into a slot.
    filling: Slot<'a>,
    /// List of the slots that hold nothing. What is not on it may not be used: this bounds the queue.
    free: Option<usize>,
    /// First and last of the list of frames in the order of their release; `due` only grows along it.
    ends: Option<(usize, usize)>,
    held_back: [Option<HeldBack>; HELD_BACK_LEN_MAX],
    /// When the latest frame that was not held back is due.
    last_due: Instant,
    serialiser: Serialiser,
    counters: LineCounters,
}

/// What a [`Line`] counts. `sent + duplicated` is the sum of `released`, the three causes of loss, and
/// the frames that are held now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineCounters {
    /// Frames that went in.
    pub sent: u64,
    /// Copies that were added.
    pub duplicated: u64,
    /// Frames and copies that came out.
    pub released: u64,
    /// Frames dropped by chance.
    pub lost: u64,
    /// Frames and copies for which the queue had no room.
    pub queue_full: u64,
    /// Frames and copies longer than a slot ([`Slot::frame_len_max`]).
    pub oversize: u64,
    /// Frames and copies in which a bit was flipped.
    pub corrupted: u64,
    /// Frames and copies that at least one later frame overtook.
    pub reordered: u64,
}

impl LineCounters {
    /// Frames and copies that were dropped, for any cause.
    pub fn dropped(&self) -> u64 {
        self.lost + self.queue_full + self.oversize
    }
}

impl<'a> Line<'a> {
    /// A line with `slots` of its own: as many as `spec` allows frames.
    pub fn new(spec: ImpairSpec, seed: u64) -> Self {
        let queue = spec.queue.clamp(1, QUEUE_LEN_MAX);
        Self::with_slots(spec, seed, owned_slots(queue))
    }

    /// A line that keeps its frames in `slots`: a `Vec`, or a `&mut [Slot]`. It holds at most that many
    /// frames, and at most `spec.queue`.
    ///
    /// Values of `spec` beyond their bounds are taken for the bound.
    pub fn with_slots(spec: ImpairSpec, seed: u64, slots: impl Into<ManagedSlice<'a, Slot<'a>>>) -> Self {
        let spec = ImpairSpec {
            delay: spec.delay.min(DELAY_MAX),
            jitter: spec.jitter.min(DELAY_MAX),
            rate: spec.rate.map(|rate| rate.clamp(1, RATE_MAX)),
            queue: spec.queue.clamp(1, QUEUE_LEN_MAX),
            ..spec
        };
        let mut slots = slots.into();
        let mut free = None;
        for (index, slot) in slots.iter_mut().enumerate().take(spec.queue) {
            slot.next = free.replace(index);
        }
        Self {
            spec,
            rng: Pcg64Mcg::seed_from_u64(seed),
            slots,
            filling: Slot::default(),
            free,
            ends: None,
            held_back: Default::default(),
            last_due: Instant::from_micros(i64::MIN),
            serialiser: Serialiser::default(),
            counters: LineCounters::default(),
        }
    }

    /// Sends a frame of `len` bytes, written by `write`, whose result is returned.
    ///
    /// `write` is called in any case, also for a frame that is dropped. The line neither splits frames nor
    /// fills in checksums: to it, each frame is one.
    pub fn send<R>(
        &mut self,
        now: Instant,
        len: usize,
        meta: FrameMeta,
        write: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        self.counters.sent += 1;
        let Some(room) = self.filling.fill(len) else {
            self.counters.oversize += 1;
            return write(&mut vec![0; len]);
        };
        let result = write(room);
        self.filling.meta = meta;
        if self.chance(self.spec.loss) {
            self.counters.lost += 1;
            return result;
        }
        if self.chance(self.spec.duplicate) {
            self.counters.duplicated += 1;
            self.enter(now, Entry::Copy);
        }
        self.enter(now, Entry::Frame);
        result
    }

    /// The next frame that is due at `now` and its metadata; [`release`](Self::release) takes the same.
    pub fn peek(&self, now: Instant) -> Option<(&[u8], FrameMeta)> {
        let (due, place) = self.first()?;
        let slot = self.slots.get(place.slot())?;
        (due <= now).then(|| (slot.frame(), slot.meta))
    }

    /// Lends the next frame that is due at `now` to `read`, and forgets it. `None`: none is due.
    pub fn release<R>(&mut self, now: Instant, read: impl FnOnce(&[u8], FrameMeta) -> R) -> Option<R> {
        let (due, place) = self.first()?;
        if due > now {
            return None;
        }
        let slot = self.slots.get_mut(place.slot())?;
        let result = read(slot.frame(), slot.meta);
        let next = slot.next;
        match place {
            Place::InOrder { slot } => {
                self.ends = self.ends.and_then(|(_, last)| (slot != last).then_some((next?, last)));
            }
            Place::HeldBack { at, .. } => {
                if let Some(held) = self.held_back.get_mut(at) {
                    *held = None;
                }
            }
        }
        self.give_back(place.slot());
        self.counters.released += 1;
        Some(result)
    }

    /// Whether a frame is due at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next_release().is_some_and(|due| due <= now)
    }

    /// When the next frame is due; `None`: none is held.
    pub fn next_release(&self) -> Option<Instant> {
        self.first().map(|(due, _)| due)
    }

    /// Frames held now, waiting or on their way; never more than slots, nor than the queue of the spec.
    pub fn len(&self) -> usize {
        let LineCounters { sent, duplicated, released, .. } = self.counters;
        usize::try_from(sent + duplicated - released - self.counters.dropped()).unwrap_or(usize::MAX)
    }

    /// Whether no frame is held.
    pub fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// What this line does, with all values inside their bounds.
    pub fn spec(&self) -> &ImpairSpec {
        &self.spec
    }

    /// What this line has counted.
    pub fn counters(&self) -> LineCounters {
        self.counters
    }

    /// The stages after duplication, for the frame in `filling` or a copy of it.
    fn enter(&mut self, now: Instant, entry: Entry) {
        let Some(index) = self.take_free() else {
            self.counters.queue_full += 1;
            return;
        };
        let Some(slot) = self.slots.get_mut(index) else { return };
        match entry {
            Entry::Frame => slot.swap_frame(&mut self.filling),
            Entry::Copy => {
                let frame = self.filling.frame();
                let Some(room) = slot.fill(frame.len()) else {
                    self.counters.oversize += 1;
                    self.give_back(index);
                    return;
                };
                room.copy_from_slice(frame);
                slot.meta = self.filling.meta;
            }
        }
        let frame_len = slot.frame().len();
        self.corrupt(index);
        let due = self.schedule(now, frame_len);
        if self.chance(self.spec.reorder) && self.hold_back(index, frame_len, due) {
            return;
        }
        self.append(index, due);
        self.overtake(due);
    }

    fn corrupt(&mut self, index: usize) {
        if !self.chance(self.spec.corrupt) {
            return;
        }
        let drawn = self.rng.next_u64();
        let Some(frame) = self.slots.get_mut(index).map(Slot::frame_mut) else { return };
        let bit = scale_down(drawn, frame.len() as u64 * 8);
        // An empty frame has no bit to flip.
        if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| frame.get_mut(at)) {
            *byte ^= 1 << (bit % 8);
            self.counters.corrupted += 1;
        }
    }

    /// When a frame that is sent now comes out, if it is not held back.
    fn schedule(&mut self, now: Instant, frame_len: usize) -> Instant {
        let complete = match self.spec.rate {
            Some(rate) => self.serialiser.serialise(now, frame_len, rate),
            None => now,
        };
        let (delay, jitter) = (self.spec.delay.total_micros(), self.spec.jitter.total_micros());
        let varied = match jitter {
            0 => delay,
            _ => (delay + scale_down(self.rng.next_u64(), 2 * jitter + 1)).saturating_sub(jitter),
        };
        self.last_due = self.last_due.max(complete + Duration::from_micros(varied));
        self.last_due
    }

    /// Keeps a frame aside, to be overtaken. `false`: as many as may be are aside already.
    fn hold_back(&mut self, index: usize, frame_len: usize, due: Instant) -> bool {
        let Some(vacant) = self.held_back.iter_mut().find(|held| held.is_none()) else { return false };
        let overtakers = 1 + scale_down(self.rng.next_u64(), OVERTAKERS_MAX);
        // At a low rate the overtakers need their time on the wire, and may be longer than this frame.
        let serialisation = self.spec.rate.map_or(Duration::ZERO, |rate| {
            let bits = frame_len.max(OVERTAKER_LEN) as u64 * 8;
            Duration::from_micros(overtakers * bits * 1_000_000 / rate)
        });
        let until = due + HOLD_BACK_MAX + serialisation;
        *vacant = Some(HeldBack { slot: index, until, overtakers, overtaken: false });
        true
    }

    /// A frame that is due at `due` was put behind all others: it overtakes what is held back.
    fn overtake(&mut self, due: Instant) {
        for at in 0..HELD_BACK_LEN_MAX {
            let Some(Some(held)) = self.held_back.get_mut(at) else { continue };
            if due > held.until {
                // It comes too late: the frame is released first, by itself.
                continue;
            }
            if !std::mem::replace(&mut held.overtaken, true) {
                self.counters.reordered += 1;
            }
            held.overtakers = held.overtakers.saturating_sub(1);
            if held.overtakers == 0 {
                let slot = held.slot;
                self.held_back[at] = None;
                self.append(slot, due);
            }
        }
    }

    /// Puts a frame behind all others. `due` is not before that of the last.
    fn append(&mut self, index: usize, due: Instant) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.due = due;
            slot.next = None;
        }
        let first = match self.ends {
            Some((first, last)) => {
                if let Some(last) = self.slots.get_mut(last) {
                    last.next = Some(index);
                }
                first
            }
            None => index,
        };
        self.ends = Some((first, index));
    }

    /// The frame that comes out next, and when.
    fn first(&self) -> Option<(Instant, Place)> {
        let in_order = self.ends.and_then(|(slot, _)| {
            let due = self.slots.get(slot)?.due;
            Some((due, Place::InOrder { slot }))
        });
        let held_back = self.held_back.iter().enumerate().filter_map(|(at, held)| {
            let held = held.as_ref()?;
            Some((held.until, Place::HeldBack { at, slot: held.slot }))
        });
        // Of several with the same time the first one wins, so the frames in order go before.
        in_order.into_iter().chain(held_back).min_by_key(|&(due, _)| due)
    }

    fn take_free(&mut self) -> Option<usize> {
        let index = self.free?;
        self.free = self.slots.get_mut(index)?.next.take();
        Some(index)
    }

    fn give_back(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.next = self.free.replace(index);
        }
    }

    fn chance(&mut self, share: Probability) -> bool {
        // Nothing is drawn for what is off: turning one stage on does not need the others' numbers.
        share != Probability::NEVER && share.hit(self.rng.next_u32())
    }
}

/// A frame that waits to be overtaken.
#[derive(Debug)]
struct HeldBack {
    slot: usize,
    /// When it is released at the latest.
    until: Instant,
    /// Frames that are still to be let past.
    overtakers: u64,
    /// Whether one has passed.
    overtaken: bool,
}

/// Where a frame is that comes out next.
#[derive(Debug, Clone, Copy)]
enum Place {
    InOrder { slot: usize },
    HeldBack { at: usize, slot: usize },
}

impl Place {
    fn slot(self) -> usize {
        match self {
            Self::InOrder { slot } | Self::HeldBack { slot, .. } => slot,
        }
    }
}

/// What enters the queue.
#[derive(Debug, Clone, Copy)]
enum Entry {
    /// The frame that was written.
    Frame,
    /// A copy of it.
    Copy,
}

/// A wire that carries one bit after the other.
#[derive(Debug, Default)]
struct Serialiser {
    /// When the wire is free, in nanoseconds: a frame takes less than a microsecond at high rates.
    free_at_ns: i64,
    /// What was cut off the last time, in units of a nanosecond / rate; less than the rate.
    carry: u64,
}

impl Serialiser {
    /// Puts a frame of `len` bytes on the wire; returns when its last bit is there, rounded up.
    fn serialise(&mut self, now: Instant, len: usize, rate: u64) -> Instant {
        let now_ns = now.total_micros().saturating_mul(1000);
        if now_ns >= self.free_at_ns {
            *self = Self { free_at_ns: now_ns, carry: 0 };
        }
        // At most 2^17 bytes: the product is below 2^50, and the sum fits.
        let total = len as u64 * 8 * 1_000_000_000 + self.carry;
        self.carry = total % rate;
        self.free_at_ns = self.free_at_ns.saturating_add((total / rate).cast_signed());
        let rounding = i64::from(self.free_at_ns % 1000 > 0 || self.carry > 0);
        Instant::from_micros(self.free_at_ns / 1000 + rounding)
    }
}

/// Maps a uniformly drawn number to `0..bound` (to 0 if that is empty).
fn scale_down(drawn: u64, bound: u64) -> u64 {
    // The high half of the product, which is below `bound`.
    ((u128::from(drawn) * u128::from(bound)) >> 64) as u64
}

/// How long after it was due a frame is held back at most, apart from the time that a limited rate needs
/// for three full frames.
pub const HOLD_BACK_MAX: Duration = Duration::from_millis(10);
/// Frames held back at once; a frame that would be one more passes unharmed.
pub const HELD_BACK_LEN_MAX: usize = 8;

/// Later frames that are let past one that is held back: one to so many. Three is the number of
/// duplicate ACKs at which a TCP without RACK retransmits, so both sides of it are met.
const OVERTAKERS_MAX: u64 = 3;
/// Expected length of an overtaker in bytes: a full Ethernet frame.
const OVERTAKER_LEN: usize = 1514;

#[cfg(test)]
mod tests;
