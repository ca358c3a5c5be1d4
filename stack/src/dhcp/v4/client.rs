//! The states of a client, and what moves it from one to another.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{DhcpMessageType, EthernetAddress};

use super::message::{Reply, Request, kind};
use super::{Config, Event, Lease, LostReason, Snapshot, State, Transmit};
use crate::observe::reason::DropReason;
use crate::random::Random;

/// The client of one interface. See the [module](super).
#[derive(Debug)]
pub struct Client {
    config: Config,
    mac: EthernetAddress,
    client_id: Vec<u8>,
    random: Random,
    state: State,
    lease: Option<Lease>,
    /// The address to ask for, if there was one.
    known: Option<Ipv4Addr>,
    offer: Option<Offer>,
    xid: u32,
    /// When the client began to ask: for `secs`.
    began: Instant,
    /// `secs` of the last DHCPDISCOVER.
    discover_secs: u16,
    /// When the transaction's request was sent first: the lease counts from here.
    requested_at: Instant,
    /// Messages sent in this state.
    attempts: u32,
    /// Refusals one after the other.
    naks: u32,
    timer: Option<Instant>,
    is_up: bool,
    is_stopped: bool,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

#[derive(Debug, Clone, Copy)]
struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
    secs: u16,
}

impl Client {
    /// A client that begins at `now`: with [`Config::requested`], or from nothing. The first message is made
    /// by [`Client::handle_timeout`].
    pub fn new(config: Config, mac: EthernetAddress, random: Random, now: Instant) -> Self {
        let mut client = Self {
            client_id: config.client_id.to_bytes(mac),
            mac,
            random,
            state: State::Init,
            lease: None,
            known: config.requested.filter(|&address| super::lease::is_host(address)),
            offer: None,
            xid: 0,
            began: now,
            discover_secs: 0,
            requested_at: now,
            attempts: 0,
            naks: 0,
            timer: None,
            is_up: true,
            is_stopped: false,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            config,
        };
        client.begin(now);
        //= rfc2131#4.4.1
        //= type=exception
        //= reason=a host that starts alone would wait for nothing; the configuration can ask for it
        //# The client SHOULD wait a random time between one and ten seconds to
        //# desynchronize the use of DHCP at startup.
        if client.config.has_startup_delay {
            let delay = 1_000_000 + u64::from(client.random.below(9_000_000));
            client.timer = Some(now + Duration::from_micros(delay));
        }
        client
    }

    /// A datagram for port 68 came.
    ///
    /// # Errors
    /// It is no answer to what was asked last: [`DropReason::DhcpIgnored`].
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        src: SocketAddrV4,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        if !self.is_up || self.is_stopped {
            return Err(DropReason::DhcpIgnored);
        }
        let reply = Reply::parse(payload).ok_or(DropReason::DhcpIgnored)?;
        // Relays may send from another address and port than the server: only its identifier counts.
        if reply.xid != self.xid || reply.mac != self.mac {
            return Err(DropReason::DhcpIgnored);
        }
        let server = reply.options.address(kind::SERVER_ID);
        let is_expected = match (self.state, reply.message_type) {
            (State::Selecting, DhcpMessageType::Offer) => self.handle_offer(now, &reply),
            (State::Requesting, DhcpMessageType::Ack | DhcpMessageType::Nak) => {
                server == self.offer.map(|offer| offer.server) && self.handle_final(now, &reply, src)
            }
            (State::Renewing, DhcpMessageType::Ack | DhcpMessageType::Nak) => {
                server == self.lease.as_ref().map(|lease| lease.server) && self.handle_final(now, &reply, src)
            }
            (State::Rebooting | State::Rebinding, DhcpMessageType::Ack | DhcpMessageType::Nak) => {
                self.handle_final(now, &reply, src)
            }
            _ => false,
        };
        if is_expected { Ok(()) } else { Err(DropReason::DhcpIgnored) }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.lease.as_ref().is_some_and(|lease| lease.is_expired(now)) {
            self.lose(LostReason::Expired);
            self.restart(now, Duration::ZERO);
        }
        // A step can lead to a state that begins at once: from the end of one to the first message of another.
        for _ in 0..STEPS_MAX {
            if self.timer.is_none_or(|timer| timer > now) {
                break;
            }
            self.timer = None;
            self.step(now);
        }
    }

    /// The link went down or came back. The address stays; when the link is back, a server is asked whether it
    /// is still right here.
    pub fn link_changed(&mut self, now: Instant, is_up: bool) {
        if is_up == self.is_up {
            return;
        }
        self.is_up = is_up;
        self.timer = None;
        self.transmits.clear();
        //= rfc2131#3.7
        //# A client SHOULD use DHCP to reacquire or verify its IP address and
        //# network parameters whenever the local network parameters may have
        //# changed; e.g., at system boot time or after a disconnection from the
        //# local network, as the local network configuration may change without
        //# the client's or user's knowledge.
        if is_up && !self.is_stopped {
            self.begin(now);
        }
    }

    /// Somebody else has the address of the lease: the server is told, and after ten seconds the client asks
    /// for another one.
    pub fn address_conflict(&mut self, now: Instant) {
        let Some(lease) = &self.lease else { return };
        let (address, server) = (lease.address.address(), lease.server);
        self.xid = self.random.u32();
        self.transmits.clear();
        let decline = Request {
            requested: Some(address),
            server: Some(server),
            is_broadcast: false,
            ..self.request(DhcpMessageType::Decline, 0)
        };
        let payload = decline.to_bytes();
        self.transmit(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, payload);
        self.lose(LostReason::Conflict);
        self.known = None;
        //= rfc2131#3.1
        //# The client SHOULD wait a minimum of ten seconds before restarting the
        //# configuration process to avoid excessive network traffic in case of
        //# looping.
        self.restart(now, DECLINE_DELAY);
    }

    /// Gives the address back, and stops. What [`Client::poll_transmit`] then gives is to be sent before the
    /// address is taken from the interface.
    pub fn release(&mut self) {
        self.timer = None;
        self.is_stopped = true;
        self.transmits.clear();
        let Some(lease) = &self.lease else {
            self.state = State::Init;
            return;
        };
        let (address, server) = (lease.address.address(), lease.server);
        self.xid = self.random.u32();
        let release = Request {
            client_address: address,
            server: Some(server),
            is_broadcast: false,
            ..self.request(DhcpMessageType::Release, 0)
        };
        let payload = release.to_bytes();
        self.transmit(address, server, payload);
        self.lose(LostReason::Released);
        self.state = State::Init;
    }

    /// Begins again after [`Client::release`].
    pub fn start(&mut self, now: Instant) {
        if self.is_stopped {
            self.is_stopped = false;
            self.begin(now);
        }
    }

    /// The next message to be sent.
    pub fn poll_transmit(&mut self, _now: Instant) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What has happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Client::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let expires = self.lease.as_ref().and_then(|lease| lease.expires);
        [self.timer, expires].into_iter().flatten().min()
    }

    /// Where the client is.
    pub fn state(&self) -> State {
        self.state
    }

    /// What the host has now.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// What people want to see.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state,
            lease: self.lease.clone(),
            xid: self.xid,
            attempts: self.attempts,
            next_deadline: self.next_deadline(),
        }
    }

    /// From the beginning: with the known address, or from nothing.
    fn begin(&mut self, now: Instant) {
        let known = self.lease.as_ref().map(|lease| lease.address.address()).or(self.known);
        self.known = known;
        if known.is_some() {
            self.state = State::InitReboot;
            self.offer = None;
            self.timer = self.is_up.then_some(now);
        } else {
            self.restart(now, Duration::ZERO);
        }
    }

    /// INIT, after a while.
    fn restart(&mut self, now: Instant, delay: Duration) {
        self.state = State::Init;
        self.offer = None;
        self.attempts = 0;
        self.timer = (self.is_up && !self.is_stopped).then(|| now + delay);
    }

    /// What the timer was for.
    fn step(&mut self, now: Instant) {
        match self.state {
            State::Init => {
                self.new_transaction(now);
                self.began = now;
                self.enter(State::Selecting);
                self.discover(now);
            }
            State::Selecting => self.discover(now),
            State::InitReboot => {
                self.new_transaction(now);
                self.began = now;
                self.enter(State::Rebooting);
                self.request_address(now);
            }
            State::Requesting | State::Rebooting if self.attempts < REQUESTS_MAX => self.request_address(now),
            State::Requesting => {
                self.push_event(Event::Restarted);
                self.restart(now, Duration::ZERO);
            }
            State::Rebooting => self.give_up_rebooting(now),
            State::Bound => {
                self.began = now;
                self.enter(State::Renewing);
                self.extend(now);
            }
            State::Renewing => {
                if self.lease.as_ref().is_some_and(|lease| lease.t2.is_some_and(|t2| t2 <= now)) {
                    self.enter(State::Rebinding);
                }
                self.extend(now);
            }
            State::Rebinding => self.extend(now),
        }
    }

    /// Nobody has said whether the earlier address is right here.
    fn give_up_rebooting(&mut self, now: Instant) {
        //= rfc2131#3.2
        //# If the client receives neither a DHCPACK or a DHCPNAK message after
        //# employing the retransmission algorithm, the client MAY choose to use
        //# the previously allocated network address and configuration parameters
        //# for the remainder of the unexpired lease.
        match &self.lease {
            Some(lease) => {
                self.timer = lease.t1;
                self.enter(State::Bound);
            }
            None => self.restart(now, Duration::ZERO),
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.attempts = 0;
    }

    fn discover(&mut self, now: Instant) {
        let secs = self.secs(now);
        self.discover_secs = secs;
        let message =
            Request { requested: self.known, ..self.request(DhcpMessageType::Discover, secs) }.to_bytes();
        self.transmit(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, message);
        self.back_off(now);
    }

    /// Asks for the address of an offer, or an earlier one.
    fn request_address(&mut self, now: Instant) {
        let message = match self.offer {
            //= rfc2131#3.1
            //# To help ensure that any BOOTP relay agents forward the DHCPREQUEST
            //# message to the same set of DHCP servers that received the original
            //# DHCPDISCOVER message, the DHCPREQUEST message MUST use the same value
            //# in the DHCP message header's 'secs' field and be sent to the same IP
            //# broadcast address as the original DHCPDISCOVER message.
            Some(offer) => Request {
                requested: Some(offer.address),
                server: Some(offer.server),
                ..self.request(DhcpMessageType::Request, offer.secs)
            },
            //= rfc2131#4.4.2
            //# The client MUST insert its known network address as a 'requested IP
            //# address' option in the DHCPREQUEST message.
            None => {
                let secs = self.secs(now);
                Request { requested: self.known, ..self.request(DhcpMessageType::Request, secs) }
            }
        };
        let payload = message.to_bytes();
        self.transmit(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, payload);
        self.back_off(now);
    }

    /// Asks for more time: the server before T2, anybody after it.
    fn extend(&mut self, now: Instant) {
        let Some(lease) = &self.lease else {
            self.restart(now, Duration::ZERO);
            return;
        };
        let address = lease.address.address();
        let (dst, until) = match self.state {
            State::Renewing => (lease.server, lease.t2),
            _ => (Ipv4Addr::BROADCAST, lease.expires),
        };
        //= rfc2131#4.4.5
        //# In both RENEWING and REBINDING states, if the client receives no
        //# response to its DHCPREQUEST message, the client SHOULD wait one-half
        //# of the remaining time until T2 (in RENEWING state) and one-half of
        //# the remaining lease time (in REBINDING state), down to a minimum of
        //# 60 seconds, before retransmitting the DHCPREQUEST message.
        let until = until.unwrap_or(now).max(now);
        let half = Duration::from_micros((until - now).total_micros() / 2).max(EXTEND_DELAY_MIN);
        self.timer = Some((now + half).min(until));
        // Hours may lie between two messages: an answer must tell to which of them it belongs.
        self.new_transaction(now);
        let secs = self.secs(now);
        let message = Request {
            client_address: address,
            is_broadcast: false,
            ..self.request(DhcpMessageType::Request, secs)
        };
        let payload = message.to_bytes();
        self.transmit(address, dst, payload);
        self.attempts += 1;
        if self.state == State::Rebinding && self.timer == Some(until) {
            // The end of the lease is a deadline by itself.
            self.timer = None;
        }
    }

    /// The first offer that can be used is taken.
    fn handle_offer(&mut self, now: Instant, reply: &Reply) -> bool {
        let usable = Lease::new(reply.your_address, &reply.options, now, &mut self.random);
        let Some(lease) = usable else { return false };
        let secs = self.discover_secs;
        self.offer = Some(Offer { address: reply.your_address, server: lease.server, secs });
        self.requested_at = now;
        self.enter(State::Requesting);
        self.request_address(now);
        true
    }

    /// The answer to a request: yes or no.
    fn handle_final(&mut self, now: Instant, reply: &Reply, src: SocketAddrV4) -> bool {
        if reply.message_type == DhcpMessageType::Nak {
            let server = reply.options.address(kind::SERVER_ID).unwrap_or(*src.ip());
            self.handle_nak(now, server);
            return true;
        }
        let new = Lease::new(reply.your_address, &reply.options, self.requested_at, &mut self.random);
        // An answer that came after the whole lease is over gives nothing.
        let Some(new) = new.filter(|lease| !lease.is_expired(now)) else { return false };
        //= rfc2131#4.4.5
        //# If the client is given a new network address, it MUST NOT continue
        //# using the previous network address
        let is_same = self.lease.as_ref().is_some_and(|lease| lease.address == new.address);
        if !is_same {
            self.lose(LostReason::Replaced);
        }
        self.push_event(if is_same { Event::Renewed(new.clone()) } else { Event::Bound(new.clone()) });
        self.enter(State::Bound);
        self.offer = None;
        self.naks = 0;
        self.known = Some(new.address.address());
        self.timer = new.t1;
        self.lease = Some(new);
        true
    }

    fn handle_nak(&mut self, now: Instant, server: Ipv4Addr) {
        self.push_event(Event::Nak { server });
        self.lose(LostReason::Nak);
        self.known = None;
        // A server that says no again and again must not make the client send without a pause.
        let delay = match self.naks {
            0 => Duration::ZERO,
            naks => self.delay(naks - 1),
        };
        self.naks = self.naks.saturating_add(1);
        self.restart(now, delay);
    }

    /// The address is no longer ours.
    fn lose(&mut self, reason: LostReason) {
        if let Some(lease) = self.lease.take() {
            self.push_event(Event::Lost { address: lease.address.address(), reason });
        }
    }

    fn new_transaction(&mut self, now: Instant) {
        self.xid = self.random.u32();
        self.requested_at = now;
    }

    fn back_off(&mut self, now: Instant) {
        let delay = self.delay(self.attempts);
        self.timer = Some(now + delay);
        self.attempts = self.attempts.saturating_add(1);
    }

    /// How long to wait for an answer to the message of this number.
    fn delay(&mut self, attempt: u32) -> Duration {
        //= rfc2131#4.1
        //# The retransmission delay SHOULD be doubled with subsequent
        //# retransmissions up to a maximum of 64 seconds.
        let seconds = (4_u64 << attempt.min(4)).min(64);
        let jitter = u64::from(self.random.below(2_000_001));
        Duration::from_micros(seconds * 1_000_000 - 1_000_000 + jitter)
    }

    fn secs(&self, now: Instant) -> u16 {
        let elapsed = now.max(self.began) - self.began;
        u16::try_from(elapsed.secs()).unwrap_or(u16::MAX)
    }

    /// A message without what only some have.
    fn request(&self, message_type: DhcpMessageType, secs: u16) -> Request<'_> {
        Request {
            message_type,
            xid: self.xid,
            secs,
            is_broadcast: self.config.is_broadcast,
            client_address: Ipv4Addr::UNSPECIFIED,
            mac: self.mac,
            client_id: &self.client_id,
            hostname: self.config.hostname.as_deref(),
            requested: None,
            server: None,
            message_bytes_max: self.config.message_bytes_max.max(MESSAGE_BYTES_MIN),
        }
    }

    fn transmit(&mut self, src: Ipv4Addr, dst: Ipv4Addr, payload: Vec<u8>) {
        // What was not sent until now is of no use any more, except for the last word about a lease.
        if self.transmits.len() >= TRANSMITS_MAX {
            self.transmits.pop_front();
        }
        self.transmits.push_back(Transmit { src, dst, payload });
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

const DECLINE_DELAY: Duration = Duration::from_secs(10);
const EXTEND_DELAY_MIN: Duration = Duration::from_secs(60);
/// REQUEST messages for one offer: 60 seconds together (RFC 2131 section 3.1).
const REQUESTS_MAX: u32 = 4;
/// The shortest longest message (RFC 2132 section 9.10).
const MESSAGE_BYTES_MIN: u16 = 576;
/// States that begin at once, one after the other.
const STEPS_MAX: usize = 4;
/// Messages that wait to be sent.
const TRANSMITS_MAX: usize = 4;
/// Events that nobody has asked for yet; the oldest goes.
const EVENTS_MAX: usize = 16;
