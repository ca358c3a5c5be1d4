//! Any order of events: bounds hold, and every frame that was taken comes back exactly once.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Park(u16, usize),
    Lookup(u16),
    Confirm(u16),
    Learn(u16, u16),
    Static(u16),
    Remove(u16),
    Flush,
    Arp { operation: u16, sender: u16, target: u16, mac: u16, is_broadcast: bool },
    Ndp { kind: u8, flags: u8, src: u16, target: u16, mac: u16 },
    Probe(u16),
    Announce(u16),
    Fetch(usize),
    Wait(u64),
}

/// Neighbours with even numbers speak IPv4, the others IPv6; number 0 and 1 are we.
fn neighbor(n: u16) -> IpAddr {
    match n {
        0 => MY_V4.into(),
        1 => MY_V6.into(),
        n if n % 2 == 0 => v4(n).into(),
        n => v6(n).into(),
    }
}

fn four(n: u16) -> Ipv4Addr {
    match n {
        0 => MY_V4,
        1 => Ipv4Addr::UNSPECIFIED,
        n => v4(n & !1),
    }
}

fn six(n: u16) -> Ipv6Addr {
    match n {
        0 => MY_V6,
        1 => Ipv6Addr::UNSPECIFIED,
        n => v6(n | 1),
    }
}

fn steps() -> impl Strategy<Value = Step> {
    let who = 2..20_u16;
    let any_one = 0..20_u16;
    let hardware = 1..4_u16;
    prop_oneof![
        6 => (who.clone(), 0..200_usize).prop_map(|(n, len)| Step::Park(n, len)),
        3 => who.clone().prop_map(Step::Lookup),
        1 => who.clone().prop_map(Step::Confirm),
        1 => (who.clone(), hardware.clone()).prop_map(|(n, mac)| Step::Learn(n, mac)),
        1 => (18..20_u16).prop_map(Step::Static),
        1 => (2..18_u16).prop_map(Step::Remove),
        1 => (0..20_u8).prop_map(|n| if n == 0 { Step::Flush } else { Step::Fetch(1) }),
        6 => (1..3_u16, any_one.clone(), any_one.clone(), hardware.clone(), any::<bool>()).prop_map(
            |(operation, sender, target, mac, is_broadcast)| Step::Arp { operation, sender, target, mac, is_broadcast }),
        6 => (135..137_u8, any::<u8>(), any_one.clone(), any_one, hardware).prop_map(
            |(kind, flags, src, target, mac)| Step::Ndp { kind, flags, src, target, mac }),
        1 => (0..3_u16).prop_map(Step::Probe),
        1 => (0..3_u16).prop_map(Step::Announce),
        4 => (0..6_usize).prop_map(Step::Fetch),
        4 => (0..4000_u64).prop_map(Step::Wait),
    ]
}

/// What is known from outside: which frames are in the table.
struct Model {
    table: Table,
    now: Instant,
    inside: BTreeSet<u64>,
    next: u64,
    dropped: usize,
}

impl Model {
    fn step(&mut self, step: &Step) {
        let now = self.now;
        let table = &mut self.table;
        match *step {
            Step::Park(n, len) => {
                let ip = neighbor(n);
                let frame = frame(self.next, len);
                if table.park(now, ip, source(ip), &frame, &FrameMeta::default()).is_ok() {
                    self.inside.insert(self.next);
                }
                self.next += 1;
            }
            Step::Lookup(n) => {
                let found = table.lookup(now, neighbor(n));
                let known = table.get(neighbor(n)).and_then(|info| info.mac);
                assert_eq!(known.is_some(), matches!(found, Lookup::Known(mac) if Some(mac) == known));
            }
            Step::Confirm(n) => table.confirm(now, neighbor(n)),
            Step::Learn(n, from) => drop(table.learn(now, neighbor(n), mac(from))),
            Step::Static(n) => drop(table.insert_static(now, neighbor(n), mac(9))),
            Step::Remove(n) => drop(table.remove(neighbor(n))),
            Step::Flush => table.flush(),
            Step::Arp { operation, sender, target, mac: from, is_broadcast } => {
                let link = link(mac(from), if is_broadcast { EthernetAddress::BROADCAST } else { ME });
                let message = arp(operation, (mac(from), four(sender)), four(target));
                let _ = table.handle_arp(now, &link, &message, &addresses());
            }
            Step::Ndp { kind, flags, src, target, mac: from } => {
                let dst = if flags & 1 == 0 { MY_V6 } else { solicited_node(six(target)) };
                let option = if flags & 2 == 0 { lladdr(kind - 134, mac(from)) } else { Vec::new() };
                let message = ndp(kind, flags, six(target), &option);
                let link = link(mac(from), ME);
                let _ = table.handle_ndp(now, Some(&link), &ip(six(src), dst), &message, &addresses());
            }
            Step::Probe(n) => assert!(table.probe(now, neighbor(n + 30))),
            Step::Announce(n) => drop(table.announce(now, neighbor(n + 30))),
            Step::Fetch(count) => self.fetch(count),
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                table.handle_timeout(self.now);
            }
        }
        self.check();
    }

    fn fetch(&mut self, count: usize) {
        for _ in 0..count {
            match self.table.poll_output() {
                Some(Output::Release { frame, mac, .. }) => {
                    assert_eq!(frame[..6], mac.0);
                    assert!(self.inside.remove(&number(&frame)), "a frame came back twice");
                }
                Some(Output::Unreachable { frame, .. }) => {
                    assert!(self.inside.remove(&number(&frame)), "a frame came back twice");
                }
                Some(Output::Dropped(DropReason::NeighborQueueFull | DropReason::NeighborUnreachable)) => {
                    self.dropped += 1;
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    fn check(&self) {
        let table = &self.table;
        let infos: Vec<_> = table.snapshot().collect();
        assert_eq!(infos.len(), table.len());
        assert!(table.len() <= table.config.entries_max);
        let incomplete = infos.iter().filter(|info| info.state == State::Incomplete).count();
        assert_eq!(incomplete, table.incomplete);
        assert!(incomplete <= table.config.incomplete_max);
        assert!(table.parked_bytes() <= table.config.parked_total_bytes_max);
        let waiting: usize = infos.iter().map(|info| info.parked_bytes).sum();
        assert!(waiting <= table.parked_bytes());
        for info in &infos {
            assert_eq!(table.get(info.ip), Some(*info));
            assert!(info.parked_frames <= table.config.parked_frames_max);
            assert!(info.parked_bytes <= table.config.parked_bytes_max);
            assert!(info.parked_frames == 0 || info.state == State::Incomplete, "{info:?}");
            if info.state == State::Permanent {
                assert_eq!(info.mac, Some(mac(9)));
            }
            let at = table.entries.find(info.ip).expect("found");
            let entry = table.entries.get(at).expect("there");
            let waits = !matches!(info.state, State::Stale | State::Permanent);
            assert_eq!(entry.timer.is_some(), waits, "{info:?}");
            assert_eq!(entry.place.class, entry.class());
        }
    }

    /// Time passes until nothing waits: then every frame is accounted for.
    fn settle(&mut self) {
        for _ in 0..100 {
            self.now += Duration::from_secs(1);
            self.table.handle_timeout(self.now);
            self.fetch(usize::MAX);
        }
        assert_eq!(self.inside.len(), self.dropped);
        assert_eq!(self.table.parked_bytes(), 0);
        assert_eq!((self.table.outbox.requests(), self.table.outbox.answers()), (0, 0));
        let is_moving =
            |info: &super::super::NeighborInfo| !matches!(info.state, State::Stale | State::Permanent);
        assert!(!self.table.snapshot().any(|info| is_moving(&info)));
        assert_eq!(self.table.next_deadline(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_comes_back_once(steps in prop::collection::vec(steps(), 1..200)) {
        let config = NeighborConfig {
            entries_max: 8,
            incomplete_max: 5,
            parked_frames_max: 3,
            parked_bytes_max: 700,
            parked_total_bytes_max: 2000,
            requests_queued_max: 3,
            answers_queued_max: 2,
            timeouts_per_call_max: 3,
            ..NeighborConfig::default()
        };
        let mut model = Model { table: table(config), now: START, inside: BTreeSet::new(), next: 0, dropped: 0 };
        steps.iter().for_each(|step| model.step(step));
        model.settle();
    }
}
