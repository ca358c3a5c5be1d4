//! What a small TCP gets wrong, as a table: a peer whose segments are written by hand does the same to smoltcp's engine
//! and to ours. Ours must pass each check; smoltcp's must fail it, and for the reason that is written down, so that
//! each check is known to be able to fail.

mod engine;
mod isn;
mod peer;
mod rows;

use std::panic::{AssertUnwindSafe, catch_unwind};

use smoltcp::time::Instant;

use engine::{Engine, Ours, Setup, Small};
use peer::Peer;

/// A thing that a small TCP gets wrong.
struct Row {
    name: &'static str,
    /// What is broken there.
    source: &'static str,
    setup: Setup,
    check: fn(&mut Peer) -> Result<(), String>,
    /// Part of what is told when smoltcp is checked.
    small: &'static str,
}

const ROWS: &[Row] = &[
    Row {
        name: "a reset in the window is challenged",
        source: "RFC 5961 section 3.2",
        setup: Setup::PLAIN,
        check: rows::reset_in_window,
        small: "ended the connection",
    },
    Row {
        name: "an ACK of what was never sent takes nothing away",
        source: "RFC 9293 section 3.10.7.4",
        setup: Setup::PLAIN,
        check: rows::ack_of_never_sent,
        small: "of 5000 bytes came",
    },
    Row {
        name: "data with an old ACK number is data",
        source: "RFC 5961 section 5.2",
        setup: Setup::PLAIN,
        check: rows::old_ack_with_data,
        small: "0 of 50 bytes",
    },
    Row {
        name: "a FIN before its data is remembered",
        source: "RFC 9293 section 3.10.7.4",
        setup: Setup::PLAIN,
        check: rows::fin_before_data,
        small: "the FIN was forgotten",
    },
    Row {
        name: "a listener has a queue",
        source: "RFC 9293 section 3.9.1.1",
        setup: Setup::PLAIN,
        check: rows::ten_at_once,
        small: "1 of 10",
    },
    Row {
        name: "a flood of SYNs holds little and shuts nobody out",
        source: "RFC 4987 section 3.6",
        setup: Setup { listeners: 64, ..Setup::PLAIN },
        check: rows::syn_flood,
        small: "answered by a reset",
    },
    Row {
        name: "a half-open connection is given up",
        source: "RFC 9293 section 3.8.3",
        setup: Setup::PLAIN,
        check: rows::half_open_is_given_up,
        small: "SYN-ACKs in an hour",
    },
    Row {
        name: "a SYN in ESTABLISHED is challenged",
        source: "RFC 5961 section 4.2",
        setup: Setup { listeners: 2, ..Setup::PLAIN },
        check: rows::syn_in_established,
        small: "no challenge ACK",
    },
    Row {
        name: "an old duplicate is known by its timestamp",
        source: "RFC 7323 section 5",
        setup: Setup { timestamps: true, ..Setup::PLAIN },
        check: rows::old_duplicate,
        small: "the old duplicate was delivered",
    },
    Row {
        name: "islands are told",
        source: "RFC 2018 section 4",
        setup: Setup::PLAIN,
        check: rows::islands,
        small: "SACK blocks",
    },
    Row {
        name: "islands and duplicates of a burst are all told",
        source: "RFC 2018 section 4, RFC 2883 section 4",
        setup: Setup { listeners: 2, timestamps: true, ..Setup::PLAIN },
        check: rows::islands_in_a_burst,
        small: "of what came again",
    },
    Row {
        name: "a window of old is ignored",
        source: "RFC 9293 section 3.10.7.4, SND.WL1",
        setup: Setup::PLAIN,
        check: rows::old_window,
        small: "bytes went into a shut window",
    },
    Row {
        name: "nobody knows the ISN of another flow",
        source: "RFC 6528 section 3",
        setup: Setup::PLAIN,
        check: isn::nobody_knows_it,
        small: "was known in advance",
    },
    Row {
        name: "the ISNs of a flow go on",
        source: "RFC 6528 section 3",
        setup: Setup::PLAIN,
        check: isn::it_goes_on,
        small: "behind",
    },
    Row {
        name: "nothing is beyond the first window",
        source: "RFC 7323 section 2.2",
        setup: Setup { recv_buffer: rows::LARGE, ..Setup::PLAIN },
        check: rows::beyond_the_first_window,
        small: "panicked",
    },
    Row {
        name: "a byte and a FIN before a shut window",
        source: "RFC 9293 section 3.8.6.1",
        setup: Setup { listeners: 3, ..Setup::PLAIN },
        check: rows::byte_and_fin_before_a_shut_window,
        small: "goes on for ever",
    },
    Row {
        name: "resets have a bound",
        source: "RFC 5961 section 7, as of challenge ACKs",
        setup: Setup::PLAIN,
        check: rows::resets_are_throttled,
        small: "10000 resets",
    },
    Row {
        name: "TIME-WAIT is reopened",
        source: "RFC 9293 section 3.6.1, RFC 6191",
        setup: Setup { listeners: 2, ..Setup::PLAIN },
        check: rows::time_wait_reopens,
        small: "not answered by a SYN-ACK",
    },
    Row {
        name: "a router says that packets are too big",
        source: "RFC 1191 section 3",
        setup: Setup::PLAIN,
        check: rows::too_big,
        small: "a packet of 1500 bytes",
    },
    Row {
        name: "a merged frame is acknowledged at once",
        source: "RFC 9293 section 3.8.6.3",
        setup: Setup::PLAIN,
        check: rows::merged_frame,
        small: "29200 bytes wait",
    },
];

/// Does what a row says to an engine. A panic is something that can be told.
fn outcome(row: &Row, is_ours: bool) -> Result<(), String> {
    let run = AssertUnwindSafe(|| {
        let ([nic, wire], now) = (engine::wire(), Instant::from_secs(1_000));
        let engine: Box<dyn Engine> = if is_ours {
            Box::new(Ours::new(row.setup, nic, now))
        } else {
            Box::new(Small::new(row.setup, nic, now))
        };
        let mut peer = Peer::new(engine, wire, now);
        peer.settle()?;
        (row.check)(&mut peer)
    });
    catch_unwind(run).unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| cause.downcast_ref::<&str>().copied());
        Err(format!("it panicked: {}", text.unwrap_or("who knows why")))
    })
}

#[test]
fn ours_gets_it_right() {
    let wrong = |row: &Row| Some(format!("{} ({}): {}", row.name, row.source, outcome(row, true).err()?));
    let wrong: Vec<String> = ROWS.iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_small_one_gets_it_wrong() {
    let unseen = |row: &Row| match outcome(row, false) {
        Err(text) if text.contains(row.small) => None,
        other => Some(format!("{}: `{}` was to be told, and {other:?} was", row.name, row.small)),
    };
    let unseen: Vec<String> = ROWS.iter().filter_map(unseen).collect();
    assert!(unseen.is_empty(), "\n{}", unseen.join("\n"));
}
