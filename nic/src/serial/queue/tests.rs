use proptest::prelude::*;

use super::*;

const CONFIG: QueueConfig =
    QueueConfig { bulk_bytes_max: 2_012, bytes_max: 6_108, small_max: 256, quantum: 1_006 };

/// An IPv4 packet with UDP between two ports, and a number in it.
fn packet(port: u16, number: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len.max(32)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len.max(32) as u16).to_be_bytes());
    packet[9] = 17;
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&7_u16.to_be_bytes());
    packet[28..32].copy_from_slice(&number.to_be_bytes());
    packet
}

fn push(queue: &mut TxQueue, packet: &[u8]) -> bool {
    let has_room = queue.has_room(packet.len());
    if has_room {
        queue.push(packet.len(), |room| room.copy_from_slice(packet));
    }
    has_room
}

fn pop(queue: &mut TxQueue) -> Option<(u16, u32)> {
    queue.pop(|packet| {
        (
            u16::from_be_bytes([packet[20], packet[21]]),
            u32::from_be_bytes([packet[28], packet[29], packet[30], packet[31]]),
        )
    })
}

#[test]
fn a_small_packet_waits_for_no_bulk_of_others() {
    let mut queue = TxQueue::new(CONFIG);
    assert!(push(&mut queue, &packet(1, 0, 1_006)));
    assert_eq!(pop(&mut queue), Some((1, 0)));
    // The line is busy with it. Two more of bulk find room, a third one does not.
    assert!(push(&mut queue, &packet(1, 1, 1_006)));
    assert!(push(&mut queue, &packet(1, 2, 1_006)));
    assert!(!push(&mut queue, &packet(1, 3, 1_006)));
    assert!(!queue.has_room_for_any());
    assert!(push(&mut queue, &packet(2, 4, 41)));
    assert_eq!(pop(&mut queue), Some((2, 4)));
    assert_eq!(pop(&mut queue), Some((1, 1)));
    assert!(queue.has_room_for_any());
}

#[test]
fn who_comes_again_and_again_does_not_pass_for_ever() {
    let mut queue = TxQueue::new(CONFIG);
    assert!(push(&mut queue, &packet(1, 0, 1_006)));
    assert!(push(&mut queue, &packet(1, 1, 1_006)));
    let mut passed = 0;
    for number in 0.. {
        assert!(push(&mut queue, &packet(2, number, 200)));
        match pop(&mut queue) {
            Some((1, 1)) => break,
            Some((2, _)) => passed += 200,
            _ => {}
        }
        assert!(passed <= 3 * 1_006, "bulk does not come to its turn");
    }
}

/// Many flows whose packets come one at a time, as a stack sends them into a queue of two: each begins to wait anew, and
/// none of them goes before the small packet of another flow that was here before.
#[test]
fn a_small_packet_waits_for_no_bulk_of_many() {
    let mut queue = TxQueue::new(CONFIG);
    let mut number = 0;
    for round in 0..500_u32 {
        while push(&mut queue, &packet(100 + (number % 30) as u16, number, 1_006)) {
            number += 1;
        }
        if round % 7 == 3 {
            assert!(push(&mut queue, &packet(2, round, 41)));
            assert_eq!(pop(&mut queue), Some((2, round)));
        }
        assert!(pop(&mut queue).is_some_and(|(port, _)| port >= 100));
    }
}

#[test]
fn flows_of_bulk_share_the_line_by_bytes() {
    let config = QueueConfig { bulk_bytes_max: 1 << 20, bytes_max: 1 << 20, ..CONFIG };
    let mut queue = TxQueue::new(config);
    for number in 0..200 {
        assert!(push(&mut queue, &packet(1, number, 1_006)));
        assert!(push(&mut queue, &packet(2, number, 300)));
        assert!(push(&mut queue, &packet(2, number, 300)));
    }
    let mut bytes = [0_usize; 2];
    for _ in 0..200 {
        let (flow, len) = queue.pop(|packet| (usize::from(packet[21]) - 1, packet.len())).expect("some");
        bytes[flow] += len;
    }
    let [a, b] = bytes.map(|bytes| bytes as f64);
    assert!((0.9..1.1).contains(&(a / b)), "{a} {b}");
}

#[test]
fn a_flood_of_small_packets_is_told_of_room_when_there_is_some() {
    let mut queue = TxQueue::new(CONFIG);
    while push(&mut queue, &packet(1, 0, 200)) {}
    assert!(!queue.has_room_for_any(), "who waits for room would be woken again and again");
    while queue.bytes() > CONFIG.bytes_max - CONFIG.small_max {
        queue.pop(|_| ());
    }
    assert!(queue.has_room_for_any() && push(&mut queue, &packet(2, 0, 200)));
}

#[test]
fn one_packet_of_any_length_finds_room() {
    let mut queue =
        TxQueue::new(QueueConfig { bulk_bytes_max: 500, bytes_max: 600, small_max: 100, quantum: 296 });
    assert!(push(&mut queue, &packet(1, 0, 1_500)));
    assert!(!push(&mut queue, &packet(1, 0, 296)));
    queue.clear();
    assert!(queue.is_empty() && push(&mut queue, &packet(1, 0, 296)));
}

proptest! {
    /// What goes in comes out, in the order of its flow, and the bounds hold.
    #[test]
    fn nothing_is_lost_and_flows_keep_their_order(ops in prop::collection::vec((1_u16..6, 32_usize..1_006, any::<bool>()), 1..300)) {
        let mut queue = TxQueue::new(CONFIG);
        let mut last = [0_u32; 6];
        let (mut inside, mut bytes) = (0, 0);
        let mut check = |queue: &mut TxQueue, inside: &mut usize, bytes: &mut usize| {
            let popped = queue.pop(|packet| (packet[21], u32::from_be_bytes([packet[28], packet[29], packet[30], packet[31]]), packet.len()));
            let Some((port, number, len)) = popped else { return *inside == 0 };
            *inside -= 1;
            *bytes -= len;
            std::mem::replace(&mut last[usize::from(port)], number) < number
        };
        for (number, (port, len, is_push)) in ops.into_iter().enumerate() {
            if is_push {
                if push(&mut queue, &packet(port, number as u32 + 1, len)) {
                    inside += 1;
                    bytes += len;
                }
            } else {
                prop_assert!(check(&mut queue, &mut inside, &mut bytes));
            }
            prop_assert_eq!(queue.bytes(), bytes);
            prop_assert!(bytes <= CONFIG.bytes_max);
        }
        while inside > 0 {
            prop_assert!(check(&mut queue, &mut inside, &mut bytes));
        }
        prop_assert!(queue.is_empty());
    }
}
