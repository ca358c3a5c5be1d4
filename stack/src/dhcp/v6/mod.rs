//! A client of stateless DHCPv6: settings, no addresses (RFC 8415 section 6.1).
//!
//! An INFORMATION-REQUEST goes to all servers of the link, after a short random delay, and again until
//! somebody answers. The answer is asked for anew when it is too old, or when the link was down.

mod message;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{Ipv6Addr, SocketAddrV6};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use crate::observe::reason::DropReason;
use crate::random::Random;
use message::Reply;

/// Where the client listens, and where its messages come from.
pub const CLIENT_PORT: u16 = 546;
/// Where its messages go.
pub const SERVER_PORT: u16 = 547;
/// All_DHCP_Relay_Agents_and_Servers: where its messages go, from a link-local address.
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// What a client is told by its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The identifier of the host, 130 bytes at most; `None`: made from the hardware address.
    pub duid: Option<Vec<u8>>,
    /// Settings are asked for anew after this time at the latest. A day by default; 10 minutes at least.
    pub refresh_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { duid: None, refresh_max: Duration::from_secs(24 * 3600) }
    }
}

/// Where the client is. The RFC has no names for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The first message waits for its random delay, or for the link.
    Delayed,
    /// A message is out.
    Requesting,
    /// A server has answered.
    Configured,
}

/// A message to be sent, from port 546 to port 547.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// [`ALL_SERVERS`].
    pub dst: Ipv6Addr,
    /// The message.
    pub payload: Vec<u8>,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A server has answered: what it says replaces what was said before.
    Configured {
        /// Name servers, best first; 32 at most.
        dns: Vec<Ipv6Addr>,
        /// Domains to search; 32 at most.
        search: Vec<String>,
        /// How long this is good.
        refresh: Duration,
    },
}

/// What people want to see of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Where the client is.
    pub state: State,
    /// Of the last message: 24 bits.
    pub transaction_id: u32,
    /// Messages sent without an answer.
    pub attempts: u32,
    /// The longest time between two messages.
    pub inf_max_rt: Duration,
    /// When something is to be done.
    pub next_deadline: Option<Instant>,
}

/// The client of one interface. See the [module](self).
#[derive(Debug)]
pub struct Client {
    duid: Vec<u8>,
    refresh_max: Duration,
    random: Random,
    state: State,
    transaction_id: u32,
    /// When the first message of the transaction was sent.
    began: Instant,
    attempts: u32,
    /// RT of section 15: the time between the last two messages.
    rt: Duration,
    inf_max_rt: Duration,
    timer: Option<Instant>,
    is_up: bool,
    transmit: Option<Transmit>,
    events: VecDeque<Event>,
}

impl Client {
    /// A client that begins at `now`. The first message is made by [`Client::handle_timeout`], within a second.
    pub fn new(config: Config, mac: EthernetAddress, random: Random, now: Instant) -> Self {
        let mut duid = config.duid.unwrap_or_else(|| super::duid_ll(mac).to_vec());
        duid.truncate(DUID_BYTES_MAX);
        let mut client = Self {
            duid,
            refresh_max: config.refresh_max.max(IRT_MINIMUM),
            random,
            state: State::Delayed,
            transaction_id: 0,
            began: now,
            attempts: 0,
            rt: Duration::ZERO,
            inf_max_rt: INF_MAX_RT,
            timer: None,
            is_up: true,
            transmit: None,
            events: VecDeque::new(),
        };
        client.restart(now);
        client
    }

    /// Asks anew, for instance because a router says that there is something to be known.
    pub fn restart(&mut self, now: Instant) {
        self.state = State::Delayed;
        self.attempts = 0;
        self.transmit = None;
        let delay = u64::from(self.random.below(INF_MAX_DELAY_MICROS + 1));
        //= rfc8415#18.2.6
        //# The first Information-request message from the client on the
        //# interface MUST be delayed by a random amount of time between 0 and
        //# INF_MAX_DELAY.
        self.timer = self.is_up.then(|| now + Duration::from_micros(delay));
    }

    /// A datagram for port 546 came.
    ///
    /// # Errors
    /// It is no answer to what was asked last: [`DropReason::DhcpIgnored`].
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        _src: SocketAddrV6,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        if self.state != State::Requesting || !self.is_up {
            return Err(DropReason::DhcpIgnored);
        }
        let reply = Reply::parse(payload).ok_or(DropReason::DhcpIgnored)?;
        //= rfc8415#16.10
        //# If the client included a Client Identifier option (see Section 21.2)
        //# in the original message, the Reply message MUST include a Client
        //# Identifier option, and the contents of the Client Identifier option
        //# MUST match the DUID of the client.
        if reply.transaction_id != self.transaction_id || reply.client_id != Some(&self.duid) {
            return Err(DropReason::DhcpIgnored);
        }
        if let Some(seconds) = reply.inf_max_rt {
            self.inf_max_rt = Duration::from_secs(seconds.into());
        }
        if !reply.is_success {
            // The server cannot say anything now: others may, or the same one later.
            return Ok(());
        }
        let refresh = match reply.refresh {
            None => IRT_DEFAULT,
            Some(seconds) => Duration::from_secs(seconds.into()).max(IRT_MINIMUM),
        };
        let refresh = refresh.min(self.refresh_max);
        self.state = State::Configured;
        self.attempts = 0;
        self.transmit = None;
        self.timer = Some(now + refresh);
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event::Configured { dns: reply.dns, search: reply.search, refresh });
        Ok(())
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timer.is_none_or(|timer| timer > now) {
            return;
        }
        match self.state {
            // Old settings are good until there are new ones.
            State::Configured => self.restart(now),
            State::Delayed => {
                // 24 bits.
                self.transaction_id = self.random.u32() >> 8;
                self.state = State::Requesting;
                self.began = now;
                self.send(now);
            }
            State::Requesting => self.send(now),
        }
    }

    /// The link went down or came back: then the settings are asked for anew.
    pub fn link_changed(&mut self, now: Instant, is_up: bool) {
        if is_up != self.is_up {
            self.is_up = is_up;
            self.restart(now);
        }
    }

    /// The next message to be sent.
    pub fn poll_transmit(&mut self, _now: Instant) -> Option<Transmit> {
        self.transmit.take()
    }

    /// What has happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Client::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timer
    }

    /// Where the client is.
    pub fn state(&self) -> State {
        self.state
    }

    /// What people want to see.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state,
            transaction_id: self.transaction_id,
            attempts: self.attempts,
            inf_max_rt: self.inf_max_rt,
            next_deadline: self.timer,
        }
    }

    fn send(&mut self, now: Instant) {
        let elapsed = now.max(self.began) - self.began;
        // In hundredths of a second, as long as they fit.
        let hundredths = u16::try_from(elapsed.total_millis() / 10).unwrap_or(u16::MAX);
        let payload = message::information_request(self.transaction_id, &self.duid, hundredths);
        self.transmit = Some(Transmit { dst: ALL_SERVERS, payload });
        self.rt = self.next_rt();
        self.attempts = self.attempts.saturating_add(1);
        self.timer = Some(now + self.rt);
    }

    /// RT for the next message (section 15): IRT, then twice the last, up to MRT; each up to a tenth longer
    /// or shorter.
    fn next_rt(&mut self) -> Duration {
        let mrt = self.inf_max_rt.total_micros();
        let rt = match self.attempts {
            //= rfc8415#15
            //# RT = IRT + RAND*IRT
            0 => INF_TIMEOUT.total_micros() + self.rand(INF_TIMEOUT),
            //= rfc8415#15
            //# RT = 2*RTprev + RAND*RTprev
            _ => 2 * self.rt.total_micros() + self.rand(self.rt),
        };
        // What `rand` adds is too much by a tenth.
        let base = if self.attempts == 0 { INF_TIMEOUT } else { self.rt };
        let rt = rt - base.total_micros() / 10;
        //= rfc8415#15
        //# RT = MRT + RAND*MRT
        let rt = if rt > mrt { mrt - mrt / 10 + self.rand(self.inf_max_rt) } else { rt };
        Duration::from_micros(rt)
    }

    /// A random part of a fifth of `base`, in microseconds.
    fn rand(&mut self, base: Duration) -> u64 {
        // Drawn in milliseconds: a fifth of a day in microseconds has more than 32 bits.
        let fifth = base.total_millis() / 5;
        u64::from(self.random.below(u32::try_from(fifth + 1).unwrap_or(u32::MAX))) * 1000
    }
}

/// Constants of RFC 8415 section 7.6.
const INF_MAX_DELAY_MICROS: u32 = 1_000_000;
const INF_TIMEOUT: Duration = Duration::from_secs(1);
const INF_MAX_RT: Duration = Duration::from_secs(3600);
const IRT_DEFAULT: Duration = Duration::from_secs(86_400);
const IRT_MINIMUM: Duration = Duration::from_secs(600);
/// RFC 8415 section 11.1: a type and 128 octets.
const DUID_BYTES_MAX: usize = 130;
/// Events that nobody has asked for yet; the oldest goes.
const EVENTS_MAX: usize = 4;
