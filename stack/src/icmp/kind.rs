//! What an ICMP error says, in words that serve both versions.

use std::fmt;
use std::io;

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No route: it may come back.
    NetUnreachable,
    /// The network is not known at all.
    NetUnknown,
    /// The host does not answer on its link: it may come back.
    HostUnreachable,
    /// The host is not known, or cut off.
    HostUnknown,
    /// The host does not speak the protocol.
    ProtocolUnreachable,
    /// Nobody is at the port.
    PortUnreachable,
    /// Longer than the link takes that comes next.
    TooBig {
        /// Bytes of the longest packet that it takes, as the message says: to be checked. 0: a router from
        /// before RFC 1191, which does not say.
        mtu: u32,
    },
    /// The source route failed.
    SourceRouteFailed,
    /// Somebody on the way forbids it.
    Prohibited,
    /// The hop limit came to 0 on the way.
    TimeExceeded,
    /// The fragments did not all come in time.
    ReassemblyTimeExceeded,
    /// A field of the header is wrong.
    ParameterProblem {
        /// As the message says.
        code: u8,
        /// Bytes from the start of the packet that was sent.
        pointer: u32,
    },
    /// Another reason for which it did not arrive.
    Unreachable {
        /// As the message says.
        code: u8,
    },
}

impl ErrorKind {
    /// The meaning of a code of Destination Unreachable of ICMP (RFC 792, RFC 1122, RFC 1812). `rest`: the
    /// last four bytes of the header.
    pub(super) fn unreachable_v4(code: u8, rest: [u8; 4]) -> Self {
        let [_, _, high, low] = rest;
        match code {
            0 | 11 => Self::NetUnreachable,
            1 | 12 => Self::HostUnreachable,
            2 => Self::ProtocolUnreachable,
            3 => Self::PortUnreachable,
            4 => Self::TooBig { mtu: u16::from_be_bytes([high, low]).into() },
            5 => Self::SourceRouteFailed,
            6 => Self::NetUnknown,
            7 | 8 => Self::HostUnknown,
            9 | 10 | 13..=15 => Self::Prohibited,
            _ => Self::Unreachable { code },
        }
    }

    /// The same of ICMPv6 (RFC 4443 section 3.1, RFC 8883).
    pub(super) fn unreachable_v6(code: u8) -> Self {
        match code {
            0 => Self::NetUnreachable,
            1 | 5 | 6 => Self::Prohibited,
            2 | 3 => Self::HostUnreachable,
            4 => Self::PortUnreachable,
            _ => Self::Unreachable { code },
        }
    }

    /// Whether there is no hope that what is sent next arrives: such an error is reported to a connected
    /// socket unasked, as Linux does. The others may pass (RFC 1122 section 4.1.3.3, RFC 5461).
    pub fn is_hard(self) -> bool {
        match self {
            Self::NetUnknown
            | Self::HostUnknown
            | Self::ProtocolUnreachable
            | Self::PortUnreachable
            | Self::Prohibited
            | Self::ParameterProblem { .. } => true,
            Self::NetUnreachable
            | Self::HostUnreachable
            | Self::TooBig { .. }
            | Self::SourceRouteFailed
            | Self::TimeExceeded
            | Self::ReassemblyTimeExceeded
            | Self::Unreachable { .. } => false,
        }
    }

    /// The kind of an [`io::Error`] that the standard library has for it.
    pub fn io_kind(self) -> io::ErrorKind {
        match self {
            Self::NetUnreachable | Self::NetUnknown => io::ErrorKind::NetworkUnreachable,
            Self::HostUnreachable
            | Self::HostUnknown
            | Self::SourceRouteFailed
            | Self::TimeExceeded
            | Self::ReassemblyTimeExceeded
            | Self::Unreachable { .. } => io::ErrorKind::HostUnreachable,
            Self::ProtocolUnreachable | Self::PortUnreachable => io::ErrorKind::ConnectionRefused,
            Self::TooBig { .. } => io::ErrorKind::InvalidInput,
            Self::Prohibited => io::ErrorKind::PermissionDenied,
            Self::ParameterProblem { .. } => io::ErrorKind::InvalidData,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetUnreachable => f.write_str("network unreachable"),
            Self::NetUnknown => f.write_str("network unknown"),
            Self::HostUnreachable => f.write_str("host unreachable"),
            Self::HostUnknown => f.write_str("host unknown"),
            Self::ProtocolUnreachable => f.write_str("protocol unreachable"),
            Self::PortUnreachable => f.write_str("port unreachable"),
            Self::TooBig { mtu } => write!(f, "packet too big (mtu {mtu})"),
            Self::SourceRouteFailed => f.write_str("source route failed"),
            Self::Prohibited => f.write_str("communication prohibited"),
            Self::TimeExceeded => f.write_str("time to live exceeded"),
            Self::ReassemblyTimeExceeded => f.write_str("fragment reassembly time exceeded"),
            Self::ParameterProblem { code, pointer } => {
                write!(f, "parameter problem (code {code}, pointer {pointer})")
            }
            Self::Unreachable { code } => write!(f, "destination unreachable (code {code})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As RFC 1122 section 4.1.3.3 and icmp(7) of Linux divide them: what a router says while routes change
    /// is soft.
    #[test]
    fn what_may_pass_is_not_hard() {
        use ErrorKind::*;
        for (kind, is_hard) in [
            (NetUnreachable, false),
            (NetUnknown, true),
            (HostUnreachable, false),
            (HostUnknown, true),
            (ProtocolUnreachable, true),
            (PortUnreachable, true),
            (TooBig { mtu: 1300 }, false),
            (SourceRouteFailed, false),
            (Prohibited, true),
            (TimeExceeded, false),
            (ReassemblyTimeExceeded, false),
            (ParameterProblem { code: 0, pointer: 6 }, true),
            (Unreachable { code: 200 }, false),
        ] {
            assert_eq!(kind.is_hard(), is_hard, "{kind}");
        }
    }
}
