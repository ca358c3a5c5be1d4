//! Options one by one; whole headers are in the tests of segments.

use super::*;

fn of_syn() -> Options {
    Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { val: 0x0102_0304, ecr: 0 }),
        sack: SackBlocks::default(),
    }
}

fn blocks(count: u32) -> SackBlocks {
    let mut sack = SackBlocks::default();
    (0..count).for_each(|at| sack.push(Seq(at * 10), Seq(at * 10 + 5)));
    sack
}

fn written(options: &Options, is_syn: bool) -> Vec<u8> {
    let mut room = vec![0xee; options.bytes(is_syn)];
    options.write(is_syn, &mut room);
    room
}

const TS: [u8; 10] = [8, 10, 1, 2, 3, 4, 0, 0, 0, 0];

#[test]
fn they_are_laid_out_as_readers_expect() {
    let all = of_syn();
    let bare = Options { sack_permitted: false, ..all };
    let old = Options { timestamps: None, ..all };
    let data = Options { timestamps: all.timestamps, sack: blocks(1), ..Options::default() };
    let ack = Options { sack: blocks(1), ..Options::default() };
    let block = [0, 0, 0, 0, 0, 0, 0, 5];
    let cases: [(&Options, bool, &[&[u8]]); 8] = [
        (&all, true, &[&[2, 4, 5, 180], &[4, 2], &TS, &[1, 3, 3, 7]]),
        (&bare, true, &[&[2, 4, 5, 180], &[1, 1], &TS, &[1, 3, 3, 7]]),
        (&old, true, &[&[2, 4, 5, 180], &[1, 1, 4, 2], &[1, 3, 3, 7]]),
        (&Options { window_scale: None, ..all }, true, &[&[2, 4, 5, 180], &[4, 2], &TS]),
        (&data, false, &[&[1, 1], &TS, &[1, 1, 5, 10], &block]),
        (&ack, false, &[&[1, 1, 5, 10], &block]),
        // What is for a SYN is not sent with others, and the other way round.
        (&all, false, &[&[1, 1], &TS]),
        (&ack, true, &[]),
    ];
    for (options, is_syn, expected) in cases {
        assert_eq!(written(options, is_syn), expected.concat(), "{options:?}");
    }
}

#[test]
fn as_many_blocks_go_as_find_room() {
    for (has_timestamps, count, expected) in
        [(false, 0, 0), (false, 3, 3), (false, 4, 4), (false, 9, 4), (true, 1, 1), (true, 3, 3), (true, 4, 3)]
    {
        let timestamps = has_timestamps.then(Timestamps::default);
        let options = Options { timestamps, sack: blocks(count), ..Options::default() };
        let bytes = written(&options, false);
        assert!(bytes.len() <= OPTIONS_LEN_MAX && bytes.len().is_multiple_of(4));
        let read = Options::parse(&bytes, false);
        assert_eq!(read.sack.as_slice(), &options.sack.as_slice()[..expected], "{options:?}");
        assert!(read.sack.as_slice().len() <= options.sack_blocks_max());
    }
}

#[test]
fn what_is_malformed_or_unknown_is_passed_over() {
    let none = Options::default();
    let mss = Options { mss: Some(1460), ..none };
    let timestamps = Options { timestamps: of_syn().timestamps, ..none };
    let cases: [(&[&[u8]], Options); 19] = [
        (&[], none),
        (&[&[0], &[2, 4, 5, 180]], none),
        (&[&[1, 1, 1], &[2, 4, 5, 180]], mss),
        // A length that leads nowhere ends it; what was read before stays.
        (&[&[2, 4, 5, 180], &[3, 0, 7], &[4, 2]], mss),
        (&[&[2, 4, 5, 180], &[253, 1, 3, 3, 7]], mss),
        (&[&[2, 4, 5, 180], &[3, 4, 7]], mss),
        (&[&[2, 4, 5, 180], &[3]], mss),
        (&[&[253, 0], &[2, 4, 5, 180]], none),
        // One that is of the wrong length but leads somewhere, or unknown, is passed over.
        (&[&[2, 3, 5], &[2, 4, 5, 180]], mss),
        (&[&[2, 5, 5, 5, 5], &[2, 4, 5, 180]], mss),
        (&[&[8, 9, 0, 0, 0, 0, 0, 0, 0], &[2, 4, 5, 180]], mss),
        (&[&[253, 4, 1, 2], &[254, 2], &[2, 4, 5, 180]], mss),
        // RFC 2385, RFC 7413: signatures and cookies are unknown here.
        (&[&[34, 10, 1, 2, 3, 4, 5, 6, 7, 8], &TS], timestamps),
        (&[&TS], timestamps),
        (&[&[2, 4, 0, 0]], none),
        (&[&[2, 4, 0, 1]], Options { mss: Some(1), ..none }),
        // The last of a kind counts.
        (&[&[2, 4, 1, 1], &[2, 4, 5, 180]], mss),
        (&[&[3, 3, 15]], Options { window_scale: Some(14), ..none }),
        (&[&[3, 3, 255]], Options { window_scale: Some(14), ..none }),
    ];
    for (parts, expected) in cases {
        assert_eq!(Options::parse(&parts.concat(), true), expected, "{parts:?}");
    }
}

#[test]
fn what_is_for_a_syn_means_nothing_later() {
    let bytes = written(&of_syn(), true);
    let timestamps = of_syn().timestamps;
    assert_eq!(Options::parse(&bytes, true), of_syn());
    assert_eq!(Options::parse(&bytes, false), Options { timestamps, ..Options::default() });
    let sack = written(&Options { sack: blocks(2), ..Options::default() }, false);
    assert_eq!(Options::parse(&sack, false).sack, blocks(2));
    assert!(Options::parse(&sack, true).sack.is_empty());
}

#[test]
fn sack_is_read_as_it_is() {
    let block = |start: u8| [0, 0, 0, start, 0, 0, 0, start + 5];
    let one = [&[5, 10][..], &block(0)].concat();
    let four = [&[5, 34][..], &block(0), &block(10), &block(20), &block(30)].concat();
    let cases: [(&[&[u8]], u32); 6] = [
        (&[&one], 1),
        (&[&[1, 1, 1], &one], 1),
        (&[&four], 4),
        (&[&[5, 2], &one], 1),
        // Half a block: the whole option is malformed.
        (&[&[5, 14], &block(0), &[0, 0, 0, 10]], 0),
        (&[&one, &[5, 10], &block(10)], 2),
    ];
    for (parts, expected) in cases {
        assert_eq!(Options::parse(&parts.concat(), false).sack, blocks(expected), "{parts:?}");
    }
    // Ends that are in no order are not the reader's business.
    let backwards = Options::parse(&[5, 10, 0, 0, 0, 9, 0, 0, 0, 1], false);
    assert_eq!(backwards.sack.as_slice(), [(Seq(9), Seq(1))]);
}

#[test]
fn the_short_way_reads_what_the_long_way_does() {
    let short = [&[1, 1][..], &TS].concat();
    // A byte more of padding, and the layout is another one.
    let long = [&[1, 1, 1, 1][..], &TS].concat();
    for is_syn in [false, true] {
        assert_eq!(Options::parse(&short, is_syn), Options::parse_any(&short, is_syn));
        assert_eq!(Options::parse(&short, is_syn), Options::parse(&long, is_syn));
    }
}

#[test]
fn blocks_are_alike_if_what_is_left_of_them_is() {
    let mut cut = blocks(3);
    cut.truncate(1);
    assert_eq!(cut, blocks(1));
    assert_ne!(cut, blocks(2));
    cut.truncate(256);
    assert_eq!(cut.as_slice().len(), 1, "a length does not wrap");
    cut.truncate(0);
    assert!(cut.is_empty());
}

#[test]
fn what_finds_no_room_is_not_written() {
    let options = Options { timestamps: of_syn().timestamps, sack: blocks(3), ..Options::default() };
    for len in 0..options.bytes(false) {
        let mut room = vec![0; len];
        options.write(false, &mut room);
        of_syn().write(true, &mut room);
    }
}
