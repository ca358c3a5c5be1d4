//! SYN-SENT (RFC 9293 section 3.10.7.3).

use smoltcp::time::{Duration, Instant};

use super::{Disposition, Ending, State};
use crate::observe::DropReason;
use crate::tcp::error::Failure;
use crate::tcp::handshake::{Clock, Negotiated, milliseconds};
use crate::tcp::options::Options;
use crate::tcp::segment::{Flags, Header, Segment};
use crate::tcp::seq::Seq;
use crate::tcp::tcb::{Cx, Tcb, default_mss};

impl Tcb {
    pub(super) fn on_segment_syn_sent(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Disposition {
        let flags = segment.flags;
        let has_ack = flags.has(Flags::ACK);
        //= rfc9293#3.10.7.3
        //# If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset (unless the RST bit is set, if so drop the
        //# segment and return)
        if has_ack && segment.ack != self.iss + 1 {
            if flags.has(Flags::RST) {
                return Disposition::Dropped(DropReason::TcpBadAck);
            }
            self.hasten_handshake(cx);
            return Disposition::Refused(DropReason::TcpBadAck, self.reset_at(segment.ack));
        }
        if flags.has(Flags::RST) {
            //= rfc9293#3.10.7.3
            //# If the ACK was acceptable, then signal to the user "error: connection reset", drop the segment,
            //# enter CLOSED state, delete TCB, and return.  Otherwise (no ACK), drop the segment and return.
            return match has_ack {
                true => Disposition::Ended(Ending::Failed(Failure::Refused)),
                false => Disposition::Dropped(DropReason::TcpBadReset),
            };
        }
        if !flags.has(Flags::SYN) {
            return Disposition::Dropped(DropReason::TcpUnexpected);
        }
        let mut agreed = self.agree(cx, segment);
        if !has_ack {
            self.receive_first(cx.now, segment, &mut agreed);
            return Disposition::Taken;
        }
        self.become_established(cx, segment, agreed);
        Disposition::Taken
    }

    /// What both SYNs have settled.
    fn agree(&self, cx: &Cx<'_>, segment: &Segment<'_>) -> Negotiated {
        let options = &segment.options;
        let opening = self.opening.as_deref();
        let sent = opening.map_or(1, |opening| opening.sent);
        let elapsed = opening.and_then(|opening| opening.sent_at).map(|at| cx.now - at.min(cx.now));
        let ece = segment.flags.0 & (Flags::ECE | Flags::CWR).0;
        let is_answer = segment.flags.has(Flags::ACK);
        // A SYN-ACK agrees with one bit, a SYN asks with both (RFC 3168 section 6.1.1).
        let agrees = if is_answer { ece == Flags::ECE.0 } else { ece == (Flags::ECE | Flags::CWR).0 };
        Negotiated {
            iss: self.iss,
            irs: segment.seq,
            peer_mss: options.mss.unwrap_or_else(|| default_mss(&self.flow)),
            window_scale: options.window_scale.zip(self.offered_scale()),
            sack: self.options.sack && options.sack_permitted,
            timestamps: self
                .clock
                .zip(options.timestamps)
                .map(|(clock, theirs)| Clock { offset: clock.offset, recent: theirs.val }),
            ecn: self.options.ecn && agrees,
            // Not scaled: it is on a SYN.
            snd_wnd: segment.window.into(),
            snd_wl: (segment.seq, if is_answer { segment.ack } else { self.iss }),
            rcv_wnd: self.options.recv_buffer.min(u16::MAX.into()),
            rtt: self.handshake_rtt(cx, segment).or(elapsed.filter(|_| sent == 1)),
            is_lossy: sent > 1,
        }
    }

    /// With timestamps, it is known which of several SYNs was answered.
    fn handshake_rtt(&self, cx: &Cx<'_>, segment: &Segment<'_>) -> Option<Duration> {
        let (clock, theirs) = self.clock.zip(segment.options.timestamps)?;
        let sent = self.opening.as_deref().map_or(1, |opening| opening.sent);
        if sent == 1 || !segment.flags.has(Flags::ACK) {
            return None;
        }
        let age = milliseconds(cx.now).wrapping_add(clock.offset).wrapping_sub(theirs.ecr);
        (age < u32::MAX / 2).then(|| Duration::from_millis(age.max(1).into()))
    }

    /// A SYN without ACK: both open at the same time.
    //= rfc9293#3.10.7.3
    //# Otherwise, enter SYN-RECEIVED, form a SYN,ACK segment
    //
    // Data and FIN on such a SYN are left to be sent again: they are not acknowledged.
    fn receive_first(&mut self, now: Instant, segment: &Segment<'_>, agreed: &mut Negotiated) {
        agreed.rtt = None;
        self.state = State::SynReceived;
        self.irs = segment.seq;
        self.rcv_nxt = segment.seq + 1;
        self.rcv_adv = self.rcv_nxt + agreed.rcv_wnd;
        self.last_ack_sent = self.rcv_nxt;
        // Both SYNs have told their options: segments behind them follow these.
        (self.snd_scale, self.rcv_scale) = agreed.window_scale.unwrap_or_default();
        (self.has_sack, self.clock, self.recent_at) = (agreed.sack, agreed.timestamps, now);
        if let Some(opening) = &mut self.opening {
            opening.offered = Some(*agreed);
            opening.is_due = true;
        }
    }

    pub(super) fn become_established(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>, agreed: Negotiated) {
        self.state = State::Established;
        self.establish(&agreed, cx.now);
        //= rfc9293#3.10.7.3
        //# form an ACK segment
        self.ack.force();
        if !segment.payload.is_empty() || segment.flags.has(Flags::FIN) {
            // Data on a SYN is legal, and behind the number of the SYN.
            let rest = Segment { seq: segment.seq + 1, ..*segment };
            self.receive_text(cx, &rest);
        }
    }

    /// A reset at a number that the peer has told.
    pub(crate) fn reset_at(&self, seq: Seq) -> Header {
        Header {
            src_port: self.local().port(),
            dst_port: self.remote().port(),
            seq,
            ack: Seq(0),
            flags: Flags::RST,
            window: 0,
            options: Options::default(),
        }
    }

    /// A reset where we are.
    pub(crate) fn reset_now(&self) -> Header {
        let mut header = self.reset_at(self.sender.snd_nxt());
        if self.state != State::SynSent {
            header.flags |= Flags::ACK;
            header.ack = self.rcv_nxt;
        }
        header
    }
}
