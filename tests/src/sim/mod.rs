//! A network in one thread and virtual time: hosts with shards, switches and routers, and wires that lose, delay,
//! repeat, reorder and damage frames.
//!
//! All chance comes from one seed, all that happens from one heap of events; so the same seed is the same run, to
//! the bit. After every turn of every shard, everything of `core` and `check` must hold. A run that fails tells
//! its seed, how to see it again, and the last frames; with `PCAP=directory` in the environment it leaves a file.
//!
//! | file | what it is |
//! |---|---|
//! | `link` | a wire, and what it does to frames |
//! | `nic`, `gro` | the device of a shard; merging what came, as Linux does |
//! | `core` | a shard on its device, and what must hold after a turn |
//! | `check` | what must hold for a frame |
//! | `host` | shards that share addresses; applications; who has sent what |
//! | `tcp` | applications on connections, and what must hold for these |
//! | `switch`, `router` | what is between hosts |
//! | `serial` | two hosts on a serial line |
//! | `packets` | frames written by hand |
//! | `trace` | what was on the wires |

pub mod check;
pub mod core;
mod gro;
mod host;
mod link;
mod nic;
pub mod packets;
mod router;
pub mod serial;
mod switch;
pub mod tcp;
mod trace;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use smoltcp::time::{Duration, Instant};
use wirestack::random::Random;
use wirestack::shard::{Command, Shard, ShardConfig};

pub use host::{App, Context, Host, Ledger};
pub use link::{LinkCounters, LinkSpec, Loss};
pub use nic::{Frame, LINK_HEADER_LEN, NicConfig, SimNic};
pub use router::{Router, RouterCounters, RouterPort};
pub use switch::Switch;
pub use trace::describe;

use host::HostTurn;
use link::Direction;
use trace::Trace;

/// Events of a run, unless it is told otherwise: many times what a run needs.
const STEPS_MAX: u64 = 20_000_000;

/// A node of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(usize);

/// A wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkId(usize);

/// A function that sees every frame of a puppet, and returns what it answers.
pub type Responder = Box<dyn FnMut(Instant, &[u8]) -> Vec<Vec<u8>>>;

/// What hangs on a wire and does what a test says.
#[derive(Default)]
struct Puppet {
    received: Vec<(Instant, Vec<u8>)>,
    responder: Option<Responder>,
}

enum Kind {
    Host(Host),
    Switch(Switch),
    Router(Router),
    Puppet(Puppet),
}

struct Node {
    name: String,
    kind: Kind,
    /// The wire of each port, and which end of it.
    ports: Vec<(LinkId, usize)>,
}

struct Link {
    ends: [(NodeId, usize); 2],
    directions: [Direction; 2],
    up: bool,
    /// Nothing passes, and nobody is told.
    is_cut: bool,
}

/// Something that a test does in the middle of a run.
type Action = Box<dyn FnOnce(&mut Sim)>;

enum Event {
    Deliver { node: NodeId, port: usize, link: LinkId, frame: Frame },
    Turn { node: NodeId, seat: usize },
    Action(Action),
}

/// When, which of those of the same time, and where in the table of events: the heap moves small things.
type Entry = Reverse<(Instant, u64, u32)>;

/// A network.
pub struct Sim {
    now: Instant,
    random: Random,
    heap: BinaryHeap<Entry>,
    events: Vec<Option<Event>>,
    /// Free places among them.
    free: Vec<u32>,
    sequence: u64,
    steps: u64,
    steps_max: u64,
    nodes: Vec<Node>,
    links: Vec<Link>,
    trace: Trace,
    last_frame: Instant,
    on_wires: usize,
    /// What a wire makes of a frame; memory that is used again.
    arrivals: Vec<(Instant, Frame)>,
    /// Who has sent what.
    pub ledger: Ledger,
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("now", &self.now).field("steps", &self.steps).finish_non_exhaustive()
    }
}

/// The seeds of a test: those of the environment (`SIM_SEED`: this one; `SIM_SEEDS`: so many), or `quick` ones.
pub fn seeds(quick: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let range = match (number("SIM_SEED"), number("SIM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => 0..count,
        (None, None) => 0..quick,
    };
    range.into_iter()
}

impl Sim {
    /// An empty network at second 1. `name` is that of the test, to be said when it fails.
    pub fn new(name: &str, seed: u64) -> Self {
        Self {
            now: Instant::from_secs(1),
            random: Random::new(seed),
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            steps: 0,
            steps_max: STEPS_MAX,
            nodes: Vec::new(),
            links: Vec::new(),
            trace: Trace::new(name, seed),
            last_frame: Instant::from_secs(1),
            on_wires: 0,
            arrivals: Vec::new(),
            ledger: Ledger::default(),
        }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Chance of the same seed, for tests.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// A number that is the same if the same frames were sent at the same times.
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// Frames that were sent.
    pub fn frames(&self) -> u64 {
        self.trace.frames()
    }

    /// Bounds the run.
    pub fn set_steps_max(&mut self, steps: u64) {
        self.steps_max = self.steps + steps;
    }

    fn add(&mut self, name: &str, kind: Kind) -> NodeId {
        self.nodes.push(Node { name: name.to_owned(), kind, ports: Vec::new() });
        NodeId(self.nodes.len() - 1)
    }

    /// Adds a host with so many shards of this configuration, whose seed is chosen here.
    pub fn add_host(&mut self, name: &str, mut config: ShardConfig, nic: NicConfig, shards: usize) -> NodeId {
        config.seed = self.random.u64();
        let host = Host::new(&config, nic, shards, self.now);
        let id = self.add(name, Kind::Host(host));
        for seat in 0..shards {
            self.wake(id, seat, self.now);
        }
        id
    }

    /// Adds a switch.
    pub fn add_switch(&mut self, name: &str, switch: Switch) -> NodeId {
        self.add(name, Kind::Switch(switch))
    }

    /// Adds a router; its interfaces are the ports, in the order in which they are connected.
    pub fn add_router(&mut self, name: &str, router: Router) -> NodeId {
        self.add(name, Kind::Router(router))
    }

    /// Adds a port that keeps what comes, and sends what a test says.
    pub fn add_puppet(&mut self, name: &str) -> NodeId {
        self.add(name, Kind::Puppet(Puppet::default()))
    }

    /// Adds a port that answers, and keeps nothing.
    pub fn add_responder(&mut self, name: &str, responder: Responder) -> NodeId {
        self.add(name, Kind::Puppet(Puppet { responder: Some(responder), ..Puppet::default() }))
    }

    /// Connects two nodes, each by a new port.
    pub fn connect(&mut self, a: NodeId, b: NodeId, spec: LinkSpec) -> LinkId {
        self.connect_ways(a, b, [spec; 2])
    }

    /// The same with a wire that is different from the first to the second node and back.
    pub fn connect_ways(&mut self, a: NodeId, b: NodeId, specs: [LinkSpec; 2]) -> LinkId {
        let id = LinkId(self.links.len());
        let ends = [a, b].map(|node| (node, self.nodes[node.0].ports.len()));
        for (end, (node, _)) in ends.into_iter().enumerate() {
            let node = &mut self.nodes[node.0];
            node.ports.push((id, end));
            if let Kind::Switch(switch) = &mut node.kind {
                switch.add_port();
            }
        }
        let directions = specs.map(|spec| Direction::new(spec, self.random.fork()));
        self.links.push(Link { ends, directions, up: true, is_cut: false });
        id
    }

    /// Changes what a wire does.
    pub fn set_link(&mut self, link: LinkId, spec: LinkSpec) {
        self.set_link_ways(link, [spec; 2]);
    }

    /// Changes what a wire does from its first node to its second one, and back.
    pub fn set_link_ways(&mut self, link: LinkId, specs: [LinkSpec; 2]) {
        let directions = self.links[link.0].directions.iter_mut();
        directions.zip(specs).for_each(|(direction, spec)| direction.set_spec(spec));
    }

    /// What a wire does, from its first node to its second one, and back.
    pub fn link_ways(&self, link: LinkId) -> [LinkSpec; 2] {
        [0, 1].map(|end| self.links[link.0].directions[end].spec())
    }

    /// Something between the ends of a wire breaks or is mended: nothing passes, and nobody is told.
    pub fn set_link_cut(&mut self, link: LinkId, is_cut: bool) {
        self.links[link.0].is_cut = is_cut;
    }

    /// What happened to frames of a wire: from the first node to the second, and back.
    pub fn link_counters(&self, link: LinkId) -> [LinkCounters; 2] {
        [0, 1].map(|end| self.links[link.0].directions[end].counters)
    }

    /// A wire is unplugged or plugged in; the hosts at its ends are told.
    pub fn set_link_up(&mut self, link: LinkId, up: bool) {
        self.links[link.0].up = up;
        for (node, _) in self.links[link.0].ends {
            let Kind::Host(host) = &mut self.nodes[node.0].kind else { continue };
            let seats = host.seats.len();
            for seat in &mut host.seats {
                seat.core.nic.set_up(up);
                let told = seat.core.shard.push_command(Command::LinkChanged(up));
                assert!(told.is_ok(), "there is room for a command");
            }
            (0..seats).for_each(|seat| self.wake(node, seat, self.now));
        }
    }

    /// Does something later.
    pub fn at(&mut self, at: Instant, action: impl FnOnce(&mut Self) + 'static) {
        self.push(at, Event::Action(Box::new(action)));
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.on_wires += usize::from(!matches!(event, Event::Turn { .. }));
        let index = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() as u32 - 1
        });
        self.events[index as usize] = Some(event);
        self.heap.push(Reverse((at.max(self.now), self.sequence, index)));
    }

    /// A shard is to have a turn.
    fn wake(&mut self, node: NodeId, seat: usize, at: Instant) {
        let Kind::Host(host) = &mut self.nodes[node.0].kind else { return };
        let seated = &mut host.seats[seat];
        let at = at.max(self.now).max(seated.busy_until);
        if seated.scheduled.is_none_or(|scheduled| at < scheduled) {
            seated.scheduled = Some(at);
            self.push(at, Event::Turn { node, seat });
        }
    }

    fn host(&self, node: NodeId) -> &Host {
        match &self.nodes[node.0].kind {
            Kind::Host(host) => host,
            _ => panic!("{} is no host", self.nodes[node.0].name),
        }
    }

    fn host_mut(&mut self, node: NodeId) -> &mut Host {
        match &mut self.nodes[node.0].kind {
            Kind::Host(host) => host,
            _ => panic!("no host"),
        }
    }

    /// The first shard of a host.
    pub fn shard(&self, node: NodeId) -> &Shard {
        &self.host(node).seats[0].core.shard
    }

    /// A shard of a host, to be told something; it has a turn afterwards.
    pub fn with_shard<R>(&mut self, node: NodeId, seat: usize, f: impl FnOnce(&mut Shard) -> R) -> R {
        let now = self.now;
        let shard = &mut self.host_mut(node).seats[seat].core.shard;
        shard.set_now(now);
        let result = f(shard);
        self.wake(node, seat, self.now);
        result
    }

    /// All shards of a host.
    pub fn shards(&self, node: NodeId) -> impl Iterator<Item = &Shard> {
        self.host(node).seats.iter().map(|seat| &seat.core.shard)
    }

    /// The device of a shard.
    pub fn nic(&self, node: NodeId, seat: usize) -> &SimNic {
        &self.host(node).seats[seat].core.nic
    }

    /// Turns of all shards of a host.
    pub fn turns(&self, node: NodeId) -> u64 {
        self.host(node).seats.iter().map(|seat| seat.turns).sum()
    }

    /// Sets the application of a shard; it has a turn at once.
    pub fn set_app(&mut self, node: NodeId, seat: usize, app: App) {
        self.host_mut(node).seats[seat].app = Some(app);
        self.wake(node, seat, self.now);
    }

    /// How long a turn of this host takes.
    pub fn set_turn_cost(&mut self, node: NodeId, cost: Duration) {
        self.host_mut(node).turn_cost = cost;
    }

    /// Looks at one frame in so many only, and keeps the trace short: for runs with much data, whose every byte the
    /// ledger sees anyway.
    pub fn set_light(&mut self, every: u64) {
        self.trace.set_light();
        for node in &mut self.nodes {
            let Kind::Host(host) = &mut node.kind else { continue };
            host.seats.iter_mut().for_each(|seat| seat.core.set_checked_every(every));
        }
    }

    /// A switch.
    pub fn switch(&self, node: NodeId) -> &Switch {
        match &self.nodes[node.0].kind {
            Kind::Switch(switch) => switch,
            _ => panic!("no switch"),
        }
    }

    /// A router.
    pub fn router(&mut self, node: NodeId) -> &mut Router {
        match &mut self.nodes[node.0].kind {
            Kind::Router(router) => router,
            _ => panic!("no router"),
        }
    }

    /// What came to a puppet since the last call.
    pub fn received(&mut self, node: NodeId) -> Vec<(Instant, Vec<u8>)> {
        match &mut self.nodes[node.0].kind {
            Kind::Puppet(puppet) => std::mem::take(&mut puppet.received),
            _ => panic!("no puppet"),
        }
    }

    /// Sends a frame from the first port of a node.
    pub fn send(&mut self, from: NodeId, frame: Vec<u8>) {
        self.transmit(from, 0, Frame::plain(frame));
    }

    fn transmit(&mut self, from: NodeId, port: usize, frame: Frame) {
        self.last_frame = self.now;
        self.trace.record(self.now, &self.nodes[from.0].name, &frame.bytes);
        let Some(&(link, end)) = self.nodes[from.0].ports.get(port) else { return };
        let wire = &mut self.links[link.0];
        if !wire.up || wire.is_cut {
            return;
        }
        let (node, port) = wire.ends[1 - end];
        let mut arrivals = std::mem::take(&mut self.arrivals);
        wire.directions[end].offer(self.now, frame, |at, frame| arrivals.push((at, frame)));
        for (at, frame) in arrivals.drain(..) {
            self.push(at, Event::Deliver { node, port, link, frame });
        }
        self.arrivals = arrivals;
    }

    /// Takes the next event. `false`: there is none before `end`.
    fn step(&mut self, end: Instant) -> bool {
        if self.heap.peek().is_none_or(|Reverse((at, ..))| *at > end) {
            return false;
        }
        let Some(Reverse((at, _, index))) = self.heap.pop() else { return false };
        let Some(event) = self.events[index as usize].take() else { return false };
        self.free.push(index);
        self.now = at;
        self.steps += 1;
        assert!(self.steps <= self.steps_max, "{} steps, and no end", self.steps_max);
        self.on_wires -= usize::from(!matches!(event, Event::Turn { .. }));
        match event {
            Event::Deliver { node, port, link, frame } => {
                // What is under way when a wire is unplugged is lost.
                if self.links[link.0].up && !self.links[link.0].is_cut {
                    self.deliver(node, port, frame);
                }
            }
            Event::Turn { node, seat } => self.turn(node, seat),
            Event::Action(action) => action(self),
        }
        true
    }

    fn deliver(&mut self, id: NodeId, port: usize, frame: Frame) {
        let now = self.now;
        let out = match &mut self.nodes[id.0].kind {
            Kind::Host(host) => {
                let (seat, at) = host.deliver(now, frame);
                return self.wake(id, seat, at);
            }
            Kind::Switch(switch) => switch.forward(port, frame),
            Kind::Router(router) => router.receive(port, &frame),
            Kind::Puppet(puppet) => frame
                .on_wire()
                .into_iter()
                .flat_map(|bytes| match &mut puppet.responder {
                    Some(responder) => responder(now, &bytes),
                    None => {
                        puppet.received.push((now, bytes));
                        Vec::new()
                    }
                })
                .map(|bytes| (port, Frame::plain(bytes)))
                .collect(),
        };
        out.into_iter().for_each(|(port, frame)| self.transmit(id, port, frame));
    }

    fn turn(&mut self, id: NodeId, seat: usize) {
        let now = self.now;
        let Kind::Host(host) = &mut self.nodes[id.0].kind else { return };
        // A turn that was wanted earlier has replaced this one.
        if host.seats[seat].scheduled != Some(now) {
            return;
        }
        host.seats[seat].scheduled = None;
        let HostTurn { sent, next, posted } = match host.turn(seat, now, &mut self.ledger) {
            Ok(turned) => turned,
            Err(wrong) => panic!("{} at {now}: {wrong}", self.nodes[id.0].name),
        };
        let splits = self.host(id).seats[seat].core.nic.config().splits;
        for frame in sent {
            if splits && !frame.meta.is_plain() {
                frame.on_wire().into_iter().for_each(|piece| self.transmit(id, 0, Frame::plain(piece)));
            } else {
                self.transmit(id, 0, frame);
            }
        }
        posted.into_iter().for_each(|seat| self.wake(id, seat, now));
        if let Some(next) = next {
            self.wake(id, seat, next);
        }
    }

    /// Lets time pass up to `end`.
    pub fn run_until(&mut self, end: Instant) {
        while self.step(end) {}
        self.now = self.now.max(end);
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Lets time pass until `is_done`, and says whether it was before `limit` has passed.
    pub fn run_while(&mut self, limit: Duration, mut is_done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !is_done(self) {
            if !self.step(end) {
                self.now = self.now.max(end);
                return false;
            }
        }
        true
    }

    /// Lets time pass until nothing is on a wire, no turn is due, and nobody has sent anything for `quiet`;
    /// `limit` at most.
    pub fn run_until_idle(&mut self, quiet: Duration, limit: Duration) {
        let end = self.now + limit;
        loop {
            let next = self.heap.peek().map(|Reverse((at, ..))| *at);
            let is_quiet = next.is_none_or(|next| next > self.last_frame + quiet && next > self.now);
            if self.on_wires == 0 && is_quiet || !self.step(end) {
                return;
            }
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.trace.report());
        }
        self.trace.save();
    }
}
