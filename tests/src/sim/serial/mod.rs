//! Two hosts, each with its `Serial` device on an end of a line in virtual time: the device, its queue, its pacing and
//! its framing are those of the programs, only the port is simulated.
//!
//! The ledger of the applications, the checks of connections and the seeds are those of the [network](super).

mod line;

use std::collections::BTreeMap;
use std::fmt;

use smoltcp::time::{Duration, Instant};
use wirestack::nic::serial::framing::Framing;
use wirestack::nic::serial::{Serial, SerialConfig};
use wirestack::nic::{Counters, LinkState, Nic};
use wirestack::observe::ShardCounters;
use wirestack::random::Random;
use wirestack::shard::{Command, Shard, ShardConfig, SocketId};

use super::tcp::Connections;
use super::{App, Context, Ledger};

pub use line::{LineLosses, SerialSpec, SharedLine, SimPort};

/// Turns at one point in time: there is room after each for what the device has handed to the port.
const TURNS_MAX: usize = 64;

/// A host on an end of a line.
struct Host {
    shard: Shard,
    nic: Serial<SimPort>,
    apps: Vec<App>,
    /// When the shard or the application wants a turn.
    due: Option<Instant>,
    is_up: bool,
    connections: Connections,
    before: ShardCounters,
}

/// Something that a test does in the middle of a run.
type Action = Box<dyn FnOnce(&mut SerialSim)>;

/// Two hosts and a line.
pub struct SerialSim {
    now: Instant,
    hosts: [Host; 2],
    line: SharedLine,
    actions: BTreeMap<(Instant, u64), Action>,
    sequence: u64,
    random: Random,
    /// Turns of both.
    pub turns: u64,
    /// Who has sent what.
    pub ledger: Ledger,
}

impl fmt::Debug for SerialSim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialSim").field("now", &self.now).finish_non_exhaustive()
    }
}

/// What the ends of a line are.
#[derive(Debug)]
pub struct End {
    /// The host.
    pub shard: ShardConfig,
    /// The device.
    pub device: SerialConfig,
    /// Its framing.
    pub framing: Box<dyn Framing>,
}

impl SerialSim {
    /// Two hosts at second 1.
    pub fn new(seed: u64, spec: SerialSpec, ends: [End; 2]) -> Self {
        let mut random = Random::new(seed);
        let now = Instant::from_secs(1);
        let line = SharedLine::new(spec, &mut random);
        line.set_now(now);
        let mut end = 0;
        let hosts = ends.map(|mut it| {
            it.shard.seed = random.u64();
            let shard = Shard::new(it.shard, now).expect("a configuration that is right");
            let nic = Serial::new(it.device, line.port(end), it.framing, now).expect("it is plugged in");
            end += 1;
            let before = shard.counters();
            let connections = Connections::default();
            Host { shard, nic, apps: Vec::new(), due: Some(now), is_up: true, connections, before }
        });
        let (actions, ledger) = Default::default();
        Self { now, hosts, line, actions, sequence: 0, random, turns: 0, ledger }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The line.
    pub fn line(&self) -> &SharedLine {
        &self.line
    }

    /// Chance of the same seed, for tests.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// The shard of a host.
    pub fn shard(&self, host: usize) -> &Shard {
        &self.hosts[host].shard
    }

    /// The device of a host.
    pub fn nic(&mut self, host: usize) -> &mut Serial<SimPort> {
        &mut self.hosts[host].nic
    }

    /// What the device of a host has counted.
    pub fn counters(&mut self, host: usize) -> Counters {
        self.hosts[host].nic.counters()
    }

    /// Adds an application to a host, which has a turn at once. One that takes the events of the shard comes last; the
    /// others look at their sockets in every turn.
    pub fn add_app(&mut self, host: usize, app: App) {
        self.hosts[host].apps.insert(0, app);
        self.hosts[host].due = Some(self.now);
    }

    /// Does something later.
    pub fn at(&mut self, at: Instant, action: impl FnOnce(&mut Self) + 'static) {
        self.sequence += 1;
        self.actions.insert((at.max(self.now), self.sequence), Box::new(action));
    }

    /// Pulls the plug of a host out, or puts it in.
    pub fn set_plugged(&mut self, host: usize, is_plugged: bool) {
        self.line.set_plugged(host, is_plugged);
        // A port that is gone is ready to be read, which fails.
        self.hosts[host].due = Some(self.now);
    }

    /// Takes what comes next. `false`: there is nothing before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let mut next = self.actions.first_key_value().map(|((at, _), _)| *at);
        let wants = [0, 1].map(|host| self.wants(host));
        for at in wants.into_iter().chain([self.line.next_turn()]).flatten() {
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        let Some(next) = next.filter(|next| *next <= end) else { return false };
        self.now = self.now.max(next);
        self.line.set_now(self.now);
        while let Some(entry) = self.actions.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let action = entry.remove();
            action(self);
        }
        for host in [0, 1] {
            if self.wants(host).is_some_and(|at| at <= self.now) {
                self.turn(host);
            }
        }
        true
    }

    /// When a host wants a turn: its shard, its application, its device, or what comes.
    fn wants(&self, host: usize) -> Option<Instant> {
        let it = &self.hosts[host];
        [it.due, it.nic.next_deadline(), self.line.next_arrival(host)].into_iter().flatten().min()
    }

    /// Turns of a host until nothing more is to be done now.
    fn turn(&mut self, number: usize) {
        let (now, ledger) = (self.now, &mut self.ledger);
        let host = &mut self.hosts[number];
        let mut touched = Vec::new();
        let refused = host.nic.counters().tx_ring_full;
        for count in 0.. {
            assert!(count < TURNS_MAX, "{count} turns at {now}");
            self.turns += 1;
            let (next, wanted) = host.turn_once(now, ledger, &mut touched);
            host.due = [next, wanted].into_iter().flatten().min();
            let is_up = host.nic.link_state() == LinkState::Up;
            if is_up != host.is_up && host.shard.push_command(Command::LinkChanged(is_up)).is_ok() {
                host.is_up = is_up;
                continue;
            }
            if !host.nic.wants_turn() && next.is_none_or(|next| next > now) {
                break;
            }
        }
        let is_refused = host.nic.counters().tx_ring_full > refused;
        let due = if is_refused { Some(now) } else { host.due };
        let checked = host.check().and_then(|()| host.connections.check(&host.shard, &touched, now, due));
        if let Err(wrong) = checked {
            panic!("host {number} at {now}: {wrong}");
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
}

impl Host {
    fn turn_once(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        touched: &mut Vec<SocketId>,
    ) -> (Option<Instant>, Option<Instant>) {
        let Self { shard, nic, apps, .. } = self;
        let mut wanted: Option<Instant> = None;
        let next = shard.turn(now, nic, |shard| {
            let mut context = Context { now, ledger, touched: Vec::new() };
            for app in apps.iter_mut() {
                let due = app(shard, &mut context);
                wanted = [wanted, due].into_iter().flatten().min();
            }
            touched.append(&mut context.touched);
        });
        (next, wanted)
    }

    /// Everything that came has become something, and no count goes back.
    fn check(&mut self) -> Result<(), String> {
        let now = self.shard.counters();
        for ((name, before), (_, after)) in self.before.named().zip(now.named()) {
            if after < before {
                return Err(format!("{name} went from {before} to {after}"));
            }
        }
        let came = now.rx_frames + now.looped + now.mail_received;
        let became = now.delivered + now.replied + now.held + now.forwarded + now.rx_dropped;
        if came != became {
            return Err(format!("{came} packets came, and {became} became something: {now:?}"));
        }
        let device = self.nic.counters();
        if device.rx_frames != now.rx_frames || device.tx_frames != now.tx_frames {
            return Err(format!("the device and the shard count differently: {device:?} {now:?}"));
        }
        self.before = now;
        Ok(())
    }
}
