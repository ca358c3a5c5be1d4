//! What the fuzzer runs, and `cargo test` with a few thousand inputs: bytes of a stranger go in, and
//! nothing may panic, hang or grow without a bound.

use std::io::Cursor;
use std::net::SocketAddr;

use smoltcp::phy::{ChecksumCapabilities, Device, RxToken, TxToken};
use smoltcp::time::{Duration, Instant};
use wirestack::backend::smoltcp::Host;
use wirestack::config::{HostConfig, parse_cidr};
use wirestack::nic::claim::{Claim, ClaimSet, Protocol};
use wirestack::nic::impair::ImpairSpec;
use wirestack::nic::loopback::{Loopback, LoopbackConfig};
use wirestack::nic::nfqueue::{self, Message};
use wirestack::nic::replay::{CaptureFile, Player, Speed};
use wirestack::nic::{Nic, offload};
use wirestack::{EthernetAddress, IpCidr};
use wirestack_apps::{echo, http};

/// A body that takes any bytes, by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; `fuzz/fuzz_targets` has a file for each.
pub const TARGETS: [Target; 7] = [
    ("checksum", checksum),
    ("claims", claims),
    ("host", host),
    ("http", http),
    ("nfqueue", nfqueue),
    ("replay", replay),
    ("spec", spec),
];

/// A frame whose checksum is to be filled in.
pub fn checksum(bytes: &[u8]) {
    let mut frame = bytes.to_vec();
    let filled = offload::fill_checksum(&mut frame);
    assert_eq!(frame.len(), bytes.len());
    assert!(filled || frame == bytes, "what is not filled in stays as it is");
    let once = frame.clone();
    offload::fill_checksum(&mut frame);
    assert_eq!(frame, once, "filling in twice changes nothing");
}

/// A frame on an address that is shared with the kernel.
pub fn claims(bytes: &[u8]) {
    let claims = ClaimSet::new(&[
        Claim::ports(OURS_V4.into(), Protocol::Tcp, 7..=7),
        Claim::ports(OURS_V6.into(), Protocol::Udp, 1000..=2000),
    ]);
    claims.is_ours(bytes);
    claims.is_ours_ip(bytes);
}

/// A head of an HTTP request: what follows a whole one must not change how it is read.
pub fn http(bytes: &[u8]) {
    if let http::Parsed::Request(request, len) = http::parse(bytes) {
        assert!(len <= bytes.len());
        assert_eq!(http::parse(&bytes[..len]), http::Parsed::Request(request, len));
    }
}

/// A datagram of the kernel's queue of packets: every step goes on, and packets lie within.
pub fn nfqueue(bytes: &[u8]) {
    let mut offset = 0;
    while let Some((message, next)) = nfqueue::message(bytes, offset) {
        assert!(next > offset, "each message has a length");
        if let Message::Packet(packet) = message {
            assert!(bytes.get(packet.payload).is_some(), "a packet lies within its datagram");
        }
        offset = next;
    }
}

/// A file as pcap or pcapng, played twice: no more frames than bytes, and none longer than the file.
pub fn replay(bytes: &[u8]) {
    let Ok(file) = CaptureFile::new(Cursor::new(bytes)) else { return };
    let mut player = Player::new(file, Speed::Scaled(0.1), 2);
    let mut now = Instant::from_secs(1);
    let mut frames = 0;
    while let Some(due) = player.due(now) {
        assert!(due >= Instant::from_secs(1), "time goes on");
        now = now.max(due);
        assert!(player.peek(now).is_some_and(|frame| frame.len() <= bytes.len()));
        player.advance();
        frames += 1;
    }
    assert!(frames <= 2 * bytes.len() / SHORTEST_RECORD);
}

/// The text of an impairment: what is read can be written and read again.
pub fn spec(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<ImpairSpec>() {
        Ok(spec) => assert_eq!(spec.to_string().parse(), Ok(spec), "{text:?} became {spec}"),
        Err(error) => assert_eq!(error.to_string().lines().count(), 1),
    }
    if let Ok(cidr) = parse_cidr(&text) {
        assert_eq!(parse_cidr(&cidr.to_string()), Ok(cidr));
    }
}

/// A host with a listener and a UDP port, and a script of frames and pauses: each step is a byte for
/// its kind, a byte for a length, and that many bytes.
///
/// Kind 0: a frame as it is. Kinds 1 and 2: what follows an Ethernet header to us, with the EtherType of
/// IPv4 and ARP. Kind 3: what follows the IPv4 header of a TCP segment to us. Other kinds: time passes.
pub fn host(bytes: &[u8]) {
    let wire = LoopbackConfig { checksum: ChecksumCapabilities::ignored(), ..LoopbackConfig::default() };
    let Ok((ours, mut theirs)) = Loopback::pair(&wire) else { return };
    let mut config = HostConfig::new(OURS_MAC);
    config.addresses = vec![IpCidr::new(OURS_V4.into(), 24), IpCidr::new(OURS_V6.into(), 64)];
    config.sockets_max = SOCKETS_MAX;
    config.recv_buffer_bytes = 4096;
    config.send_buffer_bytes = 4096;
    let Ok(mut host) = Host::new(ours, config) else { return };
    let listened = host.listen(7, |_: SocketAddr| echo::tcp());
    let bound = host.bind_udp(7, echo::udp());
    assert!(listened.is_ok() && bound.is_ok());

    let mut now = Instant::from_secs(1);
    let mut rest = bytes;
    while let [kind, len, tail @ ..] = rest {
        let (body, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        match kind % 5 {
            0 => send(&mut theirs, &[body]),
            1 => send(&mut theirs, &[&ethernet([8, 0]), body]),
            2 => send(&mut theirs, &[&ethernet([8, 6]), body]),
            3 => send(&mut theirs, &[&ethernet([8, 0]), &ipv4(body.len()), body]),
            _ => now += Duration::from_millis(u64::from(*len) * u64::from(*len)),
        }
        // A turn that wants to be called again at once forever is bounded here, not by the host.
        for _ in 0..4 {
            if host.turn(now).is_none_or(|deadline| deadline > now) {
                break;
            }
        }
        while let Some((token, _)) = theirs.receive(now) {
            token.consume(|frame| assert!(frame.len() <= 1514, "no frame is longer than the MTU allows"));
        }
        assert!(host.connections_len() <= SOCKETS_MAX);
        let counters = host.nic().counters();
        assert_eq!(counters.tx_oversize, 0);
    }
}

fn send(nic: &mut Loopback<'_>, parts: &[&[u8]]) {
    let frame = parts.concat();
    if let Some(token) = nic.transmit(Instant::ZERO)
        && frame.len() <= 1514
    {
        token.consume(frame.len(), |buffer| buffer.copy_from_slice(&frame));
    }
}

fn ethernet(ethertype: [u8; 2]) -> Vec<u8> {
    [&OURS_MAC.0[..], &[2, 0, 0, 0, 0, 2], &ethertype].concat()
}

/// An IPv4 header of a TCP segment of this length to us.
fn ipv4(len: usize) -> Vec<u8> {
    let total = (20 + len) as u16;
    let head = [0x45, 0, (total >> 8) as u8, total as u8, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2];
    [&head[..], &OURS_V4.octets()].concat()
}

/// Inputs from which a fuzzer finds its way, and which the tests change at random.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let tcp = |flags: u8, seq: u8, data: &[u8]| {
        let head = [4, 0, 0, 7, 0, 0, 0, seq, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0];
        [&head[..], data].concat()
    };
    let frame = |data: &[u8]| [&ethernet([8, 0])[..], &ipv4(20 + data.len()), &tcp(0x18, 1, data)].concat();
    let step = |kind: u8, body: &[u8]| [&[kind, body.len() as u8][..], body].concat();
    let arp =
        [&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0][..], &OURS_V4.octets()]
            .concat();
    match target {
        "checksum" | "claims" => vec![frame(b""), frame(b"data"), ethernet([0x86, 0xdd])],
        "host" => vec![
            [step(2, &arp), step(3, &tcp(2, 0, b"")), step(4, &[0; 100]), step(3, &tcp(4, 1, b""))].concat(),
            [step(2, &arp), step(3, &tcp(2, 0, b"")), step(3, &tcp(0x18, 1, b"data")), step(4, &[9; 255])]
                .concat(),
            step(0, &frame(b"x")),
        ],
        "http" => vec![
            b"GET /a%20b?c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET".to_vec(),
            b"HEAD http://h/ HTTP/1.0\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ],
        "nfqueue" => vec![packet_message(b"data"), [packet_message(b""), packet_message(b"x")].concat()],
        "replay" => vec![pcap(&[b"frame", b"another"]), pcapng(&[b"frame", b"another"])],
        _ => vec![
            b"loss=1%,duplicate=0.5%,reorder=1%,corrupt=0.1%,delay=10ms,jitter=2ms,rate=100mbit,queue=9"
                .to_vec(),
            b"10.0.0.2/24".to_vec(),
            b"fd00::2/64".to_vec(),
        ],
    }
}

/// A packet as the kernel's queue hands it over, in the order of this machine.
fn packet_message(payload: &[u8]) -> Vec<u8> {
    let attribute = |kind: u16, value: &[u8]| {
        let mut bytes = [&(4 + value.len() as u16).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let id = attribute(1, &[0, 0, 0, 5, 8, 0, 1]);
    let flags = attribute(14, &[0, 0, 0, 3]);
    let body =
        [&[2, 0, 0, 5][..], &id, &flags, &attribute(13, &[0, 0, 5, 0]), &attribute(10, payload)].concat();
    let len = (16 + body.len() as u32).to_ne_bytes();
    [&len[..], &0x0300u16.to_ne_bytes(), &[0; 10], &body].concat()
}

fn pcap(frames: &[&[u8]]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    for frame in frames {
        let len = frame.len() as u32;
        file.extend([1_700_000_000, 7, len, len].map(u32::to_le_bytes).concat());
        file.extend(*frame);
    }
    file
}

fn pcapng(frames: &[&[u8]]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let len = (12 + body.len() as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, &body, &len].concat()
    };
    let section = [&0x1a2b_3c4du32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    let interface = [1, 0, 0, 0, 0, 0, 4, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    let mut file = [block(0x0a0d_0d0a, &section), block(1, &interface)].concat();
    for frame in frames {
        let len = frame.len() as u32;
        let head = [0, 0x1700_0000, 7, len, len].map(u32::to_le_bytes).concat();
        file.extend(block(6, &[&head[..], frame].concat()));
        file.extend(block(3, &[&len.to_le_bytes()[..], frame].concat()));
    }
    file
}

/// Bytes of a block or record with nothing in it.
const SHORTEST_RECORD: usize = 12;
const OURS_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const OURS_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 0, 0, 1);
const OURS_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const SOCKETS_MAX: usize = 8;
