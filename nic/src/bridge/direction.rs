//! One direction of a bridge: from the device that receives to the device that sends.
//!
//! ```text
//!   receive ─▶ fits? ─▶ whole ────────────────────────────────▶ send
//!                │        └ impaired: pieces of MTU size ─▶ Line ─▶ send
//!                └ too long ─▶ an answer back, fragments, or nothing
//! ```

use smoltcp::time::{Duration, Instant};

use super::fragment::Fragments;
use super::too_big::{Fate, Packet, frame_len_max};
use crate::Nic;
use crate::impair::{ImpairSpec, Line, LineCounters};
use crate::meta::{ChecksumState, FrameMeta};
use crate::offload::segment::Segments;

/// What one direction of a bridge has counted. A frame that was received is forwarded, counted under the
/// cause for which it was not, or held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectionCounters {
    /// Frames handed to the device that sends. Fragments, copies and the pieces of super-frames that were
    /// split for an impairment count each.
    pub frames: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// Of `frames`, super-frames that were handed on whole.
    pub super_frames: u64,
    /// Frames that are longer than the other side carries (super-frames: whose pieces are).
    pub too_big: u64,
    /// Of `too_big`, those whose sender was told.
    pub too_big_answered: u64,
    /// Of `too_big`, those that were forwarded as fragments.
    pub too_big_fragmented: u64,
    /// Of `too_big`, those that vanished: no IP, nobody who may be told, or told often enough just now.
    pub too_big_unanswered: u64,
    /// Super-frames whose parts cannot be told apart (a tunnel's); dropped.
    pub unsplittable: u64,
    /// Frames that the other side did not take in time: its queue is full, or it is down.
    pub egress_full: u64,
    /// What the impairment has done; its `sent` are the frames that went in.
    pub impaired: LineCounters,
}

impl DirectionCounters {
    /// Name and value of every counter.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let Self { impaired, .. } = *self;
        [
            ("frames", self.frames),
            ("bytes", self.bytes),
            ("super_frames", self.super_frames),
            ("too_big", self.too_big),
            ("too_big_answered", self.too_big_answered),
            ("too_big_fragmented", self.too_big_fragmented),
            ("too_big_unanswered", self.too_big_unanswered),
            ("unsplittable", self.unsplittable),
            ("egress_full", self.egress_full),
            ("impaired_sent", impaired.sent),
            ("impaired_lost", impaired.lost),
            ("impaired_queue_full", impaired.queue_full),
            ("impaired_duplicated", impaired.duplicated),
            ("impaired_corrupted", impaired.corrupted),
            ("impaired_reordered", impaired.reordered),
        ]
        .into_iter()
    }
}

/// What a [`Direction`] is left with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There was nothing more to receive.
    Drained,
    /// The budget is used up: there may be more.
    More,
    /// The other side takes no frame now.
    Blocked,
}

/// The state of one direction.
#[derive(Debug)]
pub(super) struct Direction {
    line: Option<Line<'static>>,
    /// Bytes of the longest packet that the other side carries.
    mtu: usize,
    /// The frame that the other side did not take.
    held: Option<(Vec<u8>, FrameMeta)>,
    /// Since when it takes none.
    blocked_since: Option<Instant>,
    /// A frame back to the sender; empty if there is none.
    answer: Vec<u8>,
    answers: Allowance,
    /// A piece of a super-frame; reused.
    scratch: Vec<u8>,
    counters: DirectionCounters,
}

impl Direction {
    pub(super) fn new(mtu: usize, spec: Option<ImpairSpec>, seed: u64) -> Self {
        Self {
            line: spec.map(|spec| Line::new(spec, seed)),
            mtu,
            held: None,
            blocked_since: None,
            answer: Vec::new(),
            answers: Allowance { left: ANSWERS_BURST, since: Instant::ZERO },
            scratch: Vec::new(),
            counters: DirectionCounters::default(),
        }
    }

    pub(super) fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }

    pub(super) fn counters(&self) -> DirectionCounters {
        let impaired = self.line.as_ref().map_or_else(LineCounters::default, Line::counters);
        DirectionCounters { impaired, ..self.counters }
    }

    /// When there is something to do without a frame that comes.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let next = match self.held {
            Some(_) => Some(now),
            None => self.line.as_ref().and_then(Line::next_release),
        };
        match self.blocked_since {
            Some(_) => next.map(|next| next.max(now + ROOM_CHECK_INTERVAL)),
            None => next,
        }
    }

    /// Moves a burst.
    pub(super) fn run(&mut self, now: Instant, from: &mut impl Nic, to: &mut impl Nic) -> Progress {
        let mut bytes = 0;
        for _ in 0..BURST_FRAMES {
            if !self.release(now, to) {
                return Progress::Blocked;
            }
            if bytes >= BURST_BYTES {
                return Progress::More;
            }
            let received = from.receive_with(now, |frame, meta| {
                self.take(now, frame, meta, to);
                frame.len()
            });
            let Some(len) = received else { return Progress::Drained };
            bytes += len;
            if !self.answer.is_empty() {
                let Self { answer, .. } = self;
                // If there is no room the sender is told by its next packet.
                let _ = from.transmit_with(now, answer.len(), &FrameMeta::default(), |room| {
                    room.copy_from_slice(answer);
                });
                answer.clear();
            }
        }
        Progress::More
    }

    /// Offers what is held and what is due. `false`: it was not taken, and is kept for a moment.
    fn release(&mut self, now: Instant, to: &mut impl Nic) -> bool {
        if let Some((frame, meta)) = self.held.take() {
            let taken = self.offer(now, &frame, &meta, to);
            if taken.is_none() {
                self.held = Some((frame, meta));
                return false;
            }
        }
        let Some(mut line) = self.line.take() else { return true };
        let mut all = true;
        while let Some((frame, _)) = line.peek(now) {
            if self.offer(now, frame, &FrameMeta::default(), to).is_none() {
                all = false;
                break;
            }
            line.release(now, |_, _| ());
        }
        self.line = Some(line);
        all
    }

    /// Hands a frame to the device that sends; one that is refused for too long is dropped. `None`: it is to
    /// be offered again.
    fn offer(&mut self, now: Instant, frame: &[u8], meta: &FrameMeta, to: &mut impl Nic) -> Option<()> {
        let sent = to.transmit_with(now, frame.len(), meta, |room| room.copy_from_slice(frame));
        if sent.is_some() {
            self.blocked_since = None;
            self.count(frame.len(), meta);
            return Some(());
        }
        let since = *self.blocked_since.get_or_insert(now);
        if now < since + HOLD_MAX {
            return None;
        }
        self.counters.egress_full += 1;
        Some(())
    }

    fn count(&mut self, len: usize, meta: &FrameMeta) {
        self.counters.frames += 1;
        self.counters.bytes += len as u64;
        self.counters.super_frames += u64::from(meta.gso.is_some());
    }

    /// A frame was received.
    fn take(&mut self, now: Instant, frame: &[u8], meta: &FrameMeta, to: &mut impl Nic) {
        let meta = as_sent(meta);
        let limit = frame_len_max(frame, self.mtu);
        if frame.len() > limit {
            let pieces = Segments::new(frame, &meta);
            if meta.gso.is_some() && pieces.count() == 1 {
                self.counters.unsplittable += 1;
                return;
            }
            if pieces.frame_len(0) > limit {
                self.counters.too_big += 1;
                self.refuse(now, &pieces, limit, to);
                return;
            }
        }
        if self.line.is_none() {
            self.forward(now, frame.len(), &meta, to, |room| room.copy_from_slice(frame));
            return;
        }
        let pieces = Segments::new(frame, &meta);
        for index in 0..pieces.count() {
            self.impair(now, pieces.frame_len(index), to, |room| pieces.write(index, room));
        }
    }

    /// Pieces that are too long: of `limit` bytes at most the other side carries.
    fn refuse(&mut self, now: Instant, pieces: &Segments<'_>, limit: usize, to: &mut impl Nic) {
        let mut piece = std::mem::take(&mut self.scratch);
        for index in 0..pieces.count() {
            piece.clear();
            piece.resize(pieces.frame_len(index), 0);
            pieces.write(index, &mut piece);
            match Fate::of(&piece) {
                Fate::Fragment(network) => {
                    if !self.fragment(now, &piece, network, limit - network, to) {
                        self.counters.too_big_unanswered += 1;
                        break;
                    }
                    self.counters.too_big_fragmented += u64::from(index == 0);
                }
                Fate::Answer(packet) => {
                    // One answer for all pieces: they are one flow, and none of them passes.
                    self.answer(now, packet, &piece, limit);
                    break;
                }
                Fate::Drop => {
                    self.counters.too_big_unanswered += 1;
                    break;
                }
            }
        }
        self.scratch = piece;
    }

    fn answer(&mut self, now: Instant, packet: Packet, frame: &[u8], limit: usize) {
        let (Packet::V4 { network } | Packet::V6 { network }) = packet;
        if packet.answer(frame, limit - network, &mut self.answer) && self.answers.take(now) {
            self.counters.too_big_answered += 1;
        } else {
            self.answer.clear();
            self.counters.too_big_unanswered += 1;
        }
    }

    /// `false`: it cannot be fragmented.
    fn fragment(
        &mut self,
        now: Instant,
        frame: &[u8],
        network: usize,
        packet_len_max: usize,
        to: &mut impl Nic,
    ) -> bool {
        let Some(fragments) = Fragments::new(frame, network, packet_len_max) else { return false };
        for index in 0..fragments.count() {
            let len = fragments.frame_len(index);
            if self.line.is_some() {
                self.impair(now, len, to, |room| fragments.write(index, room));
            } else {
                self.forward(now, len, &FrameMeta::default(), to, |room| fragments.write(index, room));
            }
        }
        true
    }

    /// Sends a frame; if the other side does not take it, it is held.
    fn forward(
        &mut self,
        now: Instant,
        len: usize,
        meta: &FrameMeta,
        to: &mut impl Nic,
        write: impl Fn(&mut [u8]),
    ) {
        if self.held.is_none() && to.transmit_with(now, len, meta, &write).is_some() {
            self.blocked_since = None;
            self.count(len, meta);
            return;
        }
        let since = *self.blocked_since.get_or_insert(now);
        // One is held; that of the rest of a fragmented packet makes no difference.
        if self.held.is_some() || now >= since + HOLD_MAX {
            self.counters.egress_full += 1;
            return;
        }
        let mut frame = vec![0; len];
        write(&mut frame);
        self.held = Some((frame, *meta));
    }

    /// Sends a frame through the line; what is due at once goes out at once, so that the queue fills by what
    /// the spec says, and not by how many frames came in a burst.
    fn impair(&mut self, now: Instant, len: usize, to: &mut impl Nic, write: impl FnOnce(&mut [u8])) {
        if let Some(line) = &mut self.line {
            line.send(now, len, FrameMeta::default(), write);
        }
        self.release(now, to);
    }
}

/// What is said of a received frame when it is sent. The kernel splits only what has no checksum yet, so a
/// super-frame whose checksum was verified is one whose checksum is to be taken out.
fn as_sent(meta: &FrameMeta) -> FrameMeta {
    let checksum = match meta.checksum {
        ChecksumState::Verified => ChecksumState::Complete,
        other => other,
    };
    FrameMeta { checksum, gso: meta.gso, ..FrameMeta::default() }
}

/// How many answers may be sent: RFC 4443 section 2.4 (f) and RFC 1812 section 4.3.2.8 want a limit.
#[derive(Debug)]
struct Allowance {
    left: u64,
    since: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        if now > self.since {
            let earned = (now - self.since).total_micros() / ANSWER_INTERVAL.total_micros();
            if earned > 0 {
                self.left = (self.left + earned).min(ANSWERS_BURST);
                self.since = now;
            }
        }
        let may = self.left > 0;
        self.left -= u64::from(may);
        may
    }
}

/// Frames and bytes that one direction moves before the other has its turn; the bytes are what the queue of
/// a device for super-frames holds.
const BURST_FRAMES: usize = 64;
const BURST_BYTES: usize = 1 << 20;
/// How soon a device that took no frame is asked again.
const ROOM_CHECK_INTERVAL: Duration = Duration::from_micros(200);
/// How long a frame is held for a device that takes none; then it, and those after it, are dropped. A full
/// queue that moves has room by then.
const HOLD_MAX: Duration = Duration::from_millis(20);
/// Answers that may be sent in a row, and how soon there may be one more: as `net.ipv4.icmp_msgs_burst` and
/// `icmp_msgs_per_sec` of Linux.
const ANSWERS_BURST: u64 = 50;
const ANSWER_INTERVAL: Duration = Duration::from_millis(1);
