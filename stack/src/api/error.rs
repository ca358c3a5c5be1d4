//! What went wrong, as `std::io` says it: the kinds that std's sockets give on Linux.

use std::io::{Error, ErrorKind};

use crate::dns;
use crate::igmp_mld::JoinError;
use crate::shard::GroupError;
use crate::tcp::{ConnectError, Failure, ListenError, RecvError, SendError};
use crate::udp;

/// The kind that std has for it.
pub(crate) fn kind_of_failure(failure: Failure) -> ErrorKind {
    match failure {
        Failure::Refused => ErrorKind::ConnectionRefused,
        Failure::Reset => ErrorKind::ConnectionReset,
        Failure::Aborted | Failure::AddressGone => ErrorKind::ConnectionAborted,
        Failure::TimedOut => ErrorKind::TimedOut,
        // What Linux makes of "administratively prohibited".
        Failure::HostUnreachable | Failure::Prohibited => ErrorKind::HostUnreachable,
        Failure::NetworkUnreachable => ErrorKind::NetworkUnreachable,
        Failure::NoMemory => ErrorKind::OutOfMemory,
        _ => ErrorKind::Other,
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(kind_of_failure(failure), failure)
    }
}

/// Why a datagram was not sent. Some of what Linux says has no kind in std that can be named; it is told by its number, so
/// that whoever looks at that finds it.
pub(crate) fn io_error_of_send(error: udp::SendError) -> Error {
    match error {
        udp::SendError::TooLong { .. } => Error::from_raw_os_error(EMSGSIZE),
        udp::SendError::NotConnected => Error::from_raw_os_error(EDESTADDRREQ),
        error => error.into(),
    }
}

const EDESTADDRREQ: i32 = 89;
const EMSGSIZE: i32 = 90;

impl From<RecvError> for Error {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Closed => Self::new(ErrorKind::NotConnected, error),
            RecvError::Failed(failure) => failure.into(),
        }
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Closed => Self::new(ErrorKind::NotConnected, error),
            SendError::ShutDown => Self::new(ErrorKind::BrokenPipe, error),
            SendError::Failed(failure) => failure.into(),
        }
    }
}

impl From<ListenError> for Error {
    fn from(error: ListenError) -> Self {
        let kind = match error {
            ListenError::InUse { .. } | ListenError::NoPort => ErrorKind::AddrInUse,
            ListenError::AddressNotOurs { .. } => ErrorKind::AddrNotAvailable,
            ListenError::TooMany { .. } => ErrorKind::QuotaExceeded,
            ListenError::Forbidden { .. } => ErrorKind::PermissionDenied,
        };
        Self::new(kind, error)
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        let kind = match error {
            ConnectError::NoRoute { .. } => ErrorKind::NetworkUnreachable,
            // Linux asks port 0 as any other, and nobody answers there; there is no way to a group for a connection.
            ConnectError::BadAddress { remote } if remote.port() == 0 => ErrorKind::ConnectionRefused,
            ConnectError::BadAddress { remote } if remote.ip().is_unspecified() => ErrorKind::InvalidInput,
            ConnectError::BadAddress { .. } => ErrorKind::NetworkUnreachable,
            ConnectError::AddressNotOurs { .. } | ConnectError::NoPort => ErrorKind::AddrNotAvailable,
            ConnectError::InUse { .. } => ErrorKind::AddrInUse,
            ConnectError::TooMany { .. } => ErrorKind::QuotaExceeded,
            ConnectError::Forbidden { .. } => ErrorKind::PermissionDenied,
        };
        Self::new(kind, error)
    }
}

impl From<GroupError> for Error {
    fn from(error: GroupError) -> Self {
        let kind = match error {
            GroupError::Closed => ErrorKind::NotConnected,
            GroupError::Membership(error) => return error.into(),
            GroupError::Join(JoinError::NotMulticast(_) | JoinError::BadSource { .. }) => {
                ErrorKind::InvalidInput
            }
            GroupError::Join(_) => ErrorKind::QuotaExceeded,
        };
        Self::new(kind, error)
    }
}

impl From<dns::DnsError> for Error {
    fn from(error: dns::DnsError) -> Self {
        let kind = match error {
            dns::DnsError::NotFound | dns::DnsError::NoData => ErrorKind::NotFound,
            dns::DnsError::TimedOut => ErrorKind::TimedOut,
            _ => ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<dns::ResolveError> for Error {
    fn from(error: dns::ResolveError) -> Self {
        let kind = match error {
            dns::ResolveError::Name { .. } => ErrorKind::InvalidInput,
            dns::ResolveError::NoServer => ErrorKind::NotFound,
            dns::ResolveError::TooMany { .. } => ErrorKind::QuotaExceeded,
        };
        Self::new(kind, error)
    }
}
