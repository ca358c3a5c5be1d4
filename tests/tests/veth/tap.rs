//! TAP and TUN interfaces: programs of ours at one end, this kernel's TCP and UDP at the other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::process::Command;

use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use sha2::{Digest, Sha256};
use smoltcp::time::Instant;
use wirestack_apps::testbed::Namespace;
use wirestack_nic::meta::{ChecksumState, Gso, GsoKind};
use wirestack_nic::offload::{Layout, checksum};
use wirestack_nic::tap::TapKind;
use wirestack_nic::{FrameMeta, LinkError, LinkState, Nic, Tap, TapConfig, wait};
use wirestack_tests::programs::{Child, Ended, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, root_test};

use crate::support::{LONG, counter, end, noise, url_host};
use crate::talk::{echo_tcp, echo_udp, fetch, through};

/// Of a test.
type Body = fn() -> Outcome;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let transfers: [(&str, Body, Body); 4] = [
        ("tap", || downloads("tap:t0", true), || echoes("tap:t0", true)),
        ("tap_plain", || downloads("tap:t0,vnet_hdr=off", false), || echoes("tap:t0,vnet_hdr=off", false)),
        ("tun", || downloads("tun:t0", true), || echoes("tun:t0", true)),
        ("tun_plain", || downloads("tun:t0,vnet_hdr=off", false), || echoes("tun:t0,vnet_hdr=off", false)),
    ];
    let mut cases = Vec::new();
    for (name, download, echo) in transfers {
        let ip = |cases| require_program("ip", cases);
        cases.push(ip(require_program("curl", root_test(format!("tap::downloads::{name}"), download))));
        cases.push(ip(root_test(format!("tap::echoes::{name}"), echo)));
    }
    let more: [(&str, Body); 8] = [
        ("tap::several_datagrams_in_one_come_one_by_one", datagrams_in),
        ("tap::several_datagrams_in_one_go_out_one_by_one", datagrams_out),
        ("tap::what_is_received_says_what_is_left_undone", metadata),
        ("tap::connections_survive_down_and_up", down_and_up),
        ("tap::a_removed_interface_ends_the_program", removed),
        ("tap::an_interface_that_was_there_stays", persistent),
        ("tap::bad_input", bad_input),
        ("tap::two_queues", two_queues),
    ];
    cases.extend(more.map(|(name, body)| require_program("ip", root_test(name, body))));
    cases
}

const OURS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2))];

fn shell(namespace: &Namespace, line: &str) -> io::Result<Ended> {
    namespace.run(|| output(Command::new("sh").args(["-c", line]), LONG))
}

fn command(program: &str, nic: &str, more: &[&str]) -> Command {
    let host = [program, "--nic", nic, "--address", "10.78.0.2/24", "--address", "fd78::2/64"];
    wirestack([&host[..], more].concat())
}

/// The addresses of the kernel's end.
const ADDRESSES: &str = "ip address add 10.78.0.1/24 dev t0; ip -6 address add fd78::1/64 dev t0 nodad";

/// Starts a program in a namespace of its own, and gives the kernel's end its addresses.
fn serve(program: &str, nic: &str, more: &[&str]) -> io::Result<(Namespace, Child)> {
    let namespace = Namespace::new().map_err(io::Error::other)?;
    let mut child = namespace.run(|| Child::start(&mut command(program, nic, more)))?;
    child.wait_ready(LONG)?;
    shell(&namespace, ADDRESSES)?;
    Ok((namespace, child))
}

fn downloads(nic: &str, vnet_hdr: bool) -> Outcome {
    let dir = tempfile::tempdir()?;
    let bytes = noise(5, 20 << 20);
    std::fs::write(dir.path().join("file"), &bytes)?;
    let path = dir.path().to_str().expect("a plain path");
    let (namespace, server) = serve("http", nic, &["--dir", path, "--json"])?;
    for address in OURS {
        let fetched = dir.path().join("fetched");
        let mut curl = Command::new("curl");
        let url = format!("http://{}/file", url_host(address));
        curl.args(["-sS", "-g", "--fail", "--max-time", "60", &url, "-o"]).arg(&fetched);
        namespace.run(|| output(&mut curl, LONG))?;
        assert_eq!(Sha256::digest(std::fs::read(&fetched)?), Sha256::digest(&bytes), "{url}");
    }
    check_counters(&end(server)?, "tx_super_frames", vnet_hdr);
    Ok(())
}

fn echoes(nic: &str, vnet_hdr: bool) -> Outcome {
    let (namespace, server) = serve("echo", nic, &["--json"])?;
    let bytes = noise(6, 4 << 20);
    for address in OURS {
        let server = SocketAddr::new(address, 7);
        // Less than the peer's buffers hold goes out in one piece before anything is read.
        let back = echo_tcp(&namespace, server, &bytes[..1 << 20])?;
        assert_eq!(Sha256::digest(back), Sha256::digest(&bytes[..1 << 20]), "{address}");
        for len in [0, 1, 1400] {
            assert_eq!(echo_udp(&namespace, server, &bytes[..len])?, bytes[..len], "{address}");
        }
    }
    // In fragments, in both directions.
    assert_eq!(echo_udp(&namespace, SocketAddr::new(OURS[0], 7), &bytes[..8000])?, bytes[..8000]);
    let ended = end(server)?;
    check_counters(&ended, "rx_super_frames", vnet_hdr);
    // The stack takes absent checksums as they are.
    assert_eq!(counter(&ended, "rx_checksum_filled"), 0, "{}", ended.stdout);
    Ok(())
}

fn check_counters(ended: &Ended, super_frames: &str, expected: bool) {
    assert_eq!(counter(ended, super_frames) > 0, expected, "{super_frames}: {}", ended.stdout);
    for harm in ["rx_malformed", "rx_truncated", "rx_bad_checksum", "tx_rejected", "tx_oversize"] {
        assert_eq!(counter(ended, harm), 0, "{harm}: {}", ended.stdout);
    }
}

/// The kernel hands several datagrams over in one frame (UDP_SEGMENT), and smoltcp takes single ones.
fn datagrams_in() -> Outcome {
    for nic in ["tap:t0", "tap:t0,vnet_hdr=off", "tun:t0"] {
        let (namespace, server) = serve("echo", nic, &["--json"])?;
        for address in OURS {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = namespace.run(|| UdpSocket::bind(any))?;
            socket.connect((address, 7))?;
            socket.set_read_timeout(Some(LONG))?;
            setsockopt(&socket, UdpGsoSegment, &1000)?;
            let sent = noise(7, 10_500);
            // Resolution of the address: the first datagrams must not be the large ones.
            socket.send(b"hello")?;
            let mut back = [0; 2000];
            assert_eq!(socket.recv(&mut back)?, 5);
            socket.send(&sent)?;
            for part in sent.chunks(1000) {
                let len = socket.recv(&mut back)?;
                assert!(back[..len] == *part, "{nic} {address}: {len} bytes");
            }
        }
        check_counters(&end(server)?, "rx_super_frames", !nic.ends_with("off"));
    }
    Ok(())
}

/// A packet of UDP over IPv4 from our address to the kernel's port.
fn udp_packet(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 78, 0, 2, 10, 78, 0, 1];
    let total = (28 + payload.len()) as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    let sum = !smoltcp::wire::checksum::data(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(4000u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend((total - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// Through `transmit_with` the kernel splits, or we do.
fn datagrams_out() -> Outcome {
    for vnet_hdr in [true, false] {
        let namespace = Namespace::new()?;
        namespace.run(|| -> Outcome {
            let mut tun = Tap::open("t0", TapConfig { vnet_hdr, ..TapConfig::new(TapKind::Tun) })?;
            output(Command::new("sh").args(["-c", ADDRESSES]), LONG)?;
            let socket = UdpSocket::bind("10.78.0.1:9000")?;
            socket.set_read_timeout(Some(LONG))?;
            let payload = noise(8, 5300);
            let mut packet = udp_packet(9000, &payload);
            let layout = Layout::of_packet(&packet).expect("a datagram");
            let checksum = checksum::leave_out(&mut packet, &layout).expect("with a checksum");
            let size = NonZeroU16::new(1000).expect("not 0");
            let gso = Some(Gso { kind: GsoKind::Udp, size, ecn: false });
            let meta = FrameMeta { checksum, gso, ..FrameMeta::default() };
            let sent =
                tun.transmit_with(wait::now(), packet.len(), &meta, |room| room.copy_from_slice(&packet));
            assert!(sent.is_some());
            let mut buffer = [0; 9000];
            for part in payload.chunks(1000) {
                let len = socket.recv(&mut buffer)?;
                assert!(buffer[..len] == *part, "{vnet_hdr}: {len} bytes");
            }
            assert_eq!(tun.counters().tx_super_frames, u64::from(vnet_hdr));
            Ok(())
        })?;
    }
    Ok(())
}

fn next(tun: &mut Tap<'_>) -> Result<(Vec<u8>, FrameMeta), libtest_mimic::Failed> {
    let deadline = wait::now() + smoltcp::time::Duration::from_secs(20);
    loop {
        if let Some(found) = tun.receive_with(Instant::ZERO, |frame, meta| (frame.to_vec(), *meta)) {
            // The kernel's own neighbour and router solicitations are of no interest.
            if found.0.first().is_some_and(|first| first >> 4 == 4) {
                return Ok(found);
            }
            continue;
        }
        tun.wait(Some(deadline))?;
        if wait::now() >= deadline {
            return Err("no packet came".into());
        }
    }
}

fn metadata() -> Outcome {
    let namespace = Namespace::new()?;
    namespace.run(|| -> Outcome {
        let mut tun = Tap::open("t0", TapConfig::new(TapKind::Tun))?;
        output(Command::new("sh").args(["-c", ADDRESSES]), LONG)?;
        assert_eq!(tun.link_state(), LinkState::Up);
        let socket = UdpSocket::bind("10.78.0.1:9000")?;
        socket.connect("10.78.0.2:9")?;
        socket.send(b"datagram")?;
        let (packet, meta) = next(&mut tun)?;
        assert!(packet.ends_with(b"datagram"));
        assert_eq!(meta.checksum, ChecksumState::Partial { start: 20, offset: 6 });
        setsockopt(&socket, UdpGsoSegment, &1000)?;
        socket.send(&noise(1, 2500))?;
        let (packet, meta) = next(&mut tun)?;
        assert_eq!(packet.len(), 28 + 2500);
        assert_eq!(meta.gso.map(|gso| (gso.kind, gso.size.get())), Some((GsoKind::Udp, 1000)));
        // What is sent without a word is verified by the kernel: of these two, the second arrives.
        let mut wrong = udp_packet(9001, b"wrong");
        wrong[26..28].copy_from_slice(&[1, 1]);
        let receiver = UdpSocket::bind("10.78.0.1:9001")?;
        receiver.set_read_timeout(Some(LONG))?;
        for packet in [wrong, udp_packet(9001, b"without a checksum")] {
            send(&mut tun, &packet);
        }
        let mut buffer = [0; 100];
        let len = receiver.recv(&mut buffer)?;
        assert_eq!(&buffer[..len], b"without a checksum");
        Ok(())
    })
}

fn send(tun: &mut Tap<'_>, packet: &[u8]) {
    let meta = FrameMeta::default();
    let sent = tun.transmit_with(wait::now(), packet.len(), &meta, |room| room.copy_from_slice(packet));
    assert!(sent.is_some());
}

fn down_and_up() -> Outcome {
    let (namespace, server) = serve("echo", "tap:t0", &[])?;
    let address = SocketAddr::new(OURS[0], 7);
    assert_eq!(echo_tcp(&namespace, address, b"before")?, b"before");
    shell(&namespace, "ip link set t0 down")?;
    shell(&namespace, "ip link set t0 up")?;
    assert_eq!(echo_tcp(&namespace, address, b"after")?, b"after");
    end(server)?;
    // The same as a device sees it.
    let namespace = Namespace::new()?;
    namespace.run(|| -> Outcome {
        let mut tun = Tap::open("t0", TapConfig { set_up: false, ..TapConfig::new(TapKind::Tun) })?;
        send(&mut tun, &udp_packet(9000, b"kept while it is down"));
        assert_eq!(tun.flush(), Err(LinkError::Down));
        assert_eq!(tun.wait(Some(wait::now())), Err(LinkError::Down));
        assert_eq!((tun.counters().tx_frames, tun.link_state()), (0, LinkState::Down));
        output(Command::new("sh").args(["-c", &format!("ip link set t0 up; {ADDRESSES}")]), LONG)?;
        let socket = UdpSocket::bind("10.78.0.1:9000")?;
        socket.set_read_timeout(Some(LONG))?;
        tun.wait(Some(wait::now()))?;
        tun.flush()?;
        let mut buffer = [0; 100];
        let len = socket.recv(&mut buffer)?;
        assert_eq!(&buffer[..len], b"kept while it is down");
        Ok(())
    })
}

fn removed() -> Outcome {
    for nic in ["tap:t0", "tun:t0"] {
        let (namespace, server) = serve("echo", nic, &["--json"])?;
        assert_eq!(echo_tcp(&namespace, SocketAddr::new(OURS[0], 7), b"x")?, b"x");
        shell(&namespace, "ip link delete t0")?;
        let ended = server.wait(LONG)?;
        assert_eq!(ended.status.code(), Some(1), "{ended}");
        assert!(ended.stderr.contains("the interface is gone"), "{ended}");
        assert!(ended.stdout.contains("\"accepted\":1"), "the counters are printed all the same: {ended}");
    }
    Ok(())
}

fn persistent() -> Outcome {
    let namespace = Namespace::new()?;
    shell(&namespace, &format!("ip tuntap add dev t0 mode tap; ip link set t0 up; {ADDRESSES}"))?;
    // Another use each time: what one has switched on must not be there for the next.
    for nic in ["tap:t0", "tap:t0,vnet_hdr=off", "tap:t0"] {
        let mut child = namespace.run(|| Child::start(&mut command("http", nic, &[])))?;
        child.wait_ready(LONG)?;
        for address in OURS {
            let page = fetch(&namespace, SocketAddr::new(address, 80), "/bytes/3000000")?;
            assert_eq!(page.len(), 3_000_000);
        }
        child.kill_hard()?;
        shell(&namespace, "ip link show t0")?;
    }
    Ok(())
}

fn bad_input() -> Outcome {
    let namespace = Namespace::new()?;
    let refused = |command: &mut Command, words: &[&str]| -> Outcome {
        let ended = namespace.run(|| Child::start(command))?.wait(LONG)?;
        assert_eq!(ended.status.code(), Some(2), "{words:?}: {ended}");
        assert_eq!((ended.stderr.lines().count(), ended.stdout.as_str()), (1, ""), "{words:?}: {ended}");
        for word in words {
            assert!(ended.stderr.contains(word), "{word:?} is missing: {ended}");
        }
        Ok(())
    };
    shell(&namespace, "ip link add v0 type veth peer name v1; ip tuntap add dev u0 mode tun")?;
    refused(
        &mut command("http", "tap:sixteen-bytes-xx", &[]),
        &["--nic", "sixteen-bytes-xx", "1 to 15 bytes"],
    )?;
    refused(&mut command("http", "tap:v0", &[]), &["--nic tap:v0", "no TAP interface"])?;
    refused(&mut command("http", "tap:u0", &[]), &["--nic tap:u0", "no TAP interface"])?;
    refused(&mut command("http", "tun:lo", &[]), &["--nic tun:lo", "no TUN interface"])?;
    let mut without = through(
        &["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"],
        &command("http", "tap:t9", &[]),
    );
    refused(&mut without, &["--nic tap:t9", "CAP_NET_ADMIN"])?;
    let hidden = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$0\" \"$@\""];
    refused(
        &mut through(&hidden, &command("http", "tap:t9", &[])),
        &["--nic tap:t9", "/dev/net/tun", "modprobe tun"],
    )?;
    refused(
        &mut command("http", "tap:t9", &["--device", "burst=64"]),
        &["--device burst=64", "no packet device"],
    )?;
    shell(&namespace, "ip address add 10.78.0.2/24 dev v0")?;
    refused(&mut command("http", "tap:t9", &[]), &["--address 10.78.0.2/24", "the kernel has it on v0"])?;
    shell(&namespace, "ip address delete 10.78.0.2/24 dev v0")?;
    let mut first = namespace.run(|| Child::start(&mut command("http", "tap:t0", &[])))?;
    first.wait_ready(LONG)?;
    refused(
        &mut command("http", "tap:t0", &["--port", "81"]),
        &["--nic tap:t0", "another process is attached"],
    )?;
    end(first)?;
    // Nothing was left behind.
    let links = shell(&namespace, "ip -br link")?.stdout;
    assert!(!links.contains("t0") && !links.contains("t9"), "{links}");
    Ok(())
}

fn two_queues() -> Outcome {
    let namespace = Namespace::new()?;
    namespace.run(|| -> Outcome {
        let config = || TapConfig { multi_queue: true, ..TapConfig::new(TapKind::Tun) };
        let mut queues = [Tap::open("t0", config())?, Tap::open("t0", config())?];
        output(Command::new("sh").args(["-c", ADDRESSES]), LONG)?;
        // Flows go to one queue or the other; with many, both have some.
        for port in 5000..5100 {
            UdpSocket::bind(("10.78.0.1", port))?.send_to(b"x", "10.78.0.2:9")?;
        }
        let mut counts = [0, 0];
        for (tun, count) in queues.iter_mut().zip(&mut counts) {
            while let Some(is_ours) = tun.receive_with(Instant::ZERO, |packet, _| packet[0] >> 4 == 4) {
                *count += usize::from(is_ours);
            }
        }
        assert_eq!(counts[0] + counts[1], 100, "{counts:?}");
        assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
        Ok(())
    })
}
