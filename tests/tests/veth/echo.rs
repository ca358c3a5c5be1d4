//! `wirestack echo` with the kernel's TCP and UDP as peers.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread;

use wirestack_apps::testbed::Wire;
use wirestack_nic::ethtool::Offload;
use wirestack_tests::closing::close;
use wirestack_tests::runner::{Case, Outcome, note, stay_on_one_core, veth_test};

use crate::support::{ADDRESSES, LONG, counter, end, is_smoltcp, noise, serve};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        veth_test("echo::ten_megabytes_come_back", ten_megabytes_come_back),
        veth_test("echo::small_messages_come_back_at_once", small_messages),
        veth_test("echo::a_slow_reader_loses_nothing", a_slow_reader),
        veth_test("echo::datagrams_come_back", datagrams_come_back),
        veth_test("echo::no_datagram_goes_round_for_ever", no_loop),
        veth_test("echo::closed_ports_refuse", closed_ports_refuse),
    ]
}

fn connect(wire: &Wire, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = wire.at_peer(|| TcpStream::connect_timeout(&address, LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    stream.set_write_timeout(Some(LONG))?;
    Ok(stream)
}

/// Sends all bytes, closes, and reads until the other side has closed as well.
fn round_trip(mut stream: TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut reader = stream.try_clone()?;
    let received = thread::spawn(move || {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).map(|_| received)
    });
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    received.join().expect("the reader does not panic")
}

pub(crate) fn ten_megabytes_come_back(wire: &Wire) -> Outcome {
    for (device, vnet_hdr) in [
        ("profile=latency", true),
        ("profile=bulk", true),
        ("tx=ring", true),
        ("rx=recv", true),
        ("version=3", true),
        ("vnet_hdr=off", false),
        ("vnet_hdr=off,tx=ring,version=1", false),
        ("vnet_hdr=off,rx=recv", false),
    ] {
        come_back(wire, device, vnet_hdr)?;
    }
    Ok(())
}

fn come_back(wire: &Wire, device: &str, vnet_hdr: bool) -> Outcome {
    note(format!("--device {device}"));
    let server = serve(wire, &["echo", "--json", "--device", device])?;
    let bytes = noise(10, 10 << 20);
    for address in ADDRESSES {
        let back = round_trip(connect(wire, SocketAddr::new(address, 7))?, &bytes)?;
        assert_eq!(back.len(), bytes.len(), "{address}");
        assert!(back == bytes, "{address}: what came back is not what was sent");
    }
    let ended = end(server)?;
    // With offloads on, the kernel hands over frames of up to 64 KB without a checksum; this is what
    // the test is about, so it must have happened. With offloads off, it must not.
    let offloads_on = wire.peer().offloads()?.has(Offload::Tso);
    let has_small_slots = !["bulk", "recv", "version=3"].iter().any(|word| device.contains(word));
    assert_eq!(counter(&ended, "rx_oversize") > 0, offloads_on && has_small_slots, "{}", ended.stdout);
    // Without a virtio_net_hdr, kernels before 6.3 do not tell that a frame was merged.
    if vnet_hdr || !offloads_on {
        assert_eq!(counter(&ended, "rx_super_frames") > 0, offloads_on, "{}", ended.stdout);
    }
    assert_eq!(counter(&ended, "rx_checksum_filled") > 0, offloads_on && !vnet_hdr, "{}", ended.stdout);
    // We leave the splitting of what we send to the peer's end; if we cannot, our own TCP writes segments as they are
    // on the wire, and smoltcp's leaves the splitting to the device.
    assert_eq!(counter(&ended, "tx_super_frames") > 0, vnet_hdr, "{}", ended.stdout);
    assert_eq!(counter(&ended, "tx_segmented") > 0, !vnet_hdr && is_smoltcp(), "{}", ended.stdout);
    assert_eq!(counter(&ended, "rx_truncated") + counter(&ended, "rx_malformed"), 0, "{}", ended.stdout);
    Ok(())
}

pub(crate) fn small_messages(wire: &Wire) -> Outcome {
    let server = serve(wire, &["echo"])?;
    let mut stream = connect(wire, SocketAddr::new(ADDRESSES[0], 7))?;
    stream.set_nodelay(true)?;
    for len in (1..200).chain([1447, 1448, 1449, 65_535]) {
        let sent = noise(len as u64, len);
        stream.write_all(&sent)?;
        let mut back = vec![0; len];
        stream.read_exact(&mut back)?;
        assert_eq!(back, sent);
    }
    end(server)?;
    Ok(())
}

/// The peer does not read until everything that fits anywhere is sent: windows close in both
/// directions, and open again.
pub(crate) fn a_slow_reader(wire: &Wire) -> Outcome {
    let server = serve(wire, &["echo"])?;
    let mut stream = connect(wire, SocketAddr::new(ADDRESSES[0], 7))?;
    stream.set_nonblocking(true)?;
    let chunk = noise(1, 64 << 10);
    let mut sent = Vec::new();
    // The peer's buffers are full when nothing more is taken for a while.
    let mut idle = 0;
    while idle < 20 {
        match stream.write(&chunk) {
            Ok(len) => {
                sent.extend_from_slice(&chunk[..len]);
                idle = 0;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(std::time::Duration::from_millis(10));
                idle += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    stream.set_nonblocking(false)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    assert_eq!(back.len(), sent.len());
    assert!(back == sent, "what came back is not what was sent");
    end(server)?;
    Ok(())
}

pub(crate) fn datagrams_come_back(wire: &Wire) -> Outcome {
    stay_on_one_core();
    let server = serve(wire, &["echo", "--json"])?;
    for address in ADDRESSES {
        let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = wire.at_peer(|| UdpSocket::bind(local))?;
        socket.set_read_timeout(Some(LONG))?;
        socket.connect((address, 7))?;
        // Larger ones than 1472 or 1452 are fragmented.
        for len in [0, 1, 1452, 1453, 1472, 1473, 8000, 65_507] {
            let sent = noise(len as u64 + 1, len);
            let mut back = vec![0; 65_535];
            socket.send(&sent)?;
            let received = socket.recv(&mut back)?;
            assert_eq!(back[..received], sent[..], "{address}, {len} bytes");
        }
    }
    // A burst of datagrams that come and go in fragments: one after the other goes back whole.
    let socket = wire.at_peer(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.set_read_timeout(Some(LONG))?;
    socket.connect((ADDRESSES[0], 7))?;
    // Few enough for the receive buffer of the peer's kernel.
    for number in 0..8 {
        socket.send(&noise(number + 1, 7000))?;
    }
    for number in 0..8 {
        let mut back = vec![0; 65_535];
        let received = socket.recv(&mut back)?;
        assert_eq!(back[..received], noise(number + 1, 7000), "number {number}");
    }
    end(server)?;
    Ok(())
}

/// What comes from the port of an echo service is not answered: it would be answered there, and so on.
fn no_loop(wire: &Wire) -> Outcome {
    let server = serve(wire, &["echo"])?;
    for address in ADDRESSES {
        let unspecified = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
        let service = wire.at_peer(|| UdpSocket::bind(format!("{unspecified}:7")))?;
        service.connect((address, 7))?;
        service.send(b"who goes there")?;
        let client = wire.at_peer(|| UdpSocket::bind(format!("{unspecified}:0")))?;
        client.set_read_timeout(Some(LONG))?;
        client.connect((address, 7))?;
        client.send(b"a friend")?;
        let mut back = [0; 100];
        assert_eq!(client.recv(&mut back)?, 8, "{address}");
        service.set_nonblocking(true)?;
        let error = service.recv(&mut back).expect_err("an answer to an echo service");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{address}");
        // The next one of IPv6 wants the port of IPv4 as well.
        close(wire.peer().namespace(), service)?;
    }
    end(server)?;
    Ok(())
}

pub(crate) fn closed_ports_refuse(wire: &Wire) -> Outcome {
    let server = serve(wire, &["echo"])?;
    for address in ADDRESSES {
        let error = connect(wire, SocketAddr::new(address, 8)).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    }
    end(server)?;
    Ok(())
}
