//! What a shard counts, beside its [`Drops`](super::Drops).

/// Counters that are named and added field by field.
macro_rules! counters {
    ($(#[$of_all:meta])* pub struct $Counters:ident { $($(#[$doc:meta])* pub $name:ident: u64,)* }) => {
        $(#[$of_all])*
        pub struct $Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl $Counters {
            /// Adds those of another shard.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Name and value of every counter, in the order of the fields.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}
pub(crate) use counters;

// For each frame, packet to ourselves and message of another shard, one verdict is counted:
// rx_frames + looped + mail_received = delivered + replied + held + forwarded + rx_dropped.
counters! {
    /// What a shard has counted since it was made. All are monotonic.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct ShardCounters {
        /// Turns of the loop.
        pub turns: u64,
        /// Frames from the device.
        pub rx_frames: u64,
        /// Frames that the device took.
        pub tx_frames: u64,
        /// Packets to ourselves, from the queue of those.
        pub looped: u64,
        /// Messages of other shards.
        pub mail_received: u64,
        /// Frames and packets that reached a socket, or a protocol that used them: ARP and NDP too, whether they
        /// were answered or not.
        pub delivered: u64,
        /// Echo requests that were answered, which nobody else needed to see.
        pub replied: u64,
        /// Fragments that were kept.
        pub held: u64,
        /// Packets that went to other shards.
        pub forwarded: u64,
        /// Frames and packets that were thrown away: the part of `dropped` that is a verdict.
        pub rx_dropped: u64,
        /// Datagrams put together from fragments.
        pub reassembled: u64,
        /// Fragments sent.
        pub fragments_sent: u64,
        /// Datagrams given to sockets.
        pub udp_received: u64,
        /// Datagrams sent.
        pub udp_sent: u64,
        /// ICMP errors sent.
        pub icmp_errors_sent: u64,
        /// ICMP errors given to sockets.
        pub icmp_errors_received: u64,
        /// Packets that waited for a neighbour and went.
        pub neighbor_released: u64,
        /// Listeners and sockets of UDP that the policy did not allow.
        pub policy_listens_denied: u64,
        /// Connections from here that it did not allow.
        pub policy_connects_denied: u64,
        /// Connections of peers that it did not allow, denied or rejected: each SYN counts.
        pub policy_accepts_denied: u64,
        /// Attempts on which it could not decide, so that the default action applied; and panics of it.
        pub policy_failed: u64,
        /// All that was dropped, by whatever reason: the sum of [`Drops`](super::Drops). Beside received frames these
        /// are copies for single sockets, packets of ours that found no way, and answers that were not sent.
        pub dropped: u64,
    }
}
