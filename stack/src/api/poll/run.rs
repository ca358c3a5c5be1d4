//! The loop on the caller's thread, and its waker.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use smoltcp::time::{Duration, Instant};
use wirestack_nic::{Nic, Wake, wait};

use super::event::{Event, Events, Source, Token};
use super::registry::{Registry, Sockets};
use crate::driver::{Pace, Parker, Patience};
use crate::error::ConfigError;
use crate::shard::carrier::Carrier;
use crate::shard::{Shard, ShardConfig};

/// A shard, its device and the sockets on it, on one thread. Dropping it ends all without a word to the peers;
/// [`shutdown`](Self::shutdown) does it in good order.
pub struct Poll<N> {
    shard: Shard,
    nic: N,
    registry: Registry,
    pace: Pace,
    bell: Arc<Parker>,
    /// Of the event that ringing makes.
    bell_token: Token,
    /// A budget of the last turn was spent: the next one comes at once.
    is_behind: bool,
    carrier: Carrier,
}

/// Ends the sleep of a [`Poll`] from any thread, and makes an event there; clones ring for the same one.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Parker>);

impl Waker {
    /// Makes an event. Several calls before it was told are one; none is lost.
    pub fn wake(&self) {
        self.0.call();
    }
}

impl<N: Nic> Poll<N> {
    /// A shard of this configuration on a device.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its bounds.
    pub fn new(nic: N, config: ShardConfig) -> Result<Self, ConfigError> {
        let now = wait::now();
        Ok(Self {
            shard: Shard::new(config, now)?,
            bell: Arc::new(Parker::new(nic.waker())),
            bell_token: Token(0),
            nic,
            registry: Registry::new(now),
            pace: Pace::new(Patience::default()),
            is_behind: false,
            carrier: Carrier::new(now),
        })
    }

    /// What it does while there is nothing to do.
    pub fn set_patience(&mut self, patience: Patience) {
        self.pace = Pace::new(patience);
    }

    /// The sockets.
    pub fn sockets(&mut self) -> Sockets<'_> {
        // The time of the last turn may be long ago.
        self.shard.set_now(wait::now());
        self.registry.sockets(&mut self.shard)
    }

    /// The device, for its counters.
    pub fn nic(&mut self) -> &mut N {
        &mut self.nic
    }

    /// A waker for other threads; its events have this token. There is one token: the last one that was given here.
    pub fn waker(&mut self, token: Token) -> Waker {
        self.bell_token = token;
        Waker(Arc::clone(&self.bell))
    }

    /// Waits for events, no longer than `timeout` (`None`: as long as it takes), and collects them in place of those that are in
    /// `events`. What the caller has sent leaves first. It may return without events before that, when a signal was handled.
    ///
    /// # Errors
    /// [`NetworkDown`](io::ErrorKind::NetworkDown): the interface was removed. All sockets say so, too.
    pub fn poll(&mut self, events: &mut Events, timeout: Option<StdDuration>) -> io::Result<()> {
        events.list.clear();
        self.begin()?;
        let give_up = timeout.map(|timeout| self.shard.now() + micros(timeout));
        loop {
            let due = self.send();
            let until = sooner(due, give_up);
            let is_woken = self.rest(until)?;
            self.is_behind = self.receive();
            self.collect(events);
            if !events.is_empty() || is_woken || give_up.is_some_and(|at| at <= self.shard.now()) {
                return Ok(());
            }
        }
    }

    /// Calls `handler` for each event, in the turn in which it comes up, until it says [`Sockets::stop`]. What it has sent leaves in the
    /// same turn.
    ///
    /// A handler that panics ends there, which is logged, and its connection is closed: what the closure itself has
    /// borrowed is to be fit for that.
    ///
    /// # Errors
    /// [`NetworkDown`](io::ErrorKind::NetworkDown): the interface was removed. All sockets say so, too.
    pub fn run(&mut self, mut handler: impl FnMut(&mut Sockets<'_>, Event)) -> io::Result<()> {
        self.begin()?;
        let mut due = self.send();
        loop {
            self.rest(due)?;
            let more = self.receive();
            if let Some(event) = self.take_ring() {
                self.registry.call(&mut self.shard, event, &mut handler);
            }
            let has_left = self.registry.serve_all(&mut self.shard, &mut handler);
            self.registry.forget_strangers();
            self.is_behind = more || has_left;
            due = self.send();
            if self.registry.take_stop() {
                return Ok(());
            }
        }
    }

    /// Turns, without telling of events, until each of these addresses can be used or `timeout` is over: some are probed before
    /// that, and others have to come from a server.
    ///
    /// # Errors
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable): the first one that cannot.
    /// [`NetworkDown`](io::ErrorKind::NetworkDown): the interface was removed.
    pub fn wait_for_addresses(&mut self, wanted: &[IpAddr], timeout: StdDuration) -> io::Result<()> {
        self.check()?;
        let give_up = wait::now() + micros(timeout);
        loop {
            self.is_behind |= self.receive();
            let due = self.send();
            let usable = |ip: &IpAddr| {
                self.shard
                    .addresses()
                    .any(|known| known.is_usable() && IpAddr::from(known.cidr.address()) == *ip)
            };
            let Some(missing) = wanted.iter().find(|ip| !usable(ip)) else { return Ok(()) };
            if self.shard.now() >= give_up {
                let problem = format!("{missing} cannot be used: it is none of ours, or another host has it");
                return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, problem));
            }
            self.rest(sooner(due, Some(give_up)))?;
            self.is_behind = false;
        }
    }

    /// Ends in good order: nobody is accepted any more, what was written is still sent, and connections are finished. Those that
    /// have not ended after this time are reset.
    pub fn shutdown(mut self, time: StdDuration) {
        let give_up = wait::now() + micros(time);
        self.shard.set_now(wait::now());
        let mut left = self.shard.tcp_finish_all();
        loop {
            let due = self.send();
            while left.last().is_some_and(|&index| self.shard.is_connection_quiet(index)) {
                left.pop();
            }
            let is_over = left.is_empty() && self.shard.is_quiet() || wait::now() >= give_up;
            if is_over || self.registry.fault.is_some() || self.rest(sooner(due, Some(give_up))).is_err() {
                break;
            }
            self.is_behind = self.receive();
            // Nobody is told any more.
            while self.shard.next_event().is_some() {}
        }
        self.shard.tcp_abort_all();
        self.send();
    }

    fn check(&self) -> io::Result<()> {
        self.registry.fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    /// The caller was away for a while.
    fn begin(&mut self) -> io::Result<()> {
        self.check()?;
        self.shard.set_now(wait::now());
        // Events that a call before this one has left do not make it sleep.
        self.is_behind |= self.shard.sockets.ready_len() > 0;
        Ok(())
    }

    /// Frames and timers. True: there is more than a turn takes.
    fn receive(&mut self) -> bool {
        let before = self.shard.counters.rx_frames;
        let more = self.shard.receive(wait::now(), &mut self.nic);
        if self.shard.counters.rx_frames != before {
            self.pace.busy(self.shard.now());
        }
        self.registry.tell_room(&mut self.shard);
        more
    }

    /// What is to be sent. When to come again if nothing comes.
    fn send(&mut self) -> Option<Instant> {
        let due = self.shard.send(&mut self.nic);
        self.registry.tell_room(&mut self.shard);
        // Of those who are told of room, the shard did not know yet.
        let due = if self.shard.sockets.has_news() { Some(self.shard.now()) } else { due };
        sooner(due, self.registry.next_deadline())
    }

    fn collect(&mut self, events: &mut Events) {
        let ring = self.take_ring();
        events.list.extend(ring);
        while events.list.len() < events.len_max {
            let Some(event) = self.registry.next(&mut self.shard) else { break };
            events.list.push(event);
        }
        self.registry.forget_strangers();
        self.is_behind |= events.list.len() == events.len_max;
    }

    fn take_ring(&mut self) -> Option<Event> {
        self.bell.take_call().then(|| Event::new(self.bell_token, Source::Waker))
    }

    /// Sleeps or spins until something may be there. True: a signal, or a waker of the device itself, has ended it.
    fn rest(&mut self, due: Option<Instant>) -> io::Result<bool> {
        let now = self.shard.now();
        let is_due = self.is_behind || due.is_some_and(|due| due <= now);
        let look_at = self.carrier.look_at();
        // Who never sleeps asks for the link all the same.
        if now < look_at && (is_due || self.pace.spins(now, due)) {
            return Ok(false);
        }
        let until = sooner(if is_due { Some(now) } else { due }, Some(look_at));
        self.bell.prepare();
        let nic = &mut self.nic;
        // Somebody may have rung meanwhile.
        let waited = self.bell.park(|| nic.wait(until)).unwrap_or(Ok(Wake::Ready));
        match self.carrier.look(waited.map(drop), wait::now(), &mut self.nic) {
            Err(_) => return Err(self.fail()),
            Ok(Some(is_up)) => self.carrier.tell(is_up, &mut self.shard),
            Ok(None) => {}
        }
        Ok(waited == Ok(Wake::Woken))
    }

    /// Nothing works any more.
    fn fail(&mut self) -> io::Error {
        self.registry.fault = Some(io::ErrorKind::NetworkDown);
        io::ErrorKind::NetworkDown.into()
    }
}

impl<N> fmt::Debug for Poll<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poll").field("registry", &self.registry).finish_non_exhaustive()
    }
}

fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn micros(time: StdDuration) -> Duration {
    // As good as for ever, and no sum with a time of the clock overflows.
    Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(1 << 60))
}
