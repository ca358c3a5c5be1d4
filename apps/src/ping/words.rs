//! What ICMP errors are called by those who ping.

use std::net::IpAddr;

use wirestack::icmp::ErrorKind;

/// An error in the words of iputils.
pub(super) fn of(kind: ErrorKind, from: IpAddr) -> String {
    if from.is_ipv4() { of_v4(kind) } else { of_v6(kind) }
}

fn of_v4(kind: ErrorKind) -> String {
    let text = match kind {
        ErrorKind::NetUnreachable => "Destination Net Unreachable",
        ErrorKind::HostUnreachable => "Destination Host Unreachable",
        ErrorKind::ProtocolUnreachable => "Destination Protocol Unreachable",
        ErrorKind::PortUnreachable => "Destination Port Unreachable",
        ErrorKind::TooBig { mtu } => return format!("Frag needed and DF set (mtu = {mtu})"),
        ErrorKind::SourceRouteFailed => "Source Route Failed",
        ErrorKind::NetUnknown => "Destination Net Unknown",
        ErrorKind::HostUnknown => "Destination Host Unknown",
        ErrorKind::Prohibited => "Packet filtered",
        ErrorKind::TimeExceeded => "Time to live exceeded",
        ErrorKind::ReassemblyTimeExceeded => "Frag reassembly time exceeded",
        ErrorKind::ParameterProblem { pointer, .. } => {
            return format!("Parameter problem: pointer = {pointer}");
        }
        ErrorKind::Unreachable { code } => return format!("Dest Unreachable, Bad Code: {code}"),
        _ => return format!("{kind:?}"),
    };
    text.to_owned()
}

fn of_v6(kind: ErrorKind) -> String {
    let text = match kind {
        ErrorKind::NetUnreachable | ErrorKind::NetUnknown => "Destination unreachable: No route",
        ErrorKind::HostUnreachable | ErrorKind::HostUnknown => "Destination unreachable: Address unreachable",
        ErrorKind::PortUnreachable => "Destination unreachable: Port unreachable",
        ErrorKind::Prohibited => "Destination unreachable: Administratively prohibited",
        ErrorKind::TooBig { mtu } => return format!("Packet too big: mtu={mtu}"),
        ErrorKind::TimeExceeded => "Time exceeded: Hop limit",
        ErrorKind::ReassemblyTimeExceeded => "Time exceeded: Defragmentation failure",
        ErrorKind::ParameterProblem { code, pointer } => {
            let what = match code {
                0 => "Wrong header field",
                1 => "Unknown header",
                2 => "Unknown option",
                _ => return format!("Parameter problem: code={code}"),
            };
            return format!("Parameter problem: {what} at {pointer}");
        }
        ErrorKind::Unreachable { code } => {
            return format!("Destination unreachable: Unknown code {code}");
        }
        _ => return format!("{kind:?}"),
    };
    text.to_owned()
}
