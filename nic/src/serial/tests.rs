//! The device on a port in memory, which does what it is told.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, Once};

use smoltcp::wire::{Ipv4Packet, UdpPacket};

use super::framing::FramingConfig;
use super::*;

/// What the port of a test is told and has seen.
#[derive(Debug, Default)]
struct Memory {
    input: VecDeque<u8>,
    output: Vec<u8>,
    /// Bytes that are taken from now on.
    room: usize,
    /// Nobody is there.
    refuses: bool,
    /// The other side has ended.
    has_ended: bool,
    comes_back: bool,
    opens: usize,
    closes: usize,
}

#[derive(Debug, Clone)]
struct InMemory(Arc<Mutex<Memory>>);

impl InMemory {
    fn new() -> Self {
        let memory = Memory { room: usize::MAX, comes_back: true, ..Memory::default() };
        Self(Arc::new(Mutex::new(memory)))
    }

    fn get(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().expect("no test has panicked")
    }
}

impl Port for InMemory {
    fn open(&mut self) -> io::Result<Opening> {
        let mut memory = self.get();
        memory.opens += 1;
        if memory.refuses { Err(ErrorKind::NotFound.into()) } else { Ok(Opening::Done) }
    }

    fn close(&mut self) {
        self.get().closes += 1;
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut memory = self.get();
        if memory.has_ended {
            return Ok(0);
        }
        let len = room.len().min(memory.input.len());
        if len == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        for (byte, read) in room.iter_mut().zip(memory.input.drain(..len)) {
            *byte = read;
        }
        Ok(len)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut memory = self.get();
        let len = bytes.len().min(memory.room);
        if len == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        memory.room -= if memory.room == usize::MAX { 0 } else { len };
        memory.output.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [None, None]
    }

    fn comes_back(&self) -> bool {
        self.get().comes_back
    }
}

thread_local! {
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps warnings for the test on whose thread they were made.
struct Listener;

impl log::Log for Listener {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            SAID.with_borrow_mut(|said| said.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// What a person was warned of since this was asked last.
fn warnings() -> Vec<String> {
    SAID.take()
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Listener).expect("there is no other one");
        log::set_max_level(log::LevelFilter::Warn);
    });
}

const START: Instant = Instant::from_micros_const(1_000_000_000);

fn at(millis: u64) -> Instant {
    START + Duration::from_millis(millis)
}

fn device(mtu: u16, baud: u32, port: &InMemory) -> Serial<InMemory> {
    listen();
    let config = SerialConfig { name: "line".to_owned(), mtu, baud: NonZeroU32::new(baud) };
    let framing = FramingConfig { packet_max: config.packet_max(), crc: false, escapes_flow_control: false };
    Serial::new(config, port.clone(), Box::new(slip::Slip::new(framing)), START).expect("a port")
}

/// A datagram of `len` bytes in all, from a port of ours.
fn packet(port: u16, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; len];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    packet.set_version(4);
    packet.set_header_len(20);
    packet.clear_flags();
    packet.set_frag_offset(0);
    packet.set_total_len(len as u16);
    packet.set_hop_limit(64);
    packet.set_next_header(smoltcp::wire::IpProtocol::Udp);
    packet.set_src_addr(std::net::Ipv4Addr::new(10, 0, 2, 15));
    packet.set_dst_addr(std::net::Ipv4Addr::new(10, 0, 2, 2));
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    datagram.set_src_port(port);
    datagram.set_dst_port(7);
    datagram.set_len((len - 20) as u16);
    datagram.set_checksum(0);
    packet.fill_checksum();
    bytes
}

fn send(device: &mut Serial<InMemory>, now: Instant, packet: &[u8]) -> bool {
    let write = |room: &mut [u8]| room.copy_from_slice(packet);
    device.transmit_with(now, packet.len(), &FrameMeta::default(), write).is_some()
}

fn receive(device: &mut Serial<InMemory>, now: Instant) -> Option<Vec<u8>> {
    device.receive_with(now, |packet, _| packet.to_vec())
}

/// The frames of packets, as RFC 1055 has them.
fn frames(packets: &[Vec<u8>]) -> Vec<u8> {
    let config = FramingConfig { packet_max: 65_535, crc: false, escapes_flow_control: false };
    let mut framing = slip::Slip::new(config);
    let mut bytes = Vec::new();
    packets.iter().for_each(|packet| framing.encode(packet, &mut bytes));
    bytes
}

/// Takes frames apart again.
fn packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    let port = InMemory::new();
    let mut device = device(65_535, 0, &port);
    port.get().input.extend(bytes);
    std::iter::from_fn(|| receive(&mut device, START)).collect()
}

#[test]
fn packets_go_out_and_come_in_and_are_counted() {
    let port = InMemory::new();
    let mut device = device(1_006, 0, &port);
    let sent = [packet(1, 40), packet(2, 1_006)];
    sent.iter().for_each(|packet| assert!(send(&mut device, START, packet)));
    assert!(port.get().output.is_empty(), "a turn is over when it is flushed");
    assert_eq!(device.flush(), Ok(()));
    let output = port.get().output.clone();
    assert_eq!(packets(&output), sent);
    // In pieces, with nothing between them.
    for byte in output.iter().copied() {
        port.get().input.push_back(byte);
        if let Some(came) = receive(&mut device, START) {
            assert!(sent.contains(&came));
        }
    }
    let counters = device.counters();
    assert_eq!((counters.tx_frames, counters.tx_bytes), (2, 1_046));
    assert_eq!((counters.rx_frames, counters.rx_bytes), (2, 1_046));
    let len = output.len() as u64;
    assert_eq!((counters.line_rx_bytes, counters.line_tx_bytes, counters.line_errors), (len, len, 0));
    let line = device.figures().snapshot();
    assert_eq!((line.rx_packets, line.tx_packets, line.queue_bytes, line.is_up), (2, 2, 0, true));
}

#[test]
fn a_port_that_takes_nothing_fills_the_queue_up_to_its_bound() {
    let port = InMemory::new();
    let mut device = device(1_006, 115_200, &port);
    port.get().room = 0;
    let mut accepted = 0;
    while send(&mut device, START, &packet(1, 1_006)) {
        accepted += 1;
        assert!(accepted < 10, "no end of it");
        assert_eq!(device.flush(), Ok(()));
    }
    // One is on its way, two wait.
    assert_eq!(accepted, 3);
    let full = device.queue.bytes();
    assert!(full <= 2 * 1_006, "{full}");
    // What is small finds room when bulk does not, and that has an end as well.
    let mut small = 0;
    while send(&mut device, START, &packet(3, 40)) {
        small += 1;
        assert!(small < 1_000, "no end of it");
    }
    assert!(small >= 100 && device.queue.bytes() <= device.config.queue().bytes_max, "{small}");
    assert_eq!(device.counters().tx_ring_full, 2);
    assert!(!device.wants_turn(), "there is no room");
    // It takes bytes again: one after the other, whole, and who waits is told once.
    let mut now = START;
    while device.has_output() {
        port.get().room = 10;
        now += Duration::from_millis(1);
        assert!(device.receive_with(now, |_, _| ()).is_none());
        assert_eq!(device.flush(), Ok(()));
    }
    assert!(device.wants_turn() && !device.wants_turn());
    let came = packets(&port.get().output);
    assert_eq!(came.len(), accepted + small);
    // The small ones have not waited for the bulk but for the packet on the line: as many as are its length.
    let lens: Vec<_> = came[1..].iter().take(1_006 / 40).map(Vec::len).collect();
    assert!(lens.iter().all(|len| *len == 40), "{lens:?}");
}

#[test]
fn what_is_longer_than_the_mtu_is_counted_and_not_sent() {
    let port = InMemory::new();
    let mut device = device(296, 0, &port);
    assert!(send(&mut device, START, &packet(1, 297)));
    assert!(send(&mut device, START, &packet(1, 296)));
    assert_eq!(device.flush(), Ok(()));
    assert_eq!(packets(&port.get().output), [packet(1, 296)]);
    assert_eq!((device.counters().tx_oversize, device.counters().tx_frames), (1, 1));
}

#[test]
fn a_port_that_is_lost_is_opened_again_and_half_a_frame_is_forgotten() {
    let port = InMemory::new();
    let mut device = device(1_006, 0, &port);
    let frame = frames(&[packet(1, 500)]);
    port.get().input.extend(&frame[..300]);
    assert!(receive(&mut device, START).is_none());
    // Something waits for the line, of which a part has left.
    port.get().room = 100;
    assert!(send(&mut device, START, &packet(1, 1_000)));
    assert_eq!(device.flush(), Ok(()));
    port.get().has_ended = true;
    assert!(receive(&mut device, at(20_000)).is_none());
    assert_eq!((device.link_state(), device.flush()), (LinkState::Down, Err(LinkError::Down)));
    assert_eq!(port.get().closes, 1);
    assert!(
        !send(&mut device, at(20_001), &packet(1, 40)),
        "what waited is thrown away, and nothing is added"
    );
    assert!(!device.figures().snapshot().is_up);
    // Nobody is there at first.
    let due = device.next_deadline().expect("it is looked for");
    assert_eq!(due, at(20_500));
    port.get().refuses = true;
    device.receive_with(due, |_, _| ());
    assert_eq!(device.flush(), Err(LinkError::Down));
    assert_eq!((port.get().opens, device.next_deadline()), (2, Some(at(21_000))));
    *port.get() = Memory { room: usize::MAX, comes_back: true, ..Memory::default() };
    port.get().input.extend(&frame[300..]);
    port.get().input.extend(frames(&[packet(3, 40)]));
    assert!(receive(&mut device, at(20_999)).is_none());
    assert_eq!(device.flush(), Err(LinkError::Down));
    assert!(receive(&mut device, at(21_000)).is_none());
    assert_eq!((device.flush(), device.link_state()), (Ok(()), LinkState::Up));
    assert_eq!(receive(&mut device, at(21_000)), Some(packet(3, 40)), "the rest of a frame is no packet");
    assert!(port.get().output.is_empty(), "nor is the rest of ours sent");
    assert_eq!((device.counters().line_losses, device.counters().line_errors), (1, 1));
    let said = warnings();
    assert!(
        said[0].contains("the port is lost") && said.last().is_some_and(|line| line.contains("is there"))
    );
}

#[test]
fn a_port_that_comes_and_goes_is_left_alone_for_longer_and_longer() {
    let port = InMemory::new();
    let mut device = device(1_006, 0, &port);
    port.get().has_ended = true;
    let mut now = START;
    let mut pauses = Vec::new();
    for _ in 0..7 {
        assert!(receive(&mut device, now).is_none());
        let due = device.next_deadline().expect("it is looked for");
        pauses.push((due - now).total_millis());
        now = due;
        device.receive_with(now, |_, _| ());
        let _ = device.flush();
    }
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 8_000, 8_000, 8_000]);
    // One that was there for long is looked for at once, as an adapter that is pulled out and put back.
    assert!(receive(&mut device, now + STABLE_TIME).is_none());
    assert_eq!(device.next_deadline(), Some(now + STABLE_TIME + RETRY_INTERVAL));
    // It is told a few times, and then no more.
    let said = warnings();
    assert_eq!(said.iter().filter(|line| line.contains("and so on")).count(), 1, "{said:#?}");
    assert!(said.len() as u32 <= TELLS_AT_MOST, "{said:#?}");
}

/// A minute has so many, with the one that says so; the test takes less than two.
const TELLS_AT_MOST: u32 = 14;

#[test]
fn stdin_that_ends_is_the_end() {
    let port = InMemory::new();
    let mut device = device(1_006, 0, &port);
    (port.get().comes_back, port.get().has_ended) = (false, true);
    assert!(receive(&mut device, START).is_none());
    assert_eq!((device.link_state(), device.flush()), (LinkState::Gone, Err(LinkError::Gone)));
    assert_eq!((device.wait(None), device.next_deadline()), (Err(LinkError::Gone), None));
    assert_eq!(port.get().opens, 1, "it is not looked for");
}

#[test]
fn a_port_that_is_not_there_at_first_is_told_at_once() {
    let port = InMemory::new();
    port.get().refuses = true;
    let config = SerialConfig { name: "line".to_owned(), mtu: 296, baud: None };
    let framing = FramingConfig { packet_max: 2_048, crc: false, escapes_flow_control: false };
    let made = Serial::new(config, port, Box::new(slip::Slip::new(framing)), START);
    assert_eq!(made.map(drop).map_err(|error| error.kind()), Err(ErrorKind::NotFound));
}

#[test]
fn a_larger_mtu_at_the_other_end_is_named_once() {
    let port = InMemory::new();
    let mut device = device(296, 0, &port);
    port.get().input.extend(frames(&[packet(1, 296)]));
    assert!(receive(&mut device, START).is_some());
    assert_eq!(warnings(), [""; 0]);
    port.get().input.extend(frames(&[packet(1, 1_006), packet(1, 1_006)]));
    assert_eq!(
        receive(&mut device, START).map(|packet| packet.len()),
        Some(1_006),
        "it is taken all the same"
    );
    assert!(receive(&mut device, START).is_some());
    let said = warnings();
    assert!(said.len() == 1 && said[0].contains("1006 bytes") && said[0].contains("mtu is 296"), "{said:?}");
    // One that is not taken is named, too, if it is the first.
    let other = InMemory::new();
    let mut device = self::device(296, 0, &other);
    other.get().input.extend(frames(&[packet(1, 40), packet(1, 9_000), packet(1, 9_000), packet(2, 40)]));
    assert!(receive(&mut device, START).is_some());
    assert_eq!(receive(&mut device, START), Some(packet(2, 40)));
    let said = warnings();
    assert!(said.iter().filter(|line| line.contains("larger than 296")).count() == 1, "{said:?}");
}

#[test]
fn who_sends_garbage_only_is_asked_about_once() {
    let port = InMemory::new();
    let mut device = device(1_006, 0, &port);
    let noise: Vec<u8> = b"login: \r\n".iter().copied().cycle().take(1_000).chain([0xc0]).collect();
    for round in 0..20 {
        port.get().input.extend(&noise);
        // It gives way after a few reads, and goes on when it is asked again.
        while !port.get().input.is_empty() || !device.inbox.range.is_empty() {
            assert!(receive(&mut device, START).is_none());
        }
        let said = warnings();
        let expected = usize::from(round == 4);
        assert_eq!(said.len(), expected, "round {round}: {said:?}");
        assert!(said.iter().all(|line| line.contains("no packet") && line.contains("the same framing")));
    }
    assert_eq!(device.counters().line_errors, 20);
    assert_eq!(device.counters().line_garbage_bytes, 20_000);
    // Whoever comes after it was lost is somebody else.
    port.get().has_ended = true;
    receive(&mut device, START);
    port.get().has_ended = false;
    receive(&mut device, at(2_000));
    assert_eq!(device.flush(), Ok(()));
    port.get().input.extend(noise.iter().cycle().take(6_000));
    while !port.get().input.is_empty() || !device.inbox.range.is_empty() {
        assert!(receive(&mut device, at(2_000)).is_none());
    }
    assert_eq!(warnings().iter().filter(|line| line.contains("the same framing")).count(), 1);
}

#[test]
fn noise_between_packets_is_no_reason_for_a_warning() {
    let port = InMemory::new();
    let mut device = device(1_006, 0, &port);
    for _ in 0..50 {
        port.get().input.extend([0x55; 300]);
        port.get().input.push_back(0xc0);
        port.get().input.extend(frames(&[packet(1, 40)]));
        assert_eq!(receive(&mut device, START), Some(packet(1, 40)));
    }
    assert_eq!((warnings().len(), device.counters().line_errors), (0, 50));
}

#[test]
fn a_line_with_a_rate_is_not_given_more_than_it_takes() {
    let port = InMemory::new();
    let mut device = device(296, 9_600, &port);
    let mut now = START;
    let end = at(10_000);
    while now < end {
        while send(&mut device, now, &packet(1, 296)) {}
        assert_eq!(device.flush(), Ok(()));
        let millis = (now - START).total_millis();
        let (handed, line) = (port.get().output.len() as u64, 960 * millis / 1_000);
        assert!((line..=line + 40).contains(&handed), "{handed} bytes after {millis} ms");
        now = device.next_deadline().expect("more to send");
        device.receive_with(now, |_, _| ());
    }
}
