//! One shard with its device, and everything that must hold after each of its turns.

use std::collections::BTreeSet;
use std::net::IpAddr;

use smoltcp::time::Instant;
use wirestack::nic::{Counters, Nic};
use wirestack::observe::ShardCounters;
use wirestack::shard::{Mail, Occupancy, Shard, ShardConfig, SocketId};

use super::check::{Permit, check_frame};
use super::tcp::Connections;
use super::{Frame, NicConfig, SimNic};

/// Turns in a row that may say "again at once" without having done anything.
const IDLE_TURNS_MAX: u32 = 3;

/// A shard with its device.
#[derive(Debug)]
pub struct Core {
    /// The shard.
    pub shard: Shard,
    /// Its device.
    pub nic: SimNic,
    config: ShardConfig,
    before: ShardCounters,
    occupancy: Occupancy,
    device: Counters,
    deadline: Option<Instant>,
    idle_turns: u32,
    /// One frame in so many is looked at.
    checked_every: u64,
    frames: u64,
    /// Connections, and what they were when they were looked at last.
    connections: Connections,
    /// Addresses that were ours since nothing waited to be sent.
    sources: BTreeSet<IpAddr>,
}

/// What came of a turn.
#[derive(Debug)]
pub struct Turned {
    /// Frames that the device took.
    pub sent: Vec<Frame>,
    /// When to come again, if nothing comes.
    pub next: Option<Instant>,
    /// Whether the device has refused a frame.
    pub is_refused: bool,
    /// For other shards of the host.
    pub mail: Vec<(usize, Mail)>,
}

impl Core {
    /// A shard of this configuration on a device.
    pub fn new(config: ShardConfig, nic: NicConfig, now: Instant) -> Self {
        let shard = Shard::new(config.clone(), now).expect("a configuration that is right");
        Self {
            before: shard.counters(),
            occupancy: shard.occupancy(),
            shard,
            nic: SimNic::new(nic),
            config,
            device: Counters::default(),
            deadline: None,
            idle_turns: 0,
            checked_every: 1,
            frames: 0,
            connections: Connections::default(),
            sources: BTreeSet::new(),
        }
    }

    /// One turn, after which everything is checked.
    ///
    /// # Errors
    /// What does not hold.
    pub fn turn(&mut self, now: Instant, app: impl FnMut(&mut Shard)) -> Result<Turned, String> {
        self.note_sources();
        let next = self.shard.turn(now, &mut self.nic, app);
        self.note_sources();
        let (sent, is_refused) = self.nic.take_sent();
        let permit = Permit {
            mac: self.shard.mac().0,
            mtu: self.nic.config().mtu,
            sources: std::mem::take(&mut self.sources),
        };
        for frame in &sent {
            self.frames += 1;
            if !self.frames.is_multiple_of(self.checked_every) {
                continue;
            }
            for piece in frame.on_wire() {
                check_frame(&piece, &permit)
                    .map_err(|wrong| format!("{wrong}: {}", super::describe(&piece)))?;
            }
        }
        self.sources = permit.sources;
        let occupancy = self.shard.occupancy();
        if occupancy.outbox_frames == 0 {
            self.sources.clear();
        }
        self.check_counters(sent.len() as u64)?;
        self.check_bounds(&occupancy)?;
        self.check_progress(now, next, occupancy)?;
        let mail = std::iter::from_fn(|| self.shard.next_mail()).collect();
        Ok(Turned { sent, next, is_refused, mail })
    }

    /// Looks at one frame in so many from now on.
    pub fn set_checked_every(&mut self, every: u64) {
        self.checked_every = every.max(1);
    }

    /// Looks at the connections of the shard after a turn that wants the next one at `next`: those that the
    /// application had to do with, and some of the others.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_connections(
        &mut self,
        touched: &[SocketId],
        now: Instant,
        next: Option<Instant>,
    ) -> Result<(), String> {
        self.connections.check(&self.shard, touched, now, next)
    }

    fn note_sources(&mut self) {
        let usable = self.shard.addresses().filter(|address| address.is_usable());
        self.sources.extend(usable.map(|address| address.ip()));
    }

    fn check_counters(&mut self, sent: u64) -> Result<(), String> {
        let now = self.shard.counters();
        for ((name, before), (_, after)) in self.before.named().zip(now.named()) {
            if after < before {
                return Err(format!("{name} went from {before} to {after}"));
            }
        }
        let came = now.rx_frames + now.looped + now.mail_received;
        let became = now.delivered + now.replied + now.held + now.forwarded + now.rx_dropped;
        if came != became {
            return Err(format!("{came} frames and packets came, and {became} became something: {now:?}"));
        }
        let drops: u64 = self.shard.drops().named().map(|(_, count)| count).sum();
        if drops != now.dropped {
            return Err(format!("{} were dropped, {drops} for a reason", now.dropped));
        }
        let device = self.nic.counters();
        if device.rx_frames != now.rx_frames {
            return Err(format!("the device gave {}, {} came", device.rx_frames, now.rx_frames));
        }
        if device.tx_frames - self.device.tx_frames != sent {
            return Err(format!("the device counts {} sent, not {sent}", device.tx_frames));
        }
        // The device may have split some.
        if now.tx_frames - self.before.tx_frames > sent {
            return Err("more frames are counted than were sent".to_owned());
        }
        self.device = device;
        Ok(())
    }

    fn check_bounds(&self, now: &Occupancy) -> Result<(), String> {
        let config = &self.config;
        let bounds = [
            ("reassembly bytes", now.reassembly_bytes, config.reassembly.bytes_max),
            ("reassembly datagrams", now.reassembly_datagrams, config.reassembly.datagrams_max),
            ("neighbours", now.neighbors, config.neighbor.entries_max),
            ("parked bytes", now.parked_bytes, config.neighbor.parked_total_bytes_max),
            ("bytes to be sent", now.outbox_bytes, config.outbox_bytes_max),
            ("frames to be sent", now.outbox_frames, config.outbox_frames_max),
            ("bytes to ourselves", now.looped_bytes, config.looped_bytes_max),
            ("mail", now.mail, config.mail_len_max),
            ("commands", now.commands, config.mail_len_max),
            ("sockets", now.sockets, config.sockets_max),
            ("paths", now.paths, config.path_mtu.entries_max),
            ("TCP connections", now.tcp_connections, config.tcp.connections_max),
            ("half-open connections", now.tcp_half_open, config.tcp.half_open_max),
            ("connections in TIME-WAIT", now.tcp_time_waits, config.tcp.time_wait_max),
            ("bytes of TCP's buffers", now.tcp_buffer_bytes, config.tcp.pool_bytes_max),
        ];
        match bounds.into_iter().find(|(_, held, max)| held > max) {
            Some((name, held, max)) => Err(format!("{name}: {held} are held, {max} at most")),
            None => Ok(()),
        }
    }

    /// A turn that is wanted at once again must have done something, or its deadline must move.
    fn check_progress(
        &mut self,
        now: Instant,
        next: Option<Instant>,
        occupancy: Occupancy,
    ) -> Result<(), String> {
        let moved = |(after, before): ((&str, u64), (&str, u64))| after.0 != "turns" && after != before;
        let has_moved = self.shard.counters().named().zip(self.before.named()).any(moved)
            || occupancy != self.occupancy
            || self.deadline != next;
        self.before = self.shard.counters();
        self.occupancy = occupancy;
        self.deadline = next;
        let is_at_once = next.is_some_and(|next| next <= now);
        self.idle_turns = if is_at_once && !has_moved { self.idle_turns + 1 } else { 0 };
        if self.idle_turns > IDLE_TURNS_MAX {
            return Err(format!("{} turns at {now} did nothing, and another is wanted", self.idle_turns));
        }
        Ok(())
    }
}
