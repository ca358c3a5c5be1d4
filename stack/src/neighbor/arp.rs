//! ARP for Ethernet and IPv4: RFC 826, with what RFC 1122 section 2.3.2 and RFC 5227 add.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::entry::State;
use super::outbox::{Kind, Output};
use super::table::{Table, is_station, is_unicast};
use crate::ingress::Link;
use crate::ip::address::Addresses;
use crate::observe::DropReason;

impl Table {
    /// An ARP message came. `message` begins at its first field and may have padding.
    ///
    /// Requests for a usable address of ours are answered, and who asks becomes a neighbour. All other
    /// messages only change neighbours that are known.
    ///
    /// # Errors
    /// Why nothing was done with it.
    pub fn handle_arp(
        &mut self,
        now: Instant,
        link: &Link,
        message: &[u8],
        addresses: &Addresses,
    ) -> Result<(), DropReason> {
        let arp = Arp::parse(message).ok_or(DropReason::ArpMalformed)?;
        if arp.sender_mac == self.mac || link.src == self.mac {
            return Err(DropReason::LinkFromOurselves);
        }
        if addresses.is_broadcast(arp.sender_ip.into()) {
            return Err(DropReason::ArpMalformed);
        }
        self.check_conflict(now, &arp, addresses)?;
        let target = IpAddr::V4(arp.target_ip);
        let is_for_us = addresses.is_local(target);
        let asks_us = is_for_us && arp.operation == REQUEST;
        // Of a probe (RFC 5227) there is nothing to learn: its sender has no address yet.
        let learned = if arp.sender_ip.is_unspecified() {
            Err(DropReason::ArpNotForUs)
        } else {
            self.learn_from_arp(now, link, &arp, is_for_us)
        };
        if asks_us {
            let reply = build(REPLY, self.mac, arp.target_ip, arp.sender_mac, arp.sender_ip);
            self.answer(Output::Arp { dst: arp.sender_mac, message: reply });
            // That there was no room for the sender is worth a number; the answer did not need it.
            if learned == Err(DropReason::NeighborNoRoom) {
                self.outbox.count(DropReason::NeighborNoRoom);
            }
            return Ok(());
        }
        learned
    }

    /// Asks who has `target`: everybody, or the one who had it.
    pub(super) fn send_arp_request(&mut self, to: Option<EthernetAddress>, src: Ipv4Addr, target: Ipv4Addr) {
        let message = build(REQUEST, self.mac, src, EthernetAddress([0; 6]), target);
        let dst = to.unwrap_or(EthernetAddress::BROADCAST);
        self.outbox.push(Kind::Request, Output::Arp { dst, message });
    }

    /// What the pair of sender addresses does to the table: RFC 826, "Packet Reception".
    fn learn_from_arp(
        &mut self,
        now: Instant,
        link: &Link,
        arp: &Arp,
        is_for_us: bool,
    ) -> Result<(), DropReason> {
        let sender = IpAddr::V4(arp.sender_ip);
        let known = self.entries.find(sender).and_then(|at| Some((at, self.entries.get(at)?)));
        let Some((at, entry)) = known else {
            return match (arp.operation, is_for_us) {
                // Who asks for us is about to send us something.
                (REQUEST, true) => {
                    let src = Some(IpAddr::V4(arp.target_ip));
                    self.update_from_source(now, sender, arp.sender_mac, src).map(|_| ())
                }
                (REQUEST, false) => Err(DropReason::ArpNotForUs),
                _ => Err(DropReason::ArpUnsolicited),
            };
        };
        // Only an answer that we asked for, and that was sent to us alone, tells that the neighbour hears us.
        let was_asked = matches!(entry.state, State::Incomplete | State::Probe);
        let is_answer = arp.operation == REPLY && is_for_us && link.dst == self.mac && was_asked;
        let is_changed = entry.state.has_address() && entry.mac != arp.sender_mac;
        if entry.state == State::Permanent {
            return Ok(());
        }
        // Of several who claim the same address, the first one counts for a while.
        if is_changed && now < entry.updated_at + self.config.lock_time {
            return Err(DropReason::ArpUnsolicited);
        }
        if is_answer {
            self.resolve(now, at, arp.sender_mac, true);
            return Ok(());
        }
        self.update_from_source(now, sender, arp.sender_mac, None).map(|_| ())
    }

    /// Whether somebody else has, or wants, an address of ours (RFC 5227 sections 2.1.1 and 2.4).
    fn check_conflict(&mut self, now: Instant, arp: &Arp, addresses: &Addresses) -> Result<(), DropReason> {
        let (sender, target) = (IpAddr::V4(arp.sender_ip), IpAddr::V4(arp.target_ip));
        let is_probe = arp.operation == REQUEST && arp.sender_ip.is_unspecified();
        //= rfc5227#2.1.1
        //# In addition, if during this period the host receives any ARP Probe
        //# where the packet's 'target IP address' is the address being probed
        //# for, and the packet's 'sender hardware address' is not the hardware
        //# address of any of the host's interfaces, then the host SHOULD
        //# similarly treat this as an address conflict and signal an error to
        //# the configuring agent as above.
        for address in [sender, target] {
            if self.is_probed(address) && (address == sender || is_probe) {
                self.lose_probe(address, arp.sender_mac);
                return Err(DropReason::ArpConflict);
            }
        }
        if addresses.is_local(sender) {
            self.defend(now, sender, arp.sender_mac);
            return Err(DropReason::ArpConflict);
        }
        Ok(())
    }
}

/// An ARP message for Ethernet and IPv4.
#[derive(Debug, Clone, Copy)]
struct Arp {
    operation: u16,
    sender_mac: EthernetAddress,
    sender_ip: Ipv4Addr,
    target_ip: Ipv4Addr,
}

impl Arp {
    /// `None`: not of Ethernet and IPv4, or with addresses that nobody can have.
    fn parse(message: &[u8]) -> Option<Self> {
        let (head, rest) = message.split_first_chunk::<8>()?;
        let (sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (sender_ip, rest) = rest.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_first_chunk::<6>()?;
        let (target_ip, _) = rest.split_first_chunk::<4>()?;
        let [_, _, _, _, _, _, high, low] = *head;
        let arp = Self {
            operation: u16::from_be_bytes([high, low]),
            sender_mac: EthernetAddress(*sender_mac),
            sender_ip: Ipv4Addr::from(*sender_ip),
            target_ip: Ipv4Addr::from(*target_ip),
        };
        let is_sender = arp.sender_ip.is_unspecified() || is_unicast(arp.sender_ip.into());
        // Whoever has an address that we probe answers the sender of the probe, which is 0.0.0.0 (RFC 5227
        // section 2.1.1).
        let is_target =
            is_unicast(arp.target_ip.into()) || arp.operation == REPLY && arp.target_ip.is_unspecified();
        let is_right = head.starts_with(&HEAD)
            && matches!(arp.operation, REQUEST | REPLY)
            && !(arp.operation == REPLY && arp.sender_ip.is_unspecified())
            && is_station(arp.sender_mac)
            && is_sender
            && is_target;
        is_right.then_some(arp)
    }
}

/// An ARP message.
pub(super) fn build(
    operation: u16,
    sender_mac: EthernetAddress,
    sender_ip: Ipv4Addr,
    target_mac: EthernetAddress,
    target_ip: Ipv4Addr,
) -> [u8; 28] {
    let mut message = [0; 28];
    let fields: [&[u8]; 6] = [
        &HEAD,
        &operation.to_be_bytes(),
        &sender_mac.0,
        &sender_ip.octets(),
        &target_mac.0,
        &target_ip.octets(),
    ];
    message.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    message
}

/// Hardware type Ethernet, protocol type IPv4, 6 and 4 bytes of address.
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// ares_op$REQUEST.
pub(super) const REQUEST: u16 = 1;
/// ares_op$REPLY.
pub(super) const REPLY: u16 = 2;
