//! Against full headers: what comes out is what went in.

mod loss;
mod traffic;
mod wire;

use super::header::{NEW_A, NEW_C, NEW_I, NEW_S, NEW_U, NEW_W, PUSH, SPECIAL_D, SPECIAL_I, TYPE_COMPRESSED};
use super::*;
use crate::serial::framing::FrameError;
use crate::serial::slip::stuff::END;

const CONFIG: FramingConfig = FramingConfig { packet_max: 1500, crc: false, escapes_flow_control: false };

/// A segment, its numbers to be changed one by one.
#[derive(Debug, Clone)]
struct Segment {
    port: u16,
    tos: u8,
    identification: u16,
    fragment: u16,
    ttl: u8,
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    urgent: u16,
    ip_options: Vec<u8>,
    tcp_options: Vec<u8>,
    payload: Vec<u8>,
}

impl Segment {
    fn new(port: u16) -> Self {
        Self {
            port,
            tos: 0,
            identification: 0x1000,
            fragment: 0x4000,
            ttl: 64,
            seq: 0xffff_ff00,
            ack: 0x1234_5678,
            flags: 0x10,
            window: 0x2000,
            urgent: 0,
            ip_options: Vec::new(),
            tcp_options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// The next one of the connection, which carries on.
    fn next(&self, payload: &[u8]) -> Self {
        Self {
            seq: self.seq.wrapping_add(self.payload.len() as u32),
            identification: self.identification.wrapping_add(1),
            payload: payload.to_vec(),
            ..self.clone()
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn checksum(&self) -> [u8; 2] {
        let packet = self.bytes();
        let at = 20 + self.ip_options.len() + 16;
        [packet[at], packet[at + 1]]
    }

    fn bytes(&self) -> Vec<u8> {
        let ip_len = 20 + self.ip_options.len();
        let tcp_len = 20 + self.tcp_options.len();
        let total = (ip_len + tcp_len + self.payload.len()) as u16;
        let mut ip = vec![0x40 | (ip_len / 4) as u8, self.tos];
        ip.extend([total, self.identification, self.fragment].map(u16::to_be_bytes).concat());
        ip.extend([self.ttl, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        ip.extend(&self.ip_options);
        let sum = !crate::offload::sum::data(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut tcp = [self.port, 80].map(u16::to_be_bytes).concat();
        tcp.extend([self.seq, self.ack].map(u32::to_be_bytes).concat());
        tcp.extend([(tcp_len / 4 * 16) as u8, self.flags]);
        tcp.extend([self.window, 0, self.urgent].map(u16::to_be_bytes).concat());
        tcp.extend(&self.tcp_options);
        tcp.extend(&self.payload);
        let sums =
            [crate::offload::sum::data(&ip[12..20]), 6, tcp.len() as u16, crate::offload::sum::data(&tcp)];
        let sum = !crate::offload::sum::combine(&sums);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        [ip, tcp].concat()
    }
}

/// A packet of UDP over IPv4.
fn datagram() -> Vec<u8> {
    let mut packet = Segment::new(1).bytes();
    packet[9] = 17;
    packet[10..12].fill(0);
    let sum = !crate::offload::sum::data(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn encode(cslip: &mut Cslip, packet: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cslip.encode(packet, &mut out);
    out
}

/// What one frame says.
fn decode(cslip: &mut Cslip, mut frame: &[u8]) -> Result<Vec<u8>, FrameError> {
    while !frame.is_empty() {
        let (taken, decoded) = cslip.decode(frame);
        frame = &frame[taken..];
        match decoded {
            Decoded::Packet(packet) => return Ok(packet.to_vec()),
            Decoded::Garbage(error, _) => return Err(error),
            Decoded::Nothing => {}
        }
    }
    panic!("nothing in it");
}

/// What is between the END bytes, escapes undone.
fn inside(frame: &[u8]) -> Vec<u8> {
    let mut unstuffer = Unstuffer::new(&CONFIG);
    match unstuffer.decode(frame).1 {
        Unstuffed::Frame(body, _) => body.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Stuffer::new(&CONFIG).frame(&[body], &mut out);
    out
}
