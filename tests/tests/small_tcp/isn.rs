//! Initial sequence numbers.
//!
//! smoltcp's are the upper bits of a generator whose next state is its last one times a constant plus another: who sees
//! some of them, on connections of its own, can work out the state, and with it what everybody else gets.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};

use smoltcp::time::Duration;

use crate::peer::{ACK, Craft, ISS, Peer, RST, SYN, client};

/// Constants of smoltcp's generator.
const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const INCREMENT: u64 = 0x7590_ef39;
/// Bits of a state that an output hides below, if the upper three bits are 0.
const HIDDEN_BITS: u32 = 29;
/// Numbers that are collected: in one of 64 pairs the upper three bits of both states are 0.
const COLLECTED: usize = 512;
/// M of RFC 6528 counts 4 µs.
const NUMBERS_PER_SECOND: u32 = 250_000;

/// Begins a connection, and returns the ISN that it gets. The connection is given up.
fn isn_for(peer: &mut Peer, from: SocketAddr) -> Result<u32, String> {
    let sent = peer.put(Craft::syn(from, &[]))?;
    let isn = match &sent[..] {
        [answer] if answer.has(SYN | ACK) => answer.seq,
        _ => return Err(format!("a SYN was answered by {} segments", sent.len())),
    };
    peer.put(Craft { seq: ISS + 1, flags: RST, ..Craft::syn(from, &[]) })?;
    Ok(isn)
}

fn next_state(state: u64) -> u64 {
    state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT)
}

fn output(state: u64) -> u32 {
    (state >> (u64::from(HIDDEN_BITS) - (state >> 61))) as u32
}

/// The least `x` with `from <= a * x mod modulus <= to`, found as a greatest common divisor is.
fn first_in_range(a: u128, modulus: u128, from: u128, to: u128) -> Option<u128> {
    match (a, from) {
        (_, 0) => return Some(0),
        (0, _) => return None,
        _ => {}
    }
    let first = from.div_ceil(a);
    if a * first <= to {
        return Some(first);
    }
    let turns = first_in_range(modulus % a, a, a - to % a, a - from % a)?;
    Some((from + modulus * turns).div_ceil(a))
}

/// The state behind the first of two numbers, if the upper three bits of both states are 0: then the lower bits are all
/// that is not known, and there is about one choice of them that leads from one to the other.
fn state_behind(first: u32, second: u32) -> Option<u64> {
    let [first, second] = [first, second].map(|number| u64::from(number) << HIDDEN_BITS);
    let from = u128::from(second.wrapping_sub(next_state(first)));
    let to = from + (1 << HIDDEN_BITS) - 1;
    let low = first_in_range(MULTIPLIER.into(), 1 << 64, from, to)?;
    (low < 1 << HIDDEN_BITS).then_some(first | low as u64)
}

/// The number that comes behind these.
fn next_of(numbers: &[u32]) -> Option<u32> {
    let ways = numbers.windows(2).enumerate();
    ways.filter_map(|(at, pair)| Some((at, state_behind(pair[0], pair[1])?))).find_map(|(at, begin)| {
        let states = std::iter::successors(Some(begin), |state| Some(next_state(*state)));
        let outputs = states.map(output).take(numbers.len() - at + 1);
        let outputs: Vec<u32> = outputs.collect();
        let (next, seen) = outputs.split_last()?;
        (seen.len() > 2 && seen == &numbers[at..]).then_some(*next)
    })
}

/// An attacker sees numbers of its own connections, and none of a victim's.
pub(crate) fn nobody_knows_it(peer: &mut Peer) -> Result<(), String> {
    let mut seen = Vec::new();
    for _ in 0..COLLECTED {
        seen.push(isn_for(peer, client(5_000))?);
        peer.advance(Duration::from_millis(1))?;
    }
    let victim = SocketAddr::new(Ipv4Addr::new(10, 9, 9, 9).into(), 50_000);
    let (guessed, isn) = (next_of(&seen), isn_for(peer, victim)?);
    if guessed == Some(isn) {
        return Err(format!("the ISN {isn} of somebody else was known in advance"));
    }
    // Nor by looking at numbers of ports beside: they are as if drawn.
    let mut numbers = Vec::new();
    for port in 10_000..10_256 {
        numbers.push(isn_for(peer, client(port))?);
    }
    let steps: HashSet<u32> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    if steps.len() < numbers.len() - 1 {
        return Err("the same step twice, from flow to flow".to_owned());
    }
    for bit in 0..32 {
        let set = numbers.iter().filter(|number| *number >> bit & 1 == 1).count();
        // Of 256 coins; six standard deviations are 48.
        if !(80..=176).contains(&set) {
            return Err(format!("bit {bit} is set in {set} of {} flows", numbers.len()));
        }
    }
    Ok(())
}

/// A flow that is opened again begins where the clock is, beyond what it had; so segments of the old connection are out
/// of the window of the new one.
pub(crate) fn it_goes_on(peer: &mut Peer) -> Result<(), String> {
    for port in 6_000..6_004 {
        let mut last = isn_for(peer, client(port))?;
        for seconds in [1, 2, 30, 600] {
            peer.advance(Duration::from_secs(seconds))?;
            let isn = isn_for(peer, client(port))?;
            let step = isn.wrapping_sub(last);
            if step != NUMBERS_PER_SECOND * seconds as u32 {
                return Err(format!("{seconds} s later the ISN is {step} ahead, or as much as that behind"));
            }
            last = isn;
        }
    }
    Ok(())
}
