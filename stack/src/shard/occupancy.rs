//! How full a shard is: what its limits bound.

use super::Shard;

/// What a shard holds at a point in time. Each has a limit in [`ShardConfig`](super::ShardConfig).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupancy {
    /// Bytes of fragments, with what they cost beside.
    pub reassembly_bytes: usize,
    /// Datagrams of which fragments wait, or that are remembered.
    pub reassembly_datagrams: usize,
    /// Neighbours.
    pub neighbors: usize,
    /// Bytes of packets that wait for neighbours.
    pub parked_bytes: usize,
    /// Bytes of frames that wait for the device.
    pub outbox_bytes: usize,
    /// Frames that wait for the device.
    pub outbox_frames: usize,
    /// Bytes of packets to ourselves that wait.
    pub looped_bytes: usize,
    /// Messages for other shards that wait.
    pub mail: usize,
    /// Commands that wait.
    pub commands: usize,
    /// Sockets.
    pub sockets: usize,
    /// Addresses.
    pub addresses: usize,
    /// Destinations with a path MTU of their own.
    pub paths: usize,
    /// TCP connections, those that their application has closed and that are not done yet included.
    pub tcp_connections: usize,
    /// TCP connections that have begun and are not accepted by both ends.
    pub tcp_half_open: usize,
    /// Records of TCP connections in TIME-WAIT.
    pub tcp_time_waits: usize,
    /// Bytes of send and receive buffers of TCP.
    pub tcp_buffer_bytes: usize,
    /// 4-tuples of those that are not over.
    pub tcp_flows: usize,
    /// Timers of connections, those in TIME-WAIT not included.
    pub tcp_timers: usize,
}

impl Shard {
    /// How full everything is. It walks no list.
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            reassembly_bytes: self.reassembly.bytes(),
            reassembly_datagrams: self.reassembly.len(),
            neighbors: self.neighbors.len(),
            parked_bytes: self.neighbors.parked_bytes(),
            outbox_bytes: self.outbox.waiting_bytes(),
            outbox_frames: self.outbox.len(),
            looped_bytes: self.looped.waiting_bytes(),
            mail: self.mail.len(),
            commands: self.commands.len(),
            sockets: self.sockets.len(),
            addresses: self.addresses.iter().count(),
            paths: self.path_mtu.len(),
            tcp_connections: self.tcp.connections.len(),
            tcp_half_open: self.tcp.half_opens.len(),
            tcp_time_waits: self.tcp.time_waits.len(),
            tcp_buffer_bytes: self.tcp.pool.in_use_bytes(),
            tcp_flows: self.tcp.flows.len(),
            tcp_timers: self.tcp.timers_len(),
        }
    }
}
