//! The device: what goes through, back pressure, sleeping, and a TCP transfer over a bad wire.

use std::thread;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::Medium;
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::*;
use crate::loopback::{Loopback, LoopbackConfig};

pub(super) fn at(micros: i64) -> Instant {
    Instant::from_micros(micros)
}

pub(super) fn spec(text: &str) -> ImpairSpec {
    text.parse().expect(text)
}

fn pair(queue_len: usize) -> (Loopback<'static>, Loopback<'static>) {
    let config = LoopbackConfig { queue_len, medium: Medium::Ip, ..LoopbackConfig::default() };
    Loopback::pair(&config).expect("a pair")
}

/// An impaired end and a plain one.
fn impaired(rx: &str, tx: &str, queue_len: usize) -> (Impair<'static, Loopback<'static>>, Loopback<'static>) {
    let (a, b) = pair(queue_len);
    (Impair::new(a, ImpairConfig { rx: spec(rx), tx: spec(tx), seed: 1 }), b)
}

fn send(device: &mut impl Device, now: Instant, number: u8) -> bool {
    device.transmit(now).map(|token| token.consume(60, |room| room.fill(number))).is_some()
}

fn receive(device: &mut impl Device, now: Instant) -> Option<u8> {
    device.receive(now).map(|(token, _)| token.consume(|frame| frame.first().copied().unwrap_or(0)))
}

#[test]
fn a_perfect_wire_is_not_there() {
    let (mut a, mut b) = impaired("loss=0%", "loss=0%", 300);
    for number in 0..200 {
        assert!(send(&mut a, at(0), number) && send(&mut b, at(0), number));
    }
    for number in 0..200 {
        assert_eq!((receive(&mut a, at(0)), receive(&mut b, at(0))), (Some(number), Some(number)));
    }
    assert_eq!((receive(&mut a, at(0)), a.next_release()), (None, None));
    let counters = a.counters();
    assert_eq!((counters.rx_frames, counters.rx_bytes), (200, 200 * 60));
    assert_eq!((counters.tx_frames, counters.tx_bytes), (200, 200 * 60));
    assert_eq!(counters.impaired_dropped, 0);
}

#[test]
fn a_frame_that_need_not_wait_is_with_the_inner_device_at_once() {
    let (mut a, mut b) = impaired("loss=0%", "loss=0%", 10);
    send(&mut a, at(0), 1);
    assert_eq!((receive(&mut b, at(0)), a.tx_line().len()), (Some(1), 0));
    send(&mut b, at(0), 2);
    let (rx, tx) = a.receive(at(0)).expect("a frame");
    rx.consume(|frame| tx.consume(frame.len(), |room| room.copy_from_slice(frame)));
    assert_eq!(receive(&mut b, at(0)), Some(2), "an answer as well");
}

#[test]
fn each_direction_has_its_own_delay() {
    let (mut a, mut b) = impaired("delay=5ms", "delay=2ms", 10);
    send(&mut a, at(0), 1);
    send(&mut b, at(0), 2);
    assert_eq!((receive(&mut a, at(0)), receive(&mut b, at(0))), (None, None));
    assert_eq!(a.next_release(), Some(at(2_000)));
    // Looking at the device moves what is due to the other end, whatever is called.
    assert!(a.transmit(at(1_999)).is_some());
    assert_eq!(receive(&mut b, at(1_999)), None);
    assert!(a.transmit(at(2_000)).is_some());
    assert_eq!(receive(&mut b, at(2_000)), Some(1));
    assert_eq!(receive(&mut a, at(4_999)), None);
    assert_eq!(receive(&mut a, at(5_000)), Some(2));
}

#[test]
fn flush_takes_the_time_of_the_turn() {
    let (mut a, mut b) = impaired("loss=0%", "delay=2ms", 10);
    send(&mut a, at(0), 1);
    a.flush().expect("up");
    assert_eq!(receive(&mut b, at(0)), None, "the clock of the machine is far ahead of 2 ms");
    receive(&mut a, at(2_000));
    a.flush().expect("up");
    assert_eq!(receive(&mut b, at(0)), Some(1));
}

#[test]
fn both_tokens_of_a_receive_work_and_a_dropped_one_keeps_its_frame() {
    let (mut a, mut b) = impaired("duplicate=100%", "delay=1ms", 10);
    send(&mut b, at(0), 7);
    assert!(a.receive(at(0)).is_some(), "not consumed");
    for _ in 0..2 {
        let (rx, tx) = a.receive(at(0)).expect("the frame, then its copy");
        rx.consume(|frame| tx.consume(frame.len(), |room| room.copy_from_slice(frame)));
    }
    assert_eq!(receive(&mut a, at(1_000)), None);
    assert_eq!(
        [receive(&mut b, at(0)), receive(&mut b, at(0)), receive(&mut b, at(0))],
        [Some(7), Some(7), None]
    );
    assert_eq!((a.counters().rx_frames, a.counters().impaired_duplicated), (2, 1));
}

#[test]
fn every_frame_is_accounted_for_in_both_directions() {
    let text = "loss=10%,duplicate=10%,reorder=10%,corrupt=10%,delay=3ms,jitter=3ms,rate=2mbit,queue=20";
    let (mut a, mut b) = impaired(text, text, 100);
    let (mut received, mut sent) = (0u64, 0u64);
    for step in 0..5_000 {
        let now = at(step * 250);
        sent += u64::from(send(&mut a, now, 1));
        send(&mut b, now, 2);
        while receive(&mut a, now).is_some() {}
        while receive(&mut b, now).is_some() {
            received += 1;
        }
    }
    let (rx, tx) = (a.rx_line().counters(), a.tx_line().counters());
    let counters = a.counters();
    assert_eq!(
        counters.rx_frames + rx.dropped() + a.rx_line().len() as u64,
        b.counters().tx_frames + rx.duplicated
    );
    assert_eq!((tx.sent, tx.released, counters.tx_frames), (sent, received, received));
    assert_eq!(counters.tx_frames + tx.dropped() + a.tx_line().len() as u64, sent + tx.duplicated);
    assert_eq!(counters.impaired_dropped, rx.dropped() + tx.dropped());
    assert!(rx.queue_full > 0 && rx.lost > 0 && rx.corrupted > 0 && rx.reordered > 0, "{rx:?}");
    assert_ne!(rx, tx, "the directions draw different numbers");
}

#[test]
fn a_burst_of_the_inner_device_does_not_overflow_a_short_queue() {
    // Nothing in this spec makes a frame wait, so none may be lost to the length of the queue.
    let (mut a, mut b) = impaired("queue=2", "queue=1", 1000);
    (0..200).for_each(|number| assert!(send(&mut b, at(0), number)));
    (0..200).for_each(|number| assert_eq!(receive(&mut a, at(0)), Some(number)));
    assert_eq!(a.counters().impaired_dropped, 0);
}

#[test]
fn a_full_inner_device_is_back_pressure() {
    let (mut a, mut b) = impaired("loss=0%", "delay=1ms", 2);
    (0..4).for_each(|number| assert!(send(&mut a, at(0), number)));
    assert!(!send(&mut a, at(1_000), 4), "two of four due frames are through");
    assert_eq!([receive(&mut b, at(0)), receive(&mut b, at(0))], [Some(0), Some(1)]);
    assert!(send(&mut a, at(1_000), 4));
    assert_eq!([receive(&mut b, at(0)), receive(&mut b, at(0))], [Some(2), Some(3)]);
    assert_eq!(a.counters().impaired_dropped, 0);
}

#[test]
fn a_perfect_wire_passes_super_frames_of_tokens() {
    let config = LoopbackConfig { frame_len_max: 65_550, ..LoopbackConfig::default() };
    let (a, b) = Loopback::pair(&config).expect("a pair");
    let config = ImpairConfig { tx: spec("queue=9"), rx: spec("queue=9"), seed: 1 };
    let (mut a, mut b) = (Impair::new(a, config), Impair::new(b, config));
    let mut meta = PacketMeta::default();
    meta.segmentation_offload_size = std::num::NonZeroU16::new(1448);
    let mut token = a.transmit(at(0)).expect("room");
    token.set_meta(meta);
    token.consume(65_550, |room| room.fill(9));
    let (token, _) = b.receive(at(0)).expect("a frame");
    assert_eq!(token.meta(), meta);
    assert_eq!(token.consume(<[u8]>::len), 65_550);
}

/// smoltcp panics on a device that splits segments which have a checksum already.
#[test]
fn no_pile_of_devices_contradicts_itself() {
    use smoltcp::iface::{Config, Interface};
    use smoltcp::wire::{EthernetAddress, HardwareAddress};
    let texts = ["queue=9", "loss=1%", "corrupt=1%"];
    for inner in [Checksum::None, Checksum::Rx, Checksum::Tx, Checksum::Both] {
        for specs in (0..81).map(|number| [number % 3, number / 3 % 3, number / 9 % 3, number / 27]) {
            let [rx, tx, outer_rx, outer_tx] = specs.map(|index| spec(texts[index]));
            let mut config = LoopbackConfig { frame_len_max: 65_550, ..LoopbackConfig::default() };
            config.checksum.tcp = inner;
            let (a, _b) = Loopback::pair(&config).expect("a pair");
            let claims = crate::claim::ClaimSet::default();
            let a = crate::claim::Claimed::new(Impair::new(a, ImpairConfig { rx, tx, seed: 1 }), claims);
            let mut a = Impair::new(a, ImpairConfig { rx: outer_rx, tx: outer_tx, seed: 1 });
            let address = HardwareAddress::Ethernet(EthernetAddress([2; 6]));
            Interface::new(Config::new(address), &mut a, at(0));
        }
    }
}

#[test]
fn flipped_bits_are_not_hidden_by_offloaded_checksums() {
    let checksums = |rx: &str, tx: &str, inner: Checksum| {
        let mut config = LoopbackConfig { frame_len_max: 65_550, ..LoopbackConfig::default() };
        for_each_checksum(&mut config.checksum, |_| inner);
        let (a, _b) = Loopback::pair(&config).expect("a pair");
        let a = Impair::new(a, ImpairConfig { rx: spec(rx), tx: spec(tx), seed: 1 });
        let capabilities = a.capabilities();
        let tcp = capabilities.checksum.tcp;
        (tcp.rx(), tcp.tx(), capabilities.segmentation.tcpv4.is_some())
    };
    assert_eq!(checksums("loss=1%", "loss=1%", Checksum::None), (false, false, true), "as the inner device");
    assert_eq!(checksums("corrupt=1%", "loss=1%", Checksum::None), (true, false, true));
    assert_eq!(checksums("loss=1%", "corrupt=1%", Checksum::None), (false, true, false));
    assert_eq!(checksums("corrupt=1%", "corrupt=1%", Checksum::Rx), (true, true, false));
    assert_eq!(checksums("corrupt=1%", "corrupt=1%", Checksum::Tx), (true, true, false));
}

#[test]
fn slots_of_the_user_are_used() {
    let mut rx_slots = [Slot::default(), Slot::default()];
    let mut buffer = [0; 60];
    let mut tx_slots = [Slot::new(&mut buffer[..])];
    let (a, _b) = pair(10);
    let config = ImpairConfig { tx: spec("delay=1ms"), rx: spec("delay=1ms"), seed: 1 };
    let mut a = Impair::with_slots(a, config, &mut rx_slots[..], &mut tx_slots[..]);
    assert!(send(&mut a, at(0), 1) && send(&mut a, at(0), 2));
    assert_eq!((a.tx_line().len(), a.tx_line().counters().queue_full), (1, 1));
    assert_eq!(a.into_inner().counters().tx_frames, 0);
}

#[test]
fn wait_ends_when_a_frame_is_due() {
    let (mut a, mut b) = impaired("delay=5ms", "delay=1s", 10);
    let start = wait::now();
    send(&mut b, start, 1);
    assert_eq!(receive(&mut a, start), None);
    assert_eq!(a.wait(None), Ok(Wake::Ready), "no frame comes, but one is due");
    let now = wait::now();
    assert!(now >= start + Duration::from_millis(5));
    assert_eq!(receive(&mut a, now), Some(1));

    let start = wait::now();
    // Far enough that a machine that is busy elsewhere for a while comes back before it is due.
    send(&mut a, start, 2);
    assert_eq!(a.wait(Some(start + Duration::from_millis(1))), Ok(Wake::Deadline), "that of the caller");
    assert_eq!(a.wait(None), Ok(Wake::Ready), "that of a frame to send");
    assert_eq!((receive(&mut b, start), receive(&mut a, wait::now())), (None, None));
    assert_eq!((a.flush(), receive(&mut b, start)), (Ok(()), Some(2)));
    assert!(wait::now() >= start + Duration::from_secs(1));

    a.waker().wake();
    assert_eq!(a.wait(None), Ok(Wake::Woken));
    assert_eq!(a.link_state(), LinkState::Up);
}

#[test]
fn frames_under_way_arrive_although_the_other_end_is_gone() {
    let (mut a, mut b) = impaired("delay=5ms", "loss=0%", 10);
    let start = wait::now();
    send(&mut b, start, 1);
    assert_eq!(receive(&mut a, start), None);
    drop(b);
    assert_eq!((a.link_state(), a.flush()), (LinkState::Gone, Ok(())));
    while receive(&mut a, wait::now()).is_none() {
        a.wait(None).expect("a frame is under way");
    }
    assert_eq!((a.flush(), a.wait(None)), (Err(LinkError::Gone), Err(LinkError::Gone)));
}

#[test]
fn a_wait_on_a_full_inner_device_does_not_spin_and_goes_on() {
    let (mut a, mut b) = impaired("loss=0%", "delay=1ms", 1);
    let start = wait::now();
    assert!(send(&mut a, start, 1) && send(&mut a, start, 2));
    let receiver = thread::spawn(move || {
        let mut numbers = Vec::new();
        while numbers.len() < 2 {
            b.wait(Some(wait::now() + Duration::from_secs(10))).expect("up");
            numbers.extend(receive(&mut b, wait::now()));
        }
        numbers
    });
    let mut waits = 0;
    while !a.tx_line().is_empty() {
        a.wait(Some(start + Duration::from_secs(10))).expect("up");
        a.poll_release(wait::now());
        waits += 1;
    }
    a.flush().ok();
    assert_eq!(receiver.join().expect("no panic"), [1, 2]);
    let slept = (wait::now() - start).total_millis();
    assert!(waits <= 10 + 2 * slept, "{waits} waits in {slept} ms");
}

/// A smoltcp host on an impaired wire.
struct Host {
    device: Impair<'static, Loopback<'static>>,
    interface: Interface,
    sockets: SocketSet<'static>,
}

impl Host {
    fn new(inner: Loopback<'static>, config: ImpairConfig, address: [u8; 4]) -> Self {
        let mut device = Impair::new(inner, config);
        let mut interface_config = Config::new(HardwareAddress::Ip);
        interface_config.random_seed = config.seed;
        let mut interface = Interface::new(interface_config, &mut device, at(0));
        interface.update_ip_addrs(|addresses| {
            let [a, b, c, d] = address;
            addresses.push(IpCidr::new(IpAddress::v4(a, b, c, d), 24)).expect("room");
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 16 * 1024]);
        let mut sockets = SocketSet::new(Vec::new());
        sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self { device, interface, sockets }
    }

    fn poll(&mut self, now: Instant) {
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        let (_, smoltcp::socket::Socket::Tcp(socket)) = self.sockets.iter_mut().next().expect("one") else {
            panic!("a TCP socket")
        };
        socket
    }

    /// When there is something to do again.
    fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        earliest(self.interface.poll_at(now, &self.sockets), self.device.next_release())
    }
}

/// Sends 200 kB over a bad wire in virtual time; returns how long it took and what the wires counted.
fn transfer(seed: u64) -> (Instant, [Counters; 2]) {
    let wire = spec("loss=5%,duplicate=1%,reorder=2%,corrupt=1%,delay=5ms,jitter=1ms,rate=20mbit,queue=100");
    let (a, b) = pair(1000);
    let mut client = Host::new(a, ImpairConfig { rx: wire, tx: ImpairSpec::default(), seed }, [10, 0, 0, 1]);
    let mut server =
        Host::new(b, ImpairConfig { rx: wire, tx: ImpairSpec::default(), seed: !seed }, [10, 0, 0, 2]);
    server.socket().listen(80).expect("listens");
    let (smoltcp::socket::Socket::Tcp(socket), context) =
        (client.sockets.iter_mut().next().expect("one").1, client.interface.context())
    else {
        panic!("a TCP socket")
    };
    socket.connect(context, (IpAddress::v4(10, 0, 0, 2), 80), 50_000).expect("connects");

    let data: Vec<u8> =
        (0..200_000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut sent, mut received) = (0, Vec::new());
    let mut now = at(0);
    for _ in 0..1_000_000 {
        client.poll(now);
        server.poll(now);
        let socket = client.socket();
        if socket.can_send() && sent < data.len() {
            sent += socket.send_slice(&data[sent..]).expect("open");
            if sent == data.len() {
                socket.close();
            }
        }
        let socket = server.socket();
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), received.extend_from_slice(bytes))).expect("open");
        }
        if received.len() == data.len() {
            assert!(received == data, "arrived changed");
            return (now, [client.device.counters(), server.device.counters()]);
        }
        let next = earliest(client.poll_at(now), server.poll_at(now)).expect("something to do");
        now = next.max(now + Duration::from_micros(1));
    }
    panic!("{} of {} bytes after {now}", received.len(), data.len());
}

#[test]
fn a_tcp_transfer_survives_a_bad_wire_and_its_seed_reproduces_it() {
    let first = transfer(7);
    for counters in first.1 {
        assert!(counters.impaired_dropped > 0, "{counters}");
    }
    let total = |count: fn(&Counters) -> u64| first.1.iter().map(count).sum::<u64>();
    assert!(total(|c| c.impaired_duplicated) > 0 && total(|c| c.impaired_reordered) > 0);
    assert!(total(|c| c.impaired_corrupted) > 0);
    assert_eq!(transfer(7), first);
    assert_ne!(transfer(8), first);
}
