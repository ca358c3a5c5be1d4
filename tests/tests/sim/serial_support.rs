//! Two hosts on a serial line, and what they send over it.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use smoltcp::time::{Duration, Instant};
use wirestack::EthernetAddress;
use wirestack::config::parse_cidr;
use wirestack::neighbor::AddressProbes;
use wirestack::nic::serial::SerialConfig;
use wirestack::nic::serial::cslip::{CONNECTIONS_DEFAULT, Cslip};
use wirestack::nic::serial::framing::{Framing, FramingConfig};
use wirestack::nic::serial::slip::Slip;
use wirestack::shard::{ShardConfig, SocketId, TcpConnect};
use wirestack::tcp::{LineProfile, TcpOptions};
use wirestack_tests::sim::App;
use wirestack_tests::sim::serial::{End, SerialSim, SerialSpec};
use wirestack_tests::sim::tcp::{Dial, Plan, Serve, SharedReport, TcpApp};

use crate::support::*;

/// A line and what is at its ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) mtu: u16,
    pub(crate) is_cslip: bool,
    pub(crate) has_crc: bool,
    pub(crate) spec: SerialSpec,
    pub(crate) options: TcpOptions,
}

impl Setup {
    /// SLIP, and TCP as its profile says.
    pub(crate) fn new(baud: u32, mtu: u16) -> Self {
        let rate = (baud > 0).then_some(baud / 10);
        let options = LineProfile::new(rate, mtu).options();
        Self { mtu, is_cslip: false, has_crc: false, spec: SerialSpec::new(baud), options }
    }

    pub(crate) fn cslip(self, is_cslip: bool) -> Self {
        Self { is_cslip, ..self }
    }

    pub(crate) fn loss(mut self, lost_frames: f64) -> Self {
        self.spec.lost_frames = lost_frames;
        self
    }

    pub(crate) fn rate(&self) -> f64 {
        f64::from(self.spec.baud) / 10.0
    }

    /// Seconds of a packet of the MTU on the line, of random payload: two bytes of 256 are escaped, one END ends it.
    pub(crate) fn frame_seconds(&self) -> f64 {
        (f64::from(self.mtu) * (1.0 + 2.0 / 256.0) + 1.0) / self.rate()
    }

    pub(crate) fn sim(&self, seed: u64) -> SerialSim {
        SerialSim::new(seed, self.spec, [1, 2].map(|number| self.end(number)))
    }

    fn end(&self, number: u8) -> End {
        let device = SerialConfig {
            name: format!("line{number}"),
            mtu: self.mtu,
            baud: NonZeroU32::new(self.spec.baud),
        };
        let framing =
            FramingConfig { packet_max: device.packet_max(), crc: self.has_crc, escapes_flow_control: false };
        let framing: Box<dyn Framing> = match self.is_cslip {
            true => Box::new(Cslip::new(framing, CONNECTIONS_DEFAULT)),
            false => Box::new(Slip::new(framing)),
        };
        let mut shard = ShardConfig::new(EthernetAddress(mac(number)))
            .address(parse_cidr(&format!("10.0.0.{number}/24")).expect("an address"));
        shard.neighbor.probes = AddressProbes::None;
        shard.link_local = None;
        shard.tcp.options = self.options;
        End { shard, device, framing }
    }
}

/// A port of the second host.
pub(crate) fn second(port: u16) -> SocketAddr {
    SocketAddr::new(host_ip(2, true), port)
}

/// A port of the first host.
pub(crate) fn first(port: u16) -> SocketAddr {
    SocketAddr::new(host_ip(1, true), port)
}

/// So many connections that send without end, from a host to the other. Returns what comes there.
pub(crate) fn bulk(sim: &mut SerialSim, setup: &Setup, from: usize, count: usize) -> SharedReport {
    let to = if from == 0 { second(80) } else { first(80) };
    let dial = Dial::new(to, setup.options, Plan::send(u64::MAX / 4)).times(count, count);
    sim.add_app(from, TcpApp::new().dial(dial).start().0);
    let (app, served) = TcpApp::new().serve(Serve::new(to, setup.options, Plan::sink())).start();
    sim.add_app(1 - from, app);
    served
}

/// Bytes a second of one connection in one direction, in so much time, of some seeds.
pub(crate) fn goodput(setup: &Setup, seeds: u64, time: Duration) -> f64 {
    let each = (0..seeds).map(|seed| {
        let mut sim = setup.sim(seed);
        let served = bulk(&mut sim, setup, 0, 1);
        sim.run_for(time);
        served.borrow().received() as f64 / (time.total_millis() as f64 / 1e3)
    });
    each.sum::<f64>() / seeds as f64
}

/// Somebody types: one byte at a time to an echo, the next one a while after the last one has come back. Tells how long
/// each took.
pub(crate) fn typist(
    sim: &mut SerialSim,
    host: usize,
    to: SocketAddr,
    options: TcpOptions,
) -> Shared<Vec<f64>> {
    let times = shared(Vec::new());
    let told = times.clone();
    let mut random = sim.random().fork();
    let mut socket: Option<SocketId> = None;
    let (mut typed_at, mut next) = (None::<Instant>, Instant::ZERO);
    let app: App = Box::new(move |shard, context| {
        let id = *socket.get_or_insert_with(|| {
            let id = shard.tcp_connect(TcpConnect { remote: to, local: None, options }).expect("a port");
            let (local, _) = shard.tcp_ends(id).expect("ends");
            context.ledger.tcp.begin(local, to);
            next = context.now + Duration::from_secs(2);
            id
        });
        if let Ok(Some(_)) = shard.tcp_recv_with(id, |bytes| (bytes.len(), ()))
            && let Some(at) = typed_at.take()
        {
            let took = context.now - at;
            told.borrow_mut().push(took.total_micros() as f64 / 1e6);
            next = context.now + Duration::from_millis(50 + u64::from(random.below(400)));
        }
        if typed_at.is_none() && next <= context.now {
            assert_eq!(shard.tcp_send(id, b"x"), Ok(1), "there is room for a byte");
            typed_at = Some(context.now);
        }
        typed_at.is_none().then_some(next)
    });
    sim.add_app(host, app);
    times
}

/// An echo for it.
pub(crate) fn echo(sim: &mut SerialSim, host: usize, port: u16, options: TcpOptions) {
    let to = if host == 0 { first(port) } else { second(port) };
    let mut listener = None;
    let mut ids: Vec<SocketId> = Vec::new();
    let listen = Serve::new(to, options, Plan::sink()).listen;
    let app: App = Box::new(move |shard, _| {
        let listener = *listener.get_or_insert_with(|| shard.tcp_listen(listen).expect("the port is free"));
        ids.extend(std::iter::from_fn(|| shard.tcp_accept(listener)));
        for &id in &ids {
            let mut came = Vec::new();
            let _ = shard.tcp_recv_with(id, |bytes| (bytes.len(), came.extend_from_slice(bytes)));
            if !came.is_empty() {
                assert_eq!(shard.tcp_send(id, &came), Ok(came.len()), "there is room for an echo");
            }
        }
        None
    });
    sim.add_app(host, app);
}

/// The value below which so much of them is.
pub(crate) fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len());
    sorted[index - 1]
}
