//! Transitions between the states of a neighbour (RFC 4861 section 7.3), for ARP and NDP alike.

use std::net::IpAddr;

use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::entry::State;
use super::outbox::Kind;
use super::table::{Asker, Table};
use crate::observe::DropReason;

impl Table {
    /// Begins to resolve an address: the entry and the first request.
    pub(super) fn begin(&mut self, now: Instant, ip: IpAddr, src: IpAddr) -> Result<u32, DropReason> {
        if self.incomplete >= self.config.incomplete_max {
            return Err(DropReason::NeighborNoRoom);
        }
        let at = self.make(now, ip, Asker::Ourselves)?;
        if let Some(entry) = self.entries.get_mut(at) {
            entry.src = Some(src);
            entry.is_used = true;
        }
        self.solicit(now, at);
        Ok(at)
    }

    /// A timer of an entry.
    pub(super) fn fire(&mut self, now: Instant, at: u32) {
        self.refresh_reachable_time(now);
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.timer = None;
        let (state, until, sent) = (entry.state, entry.until, entry.probes_sent);
        match state {
            State::Incomplete if sent < self.config.multicast_solicit_max => self.solicit(now, at),
            State::Incomplete => self.fail(now, at),
            // It was confirmed since the timer was set.
            State::Reachable | State::Failed if now < until => self.arm(at, Some(until)),
            State::Reachable => self.enter(now, at, State::Stale, None),
            State::Delay => {
                self.enter(now, at, State::Probe, None);
                self.solicit(now, at);
            }
            State::Probe if sent < self.config.unicast_solicit_max => self.solicit(now, at),
            //= rfc4861#7.3.3
            //# If no response is received after waiting RetransTimer
            //# milliseconds after sending the MAX_UNICAST_SOLICIT solicitations,
            //# retransmissions cease and the entry SHOULD be deleted.
            State::Probe | State::Failed => self.discard(at),
            State::Stale | State::Permanent => {}
        }
    }

    /// Asks once more, or as soon as there is room for it.
    fn solicit(&mut self, now: Instant, at: u32) {
        if !self.has_room_for_request() {
            self.arm(at, Some(now));
            return;
        }
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.probes_sent = entry.probes_sent.saturating_add(1);
        let (ip, state, mac) = (entry.ip, entry.state, entry.mac);
        let src = entry.src.or(self.sources[usize::from(ip.is_ipv6())]);
        // In PROBE only the neighbour itself is asked (RFC 4861 section 7.3.3; RFC 1122 section 2.3.2.1
        // has it for ARP as "Unicast Poll").
        let to = (state == State::Probe).then_some(mac);
        self.arm(at, Some(now + self.config.retrans_timer));
        match (ip, src) {
            (IpAddr::V4(target), Some(IpAddr::V4(src))) => self.send_arp_request(to, src, target),
            (IpAddr::V6(target), Some(IpAddr::V6(src))) => self.send_solicitation(to, src, target),
            // We have no address to ask from any more: what is not asked is not answered.
            _ => {}
        }
    }

    /// Nobody answered.
    fn fail(&mut self, now: Instant, at: u32) {
        let until = now + self.config.negative_lifetime;
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.until = until;
        entry.parked_bytes = 0;
        let (ip, parked) = (entry.ip, std::mem::take(&mut entry.parked));
        //= rfc4861#7.2.2
        //# If no Neighbor Advertisement is received after MAX_MULTICAST_SOLICIT
        //# solicitations, address resolution has failed.  The sender MUST return
        //# ICMP destination unreachable indications with code 3 (Address
        //# Unreachable) for each packet queued awaiting address resolution.
        for parked in parked {
            self.outbox.unreachable(ip, parked);
        }
        self.enter(now, at, State::Failed, Some(until));
    }

    //= rfc4861#7.3.3
    //# The first time a node sends a packet to a neighbor whose entry is
    //# STALE, the sender changes the state to DELAY and sets a timer to
    //# expire in DELAY_FIRST_PROBE_TIME seconds.
    pub(super) fn use_stale(&mut self, now: Instant, at: u32) {
        if let Some(entry) = self.entries.get_mut(at) {
            entry.is_used = true;
        }
        self.enter(now, at, State::Delay, Some(now + self.config.delay_first_probe_time));
    }

    pub(super) fn enter_reachable(&mut self, now: Instant, at: u32) {
        self.refresh_reachable_time(now);
        let until = now + self.reachable_time;
        if let Some(entry) = self.entries.get_mut(at) {
            entry.until = until;
        }
        self.enter(now, at, State::Reachable, Some(until));
    }

    /// The hardware address of an entry that had none is known: frames that wait for it go.
    pub(super) fn resolve(&mut self, now: Instant, at: u32, mac: EthernetAddress, is_reachable: bool) {
        self.set_mac(now, at, mac);
        if is_reachable {
            self.enter_reachable(now, at);
        } else {
            self.enter(now, at, State::Stale, None);
        }
        let waits = self.entries.get(at).is_some_and(|entry| !entry.parked.is_empty());
        if waits && !is_reachable {
            self.use_stale(now, at);
        }
        self.release_parked(at);
    }

    /// A neighbour offers its hardware address without having been asked: in the source link-layer address
    /// option of a message (RFC 4861 sections 6.3.4 and 7.2.3), or as the sender of an ARP message. `src` is our
    /// address that it spoke to.
    pub(super) fn update_from_source(
        &mut self,
        now: Instant,
        ip: IpAddr,
        mac: EthernetAddress,
        src: Option<IpAddr>,
    ) -> Result<u32, DropReason> {
        let Some(at) = self.entries.find(ip) else {
            let at = self.make(now, ip, Asker::Stranger)?;
            if let Some(entry) = self.entries.get_mut(at) {
                entry.src = src;
            }
            self.resolve(now, at, mac, false);
            return Ok(at);
        };
        let Some(entry) = self.entries.get_mut(at) else { return Ok(at) };
        match entry.state {
            State::Permanent => {}
            State::Incomplete | State::Failed => self.resolve(now, at, mac, false),
            //= rfc4861#7.2.3
            //# If an entry already exists, and the
            //# cached link-layer address differs from the one in the received Source
            //# Link-Layer option, the cached address should be replaced by the
            //# received address, and the entry's reachability state MUST be set to
            //# STALE.
            _ if entry.mac != mac => {
                self.set_mac(now, at, mac);
                self.enter(now, at, State::Stale, None);
            }
            State::Reachable | State::Stale | State::Delay | State::Probe => {}
        }
        Ok(at)
    }

    pub(super) fn set_mac(&mut self, now: Instant, at: u32, mac: EthernetAddress) {
        if let Some(entry) = self.entries.get_mut(at) {
            entry.mac = mac;
            entry.updated_at = now;
        }
    }

    /// Sends what waits for an entry.
    pub(super) fn release_parked(&mut self, at: u32) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.parked_bytes = 0;
        let mac = entry.mac;
        for parked in std::mem::take(&mut entry.parked) {
            self.outbox.release(mac, parked);
        }
    }

    /// Queues an answer, or counts that it was not.
    pub(super) fn answer(&mut self, output: super::Output) {
        if self.outbox.answers() < self.config.answers_queued_max {
            self.outbox.push(Kind::Answer, output);
        } else {
            self.outbox.count(DropReason::OutboxFull);
        }
    }
}
