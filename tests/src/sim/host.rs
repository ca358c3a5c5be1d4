//! A host: one shard or several that share its addresses, and the applications on them.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use smoltcp::time::{Duration, Instant};
use wirestack::demux::Steering;
use wirestack::shard::{Command, Shard, ShardConfig, SocketId};
use wirestack::udp::{DatagramMeta, SendError};

use super::core::Core;
use super::tcp::Streams;
use super::{Frame, NicConfig};

/// Payloads that were sent, so that none is received that was not.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: HashSet<u64>,
    /// Datagrams that applications have sent.
    pub sent_datagrams: u64,
    /// Datagrams that applications have received.
    pub received_datagrams: u64,
    /// What went through connections.
    pub tcp: Streams,
}

impl Ledger {
    /// A payload is on its way.
    pub fn sent(&mut self, payload: &[u8]) {
        self.sent_datagrams += 1;
        self.sent.insert(hash(payload));
    }

    /// A payload came.
    ///
    /// # Panics
    /// If nobody has sent it.
    pub fn received(&mut self, payload: &[u8]) {
        self.received_datagrams += 1;
        let is_known = self.sent.contains(&hash(payload));
        assert!(
            is_known,
            "nobody has sent these {} bytes: {:02x?}",
            payload.len(),
            &payload[..payload.len().min(32)]
        );
    }
}

fn hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

/// What an application sees in a turn.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time.
    pub now: Instant,
    /// The ledger of all hosts.
    pub ledger: &'a mut Ledger,
    /// Connections that are to be looked at after this turn.
    pub touched: Vec<SocketId>,
}

impl Context<'_> {
    /// Sends a datagram, and writes it down if it was taken.
    ///
    /// # Errors
    /// What the shard says.
    pub fn send_to(
        &mut self,
        shard: &mut Shard,
        socket: SocketId,
        payload: &[u8],
        to: SocketAddr,
    ) -> Result<(), SendError> {
        self.ledger.sent(payload);
        shard.udp_send_to(socket, payload, to)
    }

    /// The same to whom the socket is connected.
    ///
    /// # Errors
    /// What the shard says.
    pub fn send(&mut self, shard: &mut Shard, socket: SocketId, payload: &[u8]) -> Result<(), SendError> {
        self.ledger.sent(payload);
        shard.udp_send(socket, payload)
    }

    /// The next datagram of a socket, which somebody has sent.
    pub fn recv(&mut self, shard: &mut Shard, socket: SocketId) -> Option<(DatagramMeta, Vec<u8>)> {
        let (meta, payload) = shard.udp_recv_with(socket, |meta, payload| (*meta, payload.to_vec()))?;
        self.ledger.received(&payload);
        Some((meta, payload))
    }
}

/// An application: it is called in every turn of its shard, and says when it wants to be called at the latest.
pub type App = Box<dyn FnMut(&mut Shard, &mut Context<'_>) -> Option<Instant>>;

/// A shard of a host, with its application.
pub(super) struct Seat {
    pub(super) core: Core,
    pub(super) app: Option<App>,
    pub(super) scheduled: Option<Instant>,
    pub(super) busy_until: Instant,
    pub(super) turns: u64,
}

/// What came of a turn of one shard.
pub(super) struct HostTurn {
    pub(super) sent: Vec<Frame>,
    /// When it wants the next one.
    pub(super) next: Option<Instant>,
    /// Other shards that have got mail.
    pub(super) posted: Vec<usize>,
}

/// A host.
pub struct Host {
    pub(super) seats: Vec<Seat>,
    pub(super) steering: Steering,
    /// How long a turn takes.
    pub(super) turn_cost: Duration,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("shards", &self.seats.len()).finish_non_exhaustive()
    }
}

impl Host {
    /// A host whose shards are all configured like this.
    pub(super) fn new(config: &ShardConfig, nic: NicConfig, shards: usize, now: Instant) -> Self {
        let steering = Steering { seed: 7, shards };
        let seats = (0..shards)
            .map(|shard| {
                let mut config = config.clone();
                config.steering = steering;
                config.shard = shard;
                config.seed ^= (shard as u64) << 32;
                Seat {
                    core: Core::new(config, nic, now),
                    app: None,
                    scheduled: None,
                    busy_until: Instant::ZERO,
                    turns: 0,
                }
            })
            .collect();
        Self { seats, steering, turn_cost: Duration::ZERO }
    }

    /// A frame comes. Returns whose it is, and when that one is to look.
    pub(super) fn deliver(&mut self, now: Instant, frame: Frame) -> (usize, Instant) {
        let seat = if self.seats.len() == 1 { 0 } else { self.steering.shard_of_frame(&frame.bytes) };
        let nic = &mut self.seats[seat].core.nic;
        nic.push(frame);
        // A card that waits for company does so from the first frame on.
        (seat, nic.interrupts_at(now))
    }

    /// A turn of one shard.
    pub(super) fn turn(
        &mut self,
        seat: usize,
        now: Instant,
        ledger: &mut Ledger,
    ) -> Result<HostTurn, String> {
        let Seat { core, app, busy_until, turns, .. } = &mut self.seats[seat];
        let (mut wanted, mut touched) = (None, Vec::new());
        let turned = core.turn(now, |shard| {
            let mut context = Context { now, ledger, touched: Vec::new() };
            wanted = app.as_mut().and_then(|app| app(shard, &mut context));
            touched.append(&mut context.touched);
        })?;
        // A device that was full says when it has room, below.
        let due = if turned.is_refused { Some(now) } else { turned.next };
        core.check_connections(&touched, now, due)?;
        *turns += 1;
        *busy_until = now + self.turn_cost;
        let mut next = [turned.next, wanted].into_iter().flatten().min();
        if turned.is_refused {
            // The device tells when there is room again: here, soon.
            let room = now + Duration::from_micros(50);
            next = Some(next.map_or(room, |next| next.min(room)));
        }
        let mut posted = Vec::new();
        for (to, mail) in turned.mail {
            if self.seats[to].core.shard.push_command(Command::Mail(mail)).is_ok() {
                posted.push(to);
            }
        }
        Ok(HostTurn { sent: turned.sent, next, posted })
    }
}
