//! What routers and hosts say of our segments (RFC 5461, RFC 5927).

use std::net::SocketAddr;

use super::Target;
use crate::demux::FlowKey;
use crate::icmp::ErrorKind;
use crate::shard::Shard;
use crate::tcp::error::Failure;
use crate::tcp::seq::Seq;

impl Shard {
    /// An error about a segment of ours. `false`: we cannot have sent it.
    //= rfc5927#4.1
    //# the TCP sequence number contained in the payload of the ICMP error message is within the range
    //# SND.UNA =< SEG.SEQ < SND.NXT.
    pub(crate) fn handle_segment_error(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        seq: Option<u32>,
        kind: ErrorKind,
    ) -> bool {
        let flow = FlowKey::new(local, remote);
        let target = flow.and_then(|flow| self.tcp.flows.get(&flow)).map(super::Flow::target);
        // Half-open connections and TIME-WAIT have nothing that an error could change: their timers do.
        let Some(Target::Connection(index)) = target else { return false };
        let Some(connection) = self.tcp.connections.get_mut(index as usize) else { return false };
        let tcb = &mut connection.tcb;
        let Some(seq) = seq.map(Seq) else { return false };
        let is_opening = tcb.opening.is_some();
        let is_ours = match is_opening {
            true => seq == tcb.iss,
            false => seq.is_at_least(tcb.sender.snd_una()) && seq.is_before(tcb.sender.snd_nxt()),
        };
        if !is_ours {
            return false;
        }
        let Some(failure) = failure_of(kind) else {
            // The path takes less: the table of paths hears of it, and the connection asks that before it sends.
            let waits = tcb.sender.snd_una() != tcb.sender.snd_nxt();
            if waits {
                self.requeue_for_mtu(index);
            }
            return true;
        };
        //= rfc1122#4.2.3.9
        //# Since these Unreachable messages indicate soft error
        //# conditions, TCP MUST NOT abort the connection, and it
        //# SHOULD make the information available to the
        //# application.
        tcb.soft_error = Some(failure);
        //= rfc9293#3.9.2.2
        //= type=exception
        //= reason=Anybody can forge them; the retransmission timer ends a connection that is really cut off.
        //# These are hard error conditions, so TCP implementations SHOULD abort the connection (SHLD-26).
        // RFC 5461 section 4.1: before there is a connection, any of them ends the attempt, so that another address
        // can be tried; afterwards none does, for anybody can forge them (RFC 5927 section 5.2).
        if is_opening {
            self.fail_connection(index, failure);
        } else {
            tcb.news.changed = true;
            self.touch_connection(index);
        }
        true
    }

    /// What is under way may be too long now: it is looked at when the turn sends.
    fn requeue_for_mtu(&mut self, index: u32) {
        let Some(connection) = self.tcp.connections.get_mut(index as usize) else { return };
        if !std::mem::replace(&mut connection.is_queued, true) {
            self.tcp.ready.push_back(index);
        }
    }
}

/// What an application is told. `None`: it is about the length.
fn failure_of(kind: ErrorKind) -> Option<Failure> {
    Some(match kind {
        ErrorKind::TooBig { .. } => return None,
        ErrorKind::PortUnreachable => Failure::Refused,
        ErrorKind::ProtocolUnreachable => Failure::ProtocolUnreachable,
        ErrorKind::Prohibited => Failure::Prohibited,
        ErrorKind::NetUnreachable | ErrorKind::NetUnknown => Failure::NetworkUnreachable,
        _ => Failure::HostUnreachable,
    })
}
