//! Options of `AfPacketConfig` whose absence nothing else would show: each is given, and its effect seen.

use smoltcp::time::Duration;
use wirestack_apps::testbed::Wire;
use wirestack_nic::filter::{FilterSpec, ListSense};
use wirestack_nic::geometry::RingGeometry;
use wirestack_nic::meta::TimestampSource;
use wirestack_nic::{AfPacket, AfPacketConfig, FrameMeta, Nic, RxMode, TpacketVersion, TxMode, wait};
use wirestack_tests::runner::{Case, Outcome, require_program, test, veth_test};

use crate::modes::{VERSIONS, frame, is_ours, name, open, receive, send, super_frame, way, ways};
use crate::support::LONG;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        veth_test("options::a_filter_judges_every_way", a_filter_judges),
        veth_test("options::own_frames_take_no_room", own_frames_take_no_room),
        veth_test("options::own_frames_are_told_if_wanted", own_frames_are_told),
        veth_test("options::a_block_waits_as_long_as_it_may", a_block_waits),
        veth_test("options::hashes_are_told_if_wanted", hashes_are_told),
        veth_test("options::stamps_are_the_softwares_if_wanted", software_stamps),
        veth_test("options::frames_begin_at_the_offset", frames_begin_at_the_offset),
        veth_test("options::refused_frames_vanish_with_loss", refused_frames_vanish),
        require_program("ethtool", test("options::bypass_is_left_off_where_it_cannot_work", no_bypass)),
    ]
}

/// A TCP segment that is not to be split, with this source port.
fn segment(port: u16) -> (Vec<u8>, FrameMeta) {
    let (frame, meta) = super_frame(port, 100);
    (frame, FrameMeta { gso: None, ..meta })
}

fn send_now(nic: &mut AfPacket<'_>, frame: &[u8], meta: &FrameMeta) -> Outcome {
    send(nic, frame, meta)?;
    let deadline = wait::now() + Duration::from(LONG);
    let gone = |nic: &mut AfPacket<'_>| nic.counters().tx_frames + nic.counters().tx_rejected;
    let before = gone(nic);
    while gone(nic) == before {
        assert!(wait::now() < deadline, "the kernel does not take it: {}", nic.counters());
        nic.flush()?;
    }
    Ok(())
}

fn a_filter_judges(wire: &Wire) -> Outcome {
    let spec =
        FilterSpec { sense: ListSense::Accept, rules: vec!["tcp src port 2000".parse()?], neighbors: false };
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    for mut config in ways() {
        let name = name(&config);
        config.filter = Some(spec.compile()?);
        let mut ours = open(wire.ours(), config);
        for port in [2001, 2000] {
            let (frame, meta) = segment(port);
            send_now(&mut peer, &frame, &meta)?;
        }
        let (first, _) = receive(&mut ours, |_| true).expect("the second one comes");
        assert_eq!(first.get(34..36), Some(&2000u16.to_be_bytes()[..]), "{name}");
    }
    Ok(())
}

/// On Linux 4.20 and later the kernel leaves them out (PACKET_IGNORE_OUTGOING). What a socket sends never
/// comes back to itself (`skb_loop_sk`), so another one sends.
fn own_frames_take_no_room(wire: &Wire) -> Outcome {
    let mut sender = open(wire.ours(), way(TpacketVersion::V2, RxMode::None, TxMode::Send, true));
    for (version, rx) in [
        (TpacketVersion::V1, RxMode::Ring),
        (TpacketVersion::V2, RxMode::Ring),
        (TpacketVersion::V2, RxMode::Recv),
    ] {
        let config = AfPacketConfig {
            rx_rings: vec![RingGeometry::for_frames(1514, 32)].into(),
            rx_queue_bytes: 64 << 10,
            ..way(version, rx, TxMode::Send, true)
        };
        let mut ours = open(wire.ours(), config);
        for number in 0..300 {
            send_now(&mut sender, &frame(number, 1514), &FrameMeta::default())?;
        }
        assert_eq!(ours.counters().rx_ring_full, 0, "{version} {rx:?}");
    }
    Ok(())
}

fn own_frames_are_told(wire: &Wire) -> Outcome {
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    let mut sender = open(wire.ours(), way(TpacketVersion::V2, RxMode::None, TxMode::Send, true));
    for mut config in ways() {
        let name = name(&config);
        config.outgoing = true;
        let mut ours = open(wire.ours(), config);
        send_now(&mut sender, &frame(1, 60), &FrameMeta::default())?;
        let (got, meta) = receive(&mut ours, is_ours).expect("it is heard");
        assert!(got == frame(1, 60) && meta.outgoing, "{name}");
        send_now(&mut peer, &frame(2, 60), &FrameMeta::default())?;
        let (got, meta) = receive(&mut ours, is_ours).expect("it comes");
        assert!(got == frame(2, 60) && !meta.outgoing, "{name}");
    }
    Ok(())
}

/// Beside a socket whose blocks come at once, one that may wait a minute has none yet.
fn a_block_waits(wire: &Wire) -> Outcome {
    let blocks = |millis| AfPacketConfig {
        block_timeout: Duration::from_millis(millis),
        ..way(TpacketVersion::V3, RxMode::Ring, TxMode::Send, true)
    };
    let (mut quick, mut slow) = (open(wire.ours(), blocks(1)), open(wire.ours(), blocks(60_000)));
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    for number in 0..5 {
        send_now(&mut peer, &frame(number, 60), &FrameMeta::default())?;
        let (got, _) = receive(&mut quick, is_ours).expect("it comes");
        assert_eq!(got, frame(number, 60));
    }
    assert!(slow.receive_with(wait::now(), |_, _| ()).is_none());
    Ok(())
}

fn hashes_are_told(wire: &Wire) -> Outcome {
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    let (frame, meta) = segment(2000);
    for rx_hash in [true, false] {
        let config = AfPacketConfig { rx_hash, ..way(TpacketVersion::V3, RxMode::Ring, TxMode::Send, true) };
        let mut ours = open(wire.ours(), config);
        send_now(&mut peer, &frame, &meta)?;
        let is_it = |frame: &[u8]| frame.get(34..36) == Some(&2000u16.to_be_bytes());
        let (_, meta) = receive(&mut ours, is_it).expect("it comes");
        assert_eq!(meta.rx_hash.is_some(), rx_hash);
    }
    Ok(())
}

/// The kernel begins to stamp a moment after it was asked to. Rings tell the source; `recvmmsg` does not.
fn software_stamps(wire: &Wire) -> Outcome {
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    for mut config in ways().into_iter().filter(|config| config.rx == RxMode::Ring) {
        let name = name(&config);
        config.timestamps = TimestampSource::Software;
        let mut ours = open(wire.ours(), config);
        let deadline = wait::now() + Duration::from(LONG);
        loop {
            send_now(&mut peer, &frame(1, 60), &FrameMeta::default())?;
            let (_, meta) = receive(&mut ours, is_ours).expect("it comes");
            if meta.timestamp.is_some_and(|stamp| stamp.source == TimestampSource::Software) {
                break;
            }
            assert!(wait::now() < deadline, "{name}: {:?}", meta.timestamp);
        }
    }
    Ok(())
}

fn frames_begin_at_the_offset(wire: &Wire) -> Outcome {
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    for version in VERSIONS {
        for vnet_hdr in [false, true] {
            let config =
                AfPacketConfig { tx_offset: Some(192), ..way(version, RxMode::Recv, TxMode::Ring, vnet_hdr) };
            let mut ours = open(wire.ours(), config);
            for (number, len) in [(1, 60), (2, 1514), (3, 15)] {
                send_now(&mut ours, &frame(number, len), &FrameMeta::default())?;
                let (got, _) = receive(&mut peer, is_ours).expect("it comes");
                assert_eq!(got, frame(number, len), "{version} vnet_hdr {vnet_hdr}");
            }
        }
    }
    Ok(())
}

fn refused_frames_vanish(wire: &Wire) -> Outcome {
    let mut peer = open(wire.peer(), AfPacketConfig::default());
    for version in VERSIONS {
        for loss in [true, false] {
            wire.ours().set_mtu(1500)?;
            let config = AfPacketConfig { loss, ..way(version, RxMode::Recv, TxMode::Ring, false) };
            let mut ours = open(wire.ours(), config);
            wire.ours().set_mtu(1280)?;
            for (number, len) in [(1, 1514), (2, 60)] {
                send_now(&mut ours, &frame(number, len), &FrameMeta::default())?;
            }
            let (got, _) = receive(&mut peer, is_ours).expect("the second one comes");
            assert_eq!(got, frame(2, 60));
            assert_eq!(ours.counters().tx_rejected, u64::from(!loss), "{version} {}", ours.counters());
        }
    }
    Ok(())
}

/// The first offer is taken, without the time that it takes to find out.
fn no_bypass() -> Outcome {
    let wire = Wire::new()?;
    wire.pair().set_offloads(false)?;
    for tx in [TxMode::Ring, TxMode::Send] {
        let config = AfPacketConfig { qdisc_bypass: true, ..way(TpacketVersion::V2, RxMode::Ring, tx, true) };
        let mut ours = open(wire.ours(), config);
        let (frame, meta) = super_frame(3000, 20_000);
        send(&mut ours, &frame, &meta)?;
        ours.flush()?;
        assert_eq!(ours.counters().tx_frames, 1, "{tx:?}: {}", ours.counters());
    }
    Ok(())
}
