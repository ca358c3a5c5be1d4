//! What can be wrong, an enum for each thing that an application asks for.

use std::net::{IpAddr, SocketAddr};

/// Why a connection is no more, or never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Nobody listens there.
    #[error("the peer refuses: nobody listens at this port")]
    Refused,
    /// The peer has reset it.
    #[error("the peer has reset the connection")]
    Reset,
    /// It was aborted from here.
    #[error("the connection was aborted here")]
    Aborted,
    /// The peer does not answer.
    #[error("the peer does not answer")]
    TimedOut,
    /// A router or the host says that there is no way.
    #[error("there is no way to the peer")]
    HostUnreachable,
    /// A router says that there is no way to the network.
    #[error("there is no way to the peer's network")]
    NetworkUnreachable,
    /// Forbidden on the way.
    #[error("a router or the peer forbids it")]
    Prohibited,
    /// The host does not speak TCP.
    #[error("the peer does not speak TCP")]
    ProtocolUnreachable,
    /// Our own address has gone.
    #[error("the local address has gone")]
    AddressGone,
    /// No memory for it.
    #[error("there is no memory for it; `pool_bytes_max` has more")]
    NoMemory,
}

/// Why nobody listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody has the port.
    #[error("{local} is in use")]
    InUse {
        /// Asked for.
        local: SocketAddr,
    },
    /// The address is none of ours.
    #[error("{address} is no address of this stack")]
    AddressNotOurs {
        /// Asked for.
        address: IpAddr,
    },
    /// There are too many.
    #[error("all {max} listeners or sockets are in use")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// No port is free.
    #[error("no port is free")]
    NoPort,
    /// The policy does not allow it.
    #[error("the policy does not allow to listen at {local}")]
    Forbidden {
        /// Asked for.
        local: SocketAddr,
    },
}

/// Why a connection is not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No route, or no address of ours for it.
    #[error("there is no route to {remote}, or no address to come from")]
    NoRoute {
        /// Asked for.
        remote: SocketAddr,
    },
    /// Port 0, a group, a broadcast address.
    #[error("{remote} is none to connect to")]
    BadAddress {
        /// Asked for.
        remote: SocketAddr,
    },
    /// The local address is none of ours.
    #[error("{address} is no address of this stack")]
    AddressNotOurs {
        /// Asked for.
        address: IpAddr,
    },
    /// There is this very connection.
    #[error("a connection from {local} to it exists")]
    InUse {
        /// Our end.
        local: SocketAddr,
    },
    /// No port is free.
    #[error("no port is free")]
    NoPort,
    /// There are too many.
    #[error("all {max} connections or sockets are in use")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// The policy does not allow it.
    #[error("the policy does not allow a connection to {remote}")]
    Forbidden {
        /// Asked for.
        remote: SocketAddr,
    },
}

/// Why nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The handle is of no connection.
    #[error("the socket is closed")]
    Closed,
    /// Sending was shut down.
    #[error("this end has finished sending")]
    ShutDown,
    /// The connection is no more.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Why nothing is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The handle is of no connection.
    #[error("the socket is closed")]
    Closed,
    /// The connection is no more. What had come before could be read first.
    #[error(transparent)]
    Failed(#[from] Failure),
}
