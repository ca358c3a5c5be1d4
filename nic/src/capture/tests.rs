//! Files read back by a small reader that shares no code with the writer, and writers that fail.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use smoltcp::phy::{Medium, RxToken as _, TxToken as _};

use super::pcapng::SNAP_LEN_MAX;
use super::*;
use crate::impair::{Impair, ImpairConfig};
use crate::loopback::{Loopback, LoopbackConfig};
use crate::offload::segment::tests::super_frame;

/// A packet as a reader sees it.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    micros: u64,
    flags: u32,
    original_len: u32,
    data: Vec<u8>,
}

/// What a file says, read after the specification.
#[derive(Debug, Default)]
struct File {
    link_type: u16,
    snap_len: u32,
    name: String,
    tsresol: u8,
    packets: Vec<Packet>,
    /// Bytes after the last whole block.
    rest: usize,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut options = Vec::new();
    loop {
        let (code, len) = (u16_at(bytes, 0), usize::from(u16_at(bytes, 2)));
        if code == 0 {
            assert_eq!((len, bytes.len()), (0, 4), "the end of the options is the end of the block");
            return options;
        }
        options.push((code, &bytes[4..4 + len]));
        let padded = len.next_multiple_of(4);
        assert!(bytes[4 + len..4 + padded].iter().all(|&byte| byte == 0));
        bytes = &bytes[4 + padded..];
    }
}

fn read(mut bytes: &[u8]) -> File {
    let mut file = File::default();
    for index in 0.. {
        let whole = bytes.len() >= 12 && bytes.len() >= u32_at(bytes, 4) as usize;
        if !whole {
            file.rest = bytes.len();
            break;
        }
        let (kind, len) = (u32_at(bytes, 0), u32_at(bytes, 4) as usize);
        assert!(len.is_multiple_of(4) && u32_at(bytes, len - 4) as usize == len);
        let body = &bytes[8..len - 4];
        match (index, kind) {
            (0, 0x0A0D0D0A) => {
                assert_eq!((u32_at(body, 0), u16_at(body, 4), u16_at(body, 6)), (0x1A2B3C4D, 1, 0));
                assert_eq!(body[8..16], [0xff; 8]);
                assert_eq!(options(&body[16..]), [(4, &b"wirestack"[..])]);
            }
            (1, 1) => {
                file.link_type = u16_at(body, 0);
                file.snap_len = u32_at(body, 4);
                for (code, value) in options(&body[8..]) {
                    match code {
                        2 => file.name = String::from_utf8(value.to_vec()).expect("UTF-8"),
                        9 => file.tsresol = value[0],
                        code => panic!("option {code}"),
                    }
                }
            }
            (2.., 6) => {
                assert_eq!(u32_at(body, 0), 0, "the interface");
                let captured_len = u32_at(body, 12) as usize;
                let options = options(&body[20 + captured_len.next_multiple_of(4)..]);
                assert_eq!((options.len(), options[0].0, options[0].1.len()), (1, 2, 4));
                file.packets.push(Packet {
                    micros: u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8)),
                    flags: u32_at(options[0].1, 0),
                    original_len: u32_at(body, 16),
                    data: body[20..20 + captured_len].to_vec(),
                });
            }
            (index, kind) => panic!("block {index} of type {kind}"),
        }
        bytes = &bytes[len..];
    }
    file
}

/// A file on a disk of limited size, and what was done with it.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug)]
struct DiskState {
    file: Vec<u8>,
    size_max: usize,
    writes: u32,
    flushes: u32,
    flush_fails: bool,
}

impl Default for DiskState {
    fn default() -> Self {
        Self { file: Vec::new(), size_max: usize::MAX, writes: 0, flushes: 0, flush_fails: false }
    }
}

impl Disk {
    fn state(&self) -> std::sync::MutexGuard<'_, DiskState> {
        self.0.lock().expect("not poisoned")
    }

    /// Writes and flushes so far.
    fn calls(&self) -> (u32, u32) {
        let state = self.state();
        (state.writes, state.flushes)
    }

    fn read(&self) -> File {
        read(&self.state().file)
    }
}

/// As a file system does, a full disk takes what fits and then says ENOSPC.
impl io::Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.writes += 1;
        let taken = bytes.len().min(state.size_max - state.file.len());
        if taken == 0 && !bytes.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        state.file.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.flushes += 1;
        if state.flush_fails { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }
}

const EPOCH: Duration = Duration::from_secs(1_700_000_000);

fn config(snap_len: u32) -> CaptureConfig<'static> {
    CaptureConfig { name: "lo-test", epoch_offset: EPOCH, snap_len }
}

fn pair(medium: Medium) -> (Loopback<'static>, Loopback<'static>) {
    Loopback::pair(&LoopbackConfig { medium, ..LoopbackConfig::default() }).expect("a pair")
}

fn captured(disk: &Disk, snap_len: u32) -> (Capture<Loopback<'static>, Disk>, Loopback<'static>) {
    let (a, b) = pair(Medium::Ethernet);
    (Capture::new(a, disk.clone(), config(snap_len)).expect("room for the head"), b)
}

fn send(device: &mut impl Device, micros: i64, frame: &[u8]) {
    let token = device.transmit(Instant::from_micros(micros)).expect("room");
    token.consume(frame.len(), |room| room.copy_from_slice(frame));
}

fn receive(device: &mut impl Device, micros: i64) -> Option<Vec<u8>> {
    device.receive(Instant::from_micros(micros)).map(|(token, _)| token.consume(<[u8]>::to_vec))
}

#[test]
fn both_directions_are_in_the_file_with_time_and_length() {
    let disk = Disk::default();
    let (mut a, mut b) = captured(&disk, 0);
    send(&mut a, 1_000_001, b"out");
    send(&mut b, 0, b"received");
    // Received and answered: the frame is in the file before its answer.
    let (rx, tx) = a.receive(Instant::from_micros(2_000_002)).expect("a frame");
    rx.consume(|frame| tx.consume(frame.len(), |room| room.copy_from_slice(frame)));
    let file = disk.read();
    assert_eq!((file.link_type, file.snap_len, file.tsresol, file.rest), (1, SNAP_LEN_MAX, 6, 0));
    assert_eq!(file.name, "lo-test");
    let packet = |micros: u64, flags, data: &[u8]| Packet {
        micros: 1_700_000_000_000_000 + micros,
        flags,
        original_len: data.len() as u32,
        data: data.to_vec(),
    };
    assert_eq!(
        file.packets,
        [packet(1_000_001, 2, b"out"), packet(2_000_002, 1, b"received"), packet(2_000_002, 2, b"received")]
    );
    assert_eq!([receive(&mut b, 0), receive(&mut b, 0)].map(Option::unwrap), [&b"out"[..], b"received"]);
    assert_eq!((a.counters().capture_lost, a.error().is_none()), (0, true));
    assert_eq!(disk.state().writes, 4, "a block is one write");
}

#[test]
fn ip_devices_have_the_raw_link_type() {
    let disk = Disk::default();
    let (a, _b) = pair(Medium::Ip);
    Capture::new(a, disk.clone(), config(0)).expect("a capture");
    assert_eq!(disk.read().link_type, 101);
}

#[test]
fn the_snap_length_cuts_the_file_and_not_the_traffic() {
    let disk = Disk::default();
    let (mut a, mut b) = captured(&disk, 5);
    send(&mut a, 0, b"0123456789");
    assert_eq!(receive(&mut b, 0).as_deref(), Some(&b"0123456789"[..]));
    let file = disk.read();
    assert_eq!((file.snap_len, file.packets[0].original_len), (5, 10));
    assert_eq!(file.packets[0].data, b"01234");
}

#[test]
fn a_full_disk_ends_the_capture_and_not_the_traffic() {
    let disk = Disk::default();
    let (mut a, mut b) = captured(&disk, 0);
    send(&mut a, 0, b"kept");
    let len = disk.state().file.len();
    // Room for a half of the next block.
    disk.state().size_max = len + 20;
    for number in 0..10 {
        send(&mut a, 0, &[number; 60]);
        assert_eq!(receive(&mut b, 0).map(|frame| frame.len()), Some(if number == 0 { 4 } else { 60 }));
    }
    send(&mut b, 0, b"in");
    assert_eq!(receive(&mut a, 0).as_deref(), Some(&b"in"[..]));
    assert_eq!(a.error().and_then(io::Error::raw_os_error), Some(libc::ENOSPC));
    assert_eq!(a.counters().capture_lost, 11);
    // Room again changes nothing: the next block would follow half of one.
    disk.state().size_max = usize::MAX;
    let calls = disk.calls();
    send(&mut a, 0, b"late");
    a.wait(Some(wait::now() + Duration::from_millis(1))).expect("up");
    drop(a);
    assert_eq!(disk.calls(), calls);
    let file = disk.read();
    assert_eq!((file.packets.len(), file.rest), (1, 20), "what was whole is still readable");
}

#[test]
fn a_disk_without_room_for_the_head_is_told_at_once() {
    let disk = Disk::default();
    disk.state().size_max = 50;
    let error = Capture::new(pair(Medium::Ethernet).0, disk.clone(), config(0)).expect_err("full");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let disk = Disk::default();
    disk.state().flush_fails = true;
    let error = Capture::new(pair(Medium::Ethernet).0, disk.clone(), config(0)).expect_err("broken");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
fn the_file_is_flushed_before_sleeping_and_at_the_end() {
    let disk = Disk::default();
    let (mut a, _b) = captured(&disk, 0);
    let flushes = || disk.state().flushes;
    assert_eq!(flushes(), 1, "the head");
    let later = || Some(wait::now() + Duration::from_millis(1));
    a.wait(later()).expect("up");
    assert_eq!(flushes(), 1, "nothing was written");
    send(&mut a, 0, b"x");
    a.flush().expect("up");
    a.wait(Some(Instant::ZERO)).expect("up");
    assert_eq!(flushes(), 1, "a look is no sleep");
    a.wait(later()).expect("up");
    assert_eq!(flushes(), 2);
    send(&mut a, 0, b"y");
    let mut inner = a.into_inner();
    assert_eq!((flushes(), inner.counters().tx_frames), (3, 2));
}

#[test]
fn a_flush_that_fails_ends_the_capture() {
    let disk = Disk::default();
    let (mut a, _b) = captured(&disk, 0);
    send(&mut a, 0, b"x");
    disk.state().flush_fails = true;
    a.wait(Some(wait::now() + Duration::from_millis(1))).expect("up");
    assert_eq!(a.error().and_then(io::Error::raw_os_error), Some(libc::EIO));
    send(&mut a, 0, b"y");
    assert_eq!((a.counters().capture_lost, disk.read().packets.len()), (1, 1));
}

#[test]
fn wrappers_compose_in_both_orders() {
    let loss = ImpairConfig { tx: "loss=100%".parse().expect("a spec"), ..ImpairConfig::default() };
    let disk = Disk::default();
    let (a, _b) = pair(Medium::Ethernet);
    let mut before = Capture::new(Impair::new(a, loss), disk.clone(), config(0)).expect("a capture");
    send(&mut before, 0, b"lost");
    assert_eq!(disk.read().packets.len(), 1, "the stack has sent it");
    assert_eq!(before.counters().impaired_dropped, 1);
    assert_eq!(before.inner().tx_line().counters().lost, 1);
    assert_eq!(before.link_state(), LinkState::Up);
    before.waker().wake();
    assert_eq!(before.wait(None), Ok(Wake::Woken));

    let disk = Disk::default();
    let (a, _b) = pair(Medium::Ethernet);
    let capture = Capture::new(a, disk.clone(), config(0)).expect("a capture");
    let mut behind = Impair::new(capture, loss);
    send(&mut behind, 0, b"lost");
    assert_eq!(disk.read().packets.len(), 0, "the wire has not");
    assert_eq!((behind.counters().impaired_dropped, behind.counters().capture_lost), (1, 0));
}

#[test]
fn times_before_the_epoch_and_long_names_are_bounded() {
    let disk = Disk::default();
    let name = "ü".repeat(40_000);
    let (a, _b) = pair(Medium::Ethernet);
    let config = CaptureConfig { name: &name, epoch_offset: Duration::ZERO, snap_len: u32::MAX };
    let mut a = Capture::new(a, disk.clone(), config).expect("a capture");
    send(&mut a, -1, b"x");
    send(&mut a, i64::MAX, b"y");
    let file = disk.read();
    assert_eq!((file.name.len(), file.snap_len), (65_534, SNAP_LEN_MAX));
    assert_eq!(file.packets[0].micros, 0);
    assert_eq!(file.packets[1].micros, i64::MAX as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        frames in proptest::collection::vec((any::<u64>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)), 0..20),
        snap_len in 0u32..250,
    ) {
        let interface = PcapngInterface { name: "x", medium: Medium::Ip, snap_len };
        let mut writer = PcapngWriter::new(Vec::new(), interface).expect("memory");
        let kept = if snap_len == 0 { usize::MAX } else { snap_len as usize };
        let mut expected = Vec::new();
        for (micros, sent, frame) in frames {
            let direction = if sent { Direction::Outbound } else { Direction::Inbound };
            writer.write_frame(Duration::from_micros(micros), direction, &frame).expect("memory");
            expected.push(Packet {
                micros,
                flags: 1 + u32::from(sent),
                original_len: frame.len() as u32,
                data: frame[..frame.len().min(kept)].to_vec(),
            });
        }
        prop_assert_eq!(read(writer.get_ref()).packets, expected);
    }
}

/// A captured end of a wire that leaves checksums and super-frames as they are, and the other end.
fn offloading(disk: &Disk) -> (Capture<Loopback<'static>, Disk>, Loopback<'static>) {
    let offloads = OffloadCapabilities {
        checksum_tx: true,
        checksum_rx: true,
        gso_tcpv4: std::num::NonZeroUsize::new(65_550),
        ..OffloadCapabilities::default()
    };
    let config_of_wire = LoopbackConfig { frame_len_max: 65_550, offloads, ..LoopbackConfig::default() };
    let (a, b) = Loopback::pair(&config_of_wire).expect("a pair");
    (Capture::new(a, disk.clone(), config(0)).expect("room for the head"), b)
}

#[test]
fn absent_checksums_are_filled_in_in_the_file_only() {
    let disk = Disk::default();
    let (mut a, mut b) = offloading(&disk);
    let (frame, meta) = super_frame(Medium::Ethernet, 3000);
    let layout = Layout::of_frame(&frame).expect("TCP");
    let mut filled = frame.clone();
    assert!(checksum::fill(&mut filled, &layout));
    let fill = |room: &mut [u8]| room.copy_from_slice(&frame);
    a.transmit_with(Instant::ZERO, frame.len(), &meta, fill).expect("room");
    b.transmit_with(Instant::ZERO, frame.len(), &meta, fill).expect("room");
    for received in [
        b.receive_with(Instant::ZERO, |frame, meta| (frame.to_vec(), *meta)),
        a.receive_with(Instant::ZERO, |frame, meta| (frame.to_vec(), *meta)),
    ] {
        assert_eq!(received, Some((frame.clone(), meta)), "the traffic is as it was");
    }
    let packets = disk.read().packets;
    assert_eq!(packets.iter().map(|packet| packet.flags).collect::<Vec<_>>(), [2, 1]);
    assert!(packets.iter().all(|packet| packet.data == filled));
}

#[test]
fn of_tokens_checksums_that_look_absent_are_filled_in_if_the_device_leaves_them_out() {
    let (frame, _) = super_frame(Medium::Ethernet, 1000);
    let layout = Layout::of_frame(&frame).expect("TCP");
    let mut filled = frame.clone();
    assert!(checksum::fill(&mut filled, &layout));
    let mut without = frame.clone();
    without[50..52].fill(0);
    let mut wrong = filled.clone();
    wrong[50] ^= 1;
    let in_file = |(mut a, _b): (Capture<Loopback<'static>, Disk>, _), disk: &Disk| {
        for frame in [&frame, &without, &filled, &wrong] {
            send(&mut a, 0, frame);
        }
        disk.read().packets.into_iter().map(|packet| packet.data).collect::<Vec<_>>()
    };
    let disk = Disk::default();
    assert_eq!(in_file(offloading(&disk), &disk), [&filled, &filled, &filled, &wrong].map(Vec::clone));
    let disk = Disk::default();
    assert_eq!(
        in_file(captured(&disk, 0), &disk),
        [frame.clone(), without.clone(), filled.clone(), wrong.clone()]
    );
}

/// A lossy wire hands no work on and does it itself, behind the capture.
#[test]
fn what_smoltcp_leaves_out_is_filled_in_whoever_does_it_afterwards() {
    let (frame, _) = super_frame(Medium::Ethernet, 1000);
    let layout = Layout::of_frame(&frame).expect("TCP");
    let mut filled = frame.clone();
    assert!(checksum::fill(&mut filled, &layout));
    let mut without = frame;
    without[50..52].fill(0);
    let config_of_wire = LoopbackConfig {
        checksum: smoltcp::phy::ChecksumCapabilities::ignored(),
        ..LoopbackConfig::default()
    };
    let (a, _b) = Loopback::pair(&config_of_wire).expect("a pair");
    let slow = ImpairConfig { tx: "delay=1ms".parse().expect("a spec"), ..ImpairConfig::default() };
    let disk = Disk::default();
    let mut a = Capture::new(Impair::new(a, slow), disk.clone(), config(0)).expect("room for the head");
    assert!(!a.offloads().checksum_tx && !a.capabilities().checksum.tcp.tx());
    send(&mut a, 0, &without);
    assert_eq!(disk.read().packets[0].data, filled);
}
