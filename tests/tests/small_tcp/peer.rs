//! A peer whose every segment is written by hand, and what it sees.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use smoltcp::phy::Medium;
use smoltcp::time::{Duration, Instant};
use wirestack_nic::loopback::Loopback;
use wirestack_nic::meta::{Gso, GsoKind};
use wirestack_nic::offload::Segments;
use wirestack_nic::{FrameMeta, Nic as _};
use wirestack_tests::sim::packets::{self, TCP, TcpView};

use crate::engine::{Engine, SERVER};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// The option of an MSS of 1460.
pub(crate) const MSS: [u8; 4] = [2, 4, 5, 0xb4];
/// With SACK.
pub(crate) const MSS_AND_SACK: [u8; 8] = [2, 4, 5, 0xb4, 4, 2, 1, 1];
/// With a window scale of 5.
pub(crate) const MSS_AND_SCALE: [u8; 8] = [2, 4, 5, 0xb4, 3, 3, 5, 1];

/// The first sequence number of the peer.
pub(crate) const ISS: u32 = 1_000;
/// Frames at one time, after which an engine is taken to go on for ever.
const FRAMES_MAX: usize = 100_000;
/// Turns in a row that want another one at once.
const TURNS_MAX: usize = 100_000;

/// An IPv4 socket of the peer.
pub(crate) fn client(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, 2).into(), port)
}

/// Bytes each of which tells where it is.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect()
}

/// The timestamp option.
pub(crate) fn timestamp(val: u32, ecr: u32) -> Vec<u8> {
    [&[1, 1, 8, 10][..], &val.to_be_bytes(), &ecr.to_be_bytes()].concat()
}

/// A segment to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Craft {
    pub(crate) from: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// A multiple of 4 bytes.
    pub(crate) options: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl Craft {
    /// The first of a connection.
    pub(crate) fn syn(from: SocketAddr, options: &[u8]) -> Self {
        Self { from, seq: ISS, ack: 0, flags: SYN, window: 65_535, options: options.to_vec(), data: vec![] }
    }

    /// The IP packet.
    fn packet(&self) -> Vec<u8> {
        let to: SocketAddr = SERVER.parse().expect("an address");
        let mut bytes = [self.from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([(5 + self.options.len() as u8 / 4) << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.options);
        bytes.extend(&self.data);
        let pseudo = packets::pseudo_sum(self.from.ip(), to.ip(), TCP, bytes.len());
        let sum = packets::checksum(&[&pseudo.to_be_bytes(), &bytes]);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        packets::packet(self.from.ip(), to.ip(), TCP, &bytes)
    }
}

/// The peer's end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) from: SocketAddr,
    /// What it sends next.
    pub(crate) seq: u32,
    /// What it expects next.
    pub(crate) ack: u32,
    pub(crate) window: u16,
}

impl End {
    /// An ACK without anything; tests change what they are about.
    pub(crate) fn segment(&self) -> Craft {
        let Self { from, seq, ack, window } = *self;
        Craft { from, seq, ack, flags: ACK, window, options: Vec::new(), data: Vec::new() }
    }
}

/// A segment that the engine has sent.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) packet: Vec<u8>,
    pub(crate) dst_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) data: Vec<u8>,
    /// Blocks of a SACK option.
    pub(crate) sack: Vec<(u32, u32)>,
}

impl Seen {
    fn of(packet: &[u8]) -> Option<Self> {
        let is_tcp = packet.first()? >> 4 == 4 && packet.get(9) == Some(&TCP);
        let segment = packet.get(usize::from(packet[0] & 15) * 4..).filter(|_| is_tcp)?;
        let view = TcpView::new(segment)?;
        let word = |bytes: &[u8]| bytes.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let blocks = view.each_option().flatten().find(|(kind, _)| *kind == 5);
        let blocks = blocks.map_or(&[][..], |(_, content)| content);
        Some(Self {
            packet: packet.to_vec(),
            dst_port: view.dst_port(),
            seq: view.seq(),
            ack: view.ack(),
            flags: view.flags(),
            data: view.payload().to_vec(),
            sack: blocks.chunks(8).map(|block| (word(&block[..4]), word(&block[4..]))).collect(),
        })
    }

    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The sequence number behind it.
    pub(crate) fn end(&self) -> u32 {
        let flags = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(self.data.len() as u32 + flags)
    }
}

/// The segments of a packet, which may be one that the device splits.
fn segments(packet: &[u8], meta: &FrameMeta) -> Vec<Seen> {
    if meta.gso.is_none() {
        return Seen::of(packet).into_iter().collect();
    }
    let pieces = Segments::of(Medium::Ip, packet, meta, None);
    let piece = |index| {
        let mut piece = vec![0; pieces.frame_len(index)];
        pieces.write(index, &mut piece);
        Seen::of(&piece)
    };
    (0..pieces.count()).filter_map(piece).collect()
}

/// An engine, and the peer at the other end of its wire. What goes wrong is told, not panicked about: with one of the
/// engines it has to.
pub(crate) struct Peer {
    pub(crate) engine: Box<dyn Engine>,
    wire: Loopback<'static>,
    pub(crate) now: Instant,
}

impl Peer {
    pub(crate) fn new(engine: Box<dyn Engine>, wire: Loopback<'static>, now: Instant) -> Self {
        Self { engine, wire, now }
    }

    /// Puts a segment on the wire, where it waits for the next turn.
    pub(crate) fn push(&mut self, craft: &Craft) {
        self.push_packet(&craft.packet(), &FrameMeta::default());
    }

    fn push_packet(&mut self, packet: &[u8], meta: &FrameMeta) {
        let write = |room: &mut [u8]| room.copy_from_slice(packet);
        self.wire.transmit_with(self.now, packet.len(), meta, write).expect("room on the wire");
    }

    /// Sends a segment, and returns what it brings about at once.
    pub(crate) fn put(&mut self, craft: Craft) -> Result<Vec<Seen>, String> {
        self.push(&craft);
        self.settle()
    }

    /// The same with one that a device has merged of segments of `segment_bytes`.
    pub(crate) fn put_merged(&mut self, craft: Craft, segment_bytes: u16) -> Result<Vec<Seen>, String> {
        let size = NonZeroU16::new(segment_bytes).expect("a size");
        let gso = Some(Gso { kind: GsoKind::TcpV4, size, ecn: false });
        self.push_packet(&craft.packet(), &FrameMeta { gso, ..FrameMeta::default() });
        self.settle()
    }

    /// Sends an ICMP message: a router's `kind` and `code`, with the second word, about a packet.
    pub(crate) fn put_icmp(
        &mut self,
        kind: u8,
        code: u8,
        rest: u32,
        about: &[u8],
    ) -> Result<Vec<Seen>, String> {
        let to: SocketAddr = SERVER.parse().expect("an address");
        let router = Ipv4Addr::new(10, 0, 0, 254).into();
        let quoted = &about[..about.len().min(28)];
        let packet = packets::icmp_packet(router, to.ip(), kind, code, rest, quoted);
        self.push_packet(&packet, &FrameMeta::default());
        self.settle()
    }

    /// Lets the engine do what is to be done now, and returns what it sends.
    pub(crate) fn settle(&mut self) -> Result<Vec<Seen>, String> {
        let (mut frames, mut seen) = (0, Vec::new());
        for _ in 0..TURNS_MAX {
            let next = self.engine.turn(self.now);
            let before = frames;
            while let Some(segments) = self.wire.receive_with(self.now, segments) {
                frames += 1;
                seen.extend(segments);
            }
            if frames > FRAMES_MAX {
                return Err(format!("more than {FRAMES_MAX} frames at one time: it goes on for ever"));
            }
            if frames == before && next.is_none_or(|next| next > self.now) {
                return Ok(seen);
            }
        }
        Err(format!("it wants more than {TURNS_MAX} turns at one time"))
    }

    /// Lets time pass, and returns what is sent until then.
    pub(crate) fn advance(&mut self, time: Duration) -> Result<Vec<Seen>, String> {
        let end = self.now + time;
        let mut seen = self.settle()?;
        while let Some(next) = self.engine.turn(self.now).filter(|next| *next <= end) {
            self.now = self.now.max(next);
            seen.extend(self.settle()?);
        }
        self.now = end;
        seen.extend(self.settle()?);
        Ok(seen)
    }

    /// Opens a connection, which the engine accepts. The peer's window is `window` when it is open.
    pub(crate) fn connect(&mut self, from: SocketAddr, options: &[u8], window: u16) -> Result<End, String> {
        self.connect_with(Craft::syn(from, options), &[], window)
    }

    /// The same with a SYN, and an ACK that has these options.
    pub(crate) fn connect_with(&mut self, syn: Craft, options: &[u8], window: u16) -> Result<End, String> {
        let (from, seq) = (syn.from, syn.seq.wrapping_add(1));
        let sent = self.put(syn)?;
        let answer = match &sent[..] {
            [answer] if answer.has(SYN | ACK) && answer.ack == seq => answer,
            [answer] if answer.has(RST) => return Err("a SYN was answered by a reset".to_owned()),
            other => return Err(format!("a SYN was not answered by a SYN-ACK but by {}", other.len())),
        };
        let end = End { from, seq, ack: answer.end(), window };
        self.put(Craft { options: options.to_vec(), ..end.segment() })?;
        if self.engine.accept() { Ok(end) } else { Err("nobody is there to be accepted".to_owned()) }
    }

    /// Takes what the engine sends and acknowledges it, with what it `sent` before, until so many bytes are there or
    /// for a minute.
    pub(crate) fn collect(&mut self, end: &mut End, sent: Vec<Seen>, len: usize) -> Result<Vec<u8>, String> {
        let (first, mut stream, mut early) = (end.ack, Vec::new(), BTreeMap::new());
        let mut sent = sent;
        for _ in 0..120 {
            for one in sent.drain(..).filter(|one| !one.data.is_empty()) {
                early.insert(one.seq.wrapping_sub(first) as usize, one.data);
            }
            for (&at, data) in early.iter().filter(|(at, _)| **at < 1 << 30) {
                if (at..at + data.len()).contains(&stream.len()) {
                    stream.extend_from_slice(&data[stream.len() - at..]);
                }
            }
            end.ack = first.wrapping_add(stream.len() as u32);
            if stream.len() >= len {
                return Ok(stream);
            }
            sent = self.put(end.segment())?;
            sent.extend(self.advance(Duration::from_millis(500))?);
        }
        Err(format!("{} of {len} bytes came", stream.len()))
    }
}
