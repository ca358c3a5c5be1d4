//! What ICMP tells a socket, and what can fail in an operation of one.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::icmp::ErrorKind;

/// What somebody on the way, or at its end, said of a datagram that a socket sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind}, says {from} of what was sent to {dst}")]
pub struct SocketError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// Who said so.
    pub from: IpAddr,
    /// Where the datagram was sent; port 0 if it had none.
    pub dst: SocketAddr,
}

impl From<SocketError> for io::Error {
    fn from(error: SocketError) -> Self {
        Self::new(error.kind.io_kind(), error)
    }
}

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No route leads to the destination.
    #[error("no route to the destination")]
    NoRoute,
    /// No address of ours can be the source.
    #[error("no address of ours can be the source")]
    NoSource,
    /// The neighbour that the datagram would go to does not answer.
    #[error("the host, or the router on the way, does not answer")]
    HostUnreachable,
    /// Longer than a datagram can be, or than the path takes while fragments are forbidden.
    #[error("the datagram is too long; at most {max} bytes of payload are accepted")]
    TooLong {
        /// Bytes of payload that are accepted.
        max: usize,
    },
    /// The way out is full; later it may not be.
    #[error("the way out is full")]
    WouldBlock,
    /// No destination was given, and the socket has none of its own.
    #[error("no destination given, and the socket is not connected")]
    NotConnected,
    /// A broadcast address, without [`SocketOptions::broadcast`](super::SocketOptions::broadcast).
    #[error("a broadcast address needs the broadcast option")]
    BroadcastNotAllowed,
    /// The socket is bound to an address that is not ours any more.
    #[error("the local address is not ours any more")]
    AddressNotOurs,
    /// A destination of the other IP version than the socket's.
    #[error("the destination is of the other IP version")]
    AddressFamily,
    /// A destination that nobody can have, or port 0.
    #[error("no datagram can be sent to that destination")]
    BadDestination,
    /// What ICMP said of an earlier datagram.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// There is no such socket any more.
    #[error("the socket is closed")]
    Closed,
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        let kind = match error {
            SendError::NoRoute => io::ErrorKind::NetworkUnreachable,
            SendError::HostUnreachable => io::ErrorKind::HostUnreachable,
            SendError::NoSource | SendError::AddressNotOurs => io::ErrorKind::AddrNotAvailable,
            SendError::TooLong { .. } | SendError::AddressFamily | SendError::BadDestination => {
                io::ErrorKind::InvalidInput
            }
            SendError::WouldBlock => io::ErrorKind::WouldBlock,
            SendError::NotConnected | SendError::Closed => io::ErrorKind::NotConnected,
            SendError::BroadcastNotAllowed => io::ErrorKind::PermissionDenied,
            SendError::Socket(error) => return error.into(),
        };
        Self::new(kind, error)
    }
}

/// Why a socket was not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody else has the address and port.
    #[error("{local} is in use")]
    InUse {
        /// As asked for.
        local: SocketAddr,
    },
    /// The address is not ours.
    #[error("{address} is not an address of this host")]
    AddressNotOurs {
        /// As asked for.
        address: IpAddr,
    },
    /// All ports that may be chosen are in use.
    #[error("no port is free")]
    NoPort,
    /// The table of sockets is full.
    #[error("there are {max} sockets already, and no more are accepted")]
    TooManySockets {
        /// The bound.
        max: usize,
    },
    /// The policy does not allow it.
    #[error("the policy does not allow to receive at {local}")]
    Forbidden {
        /// As asked for.
        local: SocketAddr,
    },
}

impl From<BindError> for io::Error {
    fn from(error: BindError) -> Self {
        let kind = match error {
            BindError::InUse { .. } | BindError::NoPort => io::ErrorKind::AddrInUse,
            BindError::AddressNotOurs { .. } => io::ErrorKind::AddrNotAvailable,
            BindError::TooManySockets { .. } => io::ErrorKind::QuotaExceeded,
            BindError::Forbidden { .. } => io::ErrorKind::PermissionDenied,
        };
        Self::new(kind, error)
    }
}

/// Why a socket was not connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The destination is of the other IP version than the socket's local address.
    #[error("{remote} is of the other IP version than the socket's address")]
    AddressFamily {
        /// As asked for.
        remote: SocketAddr,
    },
    /// Unspecified address or port 0.
    #[error("{remote} is no address to connect to")]
    BadDestination {
        /// As asked for.
        remote: SocketAddr,
    },
    /// No route leads there.
    #[error("no route to {remote}")]
    NoRoute {
        /// As asked for.
        remote: SocketAddr,
    },
    /// No address of ours can be the source.
    #[error("no address of ours can be the source for {remote}")]
    NoSource {
        /// As asked for.
        remote: SocketAddr,
    },
    /// A broadcast address, without the option.
    #[error("a broadcast address needs the broadcast option")]
    BroadcastNotAllowed,
    /// The port could not be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no such socket any more.
    #[error("the socket is closed")]
    Closed,
    /// The policy does not allow it.
    #[error("the policy does not allow to connect to {remote}")]
    Forbidden {
        /// As asked for.
        remote: SocketAddr,
    },
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        let kind = match error {
            ConnectError::AddressFamily { .. } | ConnectError::BadDestination { .. } => {
                io::ErrorKind::InvalidInput
            }
            ConnectError::NoRoute { .. } => io::ErrorKind::NetworkUnreachable,
            ConnectError::NoSource { .. } => io::ErrorKind::AddrNotAvailable,
            ConnectError::BroadcastNotAllowed | ConnectError::Forbidden { .. } => {
                io::ErrorKind::PermissionDenied
            }
            ConnectError::Closed => io::ErrorKind::NotConnected,
            ConnectError::Bind(error) => return error.into(),
        };
        Self::new(kind, error)
    }
}

/// Errors that wait to be taken by the application: few, since they come from the wire.
#[derive(Debug, Clone)]
pub(crate) struct ErrorQueue<E> {
    errors: VecDeque<E>,
    dropped: u64,
}

impl<E> Default for ErrorQueue<E> {
    fn default() -> Self {
        Self { errors: VecDeque::new(), dropped: 0 }
    }
}

impl<E> ErrorQueue<E> {
    /// Adds one, or counts it if there are many already.
    pub(crate) fn push(&mut self, error: E) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push_back(error);
        } else {
            self.dropped += 1;
        }
    }

    /// The oldest.
    pub(crate) fn take(&mut self) -> Option<E> {
        self.errors.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.errors.len()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Errors that wait in one socket, at most.
pub const ERRORS_MAX: usize = 8;
