//! Connections over every kind of bad wire, each seed another one: everything arrives, or both ends hold an error, and
//! the invariants of `sim` hold after every turn.

use std::net::SocketAddr;

use smoltcp::time::Duration;
use wirestack::random::Random;
use wirestack::tcp::config::{Keepalive, Linger, Nagle};
use wirestack::tcp::congestion::Algorithm;
use wirestack::tcp::{TcpOptions, rtt::RtoBounds};
use wirestack_tests::sim::tcp::{Dial, Gate, Plan, Reading, Serve, Writing};
use wirestack_tests::sim::{LinkSpec, Loss, NicConfig, SimNic, seeds};

use crate::tcp_path::Path;
use crate::tcp_support::*;

/// Chance in small numbers.
struct Dice(Random);

impl Dice {
    fn one_in(&mut self, count: u32) -> bool {
        self.0.below(count) == 0
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.0.below(from.len() as u32) as usize]
    }

    fn between(&mut self, from: u32, to: u32) -> u32 {
        from + self.0.below(to - from + 1)
    }

    fn millis(&mut self, from: u32, to: u32) -> Duration {
        Duration::from_millis(self.between(from, to).into())
    }

    fn options(&mut self) -> TcpOptions {
        let buffer = self.of(&[2_000, 5_000, 16_384, 65_535, 65_536, 300_000]);
        TcpOptions {
            nagle: self.of(&[Nagle::Minshall, Nagle::Nagle, Nagle::Off]),
            congestion: self.of(&[Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr]),
            pacing: self.one_in(3),
            ecn: self.one_in(3),
            sack: !self.one_in(5),
            timestamps: !self.one_in(4),
            window_scaling: !self.one_in(4),
            rto: RtoBounds {
                initial: Duration::from_secs(1),
                min: self.of(&[
                    Duration::from_millis(200),
                    Duration::from_millis(50),
                    Duration::from_secs(1),
                ]),
                max: Duration::from_secs(60),
            },
            mss_max: self.of(&[None, None, None, Some(536), Some(1000)]),
            send_buffer_max: self.of(&[3_000, 20_000, 65_536, 1 << 20]),
            recv_buffer: buffer,
            recv_buffer_max: buffer * self.of(&[1, 1, 4]),
            delayed_ack: self.of(&[0, 10, 40].map(Duration::from_millis)),
            keepalive: Some(Keepalive {
                idle: Duration::from_secs(20),
                interval: Duration::from_secs(5),
                probes: 8,
            }),
            mtu_probing: !self.one_in(3),
            linger: self.of(&[Linger::Background, Linger::Background, Linger::For(Duration::from_secs(30))]),
            ..TcpOptions::default()
        }
    }

    fn nic(&mut self) -> NicConfig {
        let nic = if self.one_in(2) { SimNic::offloading() } else { NicConfig::DEFAULT };
        NicConfig {
            coalescing: Duration::from_micros(self.of(&[0, 0, 30, 200])),
            gro: self.one_in(2),
            rx_frames_max: self.of(&[20, 256, 4096]),
            tx_frames_max: self.of(&[4, 64, 4096, 4096]),
            ..nic
        }
    }

    fn wire(&mut self) -> LinkSpec {
        let mut spec = LinkSpec { delay: self.millis(0, 30), ..LinkSpec::default() };
        spec.loss = match self.between(0, 7) {
            0 => Loss::Random(0.01),
            1 => Loss::Random(0.05),
            2 => Loss::Random(f64::from(self.between(0, 15)) / 100.0),
            3 => Loss::Periodic { period: self.between(50, 200).into(), burst: self.between(1, 5).into() },
            4 => Loss::GilbertElliott { to_bad: 0.01, to_good: 0.2, in_good: 0.0, in_bad: 0.5 },
            _ => Loss::None,
        };
        spec.loss_above = self.of(&[0, 0, 200]);
        spec.duplicate = self.of(&[0.0, 0.0, 0.01, 0.1]);
        spec.corrupt = self.of(&[0.0, 0.0, 0.01, 0.05]);
        spec.jitter = self.of(&[0, 0, 1, 10].map(Duration::from_millis));
        if self.one_in(3) {
            spec.reorder = self.of(&[0.01, 0.1, 0.3]);
            spec.reorder_delay = self.of(&[100, 2_000, 30_000].map(Duration::from_micros));
            spec.reorder_varies = self.one_in(2);
        }
        if self.one_in(2) {
            spec.bits_per_second = Some(self.of(&[500_000, 2_000_000, 20_000_000, 1_000_000_000]));
            spec.queue_frames_max = self.of(&[8, 50, 1000]);
            spec.queue_time_max = self.of(&[None, None, Some(Duration::from_millis(5))]);
            spec.mark_above = self.of(&[None, Some(Duration::from_millis(5))]);
        }
        spec
    }

    fn plans(&mut self) -> (Plan, Plan) {
        let bytes = self.of(&[0_u64, 1, 100, 1460, 1461, 10_000, 70_000, 200_000]);
        let back = self.of(&[0_u64, 1, 3_000, 100_000]);
        let (request, response) = (self.between(1, 5_000).into(), self.between(1, 20_000).into());
        let [client, server] = match self.between(0, 6) {
            0 => [Plan::send(bytes), Plan::sink()],
            1 => [Plan::send(bytes), Plan::send(back)],
            2 => [Plan::ask(self.between(1, 20).into(), request, response), Plan::answer(request, response)],
            3 => [Plan::send(bytes), Plan { gate: Gate::AfterEnd, ..Plan::send(back) }],
            4 => [Plan::sink(), Plan::send(bytes)],
            5 => {
                let gate = Gate::Trickle { bytes: 700, every: self.millis(1, 60) };
                [Plan { gate, ..Plan::send(self.between(1, 20_000).into()) }, Plan::sink()]
            }
            _ => [Plan::send(bytes), Plan { finishes_first: false, ..Plan::send(back) }],
        };
        (self.manners(client), self.manners(server))
    }

    fn manners(&mut self, plan: Plan) -> Plan {
        let reading = match self.between(0, 5) {
            0 => Reading::Slow { bytes: self.between(100, 9_000) as usize, every: self.millis(1, 50) },
            1 => Reading::Late(self.millis(1, 5_000)),
            _ => Reading::AtOnce,
        };
        let writing = self.of(&[Writing::Copied, Writing::InPlace, Writing::Owned]);
        // A piece that is handed over whole needs room for the whole.
        let write_max =
            if writing == Writing::Owned { 1_400 } else { self.of(&[100, 1_460, 5_000, 1 << 16]) };
        Plan { reading, writing, write_max, ..plan }
    }
}

/// What happens while it runs.
fn disturb(path: &mut Path, dice: &mut Dice) {
    let start = path.sim.now();
    for _ in 0..dice.between(0, 3) {
        let at = start + dice.millis(10, 4_000);
        let until = at + dice.millis(10, 3_000);
        let (spec, mtu) = (dice.wire(), dice.between(600, 1_500) as usize);
        let (middle, router, is_v4) = (path.middle, path.routers[0], path.is_v4);
        let first = path.first;
        match dice.between(0, 4) {
            0 => {
                path.sim.at(at, move |sim| sim.set_link_cut(middle, true));
                path.sim.at(until, move |sim| sim.set_link_cut(middle, false));
            }
            1 => {
                path.sim.at(at, move |sim| sim.set_link_up(first, false));
                path.sim.at(until, move |sim| sim.set_link_up(first, true));
            }
            2 => path.sim.at(at, move |sim| sim.set_link(middle, spec)),
            3 => {
                let mtu = if is_v4 { mtu } else { mtu.max(1_280) };
                path.sim.at(at, move |sim| sim.router(router).set_mtu(1, mtu));
            }
            _ => {
                // The rate only, up or down.
                path.sim.at(at, move |sim| {
                    let ways = sim
                        .link_ways(middle)
                        .map(|way| LinkSpec { bits_per_second: spec.bits_per_second, ..way });
                    sim.set_link_ways(middle, ways);
                });
            }
        }
    }
}

fn run(seed: u64) {
    let mut dice = Dice(Random::new(seed ^ 0x7c90));
    let is_v4 = dice.one_in(2);
    let nics = [dice.nic(), dice.nic()];
    let middle = [dice.wire(), dice.wire()];
    let mut path = Path::new("connections_survive_bad_wires", seed, is_v4, nics, middle);
    disturb(&mut path, &mut dice);
    let mut dials = Vec::new();
    let (plan, answer) = dice.plans();
    let to = SocketAddr::new(path.addresses()[1], PORT);
    for _ in 0..dice.between(1, 3) {
        let dial = Dial { after: dice.millis(0, 2_000), ..Dial::new(to, dice.options(), plan) };
        dials.push(dial.times(dice.between(1, 3) as usize, 2));
    }
    let aborts = dice.one_in(10);
    if aborts {
        dials[0].plan.abort_after = Some(dice.between(0, 3_000).into());
    }
    if dice.one_in(4) {
        let cost = Duration::from_micros(dice.between(1, 100).into());
        path.hosts.iter().for_each(|host| path.sim.set_turn_cost(*host, cost));
    }
    let serve = Serve::new(to, dice.options(), answer);
    path.run(&dials, serve, Duration::from_secs(3_600));
    let failed = path.sim.ledger.tcp.failed();
    assert!(aborts || failed.is_empty(), "over a path that works again have failed {failed:#?}");
}

#[test]
fn connections_survive_bad_wires() {
    seeds(if IS_FAST { 400 } else { 40 }).for_each(run);
}

/// The same seed is the same run, to the bit.
#[test]
fn a_run_of_connections_repeats() {
    let hash = |seed| {
        let ways = [LinkSpec { loss: Loss::Random(0.05), duplicate: 0.05, ..LinkSpec::default() }; 2];
        let mut pair = Pair::new("a_run_of_connections_repeats", seed, ways);
        let options = TcpOptions::default();
        let dial = Dial::new(server(false), options, Plan::send(200_000)).times(3, 2);
        let reports = pair.start(&[dial], Serve::new(server(false), options, Plan::send(100_000)));
        pair.finish(Duration::from_secs(600), &reports);
        pair.sim.trace_hash()
    };
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}
