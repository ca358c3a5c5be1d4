//! What an ICMP message is. Total: any bytes are a message or a reason to drop them.

use std::net::IpAddr;

use super::chain;
use super::kind::ErrorKind;
use crate::observe::DropReason;

/// A message whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Somebody wants an answer.
    EchoRequest(Echo<'a>),
    /// The answer to one of ours.
    EchoReply(Echo<'a>),
    /// About a packet that, so it says, we have sent.
    Error(ErrorMessage),
    /// A redirect of ICMP. That of ICMPv6 is [`Message::Ndp`].
    Redirect,
    /// Router and neighbour solicitations and advertisements, and redirects: types 133 to 137.
    Ndp(u8),
    /// Queries, reports and done of MLD: types 130 to 132 and 143.
    Mld(u8),
    /// A type that is read and of no use here: source quench (RFC 6633), timestamps, and the like.
    Ignored(u8),
    /// A type that nobody here knows.
    Unknown(u8),
}

/// An echo request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Whose it is, at the asking end.
    pub identifier: u16,
    /// Which of them.
    pub sequence: u16,
    /// What comes back as it went.
    pub data: &'a [u8],
}

/// An ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorMessage {
    /// What is wrong.
    pub kind: ErrorKind,
    /// With which packet.
    pub quoted: Quoted,
}

/// The packet that an error quotes, as far as it does. It says that we have sent it; whoever uses this
/// checks that we can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// Its source: an address of ours, if it is true.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Its upper-layer protocol.
    pub protocol: u8,
    /// Source and destination port of TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// Identifier and sequence number of an echo request.
    pub echo: Option<(u16, u16)>,
    /// Sequence number of TCP.
    pub tcp_seq: Option<u32>,
    /// Bytes from the start of the fragmented part: 0 of a first fragment or a whole packet. If it is not
    /// 0, there are no ports.
    pub fragment_offset: usize,
    /// Bytes of the packet, as its header says: for routers that do not tell an MTU (RFC 1191 section 5).
    pub packet_bytes: usize,
    /// Where its transport header begins, in bytes from the start of the ICMP message; what is quoted of it
    /// follows up to the end of the message, perhaps nothing.
    pub transport: usize,
}

/// Reads a message from the first byte of its header to the end of the packet that carries it; its
/// checksum has been verified. The addresses are those of the packet: they say which version it is.
///
/// # Errors
/// [`DropReason::IcmpMalformed`]: too short for its type, or an error that quotes no packet.
pub fn parse(src: IpAddr, dst: IpAddr, message: &[u8]) -> Result<Message<'_>, DropReason> {
    if src.is_ipv4() != dst.is_ipv4() {
        return Err(DropReason::IcmpMalformed);
    }
    let (&[kind, code, _, _, rest @ ..], body) =
        message.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::IcmpMalformed)?;
    let echo = || {
        let [a, b, c, d] = rest;
        Echo { identifier: u16::from_be_bytes([a, b]), sequence: u16::from_be_bytes([c, d]), data: body }
    };
    let error = |kind: ErrorKind| {
        let quoted = quoted(src.is_ipv4(), body).ok_or(DropReason::IcmpMalformed)?;
        Ok(Message::Error(ErrorMessage { kind, quoted }))
    };
    let exceeded = if code == 1 { ErrorKind::ReassemblyTimeExceeded } else { ErrorKind::TimeExceeded };
    let long = u32::from_be_bytes(rest);
    if src.is_ipv4() {
        return match kind {
            0 => Ok(Message::EchoReply(echo())),
            3 => error(ErrorKind::unreachable_v4(code, rest)),
            //= rfc1122#3.2.2.2
            //= type=exception
            //= reason=only if the configuration says so: it is believed on the word of whoever is on the link
            //# A host receiving a Redirect message MUST update its routing
            //# information accordingly.
            5 => Ok(Message::Redirect),
            8 => Ok(Message::EchoRequest(echo())),
            11 => error(exceeded),
            12 => error(ErrorKind::ParameterProblem { code, pointer: rest[0].into() }),
            // Source quench (RFC 6633), router discovery, timestamps, information, address masks.
            4 | 9 | 10 | 13..=18 => Ok(Message::Ignored(kind)),
            _ => Ok(Message::Unknown(kind)),
        };
    }
    match kind {
        1 => error(ErrorKind::unreachable_v6(code)),
        2 => error(ErrorKind::TooBig { mtu: long }),
        3 => error(exceeded),
        4 => error(ErrorKind::ParameterProblem { code, pointer: long }),
        128 => Ok(Message::EchoRequest(echo())),
        129 => Ok(Message::EchoReply(echo())),
        130..=132 | 143 => Ok(Message::Mld(kind)),
        133..=137 => Ok(Message::Ndp(kind)),
        //= rfc4443#2.4
        //# (a) If an ICMPv6 error message of unknown type is received at its
        //# destination, it MUST be passed to the upper-layer process that
        //# originated the packet that caused the error, where this can be
        //# identified
        0 | 5..=127 => error(ErrorKind::Unreachable { code }),
        _ => Ok(Message::Unknown(kind)),
    }
}

fn quoted(is_v4: bool, packet: &[u8]) -> Option<Quoted> {
    let chain = chain::read(packet).filter(|chain| chain.src.is_ipv4() == is_v4)?;
    let transport = packet.get(chain.transport..).unwrap_or_default();
    // Of a later fragment these bytes are data.
    let transport = if chain.fragment_offset == 0 { transport } else { &[] };
    let half = |at: usize| {
        let bytes = transport.get(at..at + 2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    let has_ports = matches!(chain.protocol, TCP | UDP);
    let is_request = matches!((chain.protocol, transport.first()), (1, Some(8)) | (58, Some(128)));
    let tcp_seq = || Some(u32::from(half(4)?) << 16 | u32::from(half(6)?));
    Some(Quoted {
        src: chain.src,
        dst: chain.dst,
        protocol: chain.protocol,
        ports: half(0).zip(half(2)).filter(|_| has_ports),
        echo: half(4).zip(half(6)).filter(|_| is_request),
        tcp_seq: tcp_seq().filter(|_| chain.protocol == TCP),
        fragment_offset: chain.fragment_offset,
        packet_bytes: chain.packet_bytes,
        transport: HEADER_LEN + chain.transport,
    })
}

/// Bytes of the header that all messages have which are read here.
pub const HEADER_LEN: usize = 8;

const TCP: u8 = 6;
const UDP: u8 = 17;

#[cfg(test)]
mod tests;
