//! What TCP has counted, all connections together.

use serde::Serialize;

use crate::observe::counters::counters;

counters! {
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
}
