//! What the kernel need not deliver on an address that it owns as well.

use std::net::IpAddr;

use crate::claim::{ClaimSet, SharedPorts};

use super::assemble::{Assembler, Label};
use super::packet::{
    ETHERTYPE_ARP, Found, Fragments, ICMP, ICMPV6, Network, Origin, TCP, UDP, V4_LATER_FRAGMENT, WalkEnds,
    find_network, walk_v6,
};
use super::program::{Program, Size};

impl ClaimSet {
    /// A program for a socket that drops most of what is not ours, so that the kernel's own connections
    /// cost no slots of a ring. It never drops what [`is_ours`](Self::is_ours) takes, but passes some that
    /// it does not: all ICMP errors to a shared address, echo requests to groups, and IPv6 with more than
    /// four extension headers. So both are needed.
    ///
    /// `None`: there is nothing to drop, or there are too many claims for a program.
    pub fn socket_filter(&self) -> Option<Program> {
        if !self.filters() {
            return None;
        }
        let mut asm = Assembler::default();
        let ends = Ends { pass: asm.label(), drop: asm.label() };
        let other = asm.label();
        let (rules_v4, rules_v6) = (asm.label(), asm.label());
        for Found { network, v4, v6 } in find_network(&mut asm, Origin::Link, other) {
            // As `is_ours` does, the version is believed, and not the EtherType.
            let (is_v4, is_v6) = (asm.label(), asm.label());
            asm.place(v4);
            asm.place(v6);
            network.load(&mut asm, Size::Byte, 0);
            asm.shr(4);
            asm.if_equal(4, is_v4);
            asm.if_equal(6, is_v6);
            asm.goto(ends.drop);
            asm.place(is_v4);
            self.write_v4(&mut asm, network, ends, rules_v4);
            asm.place(is_v6);
            self.write_v6(&mut asm, network, ends, rules_v6);
        }
        for (label, is_v4) in [(rules_v4, true), (rules_v6, false)] {
            asm.place(label);
            for claim in self.shared.iter().filter(|claim| claim.address.is_ipv4() == is_v4) {
                write_claim(&mut asm, claim, ends.pass);
            }
            asm.goto(ends.drop);
        }
        asm.place(other);
        asm.if_equal(ETHERTYPE_ARP, ends.pass);
        asm.goto(ends.drop);
        asm.place(ends.pass);
        asm.ret(u32::MAX);
        asm.place(ends.drop);
        asm.ret(0);
        asm.finish().ok()
    }

    fn write_v4(&self, asm: &mut Assembler, network: Network, ends: Ends, rules: Label) {
        network.load(asm, Size::Word, 16);
        asm.keep(DST);
        self.write_is_shared(asm, true, ends.pass);
        network.load(asm, Size::Byte, 9);
        asm.keep(PROTOCOL);
        let later = asm.label();
        network.load(asm, Size::Half, 6);
        asm.if_any_bit(V4_LATER_FRAGMENT, later);
        network.v4_payload_to_x(asm);
        write_transport(asm, network, ICMP, later, ends, rules);
    }

    fn write_v6(&self, asm: &mut Assembler, network: Network, ends: Ends, rules: Label) {
        for word in 0..4 {
            network.load(asm, Size::Word, 24 + 4 * word);
            asm.keep(DST + word);
        }
        self.write_is_shared(asm, false, ends.pass);
        network.load(asm, Size::Byte, 6);
        asm.keep(PROTOCOL);
        network.v6_next_to_x(asm);
        let (done, fragment, later) = (asm.label(), asm.label(), asm.label());
        let walk_ends = WalkEnds { done, fragment, exceeded: ends.pass };
        walk_v6(asm, network, PROTOCOL, Fragments::Later, walk_ends);
        asm.place(fragment);
        network.load_at_x(asm, Size::Byte, 0);
        asm.keep(PROTOCOL);
        asm.goto(later);
        asm.place(done);
        write_transport(asm, network, ICMPV6, later, ends, rules);
    }

    /// Goes on at `pass` unless the destination is a shared address.
    fn write_is_shared(&self, asm: &mut Assembler, is_v4: bool, pass: Label) {
        let mut addresses: Vec<IpAddr> = self.shared.iter().map(|claim| claim.address).collect();
        addresses.sort();
        addresses.dedup();
        let shared = asm.label();
        for address in addresses.iter().filter(|address| address.is_ipv4() == is_v4) {
            let next = asm.label();
            write_is_dst(asm, *address, next);
            asm.goto(shared);
            asm.place(next);
        }
        asm.goto(pass);
        asm.place(shared);
    }
}

#[derive(Clone, Copy)]
struct Ends {
    pass: Label,
    drop: Label,
}

/// The transport header is at X; at `later` there is none.
fn write_transport(asm: &mut Assembler, network: Network, icmp: u32, later: Label, ends: Ends, rules: Label) {
    let (port, message) = (asm.label(), asm.label());
    asm.recall(PROTOCOL);
    asm.if_equal(TCP, port);
    asm.if_equal(UDP, port);
    asm.if_equal(icmp, message);
    asm.goto(ends.drop);

    asm.place(later);
    // Both sides need it, and only one of them knows. Of ICMP it may be an echo reply's.
    asm.recall(PROTOCOL);
    asm.if_equal(icmp, ends.pass);
    asm.set(UNKNOWN);
    asm.keep(PORT);
    asm.goto(rules);
    asm.place(port);
    network.load_at_x(asm, Size::Half, 2);
    asm.keep(PORT);
    asm.goto(rules);

    asm.place(message);
    network.load_at_x(asm, Size::Byte, 0);
    if icmp == ICMP {
        for kind in [0, 3, 4, 5, 11, 12] {
            asm.if_equal(kind, ends.pass);
        }
    } else {
        // Errors, echo replies, neighbor discovery.
        asm.if_less(128, ends.pass);
        asm.if_equal(129, ends.pass);
        asm.if_less(133, ends.drop);
        asm.if_greater(137, ends.drop);
        asm.goto(ends.pass);
    }
    asm.goto(ends.drop);
}

/// Goes on at `pass` if the claim is met, and behind if not.
fn write_claim(asm: &mut Assembler, claim: &SharedPorts, pass: Label) {
    let next = asm.label();
    write_is_dst(asm, claim.address, next);
    asm.recall(PROTOCOL);
    asm.unless_equal(claim.protocol.number().into(), next);
    asm.recall(PORT);
    asm.if_equal(UNKNOWN, pass);
    asm.if_less((*claim.ports.start()).into(), next);
    asm.if_greater((*claim.ports.end()).into(), next);
    asm.goto(pass);
    asm.place(next);
}

/// Goes on at `fail` unless the destination is this address.
fn write_is_dst(asm: &mut Assembler, address: IpAddr, fail: Label) {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (words, _) = octets.as_chunks::<4>();
    for (at, word) in (DST..).zip(words) {
        asm.recall(at);
        asm.unless_equal(u32::from_be_bytes(*word), fail);
    }
}

// Words of scratch memory; an address of IPv6 takes four.
const DST: u32 = 0;
const PROTOCOL: u32 = 4;
const PORT: u32 = 5;

/// In place of the port of a later fragment.
const UNKNOWN: u32 = 0x1_0000;
