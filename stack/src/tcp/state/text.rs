//! The seventh and eighth step: data, and FIN.

use super::{Disposition, State};
use crate::tcp::buffer::Pressure;
use crate::tcp::error::Failure;
use crate::tcp::segment::{Flags, Segment};
use crate::tcp::seq::Seq;
use crate::tcp::tcb::{Cx, Tcb};

impl Tcb {
    /// `Some`: the connection is over.
    pub(super) fn on_text(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Option<Disposition> {
        if segment.payload.is_empty() && !segment.flags.has(Flags::FIN) {
            return None;
        }
        //= rfc9293#3.10.7.4
        //# This should not occur since a FIN has been received from the remote side.  Ignore the segment text.
        if !self.state.receives() {
            // The peer has finished before; what it says again is acknowledged again.
            self.ack.force();
            return None;
        }
        //= rfc1122#4.2.2.13
        //# If such a host issues a CLOSE call while received data is still pending in TCP, or if new data is
        //# received after CLOSE is called, its TCP SHOULD send a RST to show that data was lost.
        let is_new = (segment.seq + segment.payload.len() as u32).is_after(self.rcv_nxt);
        if self.is_orphan && !segment.payload.is_empty() && is_new {
            return Some(Disposition::Reset(Failure::Aborted, self.reset_now()));
        }
        self.receive_text(cx, segment);
        None
    }

    /// Takes data, and notes a FIN.
    pub(super) fn receive_text(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) {
        let (seq, payload) = (segment.seq, segment.payload);
        if segment.flags.has(Flags::FIN) {
            self.note_fin(seq + payload.len() as u32);
        }
        if !payload.is_empty() {
            self.receive_data(cx, seq, payload, segment);
        }
        self.take_fin(cx);
    }

    fn receive_data(&mut self, cx: &mut Cx<'_>, seq: Seq, payload: &[u8], segment: &Segment<'_>) {
        // No more than was offered, and nothing behind the peer's FIN.
        let edge = self.fin_received.map_or(self.rcv_adv, |fin| fin.min(self.rcv_adv));
        let room = if edge.is_after(seq) { edge.since(seq) as usize } else { 0 };
        let is_cut = payload.len() > room;
        let data = payload.get(..payload.len().min(room)).unwrap_or_default();
        if cx.pool.pressure() == Pressure::Severe && seq.is_after(self.rcv_nxt) {
            cx.counters.early_dropped_bytes += data.len() as u64;
            self.ack.force();
            return;
        }
        let had_early = self.recv.early() > 0;
        let inserted = self.recv.insert(cx.pool, self.rcv_nxt, seq, data);
        let window = self.rcv_adv.since(self.rcv_nxt);
        self.rcv_nxt += inserted.advanced;
        if self.has_peer_finished() {
            // Data had come from behind the FIN: where that was, no FIN can have been.
            self.fin_received = None;
        }
        self.counters.bytes_received += u64::from(inserted.advanced);
        cx.counters.early_dropped_bytes += u64::from(inserted.refused);
        if let Some((start, end)) = inserted.duplicate {
            self.counters.duplicate_bytes += u64::from(end.since(start));
            if self.has_sack {
                self.dsack = Some((start, end));
            }
        }
        if inserted.advanced > 0 {
            self.news.readable = true;
            let rtt = None;
            self.tuning.on_received(cx.now, self.rcv_nxt, window, rtt);
        }
        let full = self.segment_room_of(self.path_mtu) as usize;
        let segment_bytes = segment.segment_bytes.map_or(payload.len().min(full), |size| size.get().into());
        let is_full = !segment.flags.has_any(Flags::PSH | Flags::FIN);
        self.acknowledge(cx, &inserted, is_cut || had_early, (segment_bytes as u16, is_full));
    }

    //= rfc5681#4.2
    //# Out-of-order data segments SHOULD be acknowledged immediately, in
    //# order to accelerate loss recovery.
    fn acknowledge(
        &mut self,
        cx: &Cx<'_>,
        inserted: &crate::tcp::buffer::Inserted,
        is_due: bool,
        (segment_bytes, is_full): (u16, bool),
    ) {
        if inserted.is_early {
            self.counters.early_segments = self.counters.early_segments.wrapping_add(1);
        }
        let is_out_of_order = inserted.is_early || inserted.duplicate.is_some() || inserted.refused > 0;
        if is_out_of_order && !self.has_sack {
            // A peer without SACK counts ACKs: one for each segment that is out of order.
            self.ack.repeat();
        } else if is_out_of_order || inserted.fills_hole || is_due {
            self.ack.force();
        } else {
            self.ack.on_data(cx.now, inserted.advanced, segment_bytes, is_full, self.options.delayed_ack);
        }
        if is_out_of_order {
            self.ack.quicken();
        }
    }

    /// A FIN may come before data that is before it. It is believed once.
    fn note_fin(&mut self, fin: Seq) {
        let is_possible = fin.is_at_least(self.rcv_nxt) && fin.is_at_most(self.rcv_adv);
        if self.fin_received.is_none() && is_possible {
            self.fin_received = Some(fin);
        } else {
            self.ack.force();
        }
    }

    /// All data before the FIN is there: the FIN is next.
    fn take_fin(&mut self, cx: &mut Cx<'_>) {
        if self.fin_received != Some(self.rcv_nxt) || !self.state.receives() {
            if self.fin_received.is_some() {
                self.ack.force();
            }
            return;
        }
        //= rfc9293#3.10.7.4
        //# If the FIN bit is set, signal the user "connection closing" and return any pending RECEIVEs with same
        //# message, advance RCV.NXT over the FIN, and send an acknowledgment for the FIN.
        self.rcv_nxt += 1;
        // Nothing comes behind it, whatever a peer has sent.
        self.recv.drop_early(cx.pool);
        self.ack.force();
        self.news.readable = true;
        self.state = match self.state {
            State::Established => State::CloseWait,
            State::FinWait1 if !self.is_fin_acked() => State::Closing,
            other => other,
        };
    }
}
