//! Two hosts, a wire, and what sends over it.

use smoltcp::time::{Duration, Instant};
use wirestack::shard::ShardConfig;
use wirestack::tcp::TcpOptions;
use wirestack::tcp::congestion::Algorithm;
use wirestack_tests::sim::tcp::{Dial, Plan, Serve, SharedReport, TcpApp, stuck};
use wirestack_tests::sim::{LinkId, LinkSpec, Loss, NicConfig, NodeId, Sim};

use crate::support::*;

/// Whether this is optimized: without that, long runs are shorter or left out.
pub(crate) const IS_FAST: bool = !cfg!(debug_assertions);

/// The port of servers.
pub(crate) const PORT: u16 = 80;

/// Two hosts with a wire between them.
pub(crate) struct Pair {
    pub(crate) sim: Sim,
    pub(crate) hosts: [NodeId; 2],
    pub(crate) link: LinkId,
}

impl Pair {
    pub(crate) fn new(name: &str, seed: u64, ways: [LinkSpec; 2]) -> Self {
        Self::with(name, seed, ways, [NicConfig::default(); 2], |_| {})
    }

    /// With these devices, and a configuration that is like that of every host but for `tune`.
    pub(crate) fn with(
        name: &str,
        seed: u64,
        ways: [LinkSpec; 2],
        nics: [NicConfig; 2],
        tune: impl Fn(&mut ShardConfig),
    ) -> Self {
        let mut sim = Sim::new(name, seed);
        let mut add = |number: u8| {
            let mut config = host(number);
            tune(&mut config);
            sim.add_host(&format!("h{number}"), config, nics[usize::from(number) - 1], 1)
        };
        let hosts = [add(1), add(2)];
        let link = sim.connect_ways(hosts[0], hosts[1], ways);
        Self { sim, hosts, link }
    }

    /// Lets the first host do `dials`, and the second one serve at [`PORT`].
    pub(crate) fn start(&mut self, dials: &[Dial], serve: Serve) -> [SharedReport; 2] {
        let (app, served) = TcpApp::new().serve(serve).start();
        self.sim.set_app(self.hosts[1], 0, app);
        let app = dials.iter().fold(TcpApp::new(), |app, dial| app.dial(*dial));
        let (app, dialed) = app.start();
        self.sim.set_app(self.hosts[0], 0, app);
        [dialed, served]
    }

    /// Lets time pass until both are done, and tells when that was.
    pub(crate) fn finish(&mut self, limit: Duration, reports: &[SharedReport; 2]) -> Instant {
        let begun = reports.clone();
        let is_done = self.sim.run_while(limit, |sim| {
            begun.iter().all(|report| report.borrow().is_done()) && sim.ledger.tcp.are_over()
        });
        if !is_done {
            let told = [0, 1].map(|end| stuck(self.sim.shard(self.hosts[end]), &reports[end]));
            panic!("not done in {limit}:\nfirst host: {}\nsecond host: {}", told[0], told[1]);
        }
        if let Err(wrong) = self.sim.ledger.tcp.check_end() {
            panic!("{wrong}");
        }
        let done = self.sim.now();
        assert_nothing_is_left(&mut self.sim, self.hosts);
        done
    }
}

/// When all is over and TIME-WAIT has passed, nothing is kept of it: no connection, no buffer, no timer.
pub(crate) fn assert_nothing_is_left(sim: &mut Sim, hosts: [NodeId; 2]) {
    sim.run_for(Duration::from_secs(200));
    for host in hosts {
        let held = sim.shard(host).occupancy();
        let left = [held.tcp_connections, held.tcp_half_open, held.tcp_time_waits, held.tcp_buffer_bytes];
        assert_eq!(left, [0; 4], "connections, half-open ones, TIME-WAIT, bytes of buffers");
    }
}

/// The address of a server on the second host.
pub(crate) fn server(is_v4: bool) -> std::net::SocketAddr {
    std::net::SocketAddr::new(host_ip(2, is_v4), PORT)
}

/// Options with this controller and buffers.
pub(crate) fn options(congestion: Algorithm, buffer_bytes: u32) -> TcpOptions {
    TcpOptions {
        congestion,
        send_buffer_max: buffer_bytes,
        recv_buffer: buffer_bytes,
        recv_buffer_max: buffer_bytes,
        ..TcpOptions::default()
    }
}

/// A path as that of the ideal model: frames are lost on the way of data only, and only such with data.
pub(crate) fn path(bits_per_second: u64, rtt: Duration, loss: f64) -> [LinkSpec; 2] {
    let spec = LinkSpec {
        delay: Duration::from_micros(rtt.total_micros() / 2),
        bits_per_second: Some(bits_per_second),
        queue_frames_max: usize::MAX,
        queue_bytes_max: usize::MAX,
        ..LinkSpec::default()
    };
    let loss = if loss > 0.0 { Loss::Random(loss) } else { Loss::None };
    [LinkSpec { loss, loss_above: 200, ..spec }, spec]
}

/// What a transfer in one direction has come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

impl Transfer {
    /// Megabytes (10^6) per second.
    pub(crate) fn rate(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e6
    }
}

/// How long one is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) time: Duration,
    pub(crate) bytes: u64,
}

/// Sends from the first host to the second one until a bound is met. The receiver acknowledges every segment, as in the
/// model, if `acks_all`.
pub(crate) fn transfer(pair: &mut Pair, options: TcpOptions, acks_all: bool, bounds: Bounds) -> Transfer {
    pair.sim.set_light(64);
    pair.sim.set_steps_max(u64::MAX / 2);
    let receiver = if acks_all { TcpOptions { delayed_ack: Duration::ZERO, ..options } } else { options };
    let began = pair.sim.now();
    let dial = Dial::new(server(true), options, Plan::send(bounds.bytes));
    let [_, served] = pair.start(&[dial], Serve::new(server(true), receiver, Plan::sink()));
    let watched = served.clone();
    pair.sim.run_while(bounds.time, |_| watched.borrow().received() >= bounds.bytes);
    let ended = |now: Instant| (now - began).total_micros() as f64 / 1e6;
    Transfer { bytes: served.borrow().received(), seconds: ended(pair.sim.now()) }
}

/// The mean goodput of several seeds, in megabytes per second.
pub(crate) fn goodput(
    name: &str,
    seeds: u64,
    ways: [LinkSpec; 2],
    nics: [NicConfig; 2],
    options: TcpOptions,
    bounds: Bounds,
) -> f64 {
    let each = (0..seeds).map(|seed| {
        let mut pair = Pair::with(name, seed, ways, nics, |_| {});
        transfer(&mut pair, options, true, bounds).rate()
    });
    each.sum::<f64>() / seeds as f64
}
