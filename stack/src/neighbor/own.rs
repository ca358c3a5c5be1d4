//! Our own addresses: whether somebody else has them (RFC 5227 for IPv4, RFC 4862 section 5.4 for IPv6).

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use super::arp;
use super::config::{AddressDefence, AddressProbes};
use super::outbox::{Kind, Output};
use super::table::{Due, Table, set_timer};
use crate::ip::address::ADDRESSES_MAX;
use crate::timer::wheel::TimerId;

/// An address of ours that something is done for.
#[derive(Debug)]
pub(super) struct Own {
    ip: IpAddr,
    phase: Phase,
    timer: Option<TimerId>,
    defended_at: Option<Instant>,
    nonce: [u8; 6],
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It is not ours yet. So many probes are still to be sent.
    Probing(u8),
    /// It is ours, and said to be so many times more.
    Announcing(u8),
    /// It is ours.
    InUse,
    /// Somebody else has it, and the stack was told.
    Lost,
}

impl Table {
    /// Finds out whether an address can be ours: in time there is an [`Output::AddressReady`] or an
    /// [`Output::AddressConflict`]. The caller keeps it tentative until then. An IPv4 address is announced as
    /// well. Asked again, it begins again. `false`: too many addresses ([`ADDRESSES_MAX`]).
    pub fn probe(&mut self, now: Instant, ip: IpAddr) -> bool {
        let (wait, probes) = self.plan(ip);
        let mut nonce = [0; 6];
        self.random.fill(&mut nonce);
        let phase = if probes == 0 { Phase::InUse } else { Phase::Probing(probes) };
        if !self.own_in_phase(ip, phase, nonce) {
            return false;
        }
        if phase == Phase::InUse {
            self.note_source(ip);
            self.outbox.push(Kind::Event, Output::AddressReady(ip));
            self.arm_own(ip, None);
        } else {
            self.arm_own(ip, Some(now + wait));
        }
        true
    }

    /// Tells all neighbours that an address is ours: by ARP announcements, or by unsolicited neighbour
    /// advertisements. `false`: too many addresses, or it is being probed or lost.
    pub fn announce(&mut self, now: Instant, ip: IpAddr) -> bool {
        let known = self.own.iter().find(|own| own.ip == ip);
        if known.is_some_and(|own| matches!(own.phase, Phase::Probing(_) | Phase::Lost)) {
            return false;
        }
        let times = if ip.is_ipv4() { ANNOUNCE_NUM } else { MAX_NEIGHBOR_ADVERTISEMENT };
        let nonce = known.map_or([0; 6], |own| own.nonce);
        let has_room = self.own_in_phase(ip, Phase::Announcing(times), nonce);
        if has_room {
            self.fire_own(now, ip);
        }
        has_room
    }

    /// An address is not ours any more: nothing is sent from it.
    pub fn forget_address(&mut self, ip: IpAddr) {
        self.arm_own(ip, None);
        self.own.retain(|own| own.ip != ip);
        self.forget_source(ip);
    }

    /// Nobody is asked from an address any more.
    fn forget_source(&mut self, ip: IpAddr) {
        let source = &mut self.sources[usize::from(ip.is_ipv6())];
        *source = source.filter(|source| *source != ip);
        let asked_from_it = self.entries.iter().filter(|(_, entry)| entry.src == Some(ip));
        let asked_from_it: Vec<_> = asked_from_it.map(|(at, _)| at).collect();
        for at in asked_from_it {
            if let Some(entry) = self.entries.get_mut(at) {
                entry.src = None;
            }
        }
    }

    /// Whether an address is being probed.
    pub(super) fn is_probed(&self, ip: IpAddr) -> bool {
        self.own.iter().any(|own| own.ip == ip && matches!(own.phase, Phase::Probing(_)))
    }

    /// Whether a probe for an address is one of ours.
    pub(super) fn is_own_nonce(&self, ip: IpAddr, nonce: [u8; 6]) -> bool {
        nonce != [0; 6] && self.own.iter().any(|own| own.ip == ip && own.nonce == nonce)
    }

    /// Somebody has an address that we are probing.
    pub(super) fn lose_probe(&mut self, ip: IpAddr, mac: EthernetAddress) {
        if ip.is_ipv4() {
            self.conflicts = self.conflicts.saturating_add(1);
        }
        self.lose(ip, mac);
    }

    /// Somebody uses an IPv4 address that is ours.
    pub(super) fn defend(&mut self, now: Instant, ip: IpAddr, mac: EthernetAddress) {
        if !self.own.iter().any(|own| own.ip == ip) && !self.own_in_phase(ip, Phase::InUse, [0; 6]) {
            return;
        }
        let defence = self.config.defence;
        let Some(own) = self.own.iter_mut().find(|own| own.ip == ip) else { return };
        if own.phase == Phase::Lost {
            return;
        }
        let is_recent = own.defended_at.is_some_and(|at| now < at + DEFEND_INTERVAL);
        match (defence, is_recent) {
            //= rfc5227#2.4
            //# if this is not
            //# the first conflicting ARP packet the host has seen, and the time
            //# recorded for the previous conflicting ARP packet is recent, within
            //# DEFEND_INTERVAL seconds, then the host MUST immediately cease using
            //# this address and signal an error to the configuring agent
            (AddressDefence::GiveUp, _) | (AddressDefence::Once, true) => self.lose(ip, mac),
            (AddressDefence::Always, true) => {}
            (AddressDefence::Once | AddressDefence::Always, false) => {
                own.defended_at = Some(now);
                let left = if let Phase::Announcing(left) = own.phase { left } else { 1 };
                own.phase = Phase::Announcing(left);
                self.fire_own(now, ip);
            }
        }
    }

    /// The timer of an address of ours.
    pub(super) fn expire_own(&mut self, now: Instant, ip: IpAddr) {
        if let Some(own) = self.own.iter_mut().find(|own| own.ip == ip) {
            own.timer = None;
        }
        self.fire_own(now, ip);
    }

    /// What is due for an address of ours, now.
    fn fire_own(&mut self, now: Instant, ip: IpAddr) {
        let has_room = self.has_room_for_request();
        let interval = self.interval(ip);
        let Some(own) = self.own.iter_mut().find(|own| own.ip == ip) else { return };
        let (phase, nonce) = (own.phase, own.nonce);
        if !has_room && phase != Phase::Probing(0) {
            self.arm_own(ip, Some(now));
            return;
        }
        let (next, wait) = match phase {
            Phase::Probing(0) => return self.win(now, ip),
            Phase::Probing(left) => {
                let wait = if left == 1 { self.last_wait(ip) } else { interval };
                (Phase::Probing(left - 1), Some(wait))
            }
            Phase::Announcing(left) if left > 1 => {
                let wait = if ip.is_ipv4() { ANNOUNCE_INTERVAL } else { self.config.retrans_timer };
                (Phase::Announcing(left - 1), Some(wait))
            }
            Phase::Announcing(_) | Phase::InUse => (Phase::InUse, None),
            Phase::Lost => (Phase::Lost, None),
        };
        match (phase, ip) {
            (Phase::Probing(_), IpAddr::V4(ip)) => self.send_arp(Ipv4Addr::UNSPECIFIED, ip),
            (Phase::Probing(_), IpAddr::V6(ip)) => self.send_dad_solicitation(ip, nonce),
            (Phase::Announcing(_), IpAddr::V4(ip)) => self.send_arp(ip, ip),
            (Phase::Announcing(_), IpAddr::V6(ip)) => self.send_announcement(ip),
            (Phase::InUse | Phase::Lost, _) => {}
        }
        if let Some(own) = self.own.iter_mut().find(|own| own.ip == ip) {
            own.phase = next;
        }
        self.arm_own(ip, wait.map(|wait| now + wait));
    }

    /// Nobody else has the address.
    fn win(&mut self, now: Instant, ip: IpAddr) {
        let Some(own) = self.own.iter_mut().find(|own| own.ip == ip) else { return };
        own.phase = if ip.is_ipv4() { Phase::Announcing(ANNOUNCE_NUM) } else { Phase::InUse };
        self.conflicts = 0;
        self.note_source(ip);
        self.outbox.push(Kind::Event, Output::AddressReady(ip));
        // The timer is over; an announcement for which there is no room sets it again.
        self.arm_own(ip, None);
        if ip.is_ipv4() {
            self.fire_own(now, ip);
        }
    }

    fn lose(&mut self, ip: IpAddr, mac: EthernetAddress) {
        let Some(own) = self.own.iter_mut().find(|own| own.ip == ip) else { return };
        own.phase = Phase::Lost;
        self.arm_own(ip, None);
        self.forget_source(ip);
        self.outbox.push(Kind::Event, Output::AddressConflict { address: ip, mac });
    }

    /// How long to wait before the first probe, and how many there are.
    fn plan(&mut self, ip: IpAddr) -> (Duration, u8) {
        let probes = if ip.is_ipv4() { PROBE_NUM } else { self.config.dup_addr_detect_transmits };
        match self.config.probes {
            AddressProbes::None => (Duration::ZERO, 0),
            AddressProbes::Quick => (Duration::ZERO, probes.min(1)),
            // RFC 5227 section 2.1.1: after ten conflicts, one new address a minute.
            AddressProbes::Full if ip.is_ipv4() && self.conflicts >= MAX_CONFLICTS => {
                (RATE_LIMIT_INTERVAL, probes)
            }
            // PROBE_WAIT of RFC 5227 and MAX_RTR_SOLICITATION_DELAY of RFC 4861 are the same second.
            AddressProbes::Full => (Duration::from_micros(self.random.below(1_000_001).into()), probes),
        }
    }

    /// From one probe to the next one.
    fn interval(&mut self, ip: IpAddr) -> Duration {
        if ip.is_ipv4() {
            // PROBE_MIN and PROBE_MAX are 1 and 2 seconds.
            Duration::from_micros(1_000_000 + u64::from(self.random.below(1_000_001)))
        } else {
            self.config.retrans_timer
        }
    }

    /// From the last probe to the use of the address.
    fn last_wait(&self, ip: IpAddr) -> Duration {
        match (self.config.probes, ip) {
            (AddressProbes::Full, IpAddr::V4(_)) => ANNOUNCE_WAIT,
            (AddressProbes::Full, IpAddr::V6(_)) => self.config.retrans_timer,
            (AddressProbes::Quick | AddressProbes::None, _) => QUICK_WAIT,
        }
    }

    /// An ARP probe or announcement.
    fn send_arp(&mut self, src: Ipv4Addr, target: Ipv4Addr) {
        let message = arp::build(arp::REQUEST, self.mac, src, EthernetAddress([0; 6]), target);
        self.outbox.push(Kind::Request, Output::Arp { dst: EthernetAddress::BROADCAST, message });
    }

    /// Sets the phase of an address that may be new. `false`: there is no room.
    fn own_in_phase(&mut self, ip: IpAddr, phase: Phase, nonce: [u8; 6]) -> bool {
        if let Some(own) = self.own.iter_mut().find(|own| own.ip == ip) {
            (own.phase, own.nonce) = (phase, nonce);
            return true;
        }
        if self.own.len() >= ADDRESSES_MAX {
            // Of one that is lost there is nothing more to be done.
            let Some(lost) = self.own.iter().position(|own| own.phase == Phase::Lost) else { return false };
            self.own.swap_remove(lost);
        }
        self.own.push(Own { ip, phase, timer: None, defended_at: None, nonce });
        true
    }

    fn arm_own(&mut self, ip: IpAddr, deadline: Option<Instant>) {
        if let Some(own) = self.own.iter_mut().find(|own| own.ip == ip) {
            set_timer(&mut self.wheel, &mut own.timer, Due::Own(ip), deadline);
        }
    }
}

// RFC 5227 section 1.1.
const PROBE_NUM: u8 = 3;
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
const ANNOUNCE_NUM: u8 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
const MAX_CONFLICTS: u32 = 10;
const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// RFC 4861 section 10.
const MAX_NEIGHBOR_ADVERTISEMENT: u8 = 3;
/// Of our own: how long a quick probe waits, some thousand times the round trip of a link.
const QUICK_WAIT: Duration = Duration::from_millis(200);
