//! Neighbour solicitations and advertisements: RFC 4861 sections 4.3, 4.4 and 7, RFC 4862 section 5.4.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Icmpv6Packet};

use super::entry::State;
use super::outbox::{Kind, NDP_MESSAGE_LEN, Output};
use super::table::{Table, is_station, is_unicast};
use crate::igmp_mld::group_mac;
use crate::ingress::{IpPacket, Link};
use crate::ip::address::{Addresses, solicited_node};
use crate::observe::DropReason;

impl Table {
    /// A neighbour solicitation, neighbour advertisement or redirect came. `message` is the ICMPv6 message
    /// without padding, its checksum found right; `ip` the header of its packet.
    ///
    /// # Errors
    /// Why nothing was done with it.
    pub fn handle_ndp(
        &mut self,
        now: Instant,
        link: Option<&Link>,
        ip: &IpPacket,
        message: &[u8],
        addresses: &Addresses,
    ) -> Result<(), DropReason> {
        match message.first() {
            Some(&(SOLICITATION | ADVERTISEMENT)) => {}
            //= rfc4861#8.3
            //= type=exception
            //= reason=only the routes of the configuration lead our packets, unless it wants redirects followed
            //# A host receiving a valid redirect SHOULD update its Destination Cache
            //# accordingly so that subsequent traffic goes to the specified target.
            Some(&REDIRECT) => return Err(DropReason::RedirectIgnored),
            _ => return Err(DropReason::IcmpIgnored),
        }
        let ndp = Ndp::parse(ip, message).ok_or(DropReason::NdpMalformed)?;
        let speaks_as_us =
            [ndp.source_mac, ndp.target_mac, link.map(|link| link.src)].contains(&Some(self.mac));
        if speaks_as_us || addresses.is_local(IpAddr::V6(ndp.src)) {
            return Err(DropReason::IpFromOurselves);
        }
        match ndp.kind {
            SOLICITATION => self.handle_solicitation(now, link, &ndp, addresses),
            _ => self.handle_advertisement(now, link, &ndp, addresses),
        }
    }

    /// Asks who has `target`: the group of those who could, or the one who had it.
    pub(super) fn send_solicitation(&mut self, to: Option<EthernetAddress>, src: Ipv6Addr, target: Ipv6Addr) {
        let (dst, dst_mac) = match to {
            Some(mac) => (target, mac),
            None => (solicited_node(target), group_mac(solicited_node(target).into())),
        };
        let option = option(SOURCE_LINK_LAYER, self.mac.0);
        let message = build(SOLICITATION, 0, src, dst, target, option);
        let output = Output::Ndp { dst_mac, src: src.into(), dst: dst.into(), message };
        self.outbox.push(Kind::Request, output);
    }

    /// A probe of duplicate address detection, with a nonce by which we know it if it comes back.
    pub(super) fn send_dad_solicitation(&mut self, target: Ipv6Addr, nonce: [u8; 6]) {
        let dst = solicited_node(target);
        //= rfc4862#5.4.2
        //# the IP source is set to the unspecified
        //# address, and the IP destination is set to the solicited-node
        //# multicast address of the target address.
        let src = Ipv6Addr::UNSPECIFIED;
        let message = build(SOLICITATION, 0, src, dst, target, option(NONCE, nonce));
        let output =
            Output::Ndp { dst_mac: group_mac(dst.into()), src: src.into(), dst: dst.into(), message };
        self.outbox.push(Kind::Request, output);
    }

    /// An unsolicited advertisement to all nodes (RFC 4861 section 7.2.6).
    pub(super) fn send_announcement(&mut self, target: Ipv6Addr) {
        let output = self.advertisement(None, target);
        self.outbox.push(Kind::Request, output);
    }

    fn handle_solicitation(
        &mut self,
        now: Instant,
        link: Option<&Link>,
        ndp: &Ndp,
        addresses: &Addresses,
    ) -> Result<(), DropReason> {
        let target = IpAddr::V6(ndp.target);
        let is_probe = ndp.src.is_unspecified();
        // Our own probe that a link or a bridge brings back tells nothing (RFC 7527 section 4.2).
        if is_probe && ndp.nonce.is_some_and(|nonce| self.is_own_nonce(target, nonce)) {
            return Err(DropReason::IpFromOurselves);
        }
        if self.is_probed(target) {
            //= rfc4862#5.4.3
            //# If the target address is tentative, and the source address is a
            //# unicast address, the solicitation's sender is performing address
            //# resolution on the target; the solicitation should be silently
            //# ignored.
            if !is_probe {
                return Err(DropReason::NdpNotForUs);
            }
            self.lose_probe(target, link.map_or(NO_MAC, |link| link.src));
            return Err(DropReason::NdpConflict);
        }
        if !addresses.is_local(target) {
            return Err(DropReason::NdpNotForUs);
        }
        if is_probe {
            let answer = self.advertisement(None, ndp.target);
            self.answer(answer);
            return Ok(());
        }
        self.note_source(target);
        let known = match ndp.source_mac {
            Some(mac) => {
                let updated = self.update_from_source(now, ndp.src.into(), mac, Some(target));
                if let Err(reason) = updated {
                    // The answer does not need the entry.
                    self.outbox.count(reason);
                }
                Some(mac)
            }
            None => {
                let at = self.entries.find(ndp.src.into());
                let entry = at.and_then(|at| self.entries.get(at));
                entry.filter(|entry| entry.state.has_address()).map(|entry| entry.mac)
            }
        };
        //= rfc4861#7.2.4
        //= type=exception
        //= reason=the answer goes where the frame came from, so that nothing is kept for a stranger
        //# In such situations, a node will
        //# first have to use Neighbor Discovery to determine the link-layer
        //# address of its neighbor (i.e., send out a multicast Neighbor
        //# Solicitation).
        let dst_mac = known.or(link.map(|link| link.src)).ok_or(DropReason::NdpNotForUs)?;
        let answer = self.advertisement(Some((ndp.src, dst_mac)), ndp.target);
        self.answer(answer);
        Ok(())
    }

    fn handle_advertisement(
        &mut self,
        now: Instant,
        link: Option<&Link>,
        ndp: &Ndp,
        addresses: &Addresses,
    ) -> Result<(), DropReason> {
        let target = IpAddr::V6(ndp.target);
        if self.is_probed(target) {
            //= rfc4862#5.4.4
            //# If the target address is tentative, the tentative address is not
            //# unique.
            let mac = ndp.target_mac.or(link.map(|link| link.src)).unwrap_or(NO_MAC);
            self.lose_probe(target, mac);
            return Err(DropReason::NdpConflict);
        }
        // RFC 4862 section 5.4.4 leaves open what is done for an address in use; to give it up because of one
        // message would be a gift to whoever forges it.
        if addresses.is_local(target) {
            return Err(DropReason::NdpConflict);
        }
        //= rfc4861#7.2.5
        //# If no entry exists, the advertisement SHOULD be silently discarded.
        let at = self.entries.find(target).ok_or(DropReason::NdpUnsolicited)?;
        let entry = self.entries.get(at).ok_or(DropReason::NdpUnsolicited)?;
        let is_router_gone = entry.is_router && !ndp.is_router;
        if is_router_gone && !self.outbox.has_room_for_event() {
            return Err(DropReason::OutboxFull);
        }
        match entry.state {
            State::Permanent => return Ok(()),
            State::Incomplete | State::Failed => {
                //= rfc4861#7.2.5
                //# If the link layer has addresses and no Target Link-Layer Address
                //# option is included, the receiving node SHOULD silently discard the
                //# received advertisement.
                let mac = ndp.target_mac.ok_or(DropReason::NdpUnsolicited)?;
                self.resolve(now, at, mac, ndp.is_solicited);
            }
            state => {
                let (state, cached) = (state, entry.mac);
                self.update_from_advertisement(now, at, ndp, (state, cached))?;
            }
        }
        if let Some(entry) = self.entries.get_mut(at) {
            entry.is_router = ndp.is_router;
        }
        //= rfc4861#7.2.5
        //# In those cases where the IsRouter flag
        //# changes from TRUE to FALSE as a result of this update, the
        //# node MUST remove that router from the Default Router List
        if is_router_gone {
            self.outbox.push(Kind::Event, Output::RouterGone(target));
        }
        Ok(())
    }

    /// Receipt of an advertisement in any state but INCOMPLETE; `known` is the state and the hardware
    /// address of the entry.
    fn update_from_advertisement(
        &mut self,
        now: Instant,
        at: u32,
        ndp: &Ndp,
        known: (State, EthernetAddress),
    ) -> Result<(), DropReason> {
        let (state, cached) = known;
        let other = ndp.target_mac.filter(|mac| *mac != cached);
        //= rfc4861#7.2.5
        //# If the Override flag is clear and the supplied link-layer address
        //# differs from that in the cache, then one of two actions takes
        //# place:
        //# a. If the state of the entry is REACHABLE, set it to STALE, but
        //# do not update the entry in any other way.
        //# b. Otherwise, the received advertisement should be ignored and
        //# MUST NOT update the cache.
        if other.is_some() && !ndp.is_override {
            if state == State::Reachable {
                self.enter(now, at, State::Stale, None);
            }
            return Err(DropReason::NdpUnsolicited);
        }
        //= rfc4861#7.2.5
        //# If the Override flag is set, or the supplied link-layer address
        //# is the same as that in the cache, or no Target Link-Layer Address
        //# option was supplied, the received advertisement MUST update the
        //# Neighbor Cache entry as follows:
        if let Some(mac) = other {
            self.set_mac(now, at, mac);
        }
        if ndp.is_solicited {
            self.enter_reachable(now, at);
        } else if other.is_some() {
            self.enter(now, at, State::Stale, None);
        }
        Ok(())
    }

    /// An advertisement of an address of ours: to who asked, or to all nodes.
    fn advertisement(&self, to: Option<(Ipv6Addr, EthernetAddress)>, target: Ipv6Addr) -> Output {
        //= rfc4861#7.2.4
        //# If the source of the solicitation is the unspecified address, the
        //# node MUST set the Solicited flag to zero and multicast the
        //# advertisement to the all-nodes address.  Otherwise, the node MUST
        //# set the Solicited flag to one and unicast the advertisement to the
        //# Source Address of the solicitation.
        let (dst, dst_mac) = to.unwrap_or((ALL_NODES, group_mac(ALL_NODES.into())));
        let flags = if to.is_some() { SOLICITED | OVERRIDE } else { OVERRIDE };
        let option = option(TARGET_LINK_LAYER, self.mac.0);
        let message = build(ADVERTISEMENT, flags, target, dst, target, option);
        Output::Ndp { dst_mac, src: target.into(), dst: dst.into(), message }
    }
}

/// A solicitation or advertisement that passed the tests of RFC 4861 section 7.1.
#[derive(Debug, Clone, Copy)]
struct Ndp {
    kind: u8,
    src: Ipv6Addr,
    target: Ipv6Addr,
    is_router: bool,
    is_solicited: bool,
    is_override: bool,
    source_mac: Option<EthernetAddress>,
    target_mac: Option<EthernetAddress>,
    nonce: Option<[u8; 6]>,
}

impl Ndp {
    /// `None`: it is to be discarded silently.
    fn parse(ip: &IpPacket, message: &[u8]) -> Option<Self> {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (ip.src, ip.dst) else { return None };
        let (&[kind, code, _, _, flags, _, _, _], rest) = message.split_first_chunk::<8>()?;
        let (target, mut rest) = rest.split_first_chunk::<16>()?;
        let mut ndp = Self {
            kind,
            src,
            target: Ipv6Addr::from(*target),
            is_router: flags & ROUTER != 0,
            is_solicited: flags & SOLICITED != 0,
            is_override: flags & OVERRIDE != 0,
            source_mac: None,
            target_mac: None,
            nonce: None,
        };
        while let Some((&[option, words], _)) = rest.split_first_chunk::<2>() {
            let (whole, after) = rest.split_at_checked(usize::from(words) * 8)?;
            // Of an option of length 0 there is no first byte: the message is discarded, and the loop ends.
            ndp.take_option(option, whole.get(2..)?)?;
            rest = after;
        }
        let is_whole = rest.is_empty() && ip.hop_limit == 255 && code == 0 && ip.fragment.is_none();
        let is_right = match kind {
            SOLICITATION if src.is_unspecified() => {
                //= rfc4861#7.1.1
                //# If the IP source address is the unspecified address, the IP
                //# destination address is a solicited-node multicast address.
                is_solicited_node(dst) && ndp.source_mac.is_none()
            }
            SOLICITATION => is_unicast(src.into()),
            //= rfc4861#7.1.2
            //# If the IP Destination Address is a multicast address the
            //# Solicited flag is zero.
            _ => is_unicast(src.into()) && !(dst.is_multicast() && ndp.is_solicited),
        };
        (is_whole && is_right && is_unicast(ndp.target.into())).then_some(ndp)
    }

    /// `None`: an option that we need and that cannot be.
    fn take_option(&mut self, option: u8, value: &[u8]) -> Option<()> {
        match option {
            SOURCE_LINK_LAYER | TARGET_LINK_LAYER => {
                let mac = EthernetAddress(value.try_into().ok()?);
                let mac = is_station(mac).then_some(mac)?;
                let taken =
                    if option == SOURCE_LINK_LAYER { &mut self.source_mac } else { &mut self.target_mac };
                taken.get_or_insert(mac);
            }
            // Nonces of other lengths are those of others.
            NONCE => self.nonce = value.try_into().ok(),
            _ => {}
        }
        Some(())
    }
}

/// A message with one option, and its checksum.
fn build(
    kind: u8,
    flags: u8,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    target: Ipv6Addr,
    option: [u8; 8],
) -> [u8; NDP_MESSAGE_LEN] {
    let mut message = [0; NDP_MESSAGE_LEN];
    let fields: [&[u8]; 3] = [&[kind, 0, 0, 0, flags, 0, 0, 0], &target.octets(), &option];
    message.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    Icmpv6Packet::new_unchecked(&mut message[..]).fill_checksum(&src, &dst);
    message
}

/// An option of 8 bytes.
fn option(kind: u8, value: [u8; 6]) -> [u8; 8] {
    let [a, b, c, d, e, f] = value;
    [kind, 1, a, b, c, d, e, f]
}

fn is_solicited_node(ip: Ipv6Addr) -> bool {
    let [.., a, b, c] = ip.octets();
    ip == solicited_node(Ipv6Addr::from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c]))
}

/// Type of a neighbour solicitation.
const SOLICITATION: u8 = 135;
/// Type of a neighbour advertisement.
const ADVERTISEMENT: u8 = 136;
/// Type of a redirect.
const REDIRECT: u8 = 137;
/// The R flag.
const ROUTER: u8 = 0x80;
/// The S flag.
const SOLICITED: u8 = 0x40;
/// The O flag.
const OVERRIDE: u8 = 0x20;
/// Source link-layer address option.
const SOURCE_LINK_LAYER: u8 = 1;
/// Target link-layer address option.
const TARGET_LINK_LAYER: u8 = 2;
/// Nonce option (RFC 3971 section 5.3.2).
const NONCE: u8 = 14;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Of a sender without a link header.
const NO_MAC: EthernetAddress = EthernetAddress([0; 6]);
