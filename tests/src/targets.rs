//! What the fuzzer runs, and `cargo test` with a few thousand inputs: bytes of a stranger go in, and
//! nothing may panic, hang or grow without a bound.

mod advertisement;
pub mod classify;
mod cslip;
mod dhcp;
mod dns;
mod icmp;
mod neighbor;
mod reassembly;
mod shard;
mod slip;
mod tcp_pair;
mod tcp_passive;
mod tcp_segment;

use std::io::Cursor;
use std::net::SocketAddr;

use smoltcp::phy::{ChecksumCapabilities, Device, Medium, RxToken, TxToken};
use smoltcp::time::{Duration, Instant};
use wirestack::backend::smoltcp::Host;
use wirestack::config::{HostConfig, parse_cidr};
use wirestack::nic::TpacketVersion;
use wirestack::nic::af_packet::fuzzing;
use wirestack::nic::claim::{Claim, ClaimSet, Protocol};
use wirestack::nic::filter::tcpdump::parse_ddd;
use wirestack::nic::filter::{Context, Instruction, ListKind, Origin, PrefixSet, Program};
use wirestack::nic::impair::ImpairSpec;
use wirestack::nic::loopback::{Loopback, LoopbackConfig};
use wirestack::nic::meta::ChecksumState;
use wirestack::nic::nfqueue::{self, Message};
use wirestack::nic::offload::checksum::Verdict;
use wirestack::nic::offload::virtio::{self, VIRTIO_NET_HDR_LEN};
use wirestack::nic::offload::{Layout, Segments};
use wirestack::nic::replay::{CaptureFile, Player, Speed};
use wirestack::nic::steer::ebpf::Extended;
use wirestack::nic::steer::{flow_hash, flow_program};
use wirestack::nic::{FrameMeta, Nic, offload};
use wirestack::{EthernetAddress, IpCidr};
use wirestack_apps::stream::OnSmoltcp;
use wirestack_apps::{echo, http};

pub use advertisement::advertisement;
pub use cslip::cslip;
pub use dhcp::dhcp;
pub use dns::dns;
pub use icmp::icmp;
pub use neighbor::neighbor;
pub use reassembly::reassembly;
pub use shard::shard;
pub use slip::slip;
pub use tcp_pair::tcp_pair;
pub use tcp_passive::tcp_passive;
pub use tcp_segment::tcp_segment;

/// A body that takes any bytes, by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; `fuzz/fuzz_targets` has a file for each.
pub const TARGETS: &[Target] = &[
    ("advertisement", advertisement),
    ("bpf", bpf),
    ("checksum", checksum),
    ("claims", claims),
    ("classify", classify::classify),
    ("cslip", cslip),
    ("dhcp", dhcp),
    ("dns", dns),
    ("host", host),
    ("http", http),
    ("icmp", icmp),
    ("neighbor", neighbor),
    ("nfqueue", nfqueue),
    ("reassembly", reassembly),
    ("replay", replay),
    ("rings", rings),
    ("segment", segment),
    ("shard", shard),
    ("slip", slip),
    ("spec", spec),
    ("steer", steer),
    ("tcp_pair", tcp_pair),
    ("tcp_passive", tcp_passive),
    ("tcp_segment", tcp_segment),
    ("virtio", virtio),
];

/// A program of classic BPF and a frame: a byte for the number of instructions, eight bytes for each, and
/// the frame. As text, a list of prefixes and the output of tcpdump.
pub fn bpf(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = PrefixSet::parse(ListKind::Deny, &text).map(|list| list.decide(bytes));
    let _ = parse_ddd(&text);
    let Some((len, rest)) = bytes.split_first() else { return };
    let (chunks, _) = rest.as_chunks::<8>();
    let list: Vec<_> = chunks.iter().take((*len).into()).map(instruction).collect();
    let frame = &rest[list.len() * 8..];
    let Ok(program) = Program::new(list) else { return };
    for context in [Context::link(frame), Context::fanout(frame)] {
        assert!(program.run_counted(&context).instructions <= program.len());
    }
    assert_eq!(program.to_string().lines().count(), program.len());
    let _ = Extended::from_classic(&program);
}

fn instruction(&[a, b, jt, jf, ref k @ ..]: &[u8; 8]) -> Instruction {
    Instruction { code: u16::from_be_bytes([a, b]), jt, jf, k: u32::from_be_bytes(*k) }
}

/// A seed and a frame: the function and the programs are one.
pub fn steer(bytes: &[u8]) {
    let Some((seed, frame)) = bytes.split_first_chunk() else { return };
    let seed = u32::from_be_bytes(*seed);
    let expected = flow_hash(seed, frame);
    for (origin, context) in [(Origin::Link, Context::link(frame)), (Origin::Network, Context::fanout(frame))]
    {
        let program = flow_program(origin, seed).expect("a program for every seed");
        assert_eq!(program.run(&context), expected, "{origin:?}");
    }
}

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

/// Slots and blocks of an RX ring, whatever a kernel writes into them: the first byte says of which ring.
pub fn rings(bytes: &[u8]) {
    let Some((kind, script)) = bytes.split_first() else { return };
    let (version, vnet_hdr) = ring_kind(*kind);
    fuzzing::rx_ring(version, vnet_hdr, script);
}

fn ring_kind(kind: u8) -> (TpacketVersion, bool) {
    let versions = [TpacketVersion::V1, TpacketVersion::V2, TpacketVersion::V3];
    (versions[usize::from(kind) % 3], kind / 3 % 2 == 1)
}

/// A frame to be split: a byte for the medium, a byte and a half-word for an MTU, a `virtio_net_hdr`, and
/// the frame. Pieces of which there are several are the frame: the same payload, each right.
pub fn segment(bytes: &[u8]) {
    let Some(([medium, has_mtu, high, low], rest)) = bytes.split_first_chunk::<4>() else { return };
    let Some((header, frame)) = rest.split_at_checked(VIRTIO_NET_HDR_LEN) else { return };
    let Ok(meta) = virtio::decode(header, frame.len()) else { return };
    let medium = if medium % 2 == 0 { Medium::Ethernet } else { Medium::Ip };
    let mtu = (has_mtu % 2 == 1).then(|| usize::from(u16::from_be_bytes([*high, *low])));
    let segments = Segments::of(medium, frame, &meta, mtu);
    let count = segments.count();
    assert!(count <= frame.len().max(1));
    assert_eq!(segments.frame_len(count), 0);
    let mut payload = Vec::new();
    for index in 0..count {
        let mut piece = vec![0; segments.frame_len(index)];
        segments.write(index, &mut piece);
        if count == 1 {
            assert_eq!(piece.len(), frame.len());
            return;
        }
        let layout = Layout::on(medium, &piece).expect("a piece is whole");
        assert_ne!(offload::checksum::verify(&piece, &layout), Verdict::Wrong);
        assert_eq!(layout.end, piece.len());
        if let (None, Some(mtu)) = (meta.gso, mtu) {
            assert!(layout.end - layout.network <= mtu);
        }
        payload.extend_from_slice(&piece[layout.payload..]);
    }
    let layout = Layout::on(medium, frame).expect("what was split is whole");
    assert!(payload == frame[layout.payload..layout.end]);
}

/// A `virtio_net_hdr` and its frame: what is understood can be said again, and lies within the frame.
pub fn virtio(bytes: &[u8]) {
    let (header, frame) = bytes.split_at(bytes.len().min(VIRTIO_NET_HDR_LEN));
    match virtio::decode(header, frame.len()) {
        Ok(meta) => {
            let layout = Layout::of_frame(frame);
            let again = virtio::decode(&virtio::encode(&meta, layout.as_ref()), frame.len());
            // That somebody has verified it, a sender does not say.
            let said = match meta.checksum {
                ChecksumState::Verified => ChecksumState::Complete,
                other => other,
            };
            assert_eq!(again, Ok(FrameMeta { checksum: said, ..meta }));
            let mut filled = frame.to_vec();
            if let ChecksumState::Partial { start, offset } = meta.checksum {
                assert!(offload::checksum::complete(&mut filled, start, offset), "it lies within the frame");
            }
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1),
    }
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
    let listened = host.listen(7, |_: SocketAddr| OnSmoltcp(echo::EchoConnection::default()));
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
    match target {
        "advertisement" => advertisement::seeds(),
        "cslip" => cslip::seeds(),
        "dhcp" => dhcp::seeds(),
        "dns" => dns::seeds(),
        "icmp" => icmp::seeds(),
        "neighbor" => neighbor::seeds(),
        "reassembly" => reassembly::seeds(),
        "shard" => shard::seeds(),
        "slip" => slip::seeds(),
        "tcp_pair" => tcp_pair::seeds(),
        "tcp_segment" => tcp_segment::seeds(),
        "tcp_passive" => tcp_passive::seeds(),
        _ => seeds_of_frames_and_text(target),
    }
}

fn seeds_of_frames_and_text(target: &str) -> Vec<Vec<u8>> {
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
        "bpf" => vec![
            [
                &[4][..],
                &[0, 0x28, 0, 0, 0, 0, 0, 12],
                &[0, 0x15, 0, 1, 0, 0, 8, 0],
                &[0, 0xb1, 0, 0, 0, 0, 0, 14],
                &[0, 0x16, 0, 0, 0, 0, 0, 0],
                &frame(b"data"),
            ]
            .concat(),
            b"4\n40 0 0 12\n21 0 1 2048\n6 0 0 262144\n6 0 0 0\n".to_vec(),
            b"10.0.0.0/8\n!10.1.0.0/16 # not\nfd00::/8\n".to_vec(),
        ],
        "steer" => steer_seeds(&frame(b"data")),
        "checksum" | "claims" => vec![frame(b""), frame(b"data"), ethernet([0x86, 0xdd])],
        "classify" => classify::seeds(&frame(b"datadata")),
        "rings" => (0..6)
            .map(|kind| {
                let (version, vnet_hdr) = ring_kind(kind);
                [&[kind][..], &fuzzing::seed(version, vnet_hdr), &fuzzing::seed(version, vnet_hdr)].concat()
            })
            .collect(),
        "segment" => segment_seeds(&frame(&(0..200).collect::<Vec<u8>>())),
        "virtio" => vec![
            [&[1, 1, 54, 0, 50, 0, 34, 0, 16, 0][..], &frame(b"data")].concat(),
            [&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &frame(b"")].concat(),
            [&[1, 5, 42, 0, 9, 0, 34, 0, 6, 0][..], &frame(b"datagram")].concat(),
        ],
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

/// Frames to be split, from one of 200 bytes of payload: by their header, or by an MTU.
fn segment_seeds(super_frame: &[u8]) -> Vec<Vec<u8>> {
    let header = |gso_type: u8, size: u8| [1, gso_type, 0, 0, size, 0, 34, 0, 16, 0];
    let of = |options: [u8; 4], header: [u8; 10], frame: &[u8]| [&options, &header[..], frame].concat();
    vec![
        of([0, 0, 0, 0], header(1, 50), super_frame),
        of([0, 0, 0, 0], header(0x81, 99), super_frame),
        of([0, 1, 0, 90], header(0, 0), super_frame),
        of([1, 0, 0, 0], header(1, 7), &super_frame[14..]),
    ]
}

/// A frame, an ICMP error that quotes it, a fragment of IPv6, and the frame with a tag.
fn steer_seeds(quoting: &[u8]) -> Vec<Vec<u8>> {
    let mut error = [&ethernet([8, 0])[..], &ipv4(8 + 40), &[3, 1, 0, 0, 0, 0, 0, 0]].concat();
    error[23] = 1;
    error.extend(&quoting[14..]);
    let v6 = [&ethernet([0x86, 0xdd])[..], &[0x60, 0, 0, 0, 0, 28, 0, 64], &[7; 32]].concat();
    let v6 = [&v6[..], &[44, 0, 0, 0, 0, 0, 0, 0], &[6, 0, 0, 0, 0, 0, 0, 1], &[9; 20]].concat();
    let tagged = [&quoting[..12], &[0x81, 0, 0, 7], &quoting[12..]].concat();
    [quoting.to_vec(), error, v6, tagged].map(|frame| [&[1, 2, 3, 4], &frame[..]].concat()).to_vec()
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
