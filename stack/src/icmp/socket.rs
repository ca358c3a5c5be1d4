//! A socket that sends echo requests and gets the answers, as those of Linux by
//! `socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)`: one identifier, which says whose an answer is.

use std::net::IpAddr;

use smoltcp::time::Instant;
use wirestack_nic::meta::Timestamp;

use super::error::fill_checksum;
use super::message::{Echo, HEADER_LEN};
use crate::egress::PacketSpec;
use crate::observe::DropReason;
use crate::udp::SocketError;
use crate::udp::error::ErrorQueue;
use crate::udp::queue::{Queue, QueueLimits};

/// What is known of an echo reply beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoMeta {
    /// Who answered.
    pub src: IpAddr,
    /// The address of ours it came to.
    pub dst: IpAddr,
    /// Which request is answered.
    pub sequence: u16,
    /// TTL or hop limit as received.
    pub hop_limit: u8,
    /// DSCP, and ECN in the two low bits.
    pub traffic_class: u8,
    /// When the device or the kernel received it, if they say so.
    pub timestamp: Option<Timestamp>,
    /// When the shard received it.
    pub received: Instant,
}

/// An error about an echo request of this socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoError {
    /// What is wrong, and who said so; the port of its `dst` is 0.
    pub error: SocketError,
    /// With which request.
    pub sequence: u16,
}

/// A socket that sends echo requests.
#[derive(Debug, Clone)]
pub struct Socket {
    local: IpAddr,
    identifier: u16,
    hop_limit: Option<u8>,
    traffic_class: u8,
    dont_fragment: bool,
    queue: Queue<EchoMeta>,
    errors: ErrorQueue<EchoError>,
    dropped: u64,
}

impl Socket {
    /// A socket whose requests go out from `local`, or if that is unspecified from an address of its IP
    /// version. Nobody else of this host has the identifier.
    pub fn new(local: IpAddr, identifier: u16, limits: QueueLimits) -> Self {
        Self {
            local,
            identifier,
            hop_limit: None,
            traffic_class: 0,
            dont_fragment: false,
            queue: Queue::new(limits),
            errors: ErrorQueue::default(),
            dropped: 0,
        }
    }

    /// Sets the TTL or hop limit of requests; `None`: the interface's.
    pub fn set_hop_limit(&mut self, hop_limit: Option<u8>) {
        self.hop_limit = hop_limit;
    }

    /// Sets DSCP and ECN of requests.
    pub fn set_traffic_class(&mut self, traffic_class: u8) {
        self.traffic_class = traffic_class;
    }

    /// Sets whether requests that are too long for the path fail, with DF set, rather than go in fragments.
    pub fn set_dont_fragment(&mut self, dont_fragment: bool) {
        self.dont_fragment = dont_fragment;
    }

    /// What the packet of a request to `dst` looks like.
    pub fn spec(&self, dst: IpAddr) -> PacketSpec {
        PacketSpec {
            src: Some(self.local).filter(|local| !local.is_unspecified()),
            hop_limit: self.hop_limit,
            traffic_class: self.traffic_class,
            dont_fragment: self.dont_fragment,
            discovers_path_mtu: true,
            ..PacketSpec::new(dst, super::protocol_for(dst))
        }
    }

    /// Writes a request into `room`, which has [`HEADER_LEN`] bytes more than `data`; if it has not,
    /// nothing is written. With `src` the checksum is filled in; without, it is 0 for ICMPv6, whose
    /// checksum covers the source.
    pub fn write_echo(&self, src: Option<IpAddr>, dst: IpAddr, sequence: u16, data: &[u8], room: &mut [u8]) {
        if room.len() != HEADER_LEN + data.len() {
            return;
        }
        let (header, body) = room.split_at_mut(HEADER_LEN);
        let [a, b] = self.identifier.to_be_bytes();
        let [c, d] = sequence.to_be_bytes();
        header.copy_from_slice(&[if dst.is_ipv4() { 8 } else { 128 }, 0, 0, 0, a, b, c, d]);
        body.copy_from_slice(data);
        fill_checksum(room, src, dst);
    }

    /// Whether a reply with this identifier, to an address of ours, is for this socket.
    pub fn accepts(&self, dst: IpAddr, identifier: u16) -> bool {
        let is_local =
            self.local == dst || (self.local.is_unspecified() && self.local.is_ipv4() == dst.is_ipv4());
        is_local && self.identifier == identifier
    }

    /// Takes a reply. Its sequence number is that of the message, whatever `meta` says.
    ///
    /// # Errors
    /// [`DropReason::RawQueueFull`]: it would be more than the limits allow.
    pub fn push(&mut self, meta: &EchoMeta, reply: &Echo<'_>) -> Result<(), DropReason> {
        let meta = EchoMeta { sequence: reply.sequence, ..*meta };
        self.queue.push(meta, reply.data, None).map_err(|_| {
            self.dropped += 1;
            DropReason::RawQueueFull
        })
    }

    /// Takes an error about a request of this socket. All of them are kept, as many as there is room
    /// for: whoever pings wants to know.
    pub fn push_error(&mut self, error: EchoError) {
        self.errors.push(error);
    }

    /// Lends the first reply to `f` and takes it out. `None`: there is none.
    pub fn recv_with<R>(&mut self, f: impl FnOnce(&EchoMeta, &[u8]) -> R) -> Option<R> {
        self.queue.pop_with(f)
    }

    /// Lends the first reply to `f`, and leaves it where it is.
    pub fn peek_with<R>(&self, f: impl FnOnce(&EchoMeta, &[u8]) -> R) -> Option<R> {
        self.queue.peek_with(f)
    }

    /// The oldest error that was not taken yet.
    pub fn take_error(&mut self) -> Option<EchoError> {
        self.errors.take()
    }

    /// The address its requests go out from; perhaps unspecified.
    pub fn local(&self) -> IpAddr {
        self.local
    }

    /// Whose an answer is.
    pub fn identifier(&self) -> u16 {
        self.identifier
    }

    /// Whether there is a reply or an error to be taken.
    pub fn readable(&self) -> bool {
        !self.queue.is_empty() || self.errors.len() > 0
    }

    /// Bytes of replies that wait.
    pub fn queued_bytes(&self) -> usize {
        self.queue.queued_bytes()
    }

    /// Replies that wait.
    pub fn queued_replies(&self) -> usize {
        self.queue.queued_datagrams()
    }

    /// Replies that found the queue full.
    pub fn dropped_replies(&self) -> u64 {
        self.dropped
    }

    /// Errors for which there was no room.
    pub fn dropped_errors(&self) -> u64 {
        self.errors.dropped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::icmp::{ErrorKind, Message, parse};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_request_is_what_the_parser_says() {
        for (local, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (local, dst) = (ip(local), ip(dst));
            let socket = Socket::new(local, 0x1234, QueueLimits::default());
            let mut room = [0; HEADER_LEN + 4];
            socket.write_echo(Some(local), dst, 7, b"data", &mut room);
            let expected = Echo { identifier: 0x1234, sequence: 7, data: &b"data"[..] };
            assert_eq!(parse(local, dst, &room), Ok(Message::EchoRequest(expected)));
            let mut again = room;
            again[2..4].fill(0);
            fill_checksum(&mut again, Some(local), dst);
            assert_eq!(again, room, "the checksum is there");
            assert_eq!(socket.spec(dst).src, Some(local));
        }
    }

    #[test]
    fn replies_and_errors_come_out_as_they_went_in() {
        let limits = QueueLimits { bytes_max: 100, datagrams_max: 2 };
        let mut socket = Socket::new(ip("::"), 5, limits);
        assert!(socket.accepts(ip("fd00::1"), 5));
        assert!(!socket.accepts(ip("fd00::1"), 6));
        assert!(!socket.accepts(ip("10.0.0.1"), 5));
        let meta = EchoMeta {
            src: ip("fd00::2"),
            dst: ip("fd00::1"),
            sequence: 0,
            hop_limit: 63,
            traffic_class: 0,
            timestamp: None,
            received: Instant::from_millis(4),
        };
        let reply = |sequence| Echo { identifier: 5, sequence, data: &b"pong"[..] };
        assert_eq!(socket.push(&meta, &reply(1)), Ok(()));
        assert_eq!(socket.push(&meta, &reply(2)), Ok(()));
        assert_eq!(socket.push(&meta, &reply(3)), Err(DropReason::RawQueueFull));
        assert_eq!((socket.queued_replies(), socket.dropped_replies()), (2, 1));
        assert_eq!(socket.spec(ip("fd00::2")).src, None, "to be chosen");
        let sequence = |socket: &mut Socket| socket.recv_with(|meta, data| (meta.sequence, data.len()));
        assert_eq!([sequence(&mut socket), sequence(&mut socket)], [Some((1, 4)), Some((2, 4))]);
        assert!(!socket.readable());
        let kind = ErrorKind::HostUnreachable;
        let dst = (ip("fd00::2"), 0).into();
        let error = EchoError { error: SocketError { kind, from: ip("fd00::9"), dst }, sequence: 4 };
        socket.push_error(error);
        assert!(socket.readable());
        assert_eq!(socket.take_error(), Some(error));
    }
}
