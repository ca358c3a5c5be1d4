//! Messages of nfnetlink_queue: `linux/netfilter/nfnetlink_queue.h`, net/netfilter/nfnetlink_queue.c.
//!
//! ```text
//!   nlmsghdr (16 bytes) │ nfgenmsg: family, version, queue │ attributes, each aligned to 4
//! ```
//!
//! Lengths of netlink are in the machine's own order, numbers of netfilter in network order. Whatever
//! bytes come, nothing here panics, and each step goes on by at least a header.

use std::ops::Range;

/// A message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A packet that waits for a verdict.
    Packet(Packet),
    /// The answer to a request: 0, or an errno.
    Answer(i32),
    /// Of another kind, or a packet without what is needed.
    Other,
}

/// A packet that netfilter hands over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The number by which the verdict names it; larger than those before, until it wraps.
    pub id: u32,
    /// Where its bytes are in the datagram, from the IP header on.
    pub payload: Range<usize>,
    /// Bytes of the whole packet, of which the payload may be the beginning only.
    pub len: usize,
    /// NFQA_SKB_INFO: NFQA_SKB_CSUMNOTREADY and the like.
    pub flags: u32,
    /// The interface through which it came, 0: none.
    pub interface_index: u32,
}

/// The message that begins at `offset` of a datagram, and where the next one may begin. `None`: there is
/// none, or it is cut short.
pub fn message(datagram: &[u8], offset: usize) -> Option<(Message, usize)> {
    let rest = datagram.get(offset..)?;
    let len = word_ne(rest, 0)? as usize;
    let kind = u16::from_ne_bytes(*rest.get(4..)?.first_chunk()?);
    if len < HEADER_LEN {
        return None;
    }
    let body = rest.get(HEADER_LEN..len)?;
    let message = match i32::from(kind) {
        libc::NLMSG_ERROR => {
            let code = i32::from_ne_bytes(*body.first_chunk()?);
            Message::Answer(code.saturating_neg())
        }
        PACKET_KIND => packet(body, offset + HEADER_LEN).map_or(Message::Other, Message::Packet),
        _ => Message::Other,
    };
    Some((message, offset + len.next_multiple_of(4)))
}

/// Reads the attributes of a packet; `start` is where `body` begins in its datagram.
fn packet(body: &[u8], start: usize) -> Option<Packet> {
    let mut id = None;
    let mut payload = None;
    let mut whole_len = None;
    let (mut flags, mut interface_index) = (0, 0);
    let mut at = GENERIC_LEN;
    while let Some(head) = body.get(at..at + 4) {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & ATTRIBUTE_KIND;
        let Some(value) = body.get(at + 4..at + len) else { break };
        match i32::from(kind) {
            libc::NFQA_PACKET_HDR => id = word_be(value, 0),
            libc::NFQA_PAYLOAD => payload = Some(start + at + 4..start + at + len),
            libc::NFQA_CAP_LEN => whole_len = word_be(value, 0),
            libc::NFQA_SKB_INFO => flags = word_be(value, 0)?,
            libc::NFQA_IFINDEX_INDEV => interface_index = word_be(value, 0)?,
            _ => {}
        }
        at += len.next_multiple_of(4);
    }
    let payload = payload?;
    let len = whole_len.map_or(payload.len(), |len| len as usize);
    Some(Packet { id: id?, payload, len, flags, interface_index })
}

/// Requests for one queue, one after the other, for one `send`.
#[derive(Debug, Default)]
pub(super) struct Requests {
    queue: u16,
    bytes: Vec<u8>,
}

impl Requests {
    pub(super) fn new(queue: u16) -> Self {
        Self { queue, bytes: Vec::new() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Binds the queue to the socket that sends this.
    pub(super) fn bind(self) -> Self {
        // Command, padding, and a protocol family that is not looked at since Linux 3.8.
        self.request(
            libc::NFQNL_MSG_CONFIG,
            &[(libc::NFQA_CFG_CMD, &[libc::NFQNL_CFG_CMD_BIND as u8, 0, 0, 0])],
        )
    }

    /// Packets that may wait for their verdict.
    pub(super) fn len_max(self, packets: u32) -> Self {
        let value = packets.to_be_bytes();
        self.request(libc::NFQNL_MSG_CONFIG, &[(libc::NFQA_CFG_QUEUE_MAXLEN, &value)])
    }

    /// Sets or clears a flag of the queue.
    pub(super) fn flag(self, flag: i32, on: bool) -> Self {
        let mask = (flag as u32).to_be_bytes();
        let value = if on { mask } else { [0; 4] };
        self.request(libc::NFQNL_MSG_CONFIG, &[(libc::NFQA_CFG_MASK, &mask), (libc::NFQA_CFG_FLAGS, &value)])
    }

    /// Asks for whole packets; from here on they come.
    pub(super) fn copy_packets(self) -> Self {
        let [a, b, c, d] = PAYLOAD_LEN_MAX.to_be_bytes();
        let value = [a, b, c, d, libc::NFQNL_COPY_PACKET as u8];
        self.request(libc::NFQNL_MSG_CONFIG, &[(libc::NFQA_CFG_PARAMS, &value)])
    }

    /// Says what becomes of one packet.
    pub(super) fn verdict(self, verdict: i32, id: u32) -> Self {
        self.verdict_of(libc::NFQNL_MSG_VERDICT, verdict, id)
    }

    /// Says what becomes of all packets up to this one that still wait.
    pub(super) fn verdict_up_to(self, verdict: i32, id: u32) -> Self {
        self.verdict_of(libc::NFQNL_MSG_VERDICT_BATCH, verdict, id)
    }

    fn verdict_of(self, kind: i32, verdict: i32, id: u32) -> Self {
        let mut value = [0; 8];
        value[..4].copy_from_slice(&(verdict as u32).to_be_bytes());
        value[4..].copy_from_slice(&id.to_be_bytes());
        self.request(kind, &[(libc::NFQA_VERDICT_HDR, &value)])
    }

    /// Asks for an answer to the last request.
    pub(super) fn answered(mut self) -> Self {
        let mut offset = 0;
        while let Some(len) = word_ne(&self.bytes, offset) {
            let next = offset + len as usize;
            if next >= self.bytes.len() {
                self.bytes[offset + 6..offset + 8].copy_from_slice(&FLAGS_ANSWERED.to_ne_bytes());
                break;
            }
            offset = next;
        }
        self
    }

    fn request(mut self, kind: i32, attributes: &[(i32, &[u8])]) -> Self {
        let start = self.bytes.len();
        let kind = ((libc::NFNL_SUBSYS_QUEUE << 8) | kind) as u16;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend([libc::AF_UNSPEC as u8, libc::NFNETLINK_V0 as u8]);
        self.bytes.extend(self.queue.to_be_bytes());
        for &(kind, value) in attributes {
            self.bytes.extend((4 + value.len() as u16).to_ne_bytes());
            self.bytes.extend((kind as u16).to_ne_bytes());
            self.bytes.extend(value);
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        }
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        self
    }
}

fn word_ne(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn word_be(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_be_bytes)
}

/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// `struct nfgenmsg`.
const GENERIC_LEN: usize = 4;
const PACKET_KIND: i32 = (libc::NFNL_SUBSYS_QUEUE << 8) | libc::NFQNL_MSG_PACKET;
/// Without the flags for nesting and byte order.
const ATTRIBUTE_KIND: u16 = 0x3fff;
const FLAGS_ANSWERED: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
/// NFQNL_MAX_COPY_RANGE: what fits into an attribute.
pub(super) const PAYLOAD_LEN_MAX: u32 = 0xffff - 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel writes it.
    fn packet_message(id: u32, payload: &[u8], more: &[(i32, &[u8])]) -> Vec<u8> {
        let mut header = id.to_be_bytes().to_vec();
        header.extend([8, 0, 1]);
        let mut attributes: Vec<(i32, &[u8])> = vec![(libc::NFQA_PACKET_HDR, &header)];
        attributes.extend(more);
        attributes.push((libc::NFQA_PAYLOAD, payload));
        Requests::new(7).request(libc::NFQNL_MSG_PACKET, &attributes).bytes
    }

    #[test]
    fn packets_are_found_where_they_are() {
        let more: [(i32, &[u8]); 3] = [
            (libc::NFQA_SKB_INFO, &[0, 0, 0, 3]),
            (libc::NFQA_IFINDEX_INDEV, &[0, 0, 0, 9]),
            (libc::NFQA_CAP_LEN, &[0, 0, 1, 0]),
        ];
        let first = packet_message(5, b"odd", &[]);
        let datagram = [first.clone(), packet_message(6, b"packet", &more)].concat();
        let (message_a, next) = message(&datagram, 0).expect("whole");
        let Message::Packet(a) = message_a else { panic!("{message_a:?}") };
        assert_eq!((a.id, &datagram[a.payload.clone()], a.len, a.flags), (5, &b"odd"[..], 3, 0));
        assert_eq!(next, first.len());
        let (message_b, next) = message(&datagram, next).expect("whole");
        let Message::Packet(b) = message_b else { panic!("{message_b:?}") };
        assert_eq!((b.id, &datagram[b.payload.clone()], b.len), (6, &b"packet"[..], 256));
        assert_eq!((b.flags, b.interface_index), (3, 9));
        assert_eq!(message(&datagram, next), None);
    }

    #[test]
    fn answers_are_told_from_packets() {
        let mut answer = vec![20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        answer.extend((-libc::EPERM).to_ne_bytes());
        assert_eq!(message(&answer, 0), Some((Message::Answer(libc::EPERM), 20)));
        answer[4] = 99;
        assert_eq!(message(&answer, 0), Some((Message::Other, 20)));
        // Without an id there can be no verdict.
        let no_id = Requests::new(1).request(libc::NFQNL_MSG_PACKET, &[(libc::NFQA_PAYLOAD, b"x")]).bytes;
        assert_eq!(message(&no_id, 0), Some((Message::Other, no_id.len())));
    }

    #[test]
    fn only_the_last_request_is_answered() {
        let requests = Requests::new(1).bind().len_max(9).flag(4, true).answered();
        let mut offset = 0;
        let mut flags = Vec::new();
        while let Some(len) = word_ne(requests.bytes(), offset) {
            flags.push(requests.bytes()[offset + 6]);
            offset += len as usize;
        }
        assert_eq!(flags, [1, 1, 5]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut offset = 0;
            while let Some((message, next)) = message(&bytes, offset) {
                assert!(next >= offset + HEADER_LEN);
                if let Message::Packet(packet) = message {
                    assert!(bytes.get(packet.payload).is_some());
                }
                offset = next;
            }
        }
    }
}
