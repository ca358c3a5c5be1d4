//! The headers of IPv4 and TCP in front of a segment, in one piece, and what compression asks of them.

use crate::offload::sum;

/// Bytes of the longest IPv4 header and the longest TCP header.
const HEADER_MAX: usize = 60 + 60;

/// The first byte of a compressed header: its type (RFC 1144 section 3.2.2, appendix A.1) and what has changed.
pub(super) const TYPE_COMPRESSED: u8 = 0x80;
/// An uncompressed header with a connection number in place of the protocol.
pub(super) const TYPE_UNCOMPRESSED: u8 = 0x70;
pub(super) const NEW_C: u8 = 0x40;
pub(super) const NEW_I: u8 = 0x20;
pub(super) const PUSH: u8 = 0x10;
pub(super) const NEW_S: u8 = 0x08;
pub(super) const NEW_A: u8 = 0x04;
pub(super) const NEW_W: u8 = 0x02;
pub(super) const NEW_U: u8 = 0x01;
/// Sequence and acknowledgment number are behind the last segment's payload: echo of what was typed.
pub(super) const SPECIAL_I: u8 = NEW_S | NEW_W | NEW_U;
/// The sequence number is behind the last segment's payload: data in one direction.
pub(super) const SPECIAL_D: u8 = NEW_S | NEW_A | NEW_W | NEW_U;
pub(super) const SPECIALS_MASK: u8 = SPECIAL_D;

pub(super) const IP_PROTOCOL: usize = 9;
pub(super) const PROTOCOL_TCP: u8 = 6;

const IP_TOTAL_LEN: usize = 2;
const IP_IDENTIFICATION: usize = 4;
const IP_CHECKSUM: usize = 10;
const TCP_SEQ: usize = 4;
const TCP_ACK: usize = 8;
const TCP_FLAGS: usize = 13;
const TCP_WINDOW: usize = 14;
const TCP_CHECKSUM: usize = 16;
const TCP_URGENT: usize = 18;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// The headers of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    bytes: [u8; HEADER_MAX],
    /// 20 to 60, and so is the rest up to `len`: see [`parse`](Self::parse). All offsets above are within.
    ip_len: usize,
    len: usize,
}

impl Header {
    /// Of a packet. `None`: it is none of TCP over IPv4, or it is cut short within the headers.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let first = packet.first()?;
        let ip_len = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || ip_len < 20 || *packet.get(IP_PROTOCOL)? != PROTOCOL_TCP {
            return None;
        }
        let tcp_len = usize::from(packet.get(ip_len + 12)? >> 4) * 4;
        let len = ip_len + tcp_len;
        let header = packet.get(..len).filter(|_| tcp_len >= 20)?;
        let mut bytes = [0; HEADER_MAX];
        bytes.get_mut(..len)?.copy_from_slice(header);
        Some(Self { bytes, ip_len, len })
    }

    /// Writes the checksum of the IP header.
    pub(super) fn fill_ip_checksum(&mut self) {
        self.set_u16(IP_CHECKSUM, 0);
        let sum = sum::data(&self.bytes[..self.ip_len]);
        self.set_u16(IP_CHECKSUM, !sum);
    }

    pub(super) fn set_total_len(&mut self, len: u16) {
        self.set_u16(IP_TOTAL_LEN, len);
    }

    pub(super) fn set_identification(&mut self, identification: u16) {
        self.set_u16(IP_IDENTIFICATION, identification);
    }

    pub(super) fn set_seq(&mut self, seq: u32) {
        self.set_u32(self.ip_len + TCP_SEQ, seq);
    }

    pub(super) fn set_ack(&mut self, ack: u32) {
        self.set_u32(self.ip_len + TCP_ACK, ack);
    }

    pub(super) fn set_window(&mut self, window: u16) {
        self.set_u16(self.ip_len + TCP_WINDOW, window);
    }

    pub(super) fn set_checksum(&mut self, checksum: u16) {
        self.set_u16(self.ip_len + TCP_CHECKSUM, checksum);
    }

    pub(super) fn set_push(&mut self, is_push: bool) {
        self.set_flag(PSH, is_push);
    }

    /// The urgent pointer, or that there is none. Without one, the field stays what it was.
    pub(super) fn set_urgent(&mut self, urgent: Option<u16>) {
        self.set_flag(URG, urgent.is_some());
        if let Some(urgent) = urgent {
            self.set_u16(self.ip_len + TCP_URGENT, urgent);
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn total_len(&self) -> u16 {
        self.u16(IP_TOTAL_LEN)
    }

    /// As the total length says.
    pub(super) fn payload_len(&self) -> u16 {
        self.total_len().saturating_sub(self.len as u16)
    }

    pub(super) fn identification(&self) -> u16 {
        self.u16(IP_IDENTIFICATION)
    }

    pub(super) fn seq(&self) -> u32 {
        self.u32(self.ip_len + TCP_SEQ)
    }

    pub(super) fn ack(&self) -> u32 {
        self.u32(self.ip_len + TCP_ACK)
    }

    pub(super) fn window(&self) -> u16 {
        self.u16(self.ip_len + TCP_WINDOW)
    }

    pub(super) fn checksum(&self) -> u16 {
        self.u16(self.ip_len + TCP_CHECKSUM)
    }

    /// The field of the urgent pointer, whether it counts or not.
    pub(super) fn urgent(&self) -> u16 {
        self.u16(self.ip_len + TCP_URGENT)
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.flags() & URG != 0
    }

    pub(super) fn is_push(&self) -> bool {
        self.flags() & PSH != 0
    }

    /// Whether it may be compressed, or be the first of a row of compressed ones.
    pub(super) fn is_compressible(&self) -> bool {
        let is_fragment = self.u16(6) & 0x3fff != 0;
        //= rfc1144#A.2
        //# Bail if this is an IP fragment or if the TCP packet isn't
        //# `compressible' (i.e., ACK isn't set or some other control bit is set).
        !is_fragment && self.flags() & (FIN | SYN | RST | ACK) == ACK
    }

    /// Whether both are of one connection: addresses and ports.
    pub(super) fn is_same_connection(&self, other: &Self) -> bool {
        self.bytes[12..20] == other.bytes[12..20] && self.ports() == other.ports()
    }

    /// Whether all fields are the same that compression does not tell: IP version and header length, type of service,
    /// fragment flags, time to live, options of IP, TCP header length and reserved bits, options of TCP.
    ///
    /// RFC 1144 is older than ECN, whose flags are to be the same here: it looks at ACK, PSH and URG alone.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let tell = |header: &Self| {
            (header.ip_len, header.len, header.flags() & !(PSH | URG), header.bytes[header.ip_len + 12])
        };
        tell(self) == tell(other)
            && self.bytes[..2] == other.bytes[..2]
            && self.bytes[6..9] == other.bytes[6..9]
            && self.bytes[20..self.ip_len] == other.bytes[20..self.ip_len]
            && self.bytes[self.ip_len + 20..self.len] == other.bytes[self.ip_len + 20..self.len]
    }

    /// Whether the checksum of TCP is right before a payload with this sum.
    pub(super) fn is_sum_right(&self, payload_sum: u16) -> bool {
        let segment_len = self.total_len().wrapping_sub(self.ip_len as u16);
        let sums = [
            sum::data(&self.bytes[12..20]),
            u16::from(PROTOCOL_TCP),
            segment_len,
            sum::data(&self.bytes[self.ip_len..self.len]),
            payload_sum,
        ];
        sum::combine(&sums) == 0xffff
    }

    fn ports(&self) -> &[u8] {
        &self.bytes[self.ip_len..self.ip_len + 4]
    }

    fn flags(&self) -> u8 {
        self.bytes[self.ip_len + TCP_FLAGS]
    }

    fn set_flag(&mut self, flag: u8, is_set: bool) {
        let flags = &mut self.bytes[self.ip_len + TCP_FLAGS];
        *flags = if is_set { *flags | flag } else { *flags & !flag };
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        (u32::from(self.u16(at)) << 16) | u32::from(self.u16(at + 2))
    }

    fn set_u16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn set_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
}
