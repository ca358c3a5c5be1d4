//! What a shard counts, beside its [`Drops`](super::Drops).

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a shard has counted since it was made. All are monotonic.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ShardCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl ShardCounters {
            /// Name and value of every count, in the order of the fields.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Adds those of another shard.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

// For each frame, packet to ourselves and message of another shard, one verdict is counted:
// rx_frames + looped + mail_received = delivered + replied + held + forwarded + rx_dropped.
counters! {
    /// Turns of the loop.
    turns,
    /// Frames from the device.
    rx_frames,
    /// Frames that the device took.
    tx_frames,
    /// Packets to ourselves, from the queue of those.
    looped,
    /// Messages of other shards.
    mail_received,
    /// Frames and packets that reached a socket, or a protocol that used them: ARP and NDP too, whether they
    /// were answered or not.
    delivered,
    /// Echo requests that were answered, which nobody else needed to see.
    replied,
    /// Fragments that were kept.
    held,
    /// Packets that went to other shards.
    forwarded,
    /// Frames and packets that were thrown away: the part of `dropped` that is a verdict.
    rx_dropped,
    /// Datagrams put together from fragments.
    reassembled,
    /// Fragments sent.
    fragments_sent,
    /// Datagrams given to sockets.
    udp_received,
    /// Datagrams sent.
    udp_sent,
    /// ICMP errors sent.
    icmp_errors_sent,
    /// ICMP errors given to sockets.
    icmp_errors_received,
    /// Packets that waited for a neighbour and went.
    neighbor_released,
    /// Listeners and sockets of UDP that the policy did not allow.
    policy_listens_denied,
    /// Connections from here that it did not allow.
    policy_connects_denied,
    /// Connections of peers that it did not allow, denied or rejected: each SYN counts.
    policy_accepts_denied,
    /// Attempts on which it could not decide, so that the default action applied; and panics of it.
    policy_failed,
    /// All that was dropped, by whatever reason: the sum of [`Drops`](super::Drops). Beside received frames these
    /// are copies for single sockets, packets of ours that found no way, and answers that were not sent.
    dropped,
}
