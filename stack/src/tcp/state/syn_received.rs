//! SYN-RECEIVED after SYNs that have met on the way (RFC 9293 section 3.5, figure 7).

use super::Disposition;
use crate::observe::DropReason;
use crate::tcp::segment::{Flags, Segment};
use crate::tcp::tcb::{Cx, Tcb};

impl Tcb {
    /// The fifth step, for the state before the connection is synchronized. The steps before are those of other
    /// states.
    pub(super) fn on_ack_syn_received(
        &mut self,
        cx: &mut Cx<'_>,
        segment: &Segment<'_>,
    ) -> Option<Disposition> {
        //= rfc9293#3.10.7.4
        //# If the segment acknowledgment is not acceptable, form a reset segment
        if segment.ack != self.iss + 1 {
            return Some(Disposition::Refused(DropReason::TcpBadAck, self.reset_at(segment.ack)));
        }
        //= rfc9293#3.10.7.4
        //# If SND.UNA < SEG.ACK =< SND.NXT, then enter ESTABLISHED state and continue processing
        let offered = self.opening.as_deref().and_then(|opening| opening.offered)?;
        let mut agreed = offered;
        // A SYN-ACK's window is never scaled, an ACK's is.
        let is_syn = segment.flags.has(Flags::SYN);
        let scale = agreed.window_scale.map_or(0, |(theirs, _)| theirs);
        agreed.snd_wnd = u32::from(segment.window) << if is_syn { 0 } else { scale };
        agreed.snd_wl = (segment.seq, segment.ack);
        self.establish(&agreed, cx.now);
        if is_syn {
            self.ack.force();
        }
        None
    }
}
