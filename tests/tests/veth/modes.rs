//! Every way of receiving against every way of sending, in all versions of the rings, with and without
//! virtio_net_hdr: what comes out is what went in.

use std::io;
use std::num::NonZeroU16;
use std::process::Command;

use smoltcp::phy::{Device, RxToken};
use smoltcp::time::Duration;
use wirestack_apps::testbed::{VethEnd, Wire};
use wirestack_nic::config::VlanTags;
use wirestack_nic::impair::{Impair, ImpairConfig};
use wirestack_nic::meta::{ChecksumState, Gso, GsoKind, TimestampSource};
use wirestack_nic::offload::checksum::{self, Verdict};
use wirestack_nic::offload::{Layout, Segments};
use wirestack_nic::{AfPacket, AfPacketConfig, FrameMeta, Nic, RxMode, TpacketVersion, TxMode, wait};
use wirestack_tests::programs::output;
use wirestack_tests::runner::{Case, Outcome, require_program, stay_on_one_core, test, veth_test};

use crate::support::{LONG, noise};
use crate::talk::wait_until;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        veth_test("modes::frames_of_all_lengths_go_every_way", frames_go_every_way),
        veth_test("modes::super_frames_go_every_way", super_frames_go_every_way),
        veth_test("modes::who_verifies_gets_whole_checksums", who_verifies_gets_whole_checksums),
        veth_test("modes::a_wrong_checksum_stays_wrong_behind_a_delay", a_wrong_checksum_stays_wrong),
        require_program("trafgen", veth_test("modes::tags_arrive_every_way", tags_arrive)),
        veth_test("modes::a_block_is_handed_over_when_its_time_is_over", a_block_times_out),
        veth_test("modes::a_socket_that_only_sends_hears_nothing", only_sending),
        require_program("tc", veth_test("modes::a_short_queue_loses_nothing", a_short_queue)),
        require_program("nft", test("modes::frames_that_a_rule_drops_do_not_stall", dropped_by_a_rule)),
        require_program("ethtool", test("modes::bypass_ends_where_it_cannot_work", bypass_ends)),
        test("modes::promiscuous_is_never_left_on", promiscuous),
    ]
}

pub(crate) fn open(end: &VethEnd, config: AfPacketConfig<'static>) -> AfPacket<'static> {
    stay_on_one_core();
    end.namespace().run(|| AfPacket::open(end.name(), config)).expect("the device opens")
}

pub(crate) const VERSIONS: [TpacketVersion; 3] = [TpacketVersion::V1, TpacketVersion::V2, TpacketVersion::V3];

/// All ways of receiving and sending.
pub(crate) fn ways() -> Vec<AfPacketConfig<'static>> {
    let mut ways = Vec::new();
    for version in VERSIONS {
        for (rx, tx) in [
            (RxMode::Ring, TxMode::Ring),
            (RxMode::Ring, TxMode::Send),
            (RxMode::Recv, TxMode::Ring),
            (RxMode::Recv, TxMode::Send),
        ] {
            // Without rings the version does not matter.
            if rx == RxMode::Ring || tx == TxMode::Ring || version == TpacketVersion::V2 {
                ways.extend([false, true].map(|vnet_hdr| way(version, rx, tx, vnet_hdr)));
            }
        }
    }
    ways
}

pub(crate) fn way(
    version: TpacketVersion,
    rx: RxMode,
    tx: TxMode,
    vnet_hdr: bool,
) -> AfPacketConfig<'static> {
    let block_timeout = Duration::from_millis(1);
    AfPacketConfig { version, rx, tx, vnet_hdr, block_timeout, ..AfPacketConfig::default() }
}

pub(crate) fn name(config: &AfPacketConfig<'_>) -> String {
    format!("{} {:?}/{:?} vnet_hdr {}", config.version, config.rx, config.tx, config.vnet_hdr)
}

/// A frame of an EtherType that no kernel knows, to all stations.
pub(crate) fn frame(number: u64, len: usize) -> Vec<u8> {
    let header = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    [&header[..], &noise(number, len - header.len())].concat()
}

pub(crate) fn send(nic: &mut AfPacket<'_>, frame: &[u8], meta: &FrameMeta) -> io::Result<()> {
    let deadline = wait::now() + Duration::from(LONG);
    while nic.transmit_with(wait::now(), frame.len(), meta, |room| room.copy_from_slice(frame)).is_none() {
        nic.wait(Some(deadline)).map_err(io::Error::other)?;
        assert!(wait::now() < deadline, "no room for a minute: {}", nic.counters());
    }
    Ok(())
}

/// The next frame that `wanted` accepts, as it was lent.
pub(crate) fn receive(
    nic: &mut AfPacket<'_>,
    wanted: impl Fn(&[u8]) -> bool,
) -> Option<(Vec<u8>, FrameMeta)> {
    receive_until(nic, wait::now() + Duration::from(LONG), wanted)
}

fn receive_until(
    nic: &mut AfPacket<'_>,
    deadline: smoltcp::time::Instant,
    wanted: impl Fn(&[u8]) -> bool,
) -> Option<(Vec<u8>, FrameMeta)> {
    loop {
        let taken = nic.receive_with(wait::now(), |frame, meta| (frame.to_vec(), *meta));
        match taken {
            Some((frame, meta)) if wanted(&frame) => return Some((frame, meta)),
            Some(_) => {}
            None if wait::now() >= deadline => return None,
            None => {
                let _ = nic.wait(Some(deadline));
            }
        }
    }
}

pub(crate) fn is_ours(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x88, 0xb5])
}

fn frames_go_every_way(wire: &Wire) -> Outcome {
    let lens = [14, 15, 18, 42, 60, 61, 64, 127, 512, 1000, 1499, 1500, 1513, 1514];
    for (config, peer_config) in ways().into_iter().zip(ways().into_iter().rev()) {
        let name = format!("{} and {}", name(&config), name(&peer_config));
        let (mut ours, mut peer) = (open(wire.ours(), config), open(wire.peer(), peer_config));
        let frames: Vec<_> = (0..).zip(lens).map(|(number, len)| frame(number, len)).collect();
        for _ in 0..2 {
            let (from, to) = (&mut ours, &mut peer);
            for frame in &frames {
                send(from, frame, &FrameMeta::default())?;
            }
            from.flush()?;
            for expected in &frames {
                let (got, meta) = receive(to, is_ours).unwrap_or_else(|| panic!("{name}: nothing came"));
                assert_eq!(&got, expected, "{name}");
                assert!(meta.gso.is_none() && meta.timestamp.is_some(), "{name}");
            }
            assert_eq!(from.counters().tx_frames, lens.len() as u64, "{name}");
            std::mem::swap(&mut ours, &mut peer);
        }
        check_clock(&mut ours, &mut peer)?;
    }
    Ok(())
}

/// Timestamps do not go back, and are those of a calendar.
fn check_clock(from: &mut AfPacket<'_>, to: &mut AfPacket<'_>) -> io::Result<()> {
    let before = (wait::now() + wait::epoch_offset()).total_micros() as u64 / 1_000_000;
    let mut last = 0;
    for number in 0..3 {
        send(from, &frame(number, 60), &FrameMeta::default())?;
        from.flush().map_err(io::Error::other)?;
        let stamp = receive(to, is_ours).expect("it comes").1.timestamp.expect("stamped");
        assert!(stamp.nanos >= last && stamp.source != TimestampSource::Hardware);
        last = stamp.nanos;
    }
    let after = (wait::now() + wait::epoch_offset()).total_micros() as u64 / 1_000_000 + 1;
    assert!((before..=after).contains(&(last / 1_000_000_000)), "{before} {last} {after}");
    Ok(())
}

/// A TCP segment of IPv4 that is to be split, with the port as its mark.
pub(crate) fn super_frame(mark: u16, payload_len: usize) -> (Vec<u8>, FrameMeta) {
    let payload = noise(mark.into(), payload_len);
    let [high, low] = ((40 + payload.len()) as u16).to_be_bytes();
    let ip = [0x45, 0, high, low, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2];
    let tcp = [0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
    let header = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0];
    let mut frame = [&header[..], &ip, &mark.to_be_bytes(), &tcp, &payload].concat();
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !(((sum >> 16) + (sum & 0xffff)) as u16);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let layout = Layout::of_frame(&frame).expect("TCP");
    let checksum = checksum::leave_out(&mut frame, &layout).expect("TCP");
    let gso = Some(Gso { kind: GsoKind::TcpV4, size: NonZeroU16::new(1400).expect("not 0"), ecn: false });
    (frame, FrameMeta { checksum, gso, ..FrameMeta::default() })
}

/// However it is sent and received: the payload, with checksums that are right or told to be absent.
fn super_frames_go_every_way(wire: &Wire) -> Outcome {
    for (config, peer_config) in ways().into_iter().zip(ways().into_iter().rev()) {
        let name = format!("{} and {}", name(&config), name(&peer_config));
        let (mut ours, mut peer) = (open(wire.ours(), config), open(wire.peer(), peer_config));
        for _ in 0..2 {
            let (from, to) = (&mut ours, &mut peer);
            for (mark, len) in [(2000u16, 60_000), (2001, 1400), (2002, 1401), (2003, 65_000)] {
                let (frame, meta) = super_frame(mark, len);
                send(from, &frame, &meta)?;
                from.flush()?;
                let is_it = |frame: &[u8]| frame.get(34..36) == Some(&mark.to_be_bytes());
                let mut payload = Vec::new();
                while payload.len() < len {
                    let (got, meta) = receive(to, is_it)
                        .unwrap_or_else(|| panic!("{name}: {} of {len}: {}", payload.len(), to.counters()));
                    let pieces = Segments::new(&got, &meta);
                    for index in 0..pieces.count() {
                        let mut piece = vec![0; pieces.frame_len(index)];
                        pieces.write(index, &mut piece);
                        let layout = Layout::of_frame(&piece).expect("TCP");
                        let is_done = meta.checksum == ChecksumState::Verified && meta.gso.is_none();
                        let verdict = checksum::verify(&piece, &layout);
                        assert!(is_done || verdict == Verdict::Right, "{name}: {meta:?}");
                        payload.extend_from_slice(&piece[layout.payload..layout.end]);
                    }
                }
                assert_eq!(payload, frame[54..], "{name}");
            }
            assert_eq!(from.counters().tx_rejected + from.counters().tx_oversize, 0, "{name}");
            std::mem::swap(&mut ours, &mut peer);
        }
    }
    Ok(())
}

/// A device that verifies nothing tells smoltcp to: then no token may lend an absent checksum.
fn who_verifies_gets_whole_checksums(wire: &Wire) -> Outcome {
    for config in ways() {
        let name = name(&config);
        let mut ours = open(wire.ours(), AfPacketConfig { verify_checksums: false, ..config });
        let mut peer = open(wire.peer(), AfPacketConfig::default());
        assert!(ours.capabilities().checksum.tcp.rx());
        for (mark, len) in [(2000u16, 100), (2001, 30_000)] {
            let (frame, meta) = super_frame(mark, len);
            send(&mut peer, &frame, &meta)?;
            peer.flush()?;
            let is_it = |frame: &[u8]| frame.get(34..36) == Some(&mark.to_be_bytes());
            let (mut found, deadline) = (0, wait::now() + Duration::from(LONG));
            while found < len {
                assert!(wait::now() < deadline, "{name}: {found} of {len}");
                let Some((token, _)) = ours.receive(wait::now()) else {
                    let _ = ours.wait(Some(deadline));
                    continue;
                };
                token.consume(|frame| {
                    let Some(layout) = Layout::of_frame(frame).filter(|_| is_it(frame)) else { return };
                    assert_eq!(checksum::verify(frame, &layout), Verdict::Right, "{name}");
                    found += layout.end - layout.payload;
                });
            }
        }
    }
    Ok(())
}

/// What is told to be whole is not made right on its way through a wire that changes nothing.
fn a_wrong_checksum_stays_wrong(wire: &Wire) -> Outcome {
    let (mut frame, _) = super_frame(2000, 100);
    let layout = Layout::of_frame(&frame).expect("TCP");
    assert!(checksum::fill(&mut frame, &layout));
    frame[54] ^= 1;
    let delay = ImpairConfig { tx: "delay=1ms".parse()?, ..ImpairConfig::default() };
    let mut ours = Impair::new(open(wire.ours(), AfPacketConfig::default()), delay);
    let blind = AfPacketConfig { verify_checksums: false, ..AfPacketConfig::default() };
    let mut peer = open(wire.peer(), blind);
    let start = wait::now();
    ours.transmit_with(start, frame.len(), &FrameMeta::default(), |room| room.copy_from_slice(&frame))
        .expect("room");
    assert!(ours.poll_release(start + Duration::from_secs(1)));
    ours.inner_mut().flush()?;
    let is_it = |frame: &[u8]| frame.get(34..36) == Some(&2000u16.to_be_bytes());
    let (got, meta) = receive(&mut peer, is_it).expect("it comes");
    assert_eq!((got, meta.checksum), (frame, ChecksumState::Complete));
    Ok(())
}

/// Frames with tags that trafgen made, since this kernel may have no VLAN devices.
fn tags_arrive(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    for (tag, is_vlan) in [
        ("0x81, 0x00, 0x60, 0x05", true),
        ("0x88, 0xa8, 0x00, 0x07", true),
        ("0x81, 0x00, 0xe0, 0x00", false),
    ] {
        let file = dir.path().join("frame");
        std::fs::write(
            &file,
            format!("{{ fill(0xff, 6), 2, 0, 0, 0, 0, 9, {tag}, 0x88, 0xb5, fill(0x5a, 100) }}\n"),
        )?;
        for mut config in ways() {
            for vlan_tags in [VlanTags::PutBack, VlanTags::PutBackAll] {
                // V1 does not tell tags: a limit of the kernel, and of that version.
                if config.rx == RxMode::Ring && config.version == TpacketVersion::V1 {
                    continue;
                }
                config.vlan_tags = vlan_tags;
                let way = way(config.version, config.rx, config.tx, config.vnet_hdr);
                let mut ours = open(wire.ours(), AfPacketConfig { vlan_tags, ..way });
                let mut trafgen = Command::new("trafgen");
                trafgen.args(["--dev", wire.peer().name(), "--num", "1", "--cpus", "1", "--conf"]).arg(&file);
                wire.at_peer(|| output(&mut trafgen, LONG))?;
                let (got, _) = receive(&mut ours, |frame| frame.get(6..12) == Some(&[2, 0, 0, 0, 0, 9]))
                    .expect("it comes");
                let bytes: Vec<u8> =
                    tag.split(", ").map(|byte| u8::from_str_radix(&byte[2..], 16).expect("a byte")).collect();
                let is_there = is_vlan || vlan_tags == VlanTags::PutBackAll;
                let rest = [&[0x88, 0xb5][..], &[0x5a; 100]].concat();
                let expected = if is_there { [bytes, rest].concat() } else { rest };
                assert_eq!(&got[12..], expected, "{} {tag} {vlan_tags:?}", name(&config));
            }
        }
    }
    Ok(())
}

fn a_block_times_out(wire: &Wire) -> Outcome {
    let config = way(TpacketVersion::V3, RxMode::Ring, TxMode::Send, true);
    let (mut ours, mut peer) = (open(wire.ours(), config), open(wire.peer(), AfPacketConfig::default()));
    for number in 0..3 {
        send(&mut peer, &frame(number, 60), &FrameMeta::default())?;
        peer.flush()?;
        assert_eq!(receive(&mut ours, is_ours).map(|(got, _)| got), Some(frame(number, 60)));
    }
    Ok(())
}

fn only_sending(wire: &Wire) -> Outcome {
    for tx in [TxMode::Ring, TxMode::Send] {
        // If frames were offered to it, this queue would be too short for them, and they be counted.
        let config =
            AfPacketConfig { rx_queue_bytes: 4096, ..way(TpacketVersion::V2, RxMode::None, tx, true) };
        let mut ours = open(wire.ours(), config);
        let mut peer = open(wire.peer(), AfPacketConfig::default());
        for number in 0..100 {
            send(&mut peer, &frame(number, 1400), &FrameMeta::default())?;
        }
        peer.flush()?;
        send(&mut ours, &frame(7, 60), &FrameMeta::default())?;
        ours.flush()?;
        assert_eq!(receive(&mut peer, is_ours).map(|(got, _)| got), Some(frame(7, 60)));
        assert!(ours.receive_with(wait::now(), |_, _| ()).is_none());
        let counters = ours.counters();
        assert_eq!((counters.rx_frames, counters.rx_ring_full, counters.rx_calls), (0, 0, 0));
    }
    Ok(())
}

/// A queue of a few frames on a slow link refuses most of them at first: ENOBUFS, again and again.
fn a_short_queue(wire: &Wire) -> Outcome {
    let mut tc = Command::new("tc");
    let queue = "root tbf rate 20mbit burst 4k limit 6k";
    tc.args(["qdisc", "add", "dev", wire.ours().name()]).args(queue.split(' '));
    wire.at_ours(|| output(&mut tc, LONG))?;
    for tx in [TxMode::Ring, TxMode::Send] {
        let mut ours = open(wire.ours(), way(TpacketVersion::V2, RxMode::Ring, tx, true));
        let mut peer = open(wire.peer(), AfPacketConfig::default());
        for number in 0..100 {
            send(&mut ours, &frame(number, 1400), &FrameMeta::default())?;
        }
        while ours.counters().tx_frames < 100 {
            assert_eq!(ours.counters().tx_rejected, 0, "{tx:?}: {}", ours.counters());
            ours.wait(Some(wait::now() + Duration::from_millis(1)))?;
        }
        for number in 0..100 {
            let (got, _) = receive(&mut peer, is_ours).expect("it comes");
            assert!(got == frame(number, 1400), "{tx:?}: {number} is not next");
        }
    }
    Ok(())
}

/// A rule on the way out says ENOBUFS too, for ever.
fn dropped_by_a_rule() -> Outcome {
    let wire = Wire::new()?;
    let rule = format!(
        "table netdev out {{ chain egress {{ type filter hook egress device {} priority 0; \
         ether saddr 02:00:00:00:00:0b drop; }}; }}",
        wire.ours().name()
    );
    let mut nft = Command::new("nft");
    nft.arg(rule);
    wire.at_ours(|| output(&mut nft, LONG))?;
    for tx in [TxMode::Ring, TxMode::Send] {
        let mut ours = open(wire.ours(), way(TpacketVersion::V2, RxMode::Ring, tx, true));
        let mut peer = open(wire.peer(), AfPacketConfig::default());
        let mut bad = frame(1, 60);
        bad[11] = 0x0b;
        send(&mut ours, &bad, &FrameMeta::default())?;
        send(&mut ours, &frame(2, 60), &FrameMeta::default())?;
        while ours.counters().tx_frames < 1 {
            ours.wait(Some(wait::now() + Duration::from_millis(1)))?;
        }
        assert_eq!(receive(&mut peer, is_ours).map(|(got, _)| got), Some(frame(2, 60)));
        assert_eq!((ours.counters().tx_rejected, ours.counters().tx_frames), (1, 1));
    }
    Ok(())
}

/// Offloads that go away under a device whose frames skip the queue.
fn bypass_ends() -> Outcome {
    let wire = Wire::new()?;
    for tx in [TxMode::Ring, TxMode::Send] {
        wire.pair().set_offloads(true)?;
        let bypass = AfPacketConfig { qdisc_bypass: true, ..way(TpacketVersion::V2, RxMode::Ring, tx, true) };
        let mut ours = open(wire.ours(), bypass);
        let mut peer = open(wire.peer(), AfPacketConfig::default());
        wire.pair().set_offloads(false)?;
        let (frame, meta) = super_frame(3000, 20_000);
        for _ in 0..3 {
            send(&mut ours, &frame, &meta)?;
        }
        while ours.counters().tx_frames < 3 {
            ours.wait(Some(wait::now() + Duration::from_millis(1)))?;
        }
        let is_it = |frame: &[u8]| frame.get(34..36) == Some(&3000u16.to_be_bytes());
        let mut payload_len = 0;
        while payload_len < 60_000 {
            let (got, _) = receive(&mut peer, is_it).expect("all of it comes");
            payload_len += Layout::of_frame(&got).map_or(0, |layout| layout.end - layout.payload);
        }
        assert_eq!((payload_len, ours.counters().tx_rejected), (60_000, 0));
    }
    Ok(())
}

fn promiscuous() -> Outcome {
    let wire = Wire::new()?;
    let is_on = || -> io::Result<bool> {
        let mut ip = Command::new("ip");
        ip.args(["-d", "link", "show", "dev", wire.ours().name()]);
        let shown = wire.at_ours(|| output(&mut ip, LONG))?.stdout;
        assert!(shown.contains("promiscuity "), "{shown}");
        Ok(!shown.contains("promiscuity 0"))
    };
    let plain = open(wire.ours(), AfPacketConfig::default());
    assert!(!is_on()?);
    let config = || AfPacketConfig { promiscuous: true, ..AfPacketConfig::default() };
    let (one, two) = (open(wire.ours(), config()), open(wire.ours(), config()));
    assert!(is_on()?);
    drop(one);
    assert!(is_on()?, "the other one still listens");
    drop(two);
    // A program that another test starts just now has a copy of the socket.
    wait_until("nobody listens", || Ok(!is_on()?))?;
    drop(plain);
    Ok(())
}
