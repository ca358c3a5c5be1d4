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
        }
    };
}

counters! {
    /// Turns of the loop.
    turns,
    /// Frames from the device.
    rx_frames,
    /// Frames that the device took.
    tx_frames,
    /// Frames and packets that reached a socket or a protocol.
    delivered,
    /// Those that were answered by the stack itself.
    replied,
    /// Fragments that were kept.
    held,
    /// Packets for other shards.
    forwarded,
    /// Packets to ourselves.
    looped,
    /// Packets and frames from other shards of this host.
    mailed,
    /// Frames and packets that came in and were dropped: of `rx_frames`, `looped` and `mailed` together, each
    /// is in exactly one of `delivered`, `replied`, `held`, `forwarded` and this.
    rx_dropped,
    /// Datagrams put together from fragments.
    reassembled,
    /// Fragments sent.
    fragments_sent,
    /// Datagrams given to sockets.
    udp_received,
    /// Datagrams sent.
    udp_sent,
    /// Echo requests that were answered.
    echoes_answered,
    /// ICMP errors sent.
    icmp_errors_sent,
    /// ICMP errors given to sockets.
    icmp_errors_received,
    /// Packets that waited for a neighbour and went.
    neighbor_released,
    /// Whatever was dropped, for whatever reason: what is in `rx_dropped`, and what was on its way out.
    dropped,
}
