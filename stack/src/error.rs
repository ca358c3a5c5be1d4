//! What can fail: one enum per operation. What comes from the wire is never an error here.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use smoltcp::wire::IpCidr;

/// Why a text is no address with prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidrError {
    /// Nothing after the address.
    #[error("the prefix length is missing; write it as in 10.0.0.2/24 or fd00::2/64")]
    NoPrefix,
    /// The part before the slash.
    #[error("no IPv4 or IPv6 address; write it as in 10.0.0.2/24 or fd00::2/64")]
    Address,
    /// The part behind the slash.
    #[error("the prefix length must be 0 to {prefix_max}")]
    Prefix {
        /// Of this IP version.
        prefix_max: u8,
    },
}

/// Which field of a [`HostConfig`](crate::config::HostConfig) is out of its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A host needs an address.
    #[error("no address; at least one is needed, as in 10.0.0.2/24")]
    NoAddress,
    /// More than the engine's table holds.
    #[error("{count} addresses; at most 7 are supported")]
    TooManyAddresses {
        /// As configured.
        count: usize,
    },
    /// Multicast, unspecified, loopback, or the network's or broadcast address of its prefix.
    #[error("{address} is not an address that a host can have")]
    NotAHostAddress {
        /// As configured.
        address: IpCidr,
    },
    /// A default route points to one router.
    #[error("gateway {gateway} is the second one of its IP version; one is supported")]
    TwoGateways {
        /// The second.
        gateway: IpAddr,
    },
    /// A router must be a neighbour.
    #[error("gateway {gateway} is on no prefix of the host's addresses")]
    GatewayOffLink {
        /// As configured.
        gateway: IpAddr,
    },
    /// See [`RECV_BUFFER_BYTES_MAX`](crate::config::RECV_BUFFER_BYTES_MAX).
    #[error("recv_buffer_bytes {bytes} is out of bounds; 1 to 65535 are accepted")]
    RecvBuffer {
        /// As configured.
        bytes: usize,
    },
    /// Nothing could be sent.
    #[error("send_buffer_bytes is 0; at least 1 is needed")]
    SendBuffer,
    /// Empty, or with port 0.
    #[error("source ports {}-{} are no range within 1-65535", ports.start(), ports.end())]
    SourcePorts {
        /// As configured.
        ports: RangeInclusive<u16>,
    },
    /// A field of [`TcpConfig`](crate::tcp::TcpConfig).
    #[error("{field} {value} is out of bounds; accepted: {accepted}")]
    Tcp {
        /// Its name.
        field: &'static str,
        /// As configured; a time in milliseconds.
        value: u64,
        /// What would be right.
        accepted: &'static str,
    },
    /// More than the storage holds, or none.
    #[error("sockets_max {sockets_max} is out of bounds; 1 to {storage} fit into the storage")]
    Sockets {
        /// As configured.
        sockets_max: usize,
        /// Length of the storage, if it is borrowed.
        storage: usize,
    },
}

/// Why a port cannot be listened on, for TCP or UDP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// This host listens on it already.
    #[error("port {port} is in use")]
    InUse {
        /// As asked for.
        port: u16,
    },
    /// Port 0 means "none".
    #[error("port 0 cannot be listened on; 1 to 65535 are accepted")]
    PortZero,
    /// `sockets_max` is reached.
    #[error("all {sockets_max} sockets are in use")]
    NoSocket {
        /// The limit.
        sockets_max: usize,
    },
}

/// Why a connection cannot be begun. What happens to it later is told to its handler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host has no address of the peer's IP version, or the peer's address or port cannot be one.
    #[error("{remote} cannot be reached from this host's addresses")]
    Unaddressable {
        /// As asked for.
        remote: std::net::SocketAddr,
    },
    /// Every source port to this peer is taken.
    #[error("no source port is free in {}-{}", ports.start(), ports.end())]
    NoPort {
        /// The configured range.
        ports: RangeInclusive<u16>,
    },
    /// `sockets_max` is reached.
    #[error("all {sockets_max} sockets are in use")]
    NoSocket {
        /// The limit.
        sockets_max: usize,
    },
}
