//! What was on the wires: a hash of all of it, the last frames in words, and all of them as a file.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::BufWriter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use smoltcp::phy::Medium;
use smoltcp::time::{Duration, Instant};
use wirestack::nic::capture::pcapng::{Direction, PcapngInterface, PcapngWriter};

use super::packets::TcpView;

/// Frames that are told of when a run fails.
const SHOWN: usize = 40;
/// Bytes of a frame that a file keeps: all.
const SNAP_LEN: u32 = 65_549;

#[derive(Debug)]
struct Record {
    at: Instant,
    from: String,
    frame: Vec<u8>,
}

/// What was sent.
#[derive(Debug)]
pub(super) struct Trace {
    name: String,
    seed: u64,
    hash: DefaultHasher,
    frames: u64,
    last: VecDeque<Record>,
    /// Where a file goes; then all frames are kept.
    file: Option<PathBuf>,
    /// Bytes of a frame that are part of the hash.
    hashed_bytes_max: usize,
}

impl Trace {
    pub(super) fn new(name: &str, seed: u64) -> Self {
        // A hasher with fixed keys: the same frames are the same number in every run.
        let hash = DefaultHasher::new();
        let file =
            std::env::var_os("PCAP").map(|dir| PathBuf::from(dir).join(format!("{name}-{seed}.pcapng")));
        Self {
            name: name.to_owned(),
            seed,
            hash,
            frames: 0,
            last: VecDeque::new(),
            file,
            hashed_bytes_max: usize::MAX,
        }
    }

    pub(super) fn record(&mut self, at: Instant, from: &str, frame: &[u8]) {
        let hashed = &frame[..frame.len().min(self.hashed_bytes_max)];
        (at.total_micros(), from, frame.len(), hashed).hash(&mut self.hash);
        self.frames += 1;
        let is_full = self.file.is_none() && self.last.len() == SHOWN;
        // The memory of what is forgotten is used again: there may be millions.
        let old = if is_full { self.last.pop_front() } else { None };
        let mut record = old.unwrap_or(Record { at, from: String::new(), frame: Vec::new() });
        record.at = at;
        from.clone_into(&mut record.from);
        frame.clone_into(&mut record.frame);
        self.last.push_back(record);
    }

    /// Only headers go into the hash from now on.
    pub(super) fn set_light(&mut self) {
        self.hashed_bytes_max = 128;
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Seed, how to see it again, and the last frames.
    pub(super) fn report(&self) -> String {
        let mut text = format!(
            "simulation {} failed with seed {}; again: SIM_SEED={} PCAP=/tmp cargo test -p wirestack-tests \
             --test sim {}\nlast frames of {}:\n",
            self.name, self.seed, self.seed, self.name, self.frames
        );
        let skipped = self.last.len().saturating_sub(SHOWN);
        for record in self.last.iter().skip(skipped) {
            let micros = record.at.total_micros();
            let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
            let _ = writeln!(text, "{seconds}.{micros:06} {} {}", record.from, describe(&record.frame));
        }
        text
    }

    /// Leaves a file, if one is wanted.
    pub(super) fn save(&self) {
        let Some(path) = &self.file else { return };
        let interface = PcapngInterface { name: "sim", medium: Medium::Ethernet, snap_len: SNAP_LEN };
        let written = File::create(path).and_then(|file| {
            let mut writer = PcapngWriter::new(BufWriter::new(file), interface)?;
            for record in &self.last {
                let at = Duration::from_micros(record.at.total_micros() as u64);
                writer.write_frame(at, Direction::Outbound, &record.frame)?;
            }
            writer.flush()
        });
        match written {
            Ok(()) => eprintln!("{} frames are in {}", self.last.len(), path.display()),
            Err(error) => eprintln!("{}: {error}", path.display()),
        }
    }
}

/// A frame in one line, as tcpdump has it.
pub fn describe(frame: &[u8]) -> String {
    let short = || format!("[{} bytes] {:02x?}", frame.len(), &frame[..frame.len().min(32)]);
    let Some((header, rest)) = frame.split_at_checked(14) else { return short() };
    let text = match (header[12], header[13]) {
        (8, 6) => arp(rest),
        (8, 0) => v4(rest),
        (0x86, 0xdd) => v6(rest),
        _ => None,
    };
    text.map_or_else(short, |text| format!("{text}, frame {}", frame.len()))
}

fn arp(bytes: &[u8]) -> Option<String> {
    let ip = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
    let (sender, target) = (ip(14)?, ip(24)?);
    Some(match bytes[7] {
        1 => format!("ARP, who-has {target} tell {sender}"),
        _ => format!("ARP, {sender} is-at {:02x?} to {target}", &bytes[8..14]),
    })
}

fn v4(bytes: &[u8]) -> Option<String> {
    let ip = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
    let (src, dst) = (ip(12)?, ip(16)?);
    let word = u16::from_be_bytes([bytes[6], bytes[7]]);
    let id = u16::from_be_bytes([bytes[4], bytes[5]]);
    let header_len = usize::from(bytes[0] & 15) * 4;
    let mut text = format!("IP ttl {} id {id}", bytes[8]);
    if word & 0x4000 != 0 {
        text += " DF";
    }
    if word & 0x3fff != 0 {
        let _ = write!(text, " frag {}{}", (word & 0x1fff) * 8, if word & 0x2000 != 0 { "+" } else { "" });
    }
    let body = bytes.get(header_len..)?;
    let is_first = word & 0x1fff == 0;
    Some(format!("{text} {}", transport(bytes[9], src, dst, body, is_first)))
}

fn v6(bytes: &[u8]) -> Option<String> {
    let ip =
        |at: usize| Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?)));
    let (src, dst) = (ip(8)?, ip(24)?);
    let (mut next, mut body) = (bytes[6], bytes.get(40..)?);
    let mut text = format!("IP6 hlim {}", bytes[7]);
    let mut is_first = true;
    while matches!(next, 0 | 43 | 44 | 60) && body.len() >= 8 {
        if next == 44 {
            let word = u16::from_be_bytes([body[2], body[3]]);
            is_first = word & !7 == 0;
            let _ = write!(text, " frag {}{}", word & !7, if word & 1 != 0 { "+" } else { "" });
        }
        let len = if next == 44 { 8 } else { 8 + usize::from(body[1]) * 8 };
        next = body[0];
        body = body.get(len..)?;
    }
    Some(format!("{text} {}", transport(next, src, dst, body, is_first)))
}

fn transport(protocol: u8, src: IpAddr, dst: IpAddr, body: &[u8], is_first: bool) -> String {
    match (protocol, body) {
        (6, _) if is_first => match TcpView::new(body) {
            Some(tcp) => format!("{src}.{} > {dst}.{}: {tcp}", tcp.src_port(), tcp.dst_port()),
            None => format!("{src} > {dst}: TCP, cut"),
        },
        (17, [a, b, c, d, e, f, ..]) if is_first => {
            let [sport, dport, len] = [[*a, *b], [*c, *d], [*e, *f]].map(u16::from_be_bytes);
            format!("{src}.{sport} > {dst}.{dport}: UDP, length {}", i32::from(len) - 8)
        }
        (1 | 58, [kind, code, ..]) if is_first => {
            let name = if protocol == 1 { "ICMP" } else { "ICMP6" };
            format!("{src} > {dst}: {name} type {kind} code {code}, length {}", body.len())
        }
        _ => format!("{src} > {dst}: protocol {protocol}, length {}", body.len()),
    }
}
