//! What others see in a capture of our TCP: tshark's expert analysis, and rules of RFC 9293 that hold for every
//! segment of ours, checked against what the peer had said before.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, UdpSocket};
use std::path::Path;
use std::process::Command;

use wirestack_apps::testbed::Wire;
use wirestack_tests::programs::{Child, Ended, output};
use wirestack_tests::runner::{Case, Outcome, note, require_program, stay_on_one_core, veth_test};

use crate::support::{ADDRESSES, LONG, counter, end, noise, serve, url_host};
use crate::talk::wait_until;
use crate::tcp_bridge::OURS as BESIDE_LEFT;
use crate::tcp_serve::connect;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let tshark = |cases| require_program("curl", require_program("tshark", cases));
    vec![
        tshark(veth_test("tcp::tshark_finds_nothing", nothing_is_found)),
        require_program(
            "tcpdump",
            tshark(veth_test("tcp::tshark_finds_nothing_at_the_peer", nothing_at_the_peer)),
        ),
        tshark(veth_test("tcp::tshark_finds_nothing_on_a_worse_wire", nothing_on_a_worse_wire)),
    ]
}

/// One segment, as tshark reads it; numbers are relative.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    number: u64,
    pub(crate) stream: u64,
    pub(crate) is_ours: bool,
    seq: u64,
    next_seq: u64,
    ack: u64,
    window: u64,
    len: u64,
    is_syn: bool,
    is_ack: bool,
    is_fin: bool,
    pub(crate) is_reset: bool,
    /// Of the expert analysis.
    remarks: Vec<&'static str>,
}

/// What tshark may remark on a segment.
const ANALYSIS: [&str; 13] = [
    "tcp.analysis.retransmission",
    "tcp.analysis.fast_retransmission",
    "tcp.analysis.spurious_retransmission",
    "tcp.analysis.out_of_order",
    "tcp.analysis.lost_segment",
    "tcp.analysis.ack_lost_segment",
    "tcp.analysis.reused_ports",
    "tcp.analysis.window_full",
    "tcp.analysis.zero_window",
    "tcp.analysis.zero_window_probe",
    "tcp.analysis.zero_window_probe_ack",
    "tcp.analysis.keep_alive",
    "tcp.analysis.duplicate_ack",
];

const FIELDS: [&str; 12] = [
    "frame.number",
    "tcp.stream",
    "ip.src",
    "ipv6.src",
    "tcp.seq",
    "tcp.nxtseq",
    "tcp.ack",
    "tcp.window_size",
    "tcp.len",
    "tcp.flags",
    "tcp.checksum.status",
    "_ws.malformed",
];

/// All segments of a capture. `is_summed`: checksums are as on the wire, and not left to a device.
pub(crate) fn segments(file: &Path, is_summed: bool) -> Result<Vec<Segment>, libtest_mimic::Failed> {
    let checksums = format!("tcp.check_checksum:{}", if is_summed { "TRUE" } else { "FALSE" });
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(file).args(["-o", &checksums, "-Y", "tcp", "-T", "fields"]);
    // Random bytes look like some protocol now and then, and one of those keeps tshark busy for a minute.
    tshark.args(["-d", "tcp.port==0-65535,data", "-E", "separator=;", "-E", "occurrence=f"]);
    for field in FIELDS.iter().chain(&ANALYSIS) {
        tshark.args(["-e", field]);
    }
    let ended = output(&mut tshark, LONG)?;
    ended
        .stdout
        .lines()
        .map(|line| parse(line).ok_or_else(|| format!("tshark says {line:?}").into()))
        .collect()
}

fn parse(line: &str) -> Option<Segment> {
    let cells: Vec<_> = line.split(';').collect();
    let number = |index: usize| cells.get(index)?.parse::<u64>().ok();
    let flags = u64::from_str_radix(cells.get(9)?.strip_prefix("0x")?, 16).ok()?;
    let ours = [ADDRESSES, BESIDE_LEFT].as_flattened().iter().map(IpAddr::to_string).collect::<Vec<_>>();
    let is_said = |(name, cell): (&&'static str, &&str)| (!cell.is_empty()).then_some(*name);
    let mut remarks: Vec<_> = ANALYSIS.iter().zip(&cells[FIELDS.len()..]).filter_map(is_said).collect();
    // 0: bad.
    remarks.extend((*cells.get(10)? == "0").then_some("a bad checksum"));
    remarks.extend((!cells.get(11)?.is_empty()).then_some("malformed"));
    Some(Segment {
        number: number(0)?,
        stream: number(1)?,
        is_ours: cells[2..4].iter().any(|cell| ours.iter().any(|ours| ours == cell)),
        seq: number(4)?,
        next_seq: number(5).or_else(|| number(4))?,
        ack: number(6).unwrap_or(0),
        window: number(7)?,
        len: number(8)?,
        is_fin: flags & 1 != 0,
        is_syn: flags & 2 != 0,
        is_reset: flags & 4 != 0,
        is_ack: flags & 16 != 0,
        remarks,
    })
}

/// What both ends of a connection have said so far.
#[derive(Debug, Default)]
struct Said {
    /// The right edge of the window that the peer has offered.
    peer_edge: u64,
    /// The highest number behind what the peer has sent.
    peer_next: u64,
    /// The highest acknowledgment of the peer.
    peer_ack: u64,
    our_ack: u64,
    our_edge: u64,
    our_next: u64,
    /// The number behind our FIN.
    our_fin: Option<u64>,
    has_reset: bool,
}

impl Said {
    /// A segment of ours against what was said before.
    fn check(&self, segment: &Segment) -> Option<String> {
        let Segment { seq, next_seq, ack, window, len, is_syn, is_fin, is_ack, is_reset, .. } = *segment;
        if is_syn || is_reset {
            return None;
        }
        let edge = ack + window;
        let wrong =
            |what: &str, other: u64| Some(format!("frame {}: {what} ({other}): {segment:?}", segment.number));
        if !is_ack {
            return wrong("no acknowledgment", 0);
        }
        // One byte beyond a window that is shut is a probe (RFC 9293 section 3.8.6.1), before it a keepalive.
        if len > 1 && seq + len > self.peer_edge {
            return wrong("data outside of the peer's window", self.peer_edge);
        }
        if ack > self.peer_next {
            return wrong("an acknowledgment of what was not sent", self.peer_next);
        }
        if ack < self.our_ack {
            return wrong("an acknowledgment that goes back", self.our_ack);
        }
        if edge + WINDOW_ROUNDING < self.our_edge {
            return wrong("a window that shrinks", self.our_edge);
        }
        if seq > self.our_next {
            return wrong("a gap before what was sent", self.our_next);
        }
        match self.our_fin {
            Some(fin) if next_seq > fin => wrong("something behind our FIN", fin),
            Some(fin) if is_fin && next_seq != fin => wrong("a FIN in another place", fin),
            _ => None,
        }
    }

    fn take(&mut self, segment: &Segment) {
        let edge = segment.ack + segment.window;
        if segment.is_reset {
            self.has_reset = true;
            return;
        }
        if segment.is_ours {
            self.our_next = self.our_next.max(segment.next_seq);
            self.our_ack = self.our_ack.max(segment.ack);
            self.our_edge = self.our_edge.max(edge);
            if segment.is_fin {
                self.our_fin = Some(segment.next_seq);
            }
        } else {
            self.peer_next = self.peer_next.max(segment.next_seq);
            self.peer_ack = self.peer_ack.max(segment.ack);
            self.peer_edge = self.peer_edge.max(edge);
        }
    }
}

/// What an edge may go back by: windows are rounded to the scale (RFC 7323 section 2.4).
const WINDOW_ROUNDING: u64 = 1 << 8;

/// Violations of all connections, and remarks of tshark on our segments other than these.
pub(crate) fn violations(segments: &[Segment], allowed: &[&str]) -> Vec<String> {
    let mut streams = HashMap::<u64, Said>::new();
    let mut found = Vec::new();
    for segment in segments {
        let said = streams.entry(segment.stream).or_default();
        if segment.is_ours {
            found.extend(said.check(segment));
            let bad = segment.remarks.iter().filter(|remark| !allowed.contains(remark));
            found.extend(bad.map(|remark| format!("{remark} in frame {}: {segment:?}", segment.number)));
        }
        said.take(segment);
    }
    for (number, said) in &streams {
        // Both ends have finished, and everything that we had sent was acknowledged.
        if !said.has_reset && (said.our_fin.is_none() || said.peer_ack < said.our_next) {
            found.push(format!("stream {number} has no end: {said:?}"));
        }
    }
    found
}

/// Downloads of every kind of length, on both IP versions.
fn downloads(wire: &Wire) -> Outcome {
    for address in ADDRESSES {
        for len in [0, 1, 1_460, 3_000_000] {
            let url = format!("http://{}/bytes/{len}", url_host(address));
            let mut curl = Command::new("curl");
            curl.args(["-gsS", "--fail", "--max-time", "60", &url, "-o", "/dev/null"]);
            wire.at_peer(|| output(&mut curl, LONG))?;
        }
    }
    Ok(())
}

/// The window shuts in both directions, and opens again.
fn slow_echo(wire: &Wire, address: IpAddr) -> io::Result<()> {
    let mut stream = connect(wire, address, 7)?;
    let bytes = noise(1, 4 << 20);
    stream.set_nonblocking(true)?;
    let mut sent = 0;
    let mut idle = 0;
    while idle < 30 && sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(len) => (sent, idle) = (sent + len, 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(std::time::Duration::from_millis(10));
                idle += 1;
            }
            Err(error) => return Err(error),
        }
    }
    stream.set_nonblocking(false)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    assert!(back == bytes[..sent], "what came back is not what was sent");
    Ok(())
}

/// Serves, talks, and judges what the stack has seen itself (`--pcap`).
fn trace(wire: &Wire, more: &[&str], allowed: &[&str]) -> Outcome {
    stay_on_one_core();
    let dir = tempfile::tempdir()?;
    for program in ["http", "echo"] {
        let file = dir.path().join(format!("{program}.pcapng"));
        let path = file.to_string_lossy().into_owned();
        let server = serve(wire, &[&[program, "--json", "--pcap", &path], more].concat())?;
        talk(wire, program)?;
        let ended = end(server)?;
        judge(&file, false, allowed, &ended)?;
    }
    Ok(())
}

fn talk(wire: &Wire, program: &str) -> Outcome {
    if program == "http" {
        return downloads(wire);
    }
    Ok(ADDRESSES.into_iter().try_for_each(|address| slow_echo(wire, address))?)
}

/// On a busy machine a peer may be so late that a probe asks whether the tail was lost, or a timer expires, after which
/// all that was under way is repeated: as many repetitions as were counted as such are none of loss. tshark may say two
/// things of one.
fn judge(file: &Path, is_summed: bool, allowed: &[&str], ended: &Ended) -> Outcome {
    let segments = segments(file, is_summed)?;
    assert!(segments.len() > 100, "{} segments", segments.len());
    let of_timers = if counter(ended, "tcp_timeouts") > 0 { counter(ended, "tcp_retransmits") } else { 0 };
    let spare = counter(ended, "tcp_loss_probes") + of_timers;
    let is_repetition = |line: &&String| REPETITIONS.iter().any(|remark| line.starts_with(remark));
    let mut found = violations(&segments, allowed);
    let frame = |line: &String| line.split_once(" in frame ").map(|(_, frame)| frame.to_owned());
    let repeated: HashSet<_> = found.iter().filter(is_repetition).filter_map(frame).collect();
    if repeated.len() as u64 <= spare {
        found.retain(|line| !is_repetition(&line));
    }
    let first = found[..found.len().min(10)].join("\n");
    assert!(found.is_empty(), "{} violations in {} segments\n{first}", found.len(), segments.len());
    Ok(())
}

/// Windows that shut and are probed, and a kernel that is slow to take, are no fault of ours.
pub(crate) const ON_A_GOOD_WIRE: [&str; 6] = [
    "tcp.analysis.window_full",
    "tcp.analysis.zero_window",
    "tcp.analysis.zero_window_probe",
    "tcp.analysis.zero_window_probe_ack",
    "tcp.analysis.keep_alive",
    "tcp.analysis.duplicate_ack",
];

/// What tshark says of a segment that was sent before.
pub(crate) const REPETITIONS: [&str; 4] = [
    "tcp.analysis.retransmission",
    "tcp.analysis.fast_retransmission",
    "tcp.analysis.spurious_retransmission",
    "tcp.analysis.out_of_order",
];

fn nothing_is_found(wire: &Wire) -> Outcome {
    trace(wire, &[], &ON_A_GOOD_WIRE)
}

/// The same from the other end, where checksums are those of the wire: no device fills them in any more.
fn nothing_at_the_peer(wire: &Wire) -> Outcome {
    stay_on_one_core();
    wire.pair().set_offloads(false)?;
    let dir = tempfile::tempdir()?;
    for program in ["http", "echo"] {
        let server = serve(wire, &[program, "--json", "--device", "vnet_hdr=off"])?;
        let file = dir.path().join(format!("{program}.pcap"));
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-n", "-U", "-B", "65536", "-i", wire.peer().name(), "-w"]);
        let mut tcpdump = wire.at_peer(|| Child::start(tcpdump.arg(&file).arg("tcp or udp port 9")))?;
        tcpdump.wait_for_line("tcpdump: listening", LONG)?;
        talk(wire, program)?;
        let ended = end(server)?;
        // What comes before it is in the file by then.
        let marker = b"the end of the capture";
        let socket = wire.at_peer(|| UdpSocket::bind("0.0.0.0:0"))?;
        socket.set_broadcast(true)?;
        socket.send_to(marker, "10.77.0.255:9")?;
        wait_until("the capture is complete", || {
            Ok(fs::read(&file)?.windows(marker.len()).any(|window| window == marker))
        })?;
        end(tcpdump)?;
        judge(&file, true, &ON_A_GOOD_WIRE, &ended)?;
    }
    Ok(())
}

/// tshark looks from behind the wire that loses.
pub(crate) const LOSSES: [&str; 2] = ["tcp.analysis.lost_segment", "tcp.analysis.ack_lost_segment"];

fn nothing_on_a_worse_wire(wire: &Wire) -> Outcome {
    note("--impair loss=1%,delay=1ms --seed 11");
    let allowed = [&ON_A_GOOD_WIRE[..], &REPETITIONS, &LOSSES].concat();
    trace(wire, &["--impair", "loss=1%,delay=1ms", "--seed", "11"], &allowed)
}
