//! `AfPacket` itself, against another one at the peer's end: raw frames, no stack.

use std::io;
use std::process::Command;

use smoltcp::phy::{Device, RxToken, TxToken};
use smoltcp::time::{Duration, Instant};
use wirestack_apps::testbed::{VethEnd, Wire, WireOptions};
use wirestack_nic::claim::{ClaimSet, Claimed};
use wirestack_nic::config::{Profile, RX_SLOTS, TxMode};
use wirestack_nic::error::Step;
use wirestack_nic::{AfPacket, AfPacketConfig, LinkError, LinkState, Nic, RingGeometry, wait};
use wirestack_tests::programs::output;
use wirestack_tests::runner::{
    Case, Outcome, require_program, stay_on_one_core, test, veth_test, veth_test_with,
};

use crate::support::LONG;
use crate::talk::wait_until;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        veth_test("device::one_kick_sends_a_turn", one_kick_sends_a_turn),
        veth_test("device::a_burst_of_4000_frames_finds_room", a_burst_finds_room),
        veth_test_with("device::jumbo_frames", || WireOptions::with_mtu(65_535), jumbo_frames),
        veth_test("device::every_slot_is_used_again", every_slot_is_used_again),
        veth_test("device::refused_frames_do_not_stall_the_ring", refused_frames),
        veth_test("device::a_full_ring_is_back_pressure", a_full_ring_is_back_pressure),
        require_program("tc", veth_test("device::a_slow_device_is_back_pressure", a_slow_device)),
        veth_test("device::queued_frames_are_drained_on_close", drained_on_close),
        veth_test("device::link_states_are_told", link_states_are_told),
        veth_test("device::own_frames_are_not_heard", own_frames_are_not_heard),
        veth_test("device::a_waker_ends_a_wait", a_waker_ends_a_wait),
        veth_test("device::large_frames_survive_down_and_up", large_frames_survive_down_and_up),
        veth_test("device::groups_are_joined_while_it_lives", groups_are_joined),
        test("device::opening_fails_by_step", opening_fails_by_step),
    ]
}

fn open(end: &VethEnd, config: AfPacketConfig<'static>) -> AfPacket<'static> {
    stay_on_one_core();
    end.namespace().run(|| AfPacket::open(end.name(), config)).expect("the device opens")
}

/// A ring to send, of the default size, without virtio_net_hdr.
fn tx_ring() -> AfPacketConfig<'static> {
    AfPacketConfig { tx: TxMode::Ring, vnet_hdr: false, ..AfPacketConfig::default() }
}

/// Rings of this many slots for frames of the MTU.
fn rings(rx: usize, tx: usize) -> AfPacketConfig<'static> {
    AfPacketConfig {
        tx: TxMode::Ring,
        vnet_hdr: false,
        rx_rings: vec![RingGeometry::for_frames(1514, rx)].into(),
        tx_rings: vec![RingGeometry::for_frames(1514, tx)].into(),
        ..AfPacketConfig::default()
    }
}

/// Writes a frame that no stack knows (EtherType 0x88b5, local experimental), with a number.
fn write(nic: &mut AfPacket<'_>, number: u32, len: usize) -> bool {
    let Some(token) = nic.transmit(wait::now()) else { return false };
    token.consume(len, |frame| {
        frame.fill(0xee);
        frame[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
        frame[14..18].copy_from_slice(&number.to_be_bytes());
    });
    true
}

/// The number and length of the next such frame; `None` if none comes in time.
fn read(nic: &mut AfPacket<'_>, patience: Duration) -> Option<(u32, usize)> {
    let deadline = wait::now() + patience;
    loop {
        while let Some((token, _)) = nic.receive(wait::now()) {
            let found = token.consume(|frame| {
                let number = frame.get(14..18)?.try_into().map(u32::from_be_bytes).ok()?;
                (frame.get(12..14)? == [0x88, 0xb5]).then_some((number, frame.len()))
            });
            if found.is_some() {
                return found;
            }
        }
        if wait::now() >= deadline {
            return None;
        }
        let _ = nic.wait(Some(deadline));
    }
}

fn patience() -> Duration {
    LONG.into()
}

fn read_numbers(nic: &mut AfPacket<'_>, numbers: impl Iterator<Item = u32>) {
    for number in numbers {
        assert_eq!(read(nic, patience()).map(|(number, _)| number), Some(number));
    }
}

fn one_kick_sends_a_turn(wire: &Wire) -> Outcome {
    // A batch of sendmmsg is 64 frames.
    for (config, kicks) in [(tx_ring(), 1), (AfPacketConfig::default(), 2)] {
        sends_a_turn(wire, config, kicks)?;
    }
    Ok(())
}

fn sends_a_turn(wire: &Wire, config: AfPacketConfig<'static>, kicks: u64) -> Outcome {
    let mut ours = open(wire.ours(), config);
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    for number in 0..100 {
        assert!(write(&mut ours, number, 60 + number as usize));
    }
    assert_eq!(ours.counters().tx_kicks, 0, "nothing is sent before the turn ends");
    ours.flush()?;
    for number in 0..100 {
        assert_eq!(read(&mut peer, patience()), Some((number, 60 + number as usize)));
    }
    let counters = ours.counters();
    assert_eq!((counters.tx_frames, counters.tx_kicks), (100, kicks));
    assert_eq!(counters.tx_bytes, (0..100).map(|n| 60 + n).sum::<u64>());
    Ok(())
}

fn a_burst_finds_room(wire: &Wire) -> Outcome {
    const { assert!(RX_SLOTS >= 4000) };
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    for profile in [Profile::Latency, Profile::Bulk, Profile::Capture] {
        let mut ours = open(wire.ours(), AfPacketConfig::profile(profile));
        for number in 0..4000 {
            assert!(write(&mut peer, number, 60));
            // The receiver is not looked at; the sender's queue is shorter than the burst.
        }
        peer.flush()?;
        read_numbers(&mut ours, 0..4000);
        let counters = ours.counters();
        assert_eq!((counters.rx_ring_full, counters.rx_truncated), (0, 0), "{profile}: {counters}");
    }
    Ok(())
}

/// The largest MTU that there is: frames of 64 KB on the wire, of which none is merged.
fn jumbo_frames(wire: &Wire) -> Outcome {
    for profile in [Profile::Latency, Profile::Bulk] {
        let mut ours = open(wire.ours(), AfPacketConfig::profile(profile));
        let mut peer = open(wire.peer(), AfPacketConfig { tx: TxMode::Ring, ..AfPacketConfig::default() });
        for from_ours in [true, false] {
            let (from, to) = if from_ours { (&mut ours, &mut peer) } else { (&mut peer, &mut ours) };
            for (number, len) in [(1, 65_549), (2, 9014), (3, 60)] {
                assert!(write(from, number, len));
                from.flush()?;
                assert_eq!(read(to, patience()), Some((number, len)), "{profile}");
            }
        }
    }
    Ok(())
}

fn every_slot_is_used_again(wire: &Wire) -> Outcome {
    let mut ours = open(wire.ours(), rings(16, 16));
    let mut peer = open(wire.peer(), rings(16, 16));
    for round in 0..500 {
        for number in 0..10 {
            assert!(write(&mut ours, round * 10 + number, 60 + (round as usize % 1400)));
        }
        ours.flush()?;
        read_numbers(&mut peer, round * 10..round * 10 + 10);
        assert!(write(&mut peer, round, 1514));
        peer.flush()?;
        read_numbers(&mut ours, round..=round);
    }
    Ok(())
}

/// The kernel refuses what is longer than the MTU allows; the MTU shrinks under the device.
fn refused_frames(wire: &Wire) -> Outcome {
    refused(wire, tx_ring())?;
    wire.ours().set_mtu(1500)?;
    refused(wire, AfPacketConfig::default())
}

fn refused(wire: &Wire, config: AfPacketConfig<'static>) -> Outcome {
    let mut ours = open(wire.ours(), config);
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    wire.ours().set_mtu(1280)?;
    for number in 0..200 {
        let len = if number % 3 == 0 { 1514 } else { 1000 };
        assert!(write(&mut ours, number, len));
        if number % 50 == 49 {
            ours.flush()?;
        }
    }
    // Too short for a header, and longer than any slot or queue.
    ours.transmit(wait::now()).expect("room").consume(5, |frame| frame.fill(0));
    ours.transmit(wait::now()).expect("room").consume(5 << 20, |frame| frame.fill(0));
    assert!(write(&mut ours, 1000, 60));
    ours.flush()?;
    read_numbers(&mut peer, (0..200).filter(|number| number % 3 != 0));
    read_numbers(&mut peer, 1000..=1000);
    let counters = ours.counters();
    assert_eq!((counters.tx_rejected, counters.tx_oversize), (67 + 1, 1));
    assert_eq!(counters.tx_frames, 133 + 1);
    Ok(())
}

fn a_full_ring_is_back_pressure(wire: &Wire) -> Outcome {
    let mut ours = open(wire.ours(), rings(64, 32));
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    // Nothing leaves while the interface is down, so the ring fills.
    wire.ours().set_down()?;
    assert_eq!(ours.flush(), Ok(()), "nothing is queued, so nothing can fail");
    let mut written = 0;
    while write(&mut ours, written, 60) {
        written += 1;
        assert!(written <= 1000, "a ring of 32 slots has an end");
    }
    assert_eq!(written, 32);
    assert_eq!(ours.flush(), Err(LinkError::Down));
    assert!(ours.counters().tx_ring_full > 0);
    assert!(ours.transmit(wait::now()).is_none() && ours.receive(wait::now()).is_none());
    wire.ours().set_up()?;
    wire.ours().wait_until_up(LONG)?;
    ours.flush()?;
    assert!(write(&mut ours, written, 60), "there is room again");
    ours.flush()?;
    read_numbers(&mut peer, 0..=32);
    assert_eq!(ours.counters().tx_frames, 33);
    Ok(())
}

/// The link is up, and the kernel keeps the frames for a while: slots stay SENDING.
fn a_slow_device(wire: &Wire) -> Outcome {
    let mut shape = Command::new("tc");
    let (name, rate) = (wire.ours().name(), "rate 20mbit burst 4k limit 1mb");
    shape.args(["qdisc", "add", "dev", name, "root", "tbf"]).args(rate.split(' '));
    wire.at_ours(|| output(&mut shape, LONG))?;
    let mut ours = open(wire.ours(), rings(64, 16));
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    let mut written = 0;
    while written < 200 {
        while written < 200 && write(&mut ours, written, 1514) {
            written += 1;
        }
        ours.flush()?;
        // As a loop whose next segment is due already.
        ours.wait(Some(Instant::ZERO))?;
    }
    read_numbers(&mut peer, 0..200);
    let counters = ours.counters();
    assert!(counters.tx_ring_full > 0, "the ring was never full: {counters}");
    assert_eq!((counters.tx_frames, counters.tx_rejected), (200, 0));
    Ok(())
}

fn drained_on_close(wire: &Wire) -> Outcome {
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    let mut ours = open(wire.ours(), AfPacketConfig::default());
    for number in 0..500 {
        assert!(write(&mut ours, number, 1514));
    }
    drop(ours);
    read_numbers(&mut peer, 0..500);
    Ok(())
}

/// What `wait` says of the link, once the frames that came before are out of the way.
fn told_by_wait(nic: &mut AfPacket<'_>) -> Result<(), LinkError> {
    let deadline = wait::now() + patience();
    while nic.wait(Some(deadline))? == wait::Wake::Ready {
        while let Some((token, _)) = nic.receive(wait::now()) {
            token.consume(|_| ());
        }
    }
    Ok(())
}

fn link_states_are_told(wire: &Wire) -> Outcome {
    let mut ours = open(wire.ours(), AfPacketConfig::default());
    assert_eq!(ours.link_state(), LinkState::Up);
    wire.ours().set_down()?;
    assert_eq!(ours.link_state(), LinkState::Down);
    assert_eq!(told_by_wait(&mut ours), Err(LinkError::Down));
    wire.ours().set_up()?;
    wire.ours().wait_until_up(LONG)?;
    assert_eq!(ours.link_state(), LinkState::Up);
    while ours.wait(Some(Instant::ZERO)).is_err() {}
    // Removing takes it down first. Whatever is seen of that, the end is always told.
    wire.ours().set_down()?;
    assert_eq!(told_by_wait(&mut ours), Err(LinkError::Down));
    wire.ours().delete()?;
    assert_eq!(ours.link_state(), LinkState::Gone);
    assert_eq!(told_by_wait(&mut ours), Err(LinkError::Gone));
    assert!(write(&mut ours, 1, 60), "nothing panics afterwards");
    assert_eq!(ours.flush(), Err(LinkError::Gone));
    assert!(ours.receive(wait::now()).is_none());
    Ok(())
}

fn own_frames_are_not_heard(wire: &Wire) -> Outcome {
    let mut ours = open(wire.ours(), AfPacketConfig::default());
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    assert!(write(&mut ours, 1, 60));
    ours.flush()?;
    read_numbers(&mut peer, 1..=1);
    assert!(write(&mut peer, 2, 60));
    peer.flush()?;
    // Frame 1 would be in the ring before frame 2.
    read_numbers(&mut ours, 2..=2);
    Ok(())
}

fn a_waker_ends_a_wait(wire: &Wire) -> Outcome {
    let mut ours = open(wire.ours(), AfPacketConfig::default());
    let waker = ours.waker();
    let thread = std::thread::spawn(move || waker.wake());
    // Without a deadline: only the waker (or noise on the wire) ends it.
    while ours.wait(None)? != wait::Wake::Woken {
        while let Some((token, _)) = ours.receive(wait::now()) {
            token.consume(|_| ());
        }
    }
    thread.join().expect("the thread does not panic");
    Ok(())
}

/// Frames larger than a slot come from a queue beside the ring; an interface that goes down must not
/// make them go to the wrong slots.
fn large_frames_survive_down_and_up(wire: &Wire) -> Outcome {
    // Slots for frames of 600 bytes, so that frames of the MTU do not fit.
    let small = RingGeometry::for_frames(600, 64);
    let config = AfPacketConfig { rx_rings: vec![small].into(), ..AfPacketConfig::default() };
    let mut ours = open(wire.ours(), config);
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    let mut number = 0;
    for _ in 0..3 {
        for _ in 0..10 {
            assert!(write(&mut peer, number, 1400));
            number += 1;
        }
        peer.flush()?;
        wire.ours().set_down()?;
        wire.ours().set_up()?;
        wire.ours().wait_until_up(LONG)?;
        wire.peer().wait_until_up(LONG)?;
        for number in number - 10..number {
            assert_eq!(read(&mut ours, patience()), Some((number, 1400)));
        }
    }
    let counters = ours.counters();
    assert_eq!((counters.rx_truncated, counters.rx_malformed), (0, 0));
    assert!(counters.rx_oversize >= 30);
    Ok(())
}

fn groups_are_joined(wire: &Wire) -> Outcome {
    let list = || wire.at_ours(|| std::fs::read_to_string("/proc/thread-self/net/dev_mcast"));
    let group = smoltcp::wire::EthernetAddress([0x33, 0x33, 0xff, 0xab, 0xcd, 0xef]);
    let ours = open(wire.ours(), AfPacketConfig::default());
    // Through a device around the device, as a stack that is in groups asks for it; who joined twice leaves
    // twice, and once more does no harm.
    let mut around = Claimed::new(ours, ClaimSet::default());
    for is_joined in [true, true] {
        around.join_multicast(group)?;
        assert_eq!(list()?.contains("3333ffabcdef"), is_joined, "{}", list()?);
    }
    for is_joined in [true, false, false] {
        around.leave_multicast(group)?;
        assert_eq!(list()?.contains("3333ffabcdef"), is_joined, "{}", list()?);
    }
    drop(around);

    let ours = open(wire.ours(), AfPacketConfig::default());
    ours.join(group)?;
    ours.join(smoltcp::wire::EthernetAddress([2, 0, 0, 0, 0xab, 0xcd]))?;
    assert!(list()?.contains("3333ffabcdef"), "{}", list()?);
    drop(ours);
    // A program that another test starts just now has a copy of the socket.
    wait_until("the group is left", || Ok(!list()?.contains("3333ffabcdef")))?;
    Ok(())
}

fn opening_fails_by_step() -> Outcome {
    let wire = Wire::new()?;
    let open = |name: &str, config| wire.at_ours(|| AfPacket::open(name, config)).map(drop);
    let name = wire.ours().name();
    let fails = |result: Result<(), wirestack_nic::OpenError>, step, words: &[&str]| {
        let error = result.expect_err("it cannot be opened");
        assert_eq!(error.step, step, "{error}");
        let text = error.to_string();
        assert!(!text.contains('\n') && words.iter().all(|word| text.contains(word)), "{text}");
    };
    fails(open("none0", AfPacketConfig::default()), Step::Interface, &["none0", "No such device", "ip link"]);
    let small = |slot_size| RingGeometry {
        block_size: 4096,
        block_count: 1,
        slot_size,
        slot_count: 4096 / slot_size,
    };
    let rx = AfPacketConfig { rx_rings: vec![small(64)].into(), ..AfPacketConfig::default() };
    fails(open(name, rx), Step::Geometry, &[name, "slot_size 64"]);
    let tx = AfPacketConfig { tx_rings: vec![small(1024)].into(), ..tx_ring() };
    fails(open(name, tx), Step::Geometry, &[name, "slot_size 1024", "MTU 1500"]);
    wire.ours().set_down()?;
    fails(open(name, AfPacketConfig::default()), Step::Interface, &[name, "down", "ip link set"]);
    wire.ours().set_up()?;
    wire.ours().wait_until_up(LONG)?;
    open(name, AfPacketConfig::default()).map_err(io::Error::other)?;
    // Borrowed tables do as well.
    let mut oversize = [0; 2000];
    let mut rings = [RingGeometry::for_frames(1514, 64)];
    let config = AfPacketConfig {
        rx_rings: (&mut rings[..]).into(),
        oversize: (&mut oversize[..]).into(),
        ..Default::default()
    };
    wire.at_ours(|| AfPacket::open(name, config).map(drop)).map_err(io::Error::other)?;
    Ok(())
}
