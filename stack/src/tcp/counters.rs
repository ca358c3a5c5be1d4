//! What TCP has counted, all connections together.

use serde::Serialize;

/// Counters of TCP of a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TcpCounters {
    /// Segments that came.
    pub segments_in: u64,
    /// Frames with segments that went; one may have many.
    pub frames_out: u64,
    /// Connections that began here.
    pub active_opens: u64,
    /// Connections that a listener got.
    pub passive_opens: u64,
    /// Connections that were accepted by an application.
    pub accepted: u64,
    /// Attempts of ours that failed.
    pub connects_failed: u64,
    /// Connections that were ended by a reset of the peer.
    pub resets_received: u64,
    /// Resets that we have sent.
    pub resets_sent: u64,
    /// Connections that were given up for want of an answer.
    pub timed_out: u64,
    /// Frames that were sent again.
    pub retransmits: u64,
    /// Retransmission timers that expired.
    pub timeouts: u64,
    /// Loss probes.
    pub loss_probes: u64,
    /// Fast recoveries.
    pub recoveries: u64,
    /// Recoveries that were undone.
    pub undone: u64,
    /// SYNs that found a full listener.
    pub listen_overflows: u64,
    /// Cookies that were sent.
    pub cookies_sent: u64,
    /// Cookies that were answered.
    pub cookies_accepted: u64,
    /// Acknowledgments that answered no cookie of ours.
    pub cookies_failed: u64,
    /// Challenge ACKs that were sent.
    pub challenge_acks: u64,
    /// Challenge ACKs and resets that were held back.
    pub throttled: u64,
    /// Segments that were too old by their timestamp (PAWS).
    pub paws_rejected: u64,
    /// Segments whose acknowledgment was of no use.
    pub bad_acks: u64,
    /// Bytes that came early and were thrown away for want of memory.
    pub early_dropped_bytes: u64,
    /// Records in TIME-WAIT that were made.
    pub time_waits: u64,
    /// Of these, made way for a new connection.
    pub time_waits_reused: u64,
    /// Windows of peers that stayed shut and were probed.
    pub window_probes: u64,
    /// Keepalive probes.
    pub keepalives: u64,
    /// Black holes found by probing the path MTU.
    pub black_holes: u64,
}

impl TcpCounters {
    /// Adds those of another shard.
    pub fn add(&mut self, other: &Self) {
        let Self {
            segments_in,
            frames_out,
            active_opens,
            passive_opens,
            accepted,
            connects_failed,
            resets_received,
            resets_sent,
            timed_out,
            retransmits,
            timeouts,
            loss_probes,
            recoveries,
            undone,
            listen_overflows,
            cookies_sent,
            cookies_accepted,
            cookies_failed,
            challenge_acks,
            throttled,
            paws_rejected,
            bad_acks,
            early_dropped_bytes,
            time_waits,
            time_waits_reused,
            window_probes,
            keepalives,
            black_holes,
        } = *other;
        let sums = [
            (&mut self.segments_in, segments_in),
            (&mut self.frames_out, frames_out),
            (&mut self.active_opens, active_opens),
            (&mut self.passive_opens, passive_opens),
            (&mut self.accepted, accepted),
            (&mut self.connects_failed, connects_failed),
            (&mut self.resets_received, resets_received),
            (&mut self.resets_sent, resets_sent),
            (&mut self.timed_out, timed_out),
            (&mut self.retransmits, retransmits),
            (&mut self.timeouts, timeouts),
            (&mut self.loss_probes, loss_probes),
            (&mut self.recoveries, recoveries),
            (&mut self.undone, undone),
            (&mut self.listen_overflows, listen_overflows),
            (&mut self.cookies_sent, cookies_sent),
            (&mut self.cookies_accepted, cookies_accepted),
            (&mut self.cookies_failed, cookies_failed),
            (&mut self.challenge_acks, challenge_acks),
            (&mut self.throttled, throttled),
            (&mut self.paws_rejected, paws_rejected),
            (&mut self.bad_acks, bad_acks),
            (&mut self.early_dropped_bytes, early_dropped_bytes),
            (&mut self.time_waits, time_waits),
            (&mut self.time_waits_reused, time_waits_reused),
            (&mut self.window_probes, window_probes),
            (&mut self.keepalives, keepalives),
            (&mut self.black_holes, black_holes),
        ];
        sums.into_iter().for_each(|(sum, more)| *sum += more);
    }
}
