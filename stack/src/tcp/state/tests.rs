//! Every event in every state, as tables: `tests/events.txt` says what happens, and a file for each state what follows.
//!
//! A line of a state is a cell: `event | what becomes of it | state after it | segments that are sent | news`. All events
//! have a line in each state. How to read events and segments is told in `tests/events.txt`.
//!
//! LISTEN, SYN-RECEIVED of listeners and TIME-WAIT have no control block; their tables are beside them.

mod properties;
mod world;

use world::World;

const EVENTS: &str = include_str!("tests/events.txt");

/// Lines that are not empty and no comment, in their columns.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let is_line = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    text.lines().filter(is_line).map(|line| line.split('|').map(str::trim).collect())
}

fn cell(state: &str, event: &str, steps: &str) -> String {
    let mut world = World::in_state(state);
    let outcome = world.run(steps);
    format!("{event} | {outcome}")
}

/// Compares a table with what happens. Comments of it stay where they are.
fn check(state: &str, table: &str) {
    let events: Vec<_> = lines(EVENTS).map(|columns| (columns[0], columns[1])).collect();
    let mut wrong = String::new();
    for (event, steps) in &events {
        let actual = cell(state, event, steps);
        let mut of_event = lines(table).filter(|columns| columns[0] == *event);
        let expected = of_event.next().map(|columns| columns.join(" | "));
        assert!(of_event.next().is_none(), "{state}: two lines for {event}");
        if expected.as_deref() != Some(&actual) {
            let expected = expected.unwrap_or_default();
            wrong += &format!("{state}: {steps}\n  expected: {expected}\n  actual:   {actual}\n");
        }
    }
    for columns in lines(table) {
        assert!(events.iter().any(|(event, _)| *event == columns[0]), "{state}: no such event: {columns:?}");
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Longer stories, from a state on, of which the last step is told.
#[test]
fn stories() {
    let mut wrong = String::new();
    for columns in lines(include_str!("tests/more.txt")) {
        let (state, steps) = columns[0].split_once(", ").expect("a state and steps");
        let actual = World::in_state(state).run(steps);
        let expected = columns[1..].join(" | ");
        if expected != actual {
            wrong += &format!(
                "{state}: {steps}\n  expected: {expected}\n  actual:   {state}, {steps} | {actual}\n"
            );
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_event_in_syn_sent() {
    check("SYN-SENT", include_str!("tests/syn_sent.txt"));
}

#[test]
fn every_event_in_syn_received() {
    check("SYN-RECEIVED", include_str!("tests/syn_received.txt"));
}

#[test]
fn every_event_in_established() {
    check("ESTABLISHED", include_str!("tests/established.txt"));
}

#[test]
fn every_event_in_fin_wait_1() {
    check("FIN-WAIT-1", include_str!("tests/fin_wait_1.txt"));
}

#[test]
fn every_event_in_fin_wait_2() {
    check("FIN-WAIT-2", include_str!("tests/fin_wait_2.txt"));
}

#[test]
fn every_event_in_close_wait() {
    check("CLOSE-WAIT", include_str!("tests/close_wait.txt"));
}

#[test]
fn every_event_in_closing() {
    check("CLOSING", include_str!("tests/closing.txt"));
}

#[test]
fn every_event_in_last_ack() {
    check("LAST-ACK", include_str!("tests/last_ack.txt"));
}

#[test]
fn every_event_in_closed() {
    check("CLOSED", include_str!("tests/closed.txt"));
}
