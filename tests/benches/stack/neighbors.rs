//! How long it takes until many hosts are known that were not: in the time of the stack, and in ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;
use wirestack::shard::{Shard, UdpBind};
use wirestack::udp::SendError;

use crate::Outcome;
use crate::device::{Feed, start};
use crate::frames;
use crate::table::pin;

const HOSTS: u32 = 10_000;
/// From one end of the link to the other.
const DELAY: Duration = Duration::from_millis(1);
/// What the target allows.
const SECONDS_MAX: f64 = 1.0;

pub(crate) fn all() -> Outcome {
    pin(1);
    for is_v6 in [false, true] {
        let began = std::time::Instant::now();
        let (time, requests) = resolve(is_v6)?;
        let seconds = time.total_micros() as f64 / 1e6;
        let real = began.elapsed().as_secs_f64() * 1e3;
        let family = if is_v6 { "NDP" } else { "ARP" };
        let verdict = if seconds <= SECONDS_MAX { "" } else { ", more than 1 s" };
        println!(
            "  {family}: {HOSTS} hosts in {seconds:.4} s of the stack's time{verdict}; {requests} requests, \
             {real:.1} ms of CPU, {:.2} us a host",
            real * 1e3 / f64::from(HOSTS)
        );
    }
    Ok(())
}

/// Sends one datagram to each host, and returns when the last one left, and how many hosts were asked for.
fn resolve(is_v6: bool) -> Result<(Duration, usize), Box<dyn std::error::Error>> {
    let begin = start();
    let mut shard = Shard::new(frames::config(), begin)?;
    let (ours, _) = frames::hosts(is_v6);
    let socket = shard.udp_bind(UdpBind::new(SocketAddr::new(ours, 5000)))?;
    let mut feed = Feed::new([]);
    feed.sent = Some(Default::default());
    // What is on its way back, and when it arrives.
    let mut answers: Vec<(Instant, Vec<u8>)> = Vec::new();
    let (mut now, mut next, mut requests, mut arrived) = (begin, 0, 0, 0);
    while arrived < HOSTS {
        let is_due = answers.iter().take_while(|(at, _)| *at <= now).count();
        feed.load(answers.drain(..is_due).map(|(_, frame)| frame));
        feed.left = feed.len();
        let deadline = shard.turn(now, &mut feed, |shard| {
            while next < HOSTS {
                let to = SocketAddr::new(frames::host(is_v6, 1000 + next), 9);
                match shard.udp_send_to(socket, b"who are you?", to) {
                    Ok(()) => next += 1,
                    Err(SendError::WouldBlock) => break,
                    Err(error) => panic!("{to}: {error}"),
                }
            }
        });
        for frame in feed.sent.iter_mut().flat_map(|sent| sent.drain(..)) {
            if let Some(answer) = answer_to(&frame) {
                requests += 1;
                answers.push((now + DELAY + DELAY, answer));
            } else if is_datagram(&frame, is_v6) {
                arrived += 1;
            }
        }
        let is_left = feed.left > 0;
        let next_answer = answers.first().map(|(at, _)| *at);
        let until = [deadline, next_answer].into_iter().flatten().min();
        if !is_left {
            now = until.map_or(now, |until| until.max(now));
        }
        if now > begin + Duration::from_secs(60) {
            return Err(format!("{arrived} of {HOSTS} after a minute: {:?}", shard.drops()).into());
        }
    }
    Ok((now - begin, requests))
}

/// What the host says that an ARP or NDP request asks for.
fn answer_to(frame: &[u8]) -> Option<Vec<u8>> {
    let is_arp = frame.get(12..14)? == [0x08, 0x06] && frame.get(21) == Some(&1);
    if is_arp {
        let ip = Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(38..42)?).ok()?);
        return Some(frames::arp(2, mac_of(ip.into()), ip));
    }
    let is_solicitation =
        frame.get(12..14)? == [0x86, 0xdd] && frame.get(20) == Some(&58) && frame.get(54) == Some(&135);
    let target = Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(62..78)?).ok()?);
    is_solicitation.then(|| frames::neighbor_advertisement(mac_of(target.into()), target))
}

fn is_datagram(frame: &[u8], is_v6: bool) -> bool {
    frame.get(if is_v6 { 20 } else { 23 }) == Some(&17)
}

fn mac_of(ip: IpAddr) -> EthernetAddress {
    let [a, b] = match ip {
        IpAddr::V4(ip) => [ip.octets()[2], ip.octets()[3]],
        IpAddr::V6(ip) => [ip.octets()[14], ip.octets()[15]],
    };
    EthernetAddress([2, 0, 2, 0, a, b])
}
