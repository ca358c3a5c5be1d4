//! Inputs from which to begin.

/// Connected, the applications read at once.
const PLAIN: [u8; 10] = [4 | 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const FLOW: [u8; 6] = [0; 6];
const SEND: [u8; 6] = [12, 0, 0xa0, 0, 0, 0];
const SEND_BACK: [u8; 6] = [13, 1, 0xff, 0, 0, 0];
const RECV: [u8; 6] = [14, 1, 0x90, 0, 0, 0];
const SECOND: [u8; 6] = [11, 0, 2, 20, 0, 0];
const FINISH: [u8; 6] = [18, 0, 0, 0, 0, 0];
const CLOSE: [u8; 6] = [18, 1, 2, 0, 0, 0];

fn of(head: [u8; 10], steps: &[[u8; 6]]) -> Vec<u8> {
    [&head[..], &steps.concat()].concat()
}

/// Data both ways; loss, repetition and order; segments that are changed; forged ones; a network that takes less;
/// simultaneous opens; shut windows; odd manners.
pub(in crate::targets) fn seeds() -> Vec<Vec<u8>> {
    let with = |at: usize, value: u8| {
        let mut head = PLAIN;
        head[at] = value;
        head
    };
    vec![
        of(PLAIN, &[SEND, FLOW, SEND_BACK, SECOND, FINISH, FLOW, CLOSE]),
        of(with(0, 4 | 2 | 1), &[SEND_BACK, SEND, FLOW, RECV, SECOND, RECV, FINISH, FLOW, CLOSE]),
        of(PLAIN, &[SEND, [3, 0, 0, 0, 0, 0], [5, 2, 9, 0, 0, 0], [4, 4, 3, 0, 0, 0], SECOND, SEND, SECOND]),
        of(
            PLAIN,
            &[SEND, [6, 0, 0, 32, 0, 0], FLOW, [6, 1, 1, 40, 0, 0], SEND_BACK, [6, 1, 3, 0, 0, 0], SECOND],
        ),
        of(
            PLAIN,
            &[SEND, FLOW, [8, 8, 16, 32, 40, 4], [8, 9, 20, 32, 32, 0], [8, 24, 24, 33, 32, 12], SECOND],
        ),
        of(PLAIN, &[SEND, [23, 24, 0, 200, 3, 0xc0], SEND_BACK, [23, 17, 0, 9, 200, 0x80], FLOW, SECOND]),
        of(PLAIN, &[[20, 0, 1, 10, 0, 0], SEND, FLOW, SECOND, [9, 0, 0, 2, 0x40, 0], SEND, SECOND, SECOND]),
        of(with(0, 0x40), &[[15, 0, 3, 0, 0, 0], FLOW, SEND, SEND_BACK, FLOW, [15, 0, 4, 0, 0, 0], FLOW]),
        of(with(0, 4), &[SEND, SEND, SEND, [11, 0, 3, 200, 0, 0], RECV, FLOW, [11, 0, 3, 9, 0, 0], CLOSE]),
        of(with(3, 0xd4), &[SEND, FLOW, SECOND, [19, 0, 0x24, 0x50, 0x24, 0x10], SEND, FLOW]),
        of(with(0, 0x3c), &[SEND, SEND_BACK, [15, 0, 4, 0, 0, 0], FLOW, [22, 0, 0, 0, 0, 0], FLOW, CLOSE]),
        of(with(1, 0xf0), &[SEND, [20, 0, 2, 0, 0, 0], FLOW, [10, 0, 3, 255, 0, 0], SEND_BACK, FINISH]),
        of(with(5, 0xc0), &[SEND, [11, 0, 3, 100, 0, 0], SEND_BACK, FLOW]),
        // What was found: blocks of SACK for what a peer with a window of a byte cannot have, at a clock that stands.
        of(with(7, 16), &[SEND, [23, 0, 0, 0, 0, 0], [23, 244, 0, 32, 32, 0], FLOW]),
        // A budget of three frames; a buffer of a byte and windows in units of 128; a keepalive that is due at once.
        of([12, 0x70, 0, 0, 0, 0, 0, 0, 0, 0], &[[12, 0, 0xe0, 0, 0, 0]]),
        of(with(3, 16), &[[12, 5, 0xa0, 0, 0, 0], SECOND]),
        of(with(9, 0xc0), &[FLOW, SEND, SECOND]),
        // A path whose round trips have become long, and RTOs that are short.
        of(
            [4, 0, 0, 0, 0, 0, 0, 0, 12, 48],
            &[
                [12, 11, 32, 0, 0, 0],
                [2, 15, 0, 0, 0, 0],
                [10, 0, 11, 16, 0, 0],
                [20, 15, 0, 0, 0, 0],
                [12, 1, 224, 0, 0, 0],
            ],
        ),
    ]
}
