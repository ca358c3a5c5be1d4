//! What the peer does, and what must be seen of it.

use std::net::{Ipv4Addr, SocketAddr};

use smoltcp::time::Duration;

use crate::peer::*;

/// Returns what is wrong unless something holds.
macro_rules! expect {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}

type Checked = Result<(), String>;

/// A receive buffer for which the window has to be scaled.
pub(crate) const LARGE: usize = 300_000;

/// One ACK without data, from where we are to where the peer is.
fn is_challenge(sent: &[Seen], end: &End) -> bool {
    matches!(sent, [one] if one.flags == ACK && one.data.is_empty() && (one.seq, one.ack) == (end.ack, end.seq))
}

pub(crate) fn reset_in_window(peer: &mut Peer) -> Checked {
    let end = peer.connect(client(5_000), &MSS, 65_535)?;
    let reset = Craft { flags: RST, ..end.segment() };
    let sent = peer.put(Craft { seq: end.seq + 100, ..reset.clone() })?;
    expect!(peer.engine.is_open(), "a reset somewhere in the window ended the connection");
    expect!(is_challenge(&sent, &end), "no challenge ACK: {sent:?}");
    let sent = peer.put(Craft { seq: end.seq - 1, ..reset.clone() })?;
    expect!(peer.engine.is_open() && sent.is_empty(), "a reset before the window: {sent:?}");
    peer.put(reset)?;
    expect!(!peer.engine.is_open(), "a reset where it is expected did not end the connection");
    Ok(())
}

pub(crate) fn ack_of_never_sent(peer: &mut Peer) -> Checked {
    let mut end = peer.connect(client(5_000), &MSS, 1_000)?;
    let data = pattern(5_000);
    expect!(peer.engine.write(&data) == data.len(), "no room for 5000 bytes");
    let mut sent = peer.settle()?;
    let len: usize = sent.iter().map(|one| one.data.len()).sum();
    expect!(len == 1_000, "{len} bytes into a window of 1000");
    let answer = peer.put(Craft { ack: end.ack + 5_000, ..end.segment() })?;
    sent.extend(answer);
    let got = peer.collect(&mut end, sent, data.len())?;
    expect!(got == data, "other bytes came than were written");
    Ok(())
}

pub(crate) fn old_ack_with_data(peer: &mut Peer) -> Checked {
    let mut end = peer.connect(client(5_000), &MSS, 65_535)?;
    peer.engine.write(&[7; 100]);
    peer.settle()?;
    let before = end.ack;
    end.ack += 100;
    peer.put(end.segment())?;
    // It was overtaken by the ACK.
    peer.put(Craft { ack: before, data: pattern(50), ..end.segment() })?;
    let got = peer.engine.read();
    expect!(got == pattern(50), "{} of 50 bytes behind an old ACK number came", got.len());
    // As old as that an ACK cannot be: it is no peer's.
    end.seq += 50;
    let sent = peer.put(Craft { ack: before - 70_000, data: vec![9; 50], ..end.segment() })?;
    expect!(peer.engine.read().is_empty(), "data behind an ACK number from nowhere came");
    expect!(!sent.is_empty(), "an ACK number from nowhere was not answered");
    Ok(())
}

pub(crate) fn fin_before_data(peer: &mut Peer) -> Checked {
    let end = peer.connect(client(5_000), &MSS, 65_535)?;
    peer.put(Craft { seq: end.seq + 100, flags: FIN | ACK, ..end.segment() })?;
    let mut sent = peer.put(Craft { data: pattern(100), ..end.segment() })?;
    sent.extend(peer.advance(Duration::from_secs(1))?);
    expect!(peer.engine.read() == pattern(100), "the data did not come");
    expect!(peer.engine.has_peer_finished(), "the FIN was forgotten");
    let last = sent.last().map(|one| one.ack);
    expect!(last == Some(end.seq + 101), "{last:?} was acknowledged, not the FIN");
    Ok(())
}

pub(crate) fn ten_at_once(peer: &mut Peer) -> Checked {
    let ports = 5_000..5_010;
    for port in ports.clone() {
        peer.push(&Craft::syn(client(port), &MSS));
    }
    let sent = peer.settle()?;
    let answered = sent.iter().filter(|one| one.has(SYN | ACK)).count();
    let count = ports.len();
    expect!(
        answered == count && sent.len() == count,
        "{answered} of {count} SYNs were answered by a SYN-ACK"
    );
    for one in &sent {
        let end = End { from: client(one.dst_port), seq: ISS + 1, ack: one.end(), window: 65_535 };
        peer.push(&end.segment());
    }
    peer.settle()?;
    let accepted = std::iter::from_fn(|| peer.engine.accept().then_some(())).count();
    expect!(accepted == count, "{accepted} of {count} were there to be accepted");
    Ok(())
}

pub(crate) fn syn_flood(peer: &mut Peer) -> Checked {
    let (flood, burst) = (100_000_u32, 250);
    let mut answered = 0;
    for first in (0..flood).step_by(burst as usize) {
        for number in first..first + burst {
            let [_, a, b, c] = number.to_be_bytes();
            let from =
                SocketAddr::new(Ipv4Addr::new(10, 1 + a, b, c).into(), 1_024 + (number % 60_000) as u16);
            peer.push(&Craft::syn(from, &MSS));
        }
        answered += peer.settle()?.iter().filter(|one| one.has(SYN | ACK)).count();
    }
    let mut end = peer.connect(client(5_000), &MSS, 65_535)?;
    peer.put(Craft { data: b"hello".to_vec(), ..end.segment() })?;
    expect!(peer.engine.read() == b"hello", "what a client sends in the flood did not come");
    end.seq += 5;
    expect!(answered == flood as usize, "{answered} of {flood} SYNs were answered");
    // What is held is what is sent again; a cookie is forgotten as soon as it is sent.
    let sent = peer.advance(Duration::from_secs(2))?;
    let held = sent.iter().filter(|one| one.has(SYN | ACK)).count();
    expect!((1..=4_096).contains(&held), "{held} half-open connections are held");
    // And these are given up.
    peer.advance(Duration::from_secs(120))?;
    let sent = peer.advance(Duration::from_secs(3_600))?;
    expect!(!sent.iter().any(|one| one.has(SYN | ACK)), "half-open connections are still there");
    peer.put(Craft { data: b"again".to_vec(), ..end.segment() })?;
    expect!(peer.engine.read() == b"again", "the client's connection is there no more");
    Ok(())
}

pub(crate) fn half_open_is_given_up(peer: &mut Peer) -> Checked {
    let mut sent = peer.put(Craft::syn(client(5_000), &MSS))?;
    sent.extend(peer.advance(Duration::from_secs(3_600))?);
    let (count, first) = (sent.len(), sent.first().cloned().ok_or("the SYN was not answered")?);
    expect!(sent.iter().all(|one| one.has(SYN | ACK)), "other segments than SYN-ACKs: {sent:?}");
    expect!((2..=10).contains(&count), "{count} SYN-ACKs in an hour for one SYN");
    let end = End { from: client(5_000), seq: ISS + 1, ack: first.end(), window: 65_535 };
    let sent = peer.put(end.segment())?;
    expect!(sent.len() == 1 && sent[0].has(RST), "an hour later the handshake still goes on: {sent:?}");
    expect!(!peer.engine.accept(), "an hour later a connection comes of it");
    Ok(())
}

pub(crate) fn syn_in_established(peer: &mut Peer) -> Checked {
    let end = peer.connect(client(5_000), &MSS, 65_535)?;
    for seq in [end.seq, end.seq + 100, end.seq.wrapping_sub(100_000), end.seq + 1_000_000] {
        let sent = peer.put(Craft { seq, ..Craft::syn(end.from, &MSS) })?;
        expect!(peer.engine.is_open(), "a SYN ended the connection");
        expect!(is_challenge(&sent, &end), "no challenge ACK for a SYN at {seq}: {sent:?}");
        peer.advance(Duration::from_secs(1))?;
    }
    // The peer has started anew and knows nothing of the connection: it answers the challenge by a reset, and begins.
    peer.put(Craft { seq: end.seq, flags: RST, ..end.segment() })?;
    expect!(!peer.engine.is_open(), "half a connection is still there");
    let again = Craft { seq: end.seq + 1_000_000, ..Craft::syn(end.from, &MSS) };
    peer.connect_with(again, &[], 65_535)?;
    Ok(())
}

pub(crate) fn old_duplicate(peer: &mut Peer) -> Checked {
    let times = |val: u32| timestamp(val, 0);
    let syn = Craft { options: [&MSS[..], &times(10_000)].concat(), ..Craft::syn(client(5_000), &[]) };
    let mut end = peer.connect_with(syn, &times(10_001), 65_535)?;
    peer.put(Craft { options: times(10_010), data: b"new".to_vec(), ..end.segment() })?;
    expect!(peer.engine.read() == b"new", "the first data did not come");
    end.seq += 3;
    peer.advance(Duration::from_secs(1))?;
    // Of a stream before the last one: 4 GB ago its number was the same.
    let sent = peer.put(Craft { options: times(5_000), data: b"old".to_vec(), ..end.segment() })?;
    expect!(peer.engine.read().is_empty(), "the old duplicate was delivered");
    expect!(is_challenge(&sent, &end), "the old duplicate was not answered: {sent:?}");
    peer.put(Craft { options: times(10_011), data: b"newer".to_vec(), ..end.segment() })?;
    expect!(peer.engine.read() == b"newer", "data behind the old duplicate did not come");
    Ok(())
}

pub(crate) fn islands(peer: &mut Peer) -> Checked {
    let end = peer.connect(client(5_000), &MSS_AND_SACK, 65_535)?;
    let data = pattern(1_300);
    let mut told = Vec::new();
    for island in 0..6_u32 {
        let from = 100 + 200 * island;
        let part = data[from as usize..from as usize + 100].to_vec();
        let sent = peer.put(Craft { seq: end.seq + from, data: part, ..end.segment() })?;
        expect!(is_challenge(&sent, &end), "island {island} was not answered by a duplicate ACK: {sent:?}");
        //= rfc2018#4
        //# The first SACK block (i.e., the one immediately following the kind and length fields in the option)
        //# MUST specify the contiguous block of data containing the segment which triggered this ACK
        told.insert(0, (end.seq + from, end.seq + from + 100));
        let expected = &told[..told.len().min(4)];
        expect!(sent[0].sack == expected, "SACK blocks {:?}, expected {expected:?}", sent[0].sack);
    }
    for hole in 0..6 {
        let part = data[200 * hole..200 * hole + 100].to_vec();
        peer.put(Craft { seq: end.seq + 200 * hole as u32, data: part, ..end.segment() })?;
    }
    expect!(peer.engine.read() == data[..1_200], "other bytes came than were sent");
    Ok(())
}

/// The same in one turn: an ACK for all of them has no room for what it has to tell.
pub(crate) fn islands_in_a_burst(peer: &mut Peer) -> Checked {
    for (port, with_timestamps) in [(5_000, false), (5_001, true)] {
        let times = if with_timestamps { timestamp(10_000, 0) } else { Vec::new() };
        let syn = Craft::syn(client(port), &[&MSS_AND_SACK[..], &times].concat());
        let end = peer.connect_with(syn, &times, 65_535)?;
        let segment = |at: u32| {
            let data = pattern(4_000)[at as usize..at as usize + 100].to_vec();
            Craft { seq: end.seq + at, data, options: times.clone(), ..end.segment() }
        };
        let islands: Vec<u32> = [100, 300, 500, 1_700, 1_500, 1_300, 900, 700, 1_100].to_vec();
        islands.iter().for_each(|at| peer.push(&segment(*at)));
        let sent = peer.settle()?;
        let told: Vec<_> = sent.iter().flat_map(|one| &one.sack).collect();
        for at in islands {
            let island = (end.seq + at, end.seq + at + 100);
            expect!(told.contains(&&island), "{at} of a burst of islands was not told: SACK blocks {told:?}");
        }
        // What comes again is told first, each on its own: the peer has to know that nothing was lost.
        for at in [300, 900, 1_500, 300] {
            let whole = segment(at);
            peer.push(&Craft { seq: whole.seq + 20, data: whole.data[20..70].to_vec(), ..whole });
        }
        let sent = peer.settle()?;
        let again: Vec<_> = sent.iter().filter_map(|one| Some(one.sack.first()?.0 - end.seq)).collect();
        expect!(again == [320, 920, 1_520, 320], "of what came again, {again:?} was told as SACK blocks");
    }
    Ok(())
}

pub(crate) fn old_window(peer: &mut Peer) -> Checked {
    let mut end = peer.connect(client(5_000), &MSS, 0)?;
    let begin = end.ack;
    peer.engine.write(&pattern(3_000));
    // A probe may come at once; it is one byte.
    let len = |sent: &[Seen]| sent.iter().map(|one| one.data.len()).sum::<usize>();
    let mut sent = peer.settle()?;
    expect!(len(&sent) <= 1, "{} bytes went into a window of 0", len(&sent));
    // The newest one says that the window is shut; one from before, which it has overtaken, that it is open.
    sent.extend(peer.put(Craft { seq: end.seq + 100, data: vec![1; 10], window: 0, ..end.segment() })?);
    sent.extend(peer.put(Craft { window: 5_000, ..end.segment() })?);
    expect!(len(&sent) <= 1, "{} bytes went into a shut window", len(&sent));
    end.window = 5_000;
    sent.extend(peer.put(Craft { data: vec![1; 110], ..end.segment() })?);
    (end.seq, end.ack) = (end.seq + 110, begin);
    let got = peer.collect(&mut end, sent, 3_000)?;
    expect!(got == pattern(3_000), "other bytes came than were written");
    Ok(())
}

pub(crate) fn beyond_the_first_window(peer: &mut Peer) -> Checked {
    let end = peer.connect(client(5_000), &MSS_AND_SCALE, 65_535)?;
    let data = pattern(LARGE + 1_000);
    let segment = |at: usize| {
        let part = data[at..data.len().min(at + 1_460)].to_vec();
        Craft { seq: end.seq + at as u32, data: part, ..end.segment() }
    };
    // The application reads nothing. The window of the SYN-ACK was not scaled: that one is far beyond it.
    peer.put(segment(LARGE - 1_000))?;
    for at in (0..LARGE).step_by(1_460) {
        peer.put(segment(at))?;
    }
    let got = peer.engine.read();
    expect!(peer.engine.is_open(), "the connection has ended");
    expect!((60_000..=LARGE).contains(&got.len()), "{} bytes came", got.len());
    expect!(got == data[..got.len()], "other bytes came than were sent");
    Ok(())
}

/// The window is shut from the beginning, or has room for the byte, or for both, and is shut then.
pub(crate) fn byte_and_fin_before_a_shut_window(peer: &mut Peer) -> Checked {
    (0..3).try_for_each(|window| byte_and_fin(peer, window))
}

fn byte_and_fin(peer: &mut Peer, window: u16) -> Checked {
    let mut end = peer.connect(client(5_000 + window), &MSS, window)?;
    peer.engine.write(b"x");
    peer.engine.finish();
    let (begin, mut frames, mut got) = (end.ack, 0, Vec::new());
    for second in 0..60 {
        // Half a minute later the window opens.
        end.window = if second < 30 { 0 } else { 1_000 };
        let mut sent = peer.advance(Duration::from_secs(1))?;
        // Whatever comes is acknowledged, probes included: they are before or behind what is expected.
        for _ in 0..10 {
            frames += sent.len();
            got.extend(sent.iter().filter(|one| one.seq == begin).flat_map(|one| one.data.clone()));
            if sent.iter().all(|one| one.seq == end.ack && one.end() == end.ack) {
                break;
            }
            let is_new = |last: &u32| last.wrapping_sub(end.ack) as i32 > 0;
            end.ack = sent.iter().map(Seen::end).rfind(is_new).unwrap_or(end.ack);
            sent = peer.put(end.segment())?;
        }
    }
    let numbers = end.ack.wrapping_sub(begin);
    expect!(got.starts_with(b"x") && numbers == 2, "{numbers} numbers came, not a byte and a FIN");
    expect!(frames <= 100, "{frames} frames for one byte");
    peer.put(Craft { flags: FIN | ACK, ..end.segment() })?;
    expect!(!peer.engine.is_open(), "both have finished, and the connection is there");
    Ok(())
}

pub(crate) fn resets_are_throttled(peer: &mut Peer) -> Checked {
    let (mut resets, count) = (0, 10_000_u16);
    for port in 0..count {
        let end = End { from: client(1_024 + port), seq: 1, ack: 1, window: 65_535 };
        peer.push(&end.segment());
        if port % 250 == 249 {
            resets += peer.settle()?.iter().filter(|one| one.has(RST)).count();
        }
    }
    expect!((1..=2_000).contains(&resets), "{resets} resets for {count} segments at one time");
    peer.advance(Duration::from_secs(2))?;
    let end = End { from: client(1_024), seq: 1, ack: 1, window: 65_535 };
    let sent = peer.put(end.segment())?;
    expect!(sent.len() == 1 && sent[0].has(RST), "no reset later on: {sent:?}");
    Ok(())
}

pub(crate) fn time_wait_reopens(peer: &mut Peer) -> Checked {
    let mut end = peer.connect(client(5_000), &MSS, 65_535)?;
    peer.engine.finish();
    let sent = peer.settle()?;
    expect!(sent.iter().any(|one| one.has(FIN)), "no FIN: {sent:?}");
    end.ack += 1;
    let sent = peer.put(Craft { flags: FIN | ACK, ..end.segment() })?;
    end.seq += 1;
    expect!(is_challenge(&sent, &end), "the FIN was not acknowledged: {sent:?}");
    let old = end.ack;
    let end = peer.connect_with(Craft { seq: end.seq + 1_000, ..Craft::syn(end.from, &MSS) }, &[], 65_535)?;
    expect!(end.ack.wrapping_sub(old) < 1 << 31, "the new connection begins behind the old one");
    peer.put(Craft { data: b"anew".to_vec(), ..end.segment() })?;
    expect!(peer.engine.read() == b"anew", "data of the new connection did not come");
    Ok(())
}

pub(crate) fn too_big(peer: &mut Peer) -> Checked {
    let mut end = peer.connect(client(5_000), &MSS, 65_535)?;
    let data = pattern(20_000);
    peer.engine.write(&data);
    let sent = peer.settle()?;
    let first = sent.iter().find(|one| one.data.len() == 1_460).ok_or("no full segment was sent")?;
    // Whoever quotes what is not under way is not heard.
    let mut forged = first.packet.clone();
    forged[24] ^= 0x80;
    let still = peer.put_icmp(3, 4, 576, &forged)?;
    expect!(still.is_empty(), "a report about what was never sent was heard");
    let packet = first.packet.clone();
    let mut sent = peer.put_icmp(3, 4, 1_000, &packet)?;
    sent.extend(peer.advance(Duration::from_secs(3))?);
    let longest = sent.iter().map(|one| one.packet.len()).max().ok_or("nothing was sent again")?;
    expect!(longest <= 1_000, "a packet of {longest} bytes, where the path takes 1000");
    expect!(longest > 900, "the longest packet has {longest} bytes, where the path takes 1000");
    let got = peer.collect(&mut end, sent, data.len())?;
    expect!(got == data, "other bytes came than were written");
    Ok(())
}

pub(crate) fn merged_frame(peer: &mut Peer) -> Checked {
    let mut end = peer.connect(client(5_000), &MSS, 65_535)?;
    let len = 29_200;
    // Beyond the ACKs at once of the beginning, into the time when one waits for company.
    let mut waits = false;
    for _ in 0..40 {
        let sent = peer.put(Craft { data: vec![1; 100], ..end.segment() })?;
        waits = sent.is_empty();
        end.seq += 100;
        peer.advance(Duration::from_secs(1))?;
        peer.engine.read();
    }
    expect!(waits, "an ACK of a short segment does not wait");
    let sent = peer.put_merged(Craft { data: vec![1; len], ..end.segment() }, 1_460)?;
    end.seq += len as u32;
    expect!(is_challenge(&sent, &end), "{len} bytes wait for their ACK: {sent:?}");
    Ok(())
}
