//! Two shards with connections between them, a network that does anything to segments, and strangers who forge some.
//!
//! The first ten bytes say how the shards are configured and what the manners of either end are ([`config`]). Then
//! each six bytes are a step: what happens, at which end, and four bytes for the rest. What a shard sends lies on a
//! wire until a step delivers it, loses it or changes it. At the end all is closed, the wires are as wires should be,
//! and time passes: nothing must be left.
//!
//! As long as nobody has forged or changed a segment, what comes is what was sent, and all of it in the end.

mod config;
mod end;
mod forge;
mod nic;
mod seeds;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use smoltcp::time::{Duration, Instant};
use wirestack::tcp::TcpOptions;

use config::{Kind, is_endless, is_tiny, options};
use end::{End, address};
use nic::{Packet, PairNic};

pub(super) use seeds::seeds;

/// Steps of an input; what is behind them says nothing new.
const STEPS_MAX: usize = 300;
/// Packets on a wire; more are lost.
const WIRE_MAX: usize = 512;
/// Times that both wires are emptied while the clock stands still, beside those for each byte: a window may be one byte.
const ROUNDS_MAX: usize = 200;
/// Bytes that an application writes in all, and if segments or windows are tiny.
const WRITTEN_MAX: [usize; 2] = [40_000, 1_500];
/// Stops of a clock that is let run by a step.
const STOPS_OF_STEP: usize = 60;
/// Stops of the clock until all is over: each is a timer of somebody.
const STOPS_MAX: usize = 6_000;
/// Packets that are remembered, to come once more.
const REMEMBERED: usize = 16;
const LISTENING: u16 = 80;

/// See the module.
///
/// # Panics
/// If something does not hold.
pub fn tcp_pair(bytes: &[u8]) {
    let Some((&[first, second, a @ .., w, x, y, z], script)) = bytes.split_first_chunk::<10>() else {
        return;
    };
    let mut play = Play::new(Kind(first, second), [a, [w, x, y, z]]);
    for &[op, sel, a, b, c, d] in script.as_chunks::<6>().0.iter().take(STEPS_MAX) {
        play.step(&Step { op, sel, a, b, c, d });
    }
    play.heal();
    play.end();
}

/// What happens, at which end (the lowest bit of `sel`) and to which of several, and the rest.
#[derive(Debug, Clone, Copy)]
struct Step {
    op: u8,
    sel: u8,
    a: u8,
    b: u8,
    c: u8,
    d: u8,
}

impl Step {
    fn end(&self) -> usize {
        usize::from(self.sel & 1)
    }

    fn pick(&self, len: usize) -> usize {
        usize::from(self.sel >> 1) % len.max(1)
    }

    /// From nothing to some 32 000.
    fn len(&self) -> usize {
        usize::from(self.a & 0x3f) << (3 * (self.a >> 6))
    }
}

/// What goes from one end to the other.
#[derive(Debug)]
struct Direction {
    packets: VecDeque<Rc<Packet>>,
    /// The last segment.
    last: Option<Rc<Packet>>,
    remembered: VecDeque<Rc<Packet>>,
    mtu: usize,
    tells_mtu: bool,
    is_cut: bool,
    /// A SYN came more than once.
    has_late_syn: bool,
}

struct Play {
    kind: Kind,
    now: Instant,
    ends: [End; 2],
    wires: [Direction; 2],
    options: [TcpOptions; 2],
    /// Nobody has to end by itself.
    is_endless: bool,
    /// What comes is what was sent.
    trusts: bool,
    /// Ports that were chosen.
    ports: u16,
}

impl Play {
    fn new(kind: Kind, manners: [[u8; 4]; 2]) -> Self {
        let now = Instant::from_secs(1);
        let is_tiny = manners.into_iter().any(is_tiny);
        let options = manners.map(options);
        let end = |end: usize| {
            let nic = PairNic::new(kind.mtu(), kind.splits(), kind.tx_max());
            let written_max = WRITTEN_MAX[usize::from(is_tiny)];
            End::new(kind.shard(end), nic, kind.is_eager(), written_max, now)
        };
        let wire = || Direction {
            packets: VecDeque::new(),
            last: None,
            remembered: VecDeque::new(),
            mtu: usize::MAX,
            tells_mtu: false,
            is_cut: false,
            has_late_syn: false,
        };
        let mut play = Self {
            kind,
            now,
            ends: [end(0), end(1)],
            wires: [wire(), wire()],
            options,
            is_endless: manners.into_iter().any(is_endless),
            trusts: !kind.reuses_ports(),
            ports: 0,
        };
        play.listen(1, LISTENING, 8, false);
        if kind.begins_connected() {
            let to = play.at(1, LISTENING);
            let options = play.options[0];
            play.ends[0].connect(to, None, options);
            play.settle();
            play.flow();
            let end = &mut play.ends[1];
            end.app.accept(&mut end.shard, 0);
        }
        play.settle();
        play
    }

    fn at(&self, end: usize, port: u16) -> SocketAddr {
        SocketAddr::new(address(end, self.kind.is_v6()), port)
    }

    fn listen(&mut self, end: usize, port: u16, backlog: usize, resets: bool) {
        let (at, options) = (self.at(end, port), self.options[end]);
        self.ends[end].listen(at, backlog, resets, options);
    }

    fn distrust(&mut self) {
        self.trusts = false;
        self.ends.iter_mut().for_each(|end| end.app.trusts = false);
    }

    /// Both have their turns, and what they send is on the wires.
    fn settle(&mut self) {
        let has_late_syn = self.wires.iter().any(|wire| wire.has_late_syn);
        if self.trusts && self.ends.iter().any(|end| end.may_come_again(has_late_syn)) {
            self.distrust();
        }
        self.settle_one(0);
        self.settle_one(1);
    }

    fn settle_one(&mut self, end: usize) {
        let Self { ends, wires, now, .. } = self;
        let mut told = Vec::new();
        let wire = &mut wires[end];
        ends[end].settle(*now, |packet| {
            if packet.tcp().is_some() {
                wire.last = Some(packet.clone());
            }
            if packet.longest() > wire.mtu {
                told.extend(wire.tells_mtu.then(|| Rc::new(forge::too_big(&packet, wire.mtu))));
            } else if !wire.is_cut && wire.packets.len() < WIRE_MAX {
                wire.packets.push_back(packet);
            }
        });
        ends[end].nic.rx.extend(told);
    }

    fn deliver(&mut self, from: usize) -> bool {
        let wire = &mut self.wires[from];
        let Some(packet) = wire.packets.pop_front() else { return false };
        if wire.remembered.len() == REMEMBERED {
            wire.remembered.pop_front();
        }
        wire.remembered.push_back(packet.clone());
        self.ends[1 - from].nic.rx.push_back(packet);
        true
    }

    /// All that is on the wires arrives, and what is said to it, until nobody has anything to say.
    fn flow(&mut self) {
        let written = self.ends.each_ref().map(|end| end.app.written);
        let rounds = ROUNDS_MAX + 4 * (written[0] + written[1]);
        for _ in 0..rounds {
            let mut is_quiet = true;
            for from in 0..2 {
                while self.deliver(from) {
                    is_quiet = false;
                }
            }
            is_quiet &= self.ends.iter().all(|end| end.nic.rx.is_empty());
            if is_quiet {
                return;
            }
            self.settle();
        }
        panic!("{rounds} times something was said at {}, and there is no end", self.now);
    }

    fn next(&self) -> Option<Instant> {
        self.ends.iter().filter_map(|end| end.next).min()
    }

    /// Time passes, and everybody has a turn whenever wanted; the wires deliver if `flows`. `false`: `stops` were not
    /// enough.
    fn run(&mut self, until: Instant, flows: bool, stops: usize) -> bool {
        for _ in 0..stops {
            if flows {
                self.flow();
            }
            let Some(next) = self.next().filter(|next| *next <= until) else {
                self.now = until;
                self.settle();
                return true;
            };
            assert!(next > self.now, "{next} is not behind {}", self.now);
            self.now = next;
            self.settle();
        }
        false
    }

    fn step(&mut self, step: &Step) {
        let (from, now) = (step.end(), self.now);
        self.ends.iter_mut().for_each(|end| end.shard.set_now(now));
        match step.op % 24 {
            0 | 1 => self.flow(),
            2..=7 | 20 | 22 => self.on_wire(step),
            8 | 9 | 23 => self.strangers(step),
            10 => {
                self.now += duration(step);
                self.settle();
            }
            11 => {
                let until = self.now + duration(step);
                if !self.run(until, step.sel & 2 == 0, STOPS_OF_STEP) {
                    self.now = self.now.max(until);
                }
            }
            _ => self.application(step, from),
        }
        self.settle();
    }

    fn on_wire(&mut self, step: &Step) {
        let (op, from) = (step.op % 24, step.end());
        let wire = &mut self.wires[from];
        let at = step.pick(wire.packets.len());
        match op {
            2 => {
                for _ in 0..=step.pick(8) {
                    self.deliver(from);
                }
            }
            3 => drop(wire.packets.remove(at)),
            4 => {
                if let Some(packet) = wire.packets.get(at).cloned().filter(|_| wire.packets.len() < WIRE_MAX)
                {
                    let copies = 1 + usize::from(step.a & 7);
                    wire.has_late_syn |= packet.is_syn();
                    wire.packets.extend(std::iter::repeat_n(packet, copies));
                }
            }
            5 => {
                if let Some(packet) = wire.packets.remove(at) {
                    let to = usize::from(step.a) % (wire.packets.len() + 1);
                    wire.packets.insert(to, packet);
                }
            }
            6 | 7 => {
                let Some(packet) = wire.packets.get_mut(at).map(Rc::make_mut) else { return };
                if op == 6 {
                    forge::mutate(packet, step);
                } else {
                    forge::resize(packet, step);
                }
                self.distrust();
            }
            20 => match step.a % 4 {
                0 => wire.is_cut = !wire.is_cut,
                1 => {
                    wire.mtu = 100 + usize::from(step.b) * 40;
                    wire.tells_mtu = step.c & 1 == 0;
                }
                2 => wire.packets.iter_mut().for_each(|packet| forge::mark(Rc::make_mut(packet))),
                _ => wire.packets.clear(),
            },
            _ => {
                let at = step.pick(wire.remembered.len());
                let Some(packet) = wire.remembered.get(at).cloned() else { return };
                wire.has_late_syn |= packet.is_syn();
                wire.packets.push_back(packet);
            }
        }
    }

    fn strangers(&mut self, step: &Step) {
        let to = step.end();
        let Some(theirs) = &self.wires[to].last else { return };
        let packets = match step.op % 24 {
            9 => Vec::from_iter(forge::icmp_error(theirs, step)),
            _ => forge::segments(theirs, self.wires[1 - to].last.as_deref(), step),
        };
        self.distrust();
        self.ends[to].nic.rx.extend(packets.into_iter().map(Rc::new));
    }

    fn application(&mut self, step: &Step, at: usize) {
        let tx_max = self.kind.tx_max();
        let conn = step.pick(self.ends[at].app.conns.len());
        let end = &mut self.ends[at];
        match step.op % 24 {
            12 => end.app.send(&mut end.shard, conn, step.len(), 0),
            13 => end.app.send(&mut end.shard, conn, step.len(), 1 + step.b % 2),
            14 => drop(end.app.recv(&mut end.shard, conn, step.len(), step.b)),
            15 => self.connect(step, at),
            16 => {
                if step.a & 0xc0 == 0xc0 {
                    end.close_listener(conn);
                } else {
                    let port = LISTENING + u16::from(step.a & 3);
                    self.listen(at, port, usize::from(step.b & 3), step.b & 4 != 0);
                }
            }
            17 => drop(end.app.accept(&mut end.shard, usize::from(step.a & 3))),
            18 => match end.app.conns.get_mut(conn) {
                Some(found) if step.a.is_multiple_of(4) => {
                    found.has_finished = true;
                    end.shard.tcp_finish(found.id);
                }
                Some(found) if step.a % 4 == 1 => end.shard.tcp_abort(found.id),
                _ => end.close(conn),
            },
            19 => {
                let manners = [step.a, step.b, step.c, step.d];
                if let Some(found) = end.app.conns.get(conn) {
                    end.shard.tcp_set_options(found.id, options(manners));
                    self.is_endless |= is_endless(manners);
                }
            }
            _ => match step.a % 4 {
                0 => end.app.is_eager = !end.app.is_eager,
                1 => end.nic.tx_max = if end.nic.tx_max == tx_max { 1 } else { tx_max },
                _ => self.ask(at, conn),
            },
        }
    }

    /// What an application may ask at any time.
    fn ask(&mut self, at: usize, conn: usize) {
        let end = &mut self.ends[at];
        let Some(found) = end.app.conns.get(conn) else { return };
        let (ready, info) = (end.shard.tcp_readiness(found.id), end.shard.tcp_info(found.id));
        let info = info.expect("a handle that is open");
        assert_eq!(ready.closed, info.state == "CLOSED");
        assert!(!ready.connected || end.shard.tcp_failure(found.id).is_none());
        assert!(!info.to_string().is_empty());
        let _ = end.shard.tcp_take_soft_error(found.id);
    }

    /// To a listener, to nobody, or to an end that does the same at the same time.
    fn connect(&mut self, step: &Step, at: usize) {
        let options = self.options[at];
        let (remote, local) = match step.a % 8 {
            0 => (self.at(1 - at, 9), None),
            1 => (self.at(at, LISTENING), None),
            // The same port twice is the same connection: those who come in between are told that it is in use.
            2 if self.kind.reuses_ports() => {
                (self.at(1 - at, LISTENING), Some(self.at(at, 5_000 + u16::from(step.b & 1))))
            }
            3 => {
                self.ports += 1;
                let (here, there) = (5_000 + self.ports, 6_000 + self.ports);
                let (local, remote) = (self.at(at, here), self.at(1 - at, there));
                let their_options = self.options[1 - at];
                self.ends[1 - at].connect(local, Some(remote), their_options);
                (remote, Some(local))
            }
            _ => (self.at(1 - at, LISTENING + u16::from(step.b & 3) / 2), None),
        };
        self.ends[at].connect(remote, local, options);
    }

    /// The network and the applications are as they should be, and time passes: what was written arrives, unless
    /// somebody has given up.
    fn heal(&mut self) {
        for (wire, end) in self.wires.iter_mut().zip(&mut self.ends) {
            (wire.mtu, wire.is_cut) = (usize::MAX, false);
            end.nic.tx_max = 4_096;
            end.app.is_eager = true;
        }
        if !self.trusts || self.is_endless {
            return;
        }
        self.settle();
        for _ in 0..STOPS_MAX {
            self.flow();
            let Some(wrong) = self.missing().filter(|_| self.trusts) else { return };
            self.now = self.next().unwrap_or_else(|| panic!("nobody comes back: {wrong}"));
            self.settle();
        }
        panic!("at {} there is no end: {:?}", self.now, self.missing());
    }

    /// What has not arrived, of connections that nobody has given up.
    fn missing(&self) -> Option<String> {
        for from in 0..2 {
            let (ours, theirs) = (&self.ends[from], &self.ends[1 - from]);
            for conn in &ours.app.conns {
                if ours.shard.tcp_failure(conn.id).is_some() {
                    continue;
                }
                let info = ours.shard.tcp_info(conn.id).expect("a handle that is open");
                let mut peers = theirs.app.conns.iter();
                let peer = peers.find(|peer| (peer.local, peer.remote) == (conn.remote, conn.local));
                let peer = peer.filter(|peer| theirs.shard.tcp_failure(peer.id).is_none());
                let has_come = peer.is_none_or(|peer| peer.received == conn.sent);
                if info.send_buffered > 0 || !has_come || info.state == "SYN-SENT" {
                    let their = peer.map(|peer| (peer, theirs.shard.tcp_info(peer.id)));
                    return Some(format!("{conn:?}\n{info:?}\n{their:?}"));
                }
            }
        }
        None
    }

    /// All is closed, and in the end nothing is left.
    fn end(&mut self) {
        let now = self.now;
        for end in &mut self.ends {
            end.shard.set_now(now);
            end.close_all(self.is_endless);
        }
        self.settle();
        for _ in 0..STOPS_MAX {
            self.flow();
            if self.ends.iter().all(End::is_over) {
                let left = self.ends.each_ref().map(|end| end.shard.occupancy().tcp_buffer_bytes);
                assert_eq!(left, [0, 0], "no connection, and memory is in use");
                return;
            }
            let next = self.next().unwrap_or_else(|| panic!("nobody comes back: {}", self.left()));
            assert!(next > self.now, "{next} is not behind {}", self.now);
            self.now = next;
            self.settle();
        }
        panic!("at {} there is no end: {}", self.now, self.left());
    }

    fn left(&self) -> String {
        format!("{:?}", self.ends.each_ref().map(|end| end.shard.occupancy()))
    }
}

fn duration(step: &Step) -> Duration {
    let unit = [1, 1_000, 50_000, 2_000_000][usize::from(step.a % 4)];
    Duration::from_micros(unit * u64::from(step.b))
}
