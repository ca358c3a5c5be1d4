//! Parts of programs that find their way through the headers of a packet.
//!
//! Two places in scratch memory belong to this module, [`BASE`] and [`SPARE`]; the others are free.

use super::assemble::{Assembler, Label};
use super::program::{EXTENSIONS, NETWORK_OFFSET, Size};

/// Where offset 0 of a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// At the link header, as for a socket filter.
    Link,
    /// At the network header, as for a fanout program and received frames.
    Network,
    /// Wherever it is: loads count from the header that the kernel knows. A fanout program that sees
    /// outgoing frames as well needs this, since for those offset 0 is the link header. It costs more.
    Known,
}

/// Where the network header is: at a constant offset, or at one in [`BASE`] plus a constant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    pub(crate) k: u32,
    pub(crate) moved: bool,
}

/// Where [`find_network`] goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) network: Network,
    pub(crate) v4: Label,
    pub(crate) v6: Label,
}

/// Reads the EtherType behind at most two VLAN tags. Goes on at `other` for what is not IP, with the
/// EtherType in A, and else at the labels of one of the two: untagged packets need no arithmetic.
pub(crate) fn find_network(asm: &mut Assembler, origin: Origin, other: Label) -> [Found; 2] {
    let k = match origin {
        Origin::Link => 14,
        Origin::Network => 0,
        Origin::Known => NETWORK_OFFSET,
    };
    let found = [false, true].map(|moved| {
        let (v4, v6) = (asm.label(), asm.label());
        Found { network: Network { k, moved }, v4, v6 }
    });
    match origin {
        Origin::Link => asm.load(Size::Half, 12),
        Origin::Network | Origin::Known => asm.load(Size::Half, EXTENSIONS),
    }
    let mut behind = found[0];
    // The kernel has stripped the outermost tag from what it hands to a fanout program.
    let tags_max = if origin == Origin::Link { VLAN_TAGS_MAX } else { VLAN_TAGS_MAX - 1 };
    for tags in 1..=tags_max {
        let tagged = asm.label();
        asm.if_equal(ETHERTYPE_IPV4, behind.v4);
        asm.if_equal(ETHERTYPE_IPV6, behind.v6);
        asm.if_equal(ETHERTYPE_VLAN, tagged);
        asm.unless_equal(ETHERTYPE_QINQ, other);
        asm.place(tagged);
        asm.set(4 * tags);
        asm.keep(BASE);
        asm.load(Size::Half, k.wrapping_add(4 * tags - 2));
        behind = found[1];
    }
    asm.if_equal(ETHERTYPE_IPV4, behind.v4);
    asm.if_equal(ETHERTYPE_IPV6, behind.v6);
    asm.goto(other);
    found
}

impl Network {
    /// A = the bytes at this offset of the network header. Changes X if the header was moved.
    pub(crate) fn load(self, asm: &mut Assembler, size: Size, offset: u32) {
        let k = self.k.wrapping_add(offset);
        if self.moved {
            asm.recall_x(BASE);
            asm.load_at_x(size, k);
        } else {
            asm.load(size, k);
        }
    }

    /// A = the bytes at this offset of a header that X points to.
    pub(crate) fn load_at_x(self, asm: &mut Assembler, size: Size, offset: u32) {
        asm.load_at_x(size, self.k.wrapping_add(offset));
    }

    /// X = where the payload of an IPv4 packet begins.
    pub(crate) fn v4_payload_to_x(self, asm: &mut Assembler) {
        if self.moved {
            asm.recall_x(BASE);
            self.quoted_v4_payload_to_x(asm, 0);
        } else {
            asm.header_length_to_x(self.k);
        }
    }

    /// X = where the payload of an IPv4 packet begins whose header is at X plus `offset`.
    pub(crate) fn quoted_v4_payload_to_x(self, asm: &mut Assembler, offset: u32) {
        self.load_at_x(asm, Size::Byte, offset);
        asm.and(0xf);
        asm.shl(2);
        if offset != 0 {
            asm.add(offset);
        }
        asm.add_x();
        asm.tax();
    }

    /// X = where the first extension header or the payload of an IPv6 packet begins.
    pub(crate) fn v6_next_to_x(self, asm: &mut Assembler) {
        if self.moved {
            asm.recall(BASE);
            asm.add(V6_HEADER_LEN);
            asm.tax();
        } else {
            asm.set_x(V6_HEADER_LEN);
        }
    }
}

/// Where a walk along the extension headers of IPv6 ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalkEnds {
    /// At a header that is none of them: X points to it, and `protocol` says what it is.
    pub(crate) done: Label,
    /// At a fragment header: X points to it, and `protocol` is its number.
    pub(crate) fragment: Label,
    /// After [`EXTENSION_HEADERS_MAX`] headers: X points to the next one, `protocol` says what it is.
    pub(crate) exceeded: Label,
}

/// Which fragment headers end a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fragments {
    /// Those of all fragments; only a packet in one piece is walked on (RFC 6946).
    All,
    /// Those of fragments that are not the first.
    Later,
}

/// Walks along extension headers. X points to the first, and the word `protocol` of scratch memory says
/// what it is.
pub(crate) fn walk_v6(
    asm: &mut Assembler,
    network: Network,
    protocol: u32,
    fragments: Fragments,
    ends: WalkEnds,
) {
    for _ in 0..EXTENSION_HEADERS_MAX {
        let (plain, authentication, advance) = (asm.label(), asm.label(), asm.label());
        asm.recall(protocol);
        asm.if_equal(TCP, ends.done);
        asm.if_equal(HOP_BY_HOP, plain);
        asm.if_equal(ROUTING, plain);
        asm.if_equal(DESTINATION_OPTIONS, plain);
        asm.if_equal(AUTHENTICATION, authentication);
        asm.unless_equal(FRAGMENT, ends.done);
        network.load_at_x(asm, Size::Half, 2);
        asm.if_any_bit(fragments.mask_v6(), ends.fragment);
        asm.set(8);
        asm.goto(advance);
        asm.place(authentication);
        network.load_at_x(asm, Size::Byte, 1);
        asm.add(2);
        asm.shl(2);
        asm.goto(advance);
        asm.place(plain);
        network.load_at_x(asm, Size::Byte, 1);
        asm.add(1);
        asm.shl(3);
        asm.place(advance);
        asm.add_x();
        asm.keep(SPARE);
        network.load_at_x(asm, Size::Byte, 0);
        asm.keep(protocol);
        asm.recall_x(SPARE);
    }
    asm.recall(protocol);
    for extension in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, AUTHENTICATION, FRAGMENT] {
        asm.if_equal(extension, ends.exceeded);
    }
    asm.goto(ends.done);
}

impl Fragments {
    /// Bits of the word of an IPv6 fragment header that has the offset (RFC 8200 section 4.5).
    pub(crate) fn mask_v6(self) -> u32 {
        match self {
            Self::All => 0xfff9,
            Self::Later => 0xfff8,
        }
    }
}

/// Extension headers that are walked along. Real packets have one or two.
pub(crate) const EXTENSION_HEADERS_MAX: usize = 4;
/// VLAN tags that are looked through.
pub(crate) const VLAN_TAGS_MAX: u32 = 2;

pub(crate) const ETHERTYPE_IPV4: u32 = 0x0800;
pub(crate) const ETHERTYPE_ARP: u32 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u32 = 0x86dd;
pub(crate) const ETHERTYPE_VLAN: u32 = 0x8100;
pub(crate) const ETHERTYPE_QINQ: u32 = 0x88a8;

pub(crate) const HOP_BY_HOP: u32 = 0;
pub(crate) const ICMP: u32 = 1;
pub(crate) const TCP: u32 = 6;
pub(crate) const UDP: u32 = 17;
pub(crate) const ROUTING: u32 = 43;
pub(crate) const FRAGMENT: u32 = 44;
pub(crate) const AUTHENTICATION: u32 = 51;
pub(crate) const ICMPV6: u32 = 58;
pub(crate) const DESTINATION_OPTIONS: u32 = 60;

pub(crate) const V6_HEADER_LEN: u32 = 40;
/// Offset, and more fragments: RFC 791 section 3.1.
pub(crate) const V4_FRAGMENT: u32 = 0x3fff;
/// Offset alone.
pub(crate) const V4_LATER_FRAGMENT: u32 = 0x1fff;

/// How far the network header was moved by VLAN tags.
pub(crate) const BASE: u32 = 15;
/// Used within the parts of this module.
pub(crate) const SPARE: u32 = 14;
