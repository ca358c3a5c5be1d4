//! TCP: what comes for connections, and what an application does with them.
//!
//! | file | what it is |
//! |---|---|
//! | `ingress` | a segment: connection ▸ half-open ▸ TIME-WAIT ▸ listener ▸ nobody |
//! | `lifecycle` | how connections come into being, and how they end |
//! | `egress` | whoever has something to send, sends |
//! | `express` | the same on a slow device, where small frames pass others |
//! | `timers` | what is due |
//! | `errors` | what routers say |
//! | `api`, `connect`, `close` | what an application does |
//! | `ending` | the end of all connections at once |
//! | `list` | all of them, for people |

mod api;
mod close;
mod connect;
mod egress;
mod ending;
mod errors;
mod express;
mod ingress;
mod lifecycle;
mod list;
mod timers;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;
use smoltcp::time::Instant;

use super::SocketId;
use crate::demux::{FlowTable, ListenTable};
use crate::policy::AttemptKind;
use crate::random::Random;
use crate::tcp::accept_queue::Listener;
use crate::tcp::buffer::{Pool, Pressure};
use crate::tcp::challenge::Throttles;
use crate::tcp::half_open::HalfOpens;
use crate::tcp::isn::Isn;
use crate::tcp::tcb::{Cx, Tcb};
use crate::tcp::time_wait::TimeWaits;
use crate::tcp::{TcpConfig, TcpCounters, TcpOptions};
use crate::timer::wheel::{TimerId, Wheel};

pub use api::Readiness;
pub use connect::{TcpConnect, TcpListen};
pub use list::{TcpConnection, TcpConnections, TcpListener};

/// What a 4-tuple is, in 32 bits: two of them say what, the others which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow(u32);

/// The same, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A connection.
    Connection(u32),
    /// One that has begun, at a listener.
    HalfOpen(u32),
    /// What is left of one.
    TimeWait(u32),
}

impl Flow {
    pub(crate) fn new(target: Target) -> Self {
        match target {
            Target::Connection(index) => Self(index),
            Target::HalfOpen(index) => Self(index | 1 << 30),
            Target::TimeWait(index) => Self(index | 2 << 30),
        }
    }

    pub(crate) fn target(self) -> Target {
        let index = self.0 & ((1 << 30) - 1);
        match self.0 >> 30 {
            0 => Target::Connection(index),
            1 => Target::HalfOpen(index),
            _ => Target::TimeWait(index),
        }
    }
}

/// Whom a timer is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Due {
    Connection(u32),
    HalfOpen(u32),
}

/// A connection, and what the shard knows of it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) tcb: Tcb,
    /// Whose it is. `None`: it waits to be accepted, or its application has closed it.
    pub(crate) socket: Option<SocketId>,
    /// The listener in whose queue it waits.
    pub(crate) listener: Option<u32>,
    /// What a policy has allowed it as, who is to be told its end.
    pub(crate) policed: Option<AttemptKind>,
    /// Its timer, and when that is due: at or before the deadline of the connection.
    timer: Option<(TimerId, Instant)>,
    /// It is in `ready`.
    is_queued: bool,
    /// When its next hop was last confirmed by an acknowledgment.
    confirmed_at: Instant,
}

/// A listener, and whose it is.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: Listener,
    pub(crate) options: Arc<TcpOptions>,
    pub(crate) socket: SocketId,
    pub(crate) binding: crate::demux::Binding,
    /// Whether a policy has allowed it, and is to be told its end.
    pub(crate) is_policed: bool,
}

/// All of TCP of a shard.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub(crate) config: TcpConfig,
    pub(crate) flows: FlowTable<Flow>,
    pub(crate) connections: Slab<Box<Connection>>,
    pub(crate) listen: ListenTable<u32>,
    /// By a number that is never used again.
    pub(crate) listeners: HashMap<u32, Listening>,
    next_listener: u32,
    pub(crate) half_opens: HalfOpens,
    /// Of half-open connections, by their index.
    half_open_timers: Vec<Option<TimerId>>,
    pub(crate) time_waits: TimeWaits,
    wheel: Wheel<Due>,
    /// Connections that may have something to send.
    ready: VecDeque<u32>,
    /// Those among them whose next frame is long, on a device that small ones pass: they take turns.
    held: VecDeque<u32>,
    /// Whose turn it is among what is long: that of connections, or of what waits in the outbox.
    has_turn: bool,
    /// The device had no room for all at the last try: who waits for it has to have its timer.
    is_refused: bool,
    /// Connections whose application found the pool empty.
    starved: VecDeque<u32>,
    /// How much of the pool was in use when the last of them came: with as much in use, he would find none again.
    starved_at: usize,
    pub(crate) pool: Pool,
    isn: Isn,
    throttles: Throttles,
    pub(crate) counters: TcpCounters,
    /// Bytes of payload that the device has taken.
    bytes_out: u64,
}

impl Tcp {
    pub(crate) fn new(config: TcpConfig, random: &mut Random, now: Instant) -> Self {
        let flows = config.connections_max + config.half_open_max + config.time_wait_max;
        Self {
            flows: FlowTable::new(flows, random),
            connections: Slab::new(),
            listen: ListenTable::new(config.listeners_max, random),
            listeners: HashMap::new(),
            next_listener: 0,
            half_opens: HalfOpens::new(&config, random),
            half_open_timers: Vec::new(),
            time_waits: TimeWaits::new(&config),
            wheel: Wheel::new(now),
            ready: VecDeque::new(),
            held: VecDeque::new(),
            has_turn: true,
            is_refused: false,
            starved: VecDeque::new(),
            starved_at: 0,
            pool: Pool::new(config.pool_bytes_max),
            isn: Isn::new(random),
            throttles: Throttles::new(&config, random),
            counters: TcpCounters::default(),
            bytes_out: 0,
            config,
        }
    }

    /// A connection, and what of the shard it touches.
    pub(crate) fn with_cx(&mut self, index: u32, now: Instant) -> Option<(&mut Connection, Cx<'_>)> {
        let Self { connections, config, pool, counters, .. } = self;
        let connection = connections.get_mut(index as usize)?;
        Some((connection, Cx { now, config, pool, counters }))
    }

    /// Something has happened to a connection: it may have something to send, and its deadline may be another.
    /// What it tells the application is returned.
    pub(crate) fn touch(&mut self, index: u32) -> Option<SocketId> {
        self.queue(index);
        let connection = self.connections.get_mut(index as usize)?;
        let has_news = std::mem::take(&mut connection.tcb.news).any();
        let told = connection.socket.filter(|_| has_news);
        // Who is queued is asked in this turn, and its timer set then. One that has none gets it here: it may be long
        // until the device has room, and on one that is slow most wait for that.
        if !connection.is_queued || connection.timer.is_none() || self.is_refused {
            self.arm(index);
        }
        told
    }

    /// Whether it is worth asking a connection for what it sends next.
    fn may_send(&self, index: u32) -> bool {
        self.connections.get(index as usize).is_some_and(|connection| connection.tcb.may_send())
    }

    /// A connection may have something to send.
    pub(crate) fn queue(&mut self, index: u32) {
        if let Some(connection) = self.connections.get_mut(index as usize)
            && !connection.is_queued
            && connection.tcb.may_send()
        {
            connection.is_queued = true;
            self.ready.push_back(index);
        }
    }

    /// Sees to it that the wheel comes in time. A deadline that is later than the timer is left alone: the timer
    /// comes early then, and is set anew; so a deadline that moves on with every segment costs nothing.
    fn arm(&mut self, index: u32) {
        let Some(connection) = self.connections.get_mut(index as usize) else { return };
        let Some(deadline) = connection.tcb.deadline() else { return };
        match connection.timer {
            Some((_, at)) if at <= deadline => {}
            Some((timer, _)) => {
                self.wheel.reschedule(timer, deadline);
                connection.timer = Some((timer, deadline));
            }
            None => {
                let timer = self.wheel.insert(deadline, Due::Connection(index));
                connection.timer = Some((timer, deadline));
            }
        }
    }

    /// When something is due.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match (self.wheel.next_deadline(), self.time_waits.next_deadline()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Timers that run, those of TIME-WAIT not counted.
    pub(crate) fn timers_len(&self) -> usize {
        self.wheel.len()
    }

    /// Whether somebody who found no memory could be told that there is some.
    #[inline]
    pub(crate) fn can_wake_starved(&self) -> bool {
        !self.starved.is_empty()
            && self.pool.pressure() < Pressure::Severe
            && self.pool.in_use_bytes() < self.starved_at
    }

    /// Whether some connection may have something to send.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.held.is_empty()
    }
}
