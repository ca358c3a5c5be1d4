//! The flow hash as a classic BPF program.

use crate::filter::assemble::{Assembler, Label};
use crate::filter::packet::{
    Found, Fragments, ICMP, ICMPV6, Network, Origin, TCP, UDP, V4_FRAGMENT, V4_LATER_FRAGMENT, V6_HEADER_LEN,
    WalkEnds, find_network, walk_v6,
};
use crate::filter::program::Size;
use crate::filter::{Program, ProgramError};

use super::hash::{END, END_SHIFT, FLOW, FLOW_SHIFT, FOLD, ICMP_HEADER_LEN, SPREAD};

/// A program that returns [`flow_hash`](super::flow_hash) of every frame. In a fanout group of that many
/// members, a frame goes to the member [`shard_of`](super::shard_of) that hash.
///
/// # Errors
/// None that a test would not find: the program is the same but for the seed and the offsets.
pub fn flow_program(origin: Origin, seed: u32) -> Result<Program, ProgramError> {
    let mut asm = Assembler::default();
    let (nothing, finish) = (asm.label(), asm.label());
    for found in find_network(&mut asm, origin, nothing) {
        let Found { network, v4, v6 } = found;
        let ways = Ways { addresses: asm.label(), ports: asm.label() };
        asm.place(v4);
        write_v4(&mut asm, network, seed, ways);
        asm.place(v6);
        write_v6(&mut asm, network, seed, ways);
        asm.place(ways.addresses);
        asm.set(0);
        asm.keep(SRC_PORT);
        asm.goto(finish);
        asm.place(ways.ports);
        network.load_at_x(&mut asm, Size::Half, 0);
        asm.keep(SRC_PORT);
        network.load_at_x(&mut asm, Size::Half, 2);
        asm.goto(finish);
    }
    asm.place(finish);
    write_combine(&mut asm);
    asm.place(nothing);
    asm.ret(0);
    asm.finish()
}

/// Where the parts of a packet's way end, with addresses and protocol in scratch memory.
#[derive(Clone, Copy)]
struct Ways {
    /// The addresses are all that counts.
    addresses: Label,
    /// X points to the ports.
    ports: Label,
}

fn write_v4(asm: &mut Assembler, network: Network, seed: u32, ways: Ways) {
    for (offset, word) in [(12, SRC), (16, DST)] {
        network.load(asm, Size::Word, offset);
        write_spread(asm, seed);
        asm.keep(word);
    }
    network.load(asm, Size::Byte, 9);
    asm.keep(PROTOCOL);
    network.load(asm, Size::Half, 6);
    asm.if_any_bit(V4_FRAGMENT, ways.addresses);
    network.v4_payload_to_x(asm);
    asm.recall(PROTOCOL);
    asm.if_equal(TCP, ways.ports);
    asm.if_equal(UDP, ways.ports);
    asm.unless_equal(ICMP, ways.addresses);

    let (error, quoted) = (asm.label(), asm.label());
    network.load_at_x(asm, Size::Byte, 0);
    for kind in [3, 4, 5, 11] {
        asm.if_equal(kind, error);
    }
    asm.unless_equal(12, ways.addresses);
    asm.place(error);
    network.load_at_x(asm, Size::Byte, QUOTED + 9);
    asm.keep(QUOTED_PROTOCOL);
    asm.if_equal(TCP, quoted);
    asm.unless_equal(UDP, ways.addresses);
    asm.place(quoted);
    network.load_at_x(asm, Size::Half, QUOTED + 6);
    asm.if_any_bit(V4_LATER_FRAGMENT, ways.addresses);
    for (offset, word) in [(12, SRC), (16, DST)] {
        network.load_at_x(asm, Size::Word, QUOTED + offset);
        write_spread(asm, seed);
        asm.keep(word);
    }
    asm.recall(QUOTED_PROTOCOL);
    asm.keep(PROTOCOL);
    network.quoted_v4_payload_to_x(asm, QUOTED);
    asm.goto(ways.ports);
}

fn write_v6(asm: &mut Assembler, network: Network, seed: u32, ways: Ways) {
    for (offset, word) in [(8, SRC), (24, DST)] {
        write_fold(asm, |asm, at| network.load(asm, Size::Word, offset + at));
        write_spread(asm, seed);
        asm.keep(word);
    }
    network.load(asm, Size::Byte, 6);
    asm.keep(PROTOCOL);
    network.v6_next_to_x(asm);
    let done = asm.label();
    let ends = WalkEnds { done, fragment: ways.addresses, exceeded: ways.addresses };
    walk_v6(asm, network, PROTOCOL, Fragments::All, ends);
    asm.place(done);
    asm.recall(PROTOCOL);
    asm.if_equal(TCP, ways.ports);
    asm.if_equal(UDP, ways.ports);
    asm.unless_equal(ICMPV6, ways.addresses);

    network.load_at_x(asm, Size::Byte, 0);
    asm.if_at_least(128, ways.addresses);
    network.load_at_x(asm, Size::Byte, QUOTED + 6);
    asm.keep(QUOTED_PROTOCOL);
    asm.keep_x(ICMP_AT);
    asm.recall(ICMP_AT);
    asm.add(QUOTED + V6_HEADER_LEN);
    asm.tax();
    let (done, quoted) = (asm.label(), asm.label());
    let ends = WalkEnds { done, fragment: ways.addresses, exceeded: ways.addresses };
    walk_v6(asm, network, QUOTED_PROTOCOL, Fragments::Later, ends);
    asm.place(done);
    asm.recall(QUOTED_PROTOCOL);
    asm.if_equal(TCP, quoted);
    asm.unless_equal(UDP, ways.addresses);
    asm.place(quoted);
    asm.keep(PROTOCOL);
    asm.keep_x(PORTS_AT);
    for (offset, word) in [(8, SRC), (24, DST)] {
        write_fold(asm, |asm, at| {
            asm.recall_x(ICMP_AT);
            network.load_at_x(asm, Size::Word, QUOTED + offset + at);
        });
        write_spread(asm, seed);
        asm.keep(word);
    }
    asm.recall_x(PORTS_AT);
    asm.goto(ways.ports);
}

/// A = the four words that `load` loads, as one.
fn write_fold(asm: &mut Assembler, load: impl Fn(&mut Assembler, u32)) {
    load(asm, 0);
    for at in [4, 8, 12] {
        asm.mul(FOLD);
        asm.keep(FOLDED);
        load(asm, at);
        asm.recall_x(FOLDED);
        asm.xor_x();
    }
}

fn write_spread(asm: &mut Assembler, seed: u32) {
    asm.xor(seed);
    asm.mul(SPREAD);
}

/// Returns the hash. The port of `dst` is in A, the rest in scratch memory.
fn write_combine(asm: &mut Assembler) {
    let write_end = |asm: &mut Assembler, address: u32| {
        asm.recall_x(address);
        asm.add_x();
        asm.mul(END);
        asm.tax();
        asm.shr(END_SHIFT);
        asm.xor_x();
    };
    write_end(asm, DST);
    asm.keep(DST);
    asm.recall(SRC_PORT);
    write_end(asm, SRC);
    asm.recall_x(DST);
    asm.add_x();
    asm.recall_x(PROTOCOL);
    asm.xor_x();
    asm.mul(FLOW);
    asm.tax();
    asm.shr(FLOW_SHIFT);
    asm.xor_x();
    asm.ret_a();
}

/// The packet that an ICMP message quotes begins behind its header.
const QUOTED: u32 = ICMP_HEADER_LEN as u32;

// Words of scratch memory.
const SRC: u32 = 0;
const DST: u32 = 1;
const PROTOCOL: u32 = 2;
const SRC_PORT: u32 = 3;
const FOLDED: u32 = 4;
const QUOTED_PROTOCOL: u32 = 5;
const ICMP_AT: u32 = 6;
const PORTS_AT: u32 = 7;
