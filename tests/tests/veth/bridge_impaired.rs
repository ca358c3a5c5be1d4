//! `wirestack bridge` as a worse wire: what was asked for is what happens, and receivers notice.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use wirestack_apps::testbed::{Chain, LEFT_IPV4, RIGHT_IPV4};
use wirestack_tests::runner::{Case, Outcome, chain_test, note, require_program, stay_on_one_core};

use crate::bridge::{bridge, count, ping, transfer};
use crate::support::{LONG, end};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let usual = [1500, 1500];
    vec![
        chain_test("bridge::loss_counts_packets", usual, loss),
        require_program("ping", chain_test("bridge::delay_is_what_was_asked_for", usual, delay)),
        chain_test("bridge::flipped_bits_are_detected", usual, corrupt),
        chain_test("bridge::copies_and_swaps_arrive", usual, copies_and_swaps),
        chain_test("bridge::a_rate_drops_the_tail_and_keeps_the_order", usual, rate),
    ]
}

/// One percent of the packets, whether the sender made super-frames or not.
fn loss(chain: &Chain) -> Outcome {
    note("--impair-ab loss=1% --seed 5");
    let child = bridge(chain, &["--impair-ab", "loss=1%", "--seed", "5"])?;
    let len = 16 << 20;
    transfer(chain, RIGHT_IPV4.into(), len)?;
    let ended = end(child)?;
    let (sent, lost) = (count(&ended, "a_to_b", "impaired_sent"), count(&ended, "a_to_b", "impaired_lost"));
    // Segments carry 1 448 bytes at most.
    assert!(sent > len as u64 / 1448, "{}", ended.stdout);
    // Of at least 11 500, 1 % is 115 with a standard deviation of 11: five of these each way.
    let share = lost as f64 / sent as f64;
    assert!((0.005..0.015).contains(&share), "{lost} of {sent}: {}", ended.stdout);
    assert_eq!(count(&ended, "a_to_b", "super_frames"), 0, "{}", ended.stdout);
    assert_eq!(count(&ended, "b_to_a", "impaired_sent"), 0, "the other direction is a good wire");
    Ok(())
}

fn delay(chain: &Chain) -> Outcome {
    let child = bridge(chain, &["--impair", "delay=20ms"])?;
    let ended = ping(chain, &["-c", "5", "-i", "0.05", &RIGHT_IPV4.to_string()])?;
    let numbers = ended.stdout.split("min/avg/max/mdev = ").nth(1).expect("a summary");
    let least: f64 = numbers.split('/').next().unwrap_or_default().parse()?;
    assert!(least >= 40.0, "{ended}");
    end(child)?;
    Ok(())
}

/// Bytes that arrive are right all the same, and the right kernel has counted what was not.
fn corrupt(chain: &Chain) -> Outcome {
    note("--impair-ab corrupt=1% --seed 6");
    let child = bridge(chain, &["--impair-ab", "corrupt=1%", "--seed", "6"])?;
    transfer(chain, RIGHT_IPV4.into(), 8 << 20)?;
    let ended = end(child)?;
    let corrupted = count(&ended, "a_to_b", "impaired_corrupted");
    let found = checksum_errors(chain)?;
    assert!(found > corrupted / 2, "{found} found of {corrupted}");
    Ok(())
}

/// Segments that the TCP of the right kernel has found wrong.
fn checksum_errors(chain: &Chain) -> io::Result<u64> {
    let text = chain.at_right(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let value = pairs.find(|(name, _)| *name == "InCsumErrors").and_then(|(_, value)| value.parse().ok());
    value.ok_or_else(|| io::Error::other(text.clone()))
}

/// Sockets of both kernels that know each other, and have found each other's hardware address.
fn sockets(chain: &Chain) -> io::Result<(UdpSocket, UdpSocket)> {
    let receiver = chain.at_right(|| UdpSocket::bind((RIGHT_IPV4, 0)))?;
    let sender = chain.at_left(|| UdpSocket::bind((LEFT_IPV4, 0)))?;
    sender.connect(receiver.local_addr()?)?;
    receiver.connect(sender.local_addr()?)?;
    receiver.set_read_timeout(Some(LONG))?;
    sender.send(b"first")?;
    receiver.recv(&mut [0; 5])?;
    receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok((sender, receiver))
}

/// Sends numbers, then marks until one of these arrives, and returns the numbers that came before it. The
/// wire must keep a mark behind the numbers, or lose neither.
fn numbers(sender: &UdpSocket, receiver: &UdpSocket, len: usize, count: u32) -> io::Result<Vec<u32>> {
    const MARK: u32 = 1 << 31;
    let send = |number: u32| {
        let mut datagram = vec![0; len];
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        sender.send(&datagram)
    };
    for number in 0..count {
        send(number)?;
    }
    let mut seen = Vec::new();
    let deadline = std::time::Instant::now() + LONG;
    let mut marks = 0;
    loop {
        let mut room = [0; 2000];
        match receiver.recv(&mut room) {
            // A copy of the datagram by which the kernels met.
            Ok(5) => {}
            Ok(_) => match u32::from_be_bytes([room[0], room[1], room[2], room[3]]) {
                MARK => marks += 1,
                number => seen.push(number),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Nothing more is on its way: what is held back is released after 10 ms.
                if marks > 0 {
                    return Ok(seen);
                }
                assert!(std::time::Instant::now() < deadline, "no mark arrives; {} numbers did", seen.len());
                send(MARK)?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn copies_and_swaps(chain: &Chain) -> Outcome {
    stay_on_one_core();
    note("--impair-ab duplicate=100%; reorder=20% --seed 7");
    let child = bridge(chain, &["--impair-ab", "duplicate=100%"])?;
    let (sender, receiver) = sockets(chain)?;
    let seen = numbers(&sender, &receiver, 100, 100)?;
    assert_eq!(seen, (0..100).flat_map(|number| [number, number]).collect::<Vec<_>>());
    end(child)?;

    let child = bridge(chain, &["--impair-ab", "reorder=20%", "--seed", "7"])?;
    let mut seen = numbers(&sender, &receiver, 100, 200)?;
    assert!(!seen.is_sorted(), "{seen:?}");
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    let ended = end(child)?;
    assert!(count(&ended, "a_to_b", "impaired_reordered") >= 10, "{}", ended.stdout);
    Ok(())
}

fn rate(chain: &Chain) -> Outcome {
    stay_on_one_core();
    // Of 1 042 bytes each takes 0.8 ms, and the burst comes within a few of these.
    let child = bridge(chain, &["--impair-ab", "rate=10mbit,queue=20"])?;
    let (sender, receiver) = sockets(chain)?;
    let seen = numbers(&sender, &receiver, 1000, 300)?;
    assert!(seen.is_sorted(), "{seen:?}");
    let ended = end(child)?;
    let dropped = count(&ended, "a_to_b", "impaired_queue_full");
    assert!(dropped > 0, "{}", ended.stdout);
    assert_eq!(seen.len() as u64 + dropped, 300, "{}", ended.stdout);
    assert!(seen.len() >= 20, "what fits into the queue passes: {}", seen.len());
    Ok(())
}
