//! The fifth step: what a segment acknowledges, and the window that it offers.

use smoltcp::time::{Duration, Instant};

use super::{Disposition, State};
use crate::observe::DropReason;
use crate::tcp::handshake::milliseconds;
use crate::tcp::plpmtud::Found;
use crate::tcp::segment::{Flags, Segment};
use crate::tcp::sender::{Ack, LimitedBy};
use crate::tcp::tcb::{Cx, Tcb};

impl Tcb {
    /// `Some`: nothing more is done with the segment.
    pub(super) fn on_ack(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Option<Disposition> {
        let (una, nxt) = (self.sender.snd_una(), self.sender.snd_nxt());
        //= rfc5961#5.2
        //# The ACK value is considered acceptable only if
        //# it is in the range of ((SND.UNA - MAX.SND.WND) <= SEG.ACK <=
        //# SND.NXT).  All incoming segments whose ACK value doesn't satisfy the
        //# above condition MUST be discarded and an ACK sent back.
        if segment.ack.is_after(nxt) || segment.ack.is_before(una - self.max_snd_wnd.max(1)) {
            cx.counters.bad_acks += 1;
            return Some(Disposition::Challenged(DropReason::TcpBadAck));
        }
        if segment.ack.is_before(una) {
            // An old one, that others have overtaken. Its data is as good as any.
            return None;
        }
        let window = u32::from(segment.window) << self.snd_scale;
        let window_before = self.snd_wnd;
        self.update_window(segment, window);
        let ack = Ack {
            ack: segment.ack,
            sack: if self.has_sack { segment.options.sack.as_slice() } else { &[] },
            may_be_duplicate: segment.is_empty() && window == window_before,
            count: 1,
            ts_ecr: segment.options.timestamps.map(|timestamps| timestamps.ecr),
            ts_rtt: self.ts_rtt(cx, segment),
            ece: self.has_ecn && segment.flags.has(Flags::ECE),
        };
        let outcome = self.sender.on_ack(cx.now, &ack);
        if self.has_ecn && self.sender.take_cwr() {
            self.owes_cwr = true;
        }
        if outcome.lost > 0 {
            self.note_lost_probe(cx);
        }
        if outcome.acked > 0 {
            self.on_acked(cx, outcome.acked, segment);
        }
        self.note_application_limit(cx.now);
        None
    }

    /// Tells the sender that there is nothing more to send: one that waits for new data to find out whether a timeout
    /// was needless (F-RTO) waits no longer.
    pub(crate) fn note_application_limit(&mut self, now: Instant) {
        if self.unsent() == 0 {
            self.sender.set_limited_by(now, LimitedBy::Application);
        }
    }

    /// A probe of the path MTU that is lost says that the path takes less.
    /// The sender has taken it for congestion already, which RFC 4821 section 7.6.2 would not: a search makes a
    /// few probes in ten minutes.
    pub(crate) fn note_lost_probe(&mut self, cx: &Cx<'_>) {
        if let Some((start, _)) = self.sender.next_lost() {
            self.plpmtud.on_lost(cx.now, start);
        }
    }

    fn on_acked(&mut self, cx: &mut Cx<'_>, acked: u32, segment: &Segment<'_>) {
        let is_fin_acked = self.is_fin_acked();
        let data = acked.min(self.send.len() as u32);
        self.send.consume(cx.pool, data as usize);
        self.counters.bytes_acked += u64::from(data);
        self.progress_at = cx.now;
        self.soft_error = None;
        // The probe was for what is acknowledged now.
        self.probe = None;
        if let Found::Mtu { lost, .. } = self.plpmtud.on_ack(cx.now, segment.ack) {
            self.apply_mss(cx.now, lost);
        }
        self.grow_send_limit(cx.pool);
        self.tell_room();
        //= rfc9293#3.10.7.4
        //# if the FIN segment is now acknowledged, then enter FIN-WAIT-2 and continue processing in that state.
        if is_fin_acked && self.state == State::FinWait1 {
            self.state = State::FinWait2;
            self.news.changed = true;
            self.arm_orphan(cx);
        }
    }

    //= rfc9293#3.10.7.4
    //# If (SND.WL1 < SEG.SEQ or (SND.WL1 = SEG.SEQ and SND.WL2 =< SEG.ACK)), set SND.WND <- SEG.WND, set
    //# SND.WL1 <- SEG.SEQ, and set SND.WL2 <- SEG.ACK.
    fn update_window(&mut self, segment: &Segment<'_>, window: u32) {
        // What acknowledges something new was said later, whatever its number is: a hole is filled by old numbers with
        // a window of now. The old one, counted from the new SND.UNA, would reach further than the peer ever allowed.
        let is_newer = segment.ack.is_after(self.sender.snd_una())
            || self.snd_wl1.is_before(segment.seq)
            || (self.snd_wl1 == segment.seq && self.snd_wl2.is_at_most(segment.ack));
        if !is_newer {
            return;
        }
        if window > self.snd_wnd {
            self.persist_backoff = 0;
        }
        self.snd_wnd = window;
        self.max_snd_wnd = self.max_snd_wnd.max(window);
        (self.snd_wl1, self.snd_wl2) = (segment.seq, segment.ack);
    }

    /// The round-trip time that TSecr tells (RFC 7323 section 4.1), if it is of ours.
    fn ts_rtt(&self, cx: &Cx<'_>, segment: &Segment<'_>) -> Option<Duration> {
        let (clock, theirs) = self.clock.zip(segment.options.timestamps)?;
        let age = milliseconds(cx.now).wrapping_add(clock.offset).wrapping_sub(theirs.ecr);
        // The clock counts milliseconds: less than one is not measured, and would be taken for the least that there is.
        (age < RTT_MAX_MILLIS).then(|| Duration::from_millis(age.max(1).into()))
    }
}

/// A round trip that took longer is a clock that somebody has made up.
const RTT_MAX_MILLIS: u32 = 10 * 60 * 1_000;
