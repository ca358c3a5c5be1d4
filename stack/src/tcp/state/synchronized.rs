//! Segments of a connection that knows the peer's number (RFC 9293 section 3.10.7.4), steps first to fourth.

use super::{Disposition, Ending, State};
use crate::observe::DropReason;
use crate::tcp::error::Failure;
use crate::tcp::segment::{Ecn, Flags, Segment};
use crate::tcp::tcb::{Cx, Tcb};

impl Tcb {
    /// A segment has come.
    pub(crate) fn on_segment(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Disposition {
        self.counters.segments_in = self.counters.segments_in.wrapping_add(1);
        match self.state {
            State::SynSent => self.on_segment_syn_sent(cx, segment),
            State::Closed => Disposition::Dropped(DropReason::TcpNoSocket),
            _ => self.on_segment_synchronized(cx, segment),
        }
    }

    fn on_segment_synchronized(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Disposition {
        let flags = segment.flags;
        if let Some(disposition) = self.check_timestamp(cx, segment) {
            return disposition;
        }
        // First.
        if !self.is_acceptable(segment) {
            return self.answer_unacceptable(segment);
        }
        // Second.
        if flags.has(Flags::RST) {
            return self.on_reset(segment);
        }
        // Fourth.
        if flags.has(Flags::SYN) {
            if self.state == State::SynReceived {
                return self.on_syn_in_syn_received(cx, segment);
            }
            //= rfc5961#4.2
            //# If the SYN bit is set, irrespective of the sequence number, TCP
            //# MUST send an ACK (also referred to as challenge ACK) to the remote
            //# peer:
            return Disposition::Challenged(DropReason::TcpSyn);
        }
        //= rfc9293#3.10.7.4
        //# if the ACK bit is off, drop the segment and return
        if !flags.has(Flags::ACK) {
            return Disposition::Dropped(DropReason::TcpUnexpected);
        }
        if self.state == State::SynReceived
            && let Some(disposition) = self.on_ack_syn_received(cx, segment)
        {
            return disposition;
        }
        self.on_valid(cx, segment)
    }

    fn on_valid(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Disposition {
        // Fifth.
        if let Some(disposition) = self.on_ack(cx, segment) {
            return disposition;
        }
        self.note_timestamp(cx, segment);
        self.note_ecn(segment);
        self.heard_at = cx.now;
        self.probes_unanswered = 0;
        self.restart_keepalive(cx.now);
        // Sixth: the urgent pointer. Its data is data like other data, in order.
        //= rfc9293#3.8.5
        //= type=exception
        //= reason=Applications that want urgent data are not served; RFC 6093 advises against it, and middleboxes clear the pointer.
        //# TCP implementations MUST still include support for the urgent mechanism (MUST-30).
        // Seventh and eighth.
        if let Some(disposition) = self.on_text(cx, segment) {
            return disposition;
        }
        self.update_persist(cx.now);
        match self.state {
            State::Closing | State::FinWait1 | State::FinWait2
                if self.is_fin_acked() && self.has_peer_finished() =>
            {
                Disposition::Ended(Ending::TimeWait)
            }
            //= rfc9293#3.10.7.4
            //# If our FIN is now acknowledged, delete the TCB, enter the CLOSED state, and return.
            State::LastAck if self.is_fin_acked() => Disposition::Ended(Ending::Closed),
            _ => Disposition::Taken,
        }
    }

    /// The first check: some of it is in the window, or it carries nothing and is not behind it.
    ///
    /// Two things are taken that the table of the RFC does not take, as Linux does: a segment without data at the
    /// right edge (the ACK of a peer that has filled our window while something before is missing), and one that is
    /// older than RCV.NXT but not than what we have acknowledged (it was overtaken).
    //= rfc9293#3.10.7.4
    //# If the RCV.WND is zero, no segments will be acceptable, but special allowance should be made to accept valid
    //# ACKs, URGs, and RSTs.
    fn is_acceptable(&self, segment: &Segment<'_>) -> bool {
        segment.seq.is_at_most(self.rcv_adv)
            && segment.end().is_at_least(self.last_ack_sent.min(self.rcv_nxt))
    }

    //= rfc9293#3.10.7.4
    //# If an incoming segment is not acceptable, an acknowledgment should be sent in reply (unless the RST bit is
    //# set, if so drop the segment and return):
    fn answer_unacceptable(&mut self, segment: &Segment<'_>) -> Disposition {
        if segment.flags.has(Flags::RST) {
            return Disposition::Dropped(DropReason::TcpBadReset);
        }
        if segment.flags.has(Flags::SYN) {
            // RFC 5961 section 4.2: irrespective of the sequence number.
            return Disposition::Challenged(DropReason::TcpSyn);
        }
        let is_old = segment.end().is_at_most(self.rcv_nxt);
        if is_old && !segment.payload.is_empty() {
            self.counters.duplicate_bytes += segment.payload.len() as u64;
            if self.has_sack {
                self.dsack = Some((segment.seq, segment.seq + segment.payload.len() as u32));
            }
            // A repetition: our ACK was lost. That cannot be a loop of ACKs.
            self.ack.force();
            return Disposition::Dropped(DropReason::TcpOutOfWindow);
        }
        if !segment.is_empty() {
            self.ack.force();
            return Disposition::Dropped(DropReason::TcpOutOfWindow);
        }
        Disposition::Answered(DropReason::TcpOutOfWindow)
    }

    //= rfc5961#3.2
    //# 1) If the RST bit is set and the sequence number is outside the
    //#    current receive window, silently drop the segment.
    //# 2) If the RST bit is set and the sequence number exactly matches the
    //#    next expected sequence number (RCV.NXT), then TCP MUST reset the
    //#    connection.
    //# 3) If the RST bit is set and the sequence number does not exactly
    //#    match the next expected sequence value, yet is within the current
    //#    receive window (RCV.NXT < SEG.SEQ < RCV.NXT+RCV.WND), TCP MUST send
    //#    an acknowledgment (challenge ACK):
    fn on_reset(&mut self, segment: &Segment<'_>) -> Disposition {
        if segment.seq == self.rcv_nxt {
            let failure = if self.state == State::SynReceived { Failure::Refused } else { Failure::Reset };
            return match self.state {
                //= rfc9293#3.10.7.4
                //# If the RST bit is set, then enter the CLOSED state, delete the TCB, and return.
                // Both had finished, and all data was received: nothing was lost.
                State::Closing | State::LastAck if self.send.is_empty() => Disposition::Ended(Ending::Closed),
                _ => Disposition::Ended(Ending::Failed(failure)),
            };
        }
        let is_within = segment.seq.is_after(self.rcv_nxt) && segment.seq.is_before(self.rcv_adv);
        if is_within {
            Disposition::Challenged(DropReason::TcpBadReset)
        } else {
            Disposition::Dropped(DropReason::TcpBadReset)
        }
    }

    /// The peer's SYN again, or its SYN-ACK: both have sent a SYN, and each gets the other's.
    fn on_syn_in_syn_received(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Disposition {
        if segment.seq != self.irs {
            return Disposition::Challenged(DropReason::TcpSyn);
        }
        if !segment.flags.has(Flags::ACK) {
            if let Some(opening) = &mut self.opening {
                opening.is_due = true;
            }
            return Disposition::Taken;
        }
        self.on_ack_syn_received(cx, segment).unwrap_or(Disposition::Taken)
    }

    /// PAWS (RFC 7323 section 5).
    fn check_timestamp(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Option<Disposition> {
        let clock = self.clock?;
        if segment.flags.has_any(Flags::RST | Flags::SYN) {
            return None;
        }
        let Some(timestamps) = segment.options.timestamps else {
            //= rfc7323#3.2
            //# If a non-<RST> segment is received without a TSopt, a
            //# TCP SHOULD silently drop the segment.
            return Some(Disposition::Dropped(DropReason::TcpNoTimestamp));
        };
        //= rfc7323#5.3
        //# If there is a Timestamps option in the arriving segment,
        //# SEG.TSval < TS.Recent, TS.Recent is valid (see later
        //# discussion), and if the RST bit is not set, then treat the
        //# arriving segment as not acceptable:
        let is_old = (timestamps.val.wrapping_sub(clock.recent) as i32) < 0;
        if !is_old || cx.now > self.recent_at + RECENT_VALID {
            return None;
        }
        cx.counters.paws_rejected += 1;
        // An ACK without data that was overtaken is no news: nobody is told (Linux: tcp_disordered_ack).
        let is_overtaken_ack = segment.is_empty() && segment.seq == self.rcv_nxt;
        if is_overtaken_ack {
            return Some(Disposition::Dropped(DropReason::TcpPaws));
        }
        if segment.payload.is_empty() {
            return Some(Disposition::Answered(DropReason::TcpPaws));
        }
        if self.has_sack && segment.end().is_at_most(self.rcv_nxt) {
            self.dsack = Some((segment.seq, segment.seq + segment.payload.len() as u32));
        }
        self.ack.force();
        Some(Disposition::Dropped(DropReason::TcpPaws))
    }

    //= rfc7323#4.3
    //# SEG.TSval >= TS.Recent and SEG.SEQ <= Last.ACK.sent
    //# then SEG.TSval is copied to TS.Recent; otherwise, it is ignored.
    fn note_timestamp(&mut self, cx: &Cx<'_>, segment: &Segment<'_>) {
        let (Some(clock), Some(timestamps)) = (&mut self.clock, segment.options.timestamps) else { return };
        if segment.seq.is_at_most(self.last_ack_sent) {
            clock.recent = timestamps.val;
            self.recent_at = cx.now;
        }
    }

    /// RFC 3168 section 6.1.3.
    fn note_ecn(&mut self, segment: &Segment<'_>) {
        if !self.has_ecn {
            return;
        }
        if segment.flags.has(Flags::CWR) {
            self.echoes_ce = false;
        }
        if segment.ecn == Ecn::CongestionExperienced && !segment.payload.is_empty() {
            self.echoes_ce = true;
            self.ack.force();
        }
    }
}

/// RFC 7323 section 5.5: after 24 days a clock of milliseconds may have wrapped.
const RECENT_VALID: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(24 * 86_400);
