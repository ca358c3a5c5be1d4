use std::path::PathBuf;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rates::{Look, Row};
use super::view::{View, Wish};
use super::words::{bits, bytes, clean, duration, millis, scaled};
use super::*;
use crate::control::Running;
use crate::report::tests::connection;
use crate::report::{ConnectionReport, ListenerReport, MemoryReport, Owner};

/// A program after so many seconds with these connections.
fn report(uptime_seconds: f64, counters: &[(&str, u64)], connections: Vec<ConnectionReport>) -> Report {
    Report {
        program: "http".to_owned(),
        pid: 4_711,
        version: "0.1.0".to_owned(),
        uptime_seconds,
        nic: "packet:eth0".to_owned(),
        addresses: vec!["10.0.0.1/24".to_owned()],
        shards: 1,
        counters: counters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        memory: MemoryReport {
            pool_in_use_bytes: 1_234_567,
            pool_bytes_max: 256 << 20,
            ..MemoryReport::default()
        },
        listeners: vec![ListenerReport {
            shard: 0,
            local: "[::]:80".parse().expect("an address"),
            waiting: 2,
            backlog: 1_024,
            half_open: 1,
        }],
        connections_len: connections.len() as u64,
        connections,
    }
}

fn two_reports() -> (Report, Report) {
    let mut fast = connection("10.0.0.9:5000", [80_000_000, 1_000, 12_345, 3, 145_000]);
    let mut slow = connection("10.0.0.10:6000", [0, 500, 0, 0, 14_480]);
    slow.owner = Owner::Nobody;
    slow.state = "FIN-WAIT-1".to_owned();
    let counters = [
        ("rx_frames", 1_000),
        ("rx_bytes", 64_000),
        ("tx_frames", 2_000),
        ("tx_bytes", 3_000_000),
        ("tcp_passive_opens", 10),
        ("tcp_active_opens", 0),
        ("tcp_retransmits", 3),
        ("drop_tcp_checksum", 1),
    ];
    let before = report(10.0, &counters, vec![fast.clone(), slow.clone()]);
    fast.bytes_in += 1_000;
    fast.bytes_out += 2_500_000;
    fast.retransmits += 4;
    fast.ssthresh_bytes = Some(100_000);
    fast.limited_by = "congestion".to_owned();
    let new = connection("10.0.0.11:7000", [0, 2_000, 500, 0, 14_480]);
    let counters = [
        ("rx_frames", 1_500),
        ("rx_bytes", 96_000),
        ("tx_frames", 4_000),
        ("tx_bytes", 8_000_000),
        ("tcp_passive_opens", 12),
        ("tcp_active_opens", 1),
        ("tcp_retransmits", 7),
        ("drop_tcp_checksum", 2),
        ("drop_tcp_old", 1),
    ];
    (before, report(12.0, &counters, vec![slow, fast, new]))
}

#[test]
fn rates_are_over_the_clock_of_the_program() {
    let (before, now) = two_reports();
    let look = Look::new(Some(&before), now.clone(), Sort::Rate);
    let rates = look.rates.expect("two reports");
    assert_eq!(rates.interval_seconds, 2.0);
    assert_eq!((rates.frames_in_per_second, rates.frames_out_per_second), (250.0, 1_000.0));
    assert_eq!((rates.bits_in_per_second, rates.bits_out_per_second), (128_000.0, 20_000_000.0));
    assert_eq!((rates.connects_per_second, rates.retransmits_per_second), (1.5, 2.0));
    assert_eq!(rates.drops_per_second, 1.0);
    let rows: Vec<_> =
        look.rows.iter().map(|row| (row.connection.remote.port(), row.bits_in, row.bits_out)).collect();
    assert_eq!(
        rows,
        [
            (5_000, Some(4_000.0), Some(10_000_000.0)),
            (7_000, Some(8_000.0), Some(0.0)),
            (6_000, Some(0.0), Some(0.0)),
        ],
        "by what both reports say, and not by what one does"
    );
    // One that was not listed may have been there.
    let mut cut = before.clone();
    cut.connections_len = 1_000;
    let look = Look::new(Some(&cut), now.clone(), Sort::Peer);
    let last = look.rows.last().map(|row| (row.connection.remote.port(), row.bits_in));
    assert_eq!(last, Some((7_000, None)));
    // Another program, or none before.
    for before in [None, Some(&Report { pid: 1, ..before.clone() }), Some(&now)] {
        let look = Look::new(before, now.clone(), Sort::Rate);
        assert_eq!((look.rates, look.rows[0].bits_in), (None, None));
    }
}

/// The same ends, and fewer bytes: it has begun anew in between.
#[test]
fn a_connection_that_came_in_the_place_of_another_begins_at_nothing() {
    let before = report(1.0, &[], vec![connection("10.0.0.9:5000", [0, 1_000_000, 0, 0, 0])]);
    let now = report(2.0, &[("rx_frames", 1)], vec![connection("10.0.0.9:5000", [0, 1_000, 0, 0, 0])]);
    let look = Look::new(Some(&before), now, Sort::Rate);
    assert_eq!(look.rows[0].bits_in, Some(8_000.0));
}

#[test]
fn smoltcp_counts_what_it_accepts() {
    let look = Look::new(
        Some(&report(1.0, &[("accepted", 3)], vec![])),
        report(3.0, &[("accepted", 9)], vec![]),
        Sort::Rate,
    );
    assert_eq!(look.rates.expect("two").connects_per_second, 3.0);
}

#[test]
fn once_is_two_lines_a_connection() {
    let (before, now) = two_reports();
    let text = once::to_text(&Look::new(Some(&before), now, Sort::Rate));
    let expected = "\
http, process 4711, up 12 s, on packet:eth0, 10.0.0.1/24
in 128 kbit/s (250 frames/s), out 20.0 Mbit/s (1.00 k frames/s), 2 connects/s, 2 retransmits/s, 1 drops/s
listening on [::]:80: 2 of 1024 waiting, 1 half-open
3 connections:
ESTABLISHED  10.0.0.1:80  10.0.0.9:5000   in 4.00 kbit/s, out 10.0 Mbit/s, recv-q 0, send-q 0
     cubic mss:1460 pmtu:1500 cwnd:145000 ssthresh:100000 in_flight:0 rtt:12.3ms/6.172ms min_rtt:12.3ms rto:200ms \
                    retransmits:7 bytes_in:2000 bytes_out:2500000 bytes_acked:0 delivery_rate:80.0Mbit/s \
                    recovery:none limited_by:congestion
ESTABLISHED  10.0.0.1:80  10.0.0.11:7000  in 8.00 kbit/s, out 0 bit/s, recv-q 0, send-q 0
";
    assert!(text.starts_with(expected), "{text}");
    let none = once::to_text(&Look::new(None, report(1.0, &[], vec![]), Sort::Rate));
    assert!(
        none.ends_with(
            "no rates yet\nlistening on [::]:80: 2 of 1024 waiting, 1 half-open\nno connections\n"
        )
    );
}

#[test]
fn json_has_the_report_and_the_rates() {
    let (before, now) = two_reports();
    let object = once::to_json(&Look::new(Some(&before), now, Sort::Retransmits));
    for (pointer, expected) in [
        ("/program", serde_json::json!("http")),
        ("/interval_seconds", serde_json::json!(2.0)),
        ("/rates/bits_out_per_second", serde_json::json!(20_000_000.0)),
        ("/connections/0/remote", serde_json::json!("10.0.0.9:5000")),
        ("/connections/0/out_bits_per_second", serde_json::json!(10_000_000.0)),
        ("/connections/0/cwnd_bytes", serde_json::json!(145_000)),
        ("/connections/0/srtt_us", serde_json::json!(12_345)),
        ("/connections/2/srtt_us", serde_json::json!(500)),
        ("/connections/1/owner", serde_json::json!("nobody")),
        ("/listeners/0/backlog", serde_json::json!(1_024)),
        ("/counters/tx_frames", serde_json::json!(4_000)),
    ] {
        assert_eq!(object.pointer(pointer), Some(&expected), "{pointer} of {object:#}");
    }
}

/// The screen as text, without the spaces at the ends of lines.
fn screen(view: &mut View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("no terminal is needed");
    terminal.draw(|frame| draw::draw(view, frame)).expect("it is drawn");
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(line).collect::<Vec<_>>().join("\n")
}

fn press(view: &mut View, code: KeyCode) -> Wish {
    view.press(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn the_screen() {
    let (before, now) = two_reports();
    let mut view = View::new(before, Sort::Rate, 1_000);
    view.take(now);
    let expected = "\
http, process 4711, up 12 s, on packet:eth0, 10.0.0.1/24
in 128 kbit/s (250 frames/s), out 20.0 Mbit/s (1.00 k frames/s), 2 connects/s, 2 retransmits/s, 1 drops/s
3 connections, 2 waiting, 1 half-open, buffers 1.23 MB of 268 MB, 7 retransmits, 0 in recovery
in and out, at most 20.1 Mbit/s
█
█
█
PEER            LOCAL           STATE        IN           OUT          CWND      RTT        RETRANS LIMITED BY
10.0.0.9:5000   10.0.0.1:80     ESTABLISHED  4.00 kbit/s  10.0 Mbit/s  145 kB    12.3 ms    7       congestion
10.0.0.11:7000  10.0.0.1:80     ESTABLISHED  8.00 kbit/s  0 bit/s      14.5 kB   0.500 ms   0       application
10.0.0.10:6000  10.0.0.1:80     FIN-WAIT-1   0 bit/s      0 bit/s      14.5 kB   -          0       application, closed

sort: rate  rows 1-3 of 3  h help, q quit";
    let shown = screen(&mut view, 120, 13);
    assert_eq!(shown, expected, "\n{shown}");
}

/// However small or large it is, and with however little to show.
#[test]
fn every_size_of_screen_is_drawn() {
    let (before, now) = two_reports();
    for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 24), (300, 100)] {
        let mut view = View::new(before.clone(), Sort::Rate, 1_000);
        screen(&mut view, width, height);
        view.take(now.clone());
        for key in ['h', 's', 'p', '/', 'x'] {
            press(&mut view, KeyCode::Char(key));
            screen(&mut view, width, height);
        }
        let mut empty = View::new(Report::default(), Sort::Peer, 0);
        screen(&mut empty, width, height);
    }
}

fn many(len: u64) -> Report {
    let all = (0..len).map(|n| connection(&format!("10.0.{}.{}:9", n / 250, n % 250), [0, 0, n, n % 7, n]));
    report(1.0, &[], all.collect())
}

fn first_peer(view: &View) -> String {
    view.rows().get(view.first).map(|row: &&Row| row.connection.remote.to_string()).unwrap_or_default()
}

#[test]
fn keys_scroll_sort_filter_and_pause() {
    let mut view = View::new(many(100), Sort::Peer, 60);
    screen(&mut view, 100, 18);
    assert_eq!((view.page, view.rows().len()), (9, 60));
    for (key, expected) in [
        (KeyCode::Down, 1),
        (KeyCode::PageDown, 10),
        (KeyCode::Up, 9),
        (KeyCode::PageUp, 0),
        (KeyCode::Up, 0),
        (KeyCode::End, 51),
        (KeyCode::Down, 51),
        (KeyCode::Home, 0),
    ] {
        press(&mut view, key);
        assert_eq!(view.first, expected, "{key:?}");
    }
    assert_eq!(first_peer(&view), "10.0.0.0:9");
    press(&mut view, KeyCode::Char('s'));
    assert_eq!(view.sort, Sort::Rate);
    press(&mut view, KeyCode::Char('s'));
    assert_eq!((view.sort, first_peer(&view).as_str()), (Sort::Rtt, "10.0.0.99:9"));

    // Letters are text while a filter is written.
    press(&mut view, KeyCode::End);
    press(&mut view, KeyCode::Char('/'));
    for letter in "0.0.4q".chars() {
        assert_eq!(press(&mut view, KeyCode::Char(letter)), Wish::Stay);
    }
    press(&mut view, KeyCode::Backspace);
    assert!(screen(&mut view, 100, 18).contains("/0.0.4_"));
    press(&mut view, KeyCode::Enter);
    assert_eq!((view.rows().len(), view.first), (11, 0));
    assert!(screen(&mut view, 100, 18).contains("filter: 0.0.4"));
    press(&mut view, KeyCode::Esc);
    assert_eq!(view.rows().len(), 60);

    press(&mut view, KeyCode::Char('p'));
    view.take(many(3));
    assert_eq!(view.rows().len(), 60);
    assert!(screen(&mut view, 100, 18).contains("PAUSED"));
    press(&mut view, KeyCode::Char('p'));
    view.take(many(3));
    assert_eq!((view.rows().len(), view.first), (3, 0));

    press(&mut view, KeyCode::Char('h'));
    assert!(screen(&mut view, 100, 18).contains("sort by the next key"));
    press(&mut view, KeyCode::Esc);
    assert!(!view.shows_help);
    view.note = Some("no answer in time".to_owned());
    assert!(screen(&mut view, 100, 18).contains("no answer in time"));
    assert_eq!(press(&mut view, KeyCode::Char('q')), Wish::Quit);
    press(&mut view, KeyCode::Char('/'));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.press(interrupt), Wish::Quit);
}

#[test]
fn history_is_bounded() {
    let mut view = View::new(report(1.0, &[("rx_bytes", 0)], vec![]), Sort::Rate, 10);
    for second in 0..2_000_u32 {
        view.take(report(f64::from(second) + 2.0, &[("rx_bytes", u64::from(second + 1) * 1_000)], vec![]));
    }
    assert!(
        view.history.len() <= 512 && view.history.iter().all(|bits| *bits == 8_000),
        "{:?}",
        view.history
    );
}

#[test]
fn quantities() {
    for (value, expected) in [
        (0.0, "0 "),
        (1.4, "1 "),
        (999.0, "999 "),
        (999.9, "1.00 k"),
        (12_340.0, "12.3 k"),
        (999_499.0, "999 k"),
        (999_600.0, "1.00 M"),
        (5.5e12, "5.50 T"),
        (1e18, "1000000 T"),
        (-1.0, "0 "),
    ] {
        assert_eq!(scaled(value), expected, "{value}");
    }
    assert_eq!((bits(9_999_999.0).as_str(), bytes(14_600).as_str()), ("10.0 Mbit/s", "14.6 kB"));
    assert_eq!([500, 12_345, 1_234_567].map(millis), ["0.500 ms", "12.3 ms", "1235 ms"]);
    let durations = [0.9, 61.0, 3_661.0, 90_061.0, f64::NAN, -1.0].map(duration);
    assert_eq!(durations, ["0 s", "1:01", "1:01:01", "1 d 01:01:01", "0 s", "0 s"]);
}

#[test]
fn what_comes_from_a_socket_does_nothing_to_a_terminal() {
    let mut bad = report(1.0, &[], vec![connection("10.0.0.9:5000", [0; 5])]);
    bad.program = "\x1b[2J\x07evil".to_owned();
    bad.nic = "x".repeat(10_000);
    bad.connections[0].state = "\r\nESTABLISHED".to_owned();
    clean(&mut bad);
    assert_eq!((bad.program.as_str(), bad.nic.len()), ("[2Jevil", 100));
    assert_eq!(bad.connections[0].state, "ESTABLISHED");
}

#[test]
fn which_program_is_meant() {
    let running = |pid: u32| Running { pid, path: PathBuf::from(format!("/run/wirestack/{pid}.sock")) };
    let all = [running(7), running(12)];
    assert_eq!(find::find(Some("./x.sock")), Ok(PathBuf::from("./x.sock")));
    assert_eq!(find::by_pid("12", &all), Ok(all[1].path.clone()));
    for (text, running, words) in [
        ("13", &all[..], "7, 12 have"),
        ("13", &all[..1], "7 has"),
        ("13", &[], "nor has any other"),
        ("-1", &all, "a process number is accepted"),
        ("http", &all, "a process number is accepted"),
    ] {
        let error = find::by_pid(text, running).expect_err(text);
        assert_eq!((error.status, error.message.lines().count()), (2, 1));
        assert!(error.message.contains(words) && error.message.contains(text), "{error:?}");
    }
    let path = |name: &str| PathBuf::from(name);
    let line = |text: &str| vec![text.to_owned()];
    assert_eq!(find::choose(vec![path("a")], &line("7 http")), Ok(path("a")));
    for (answering, lines, words) in [
        (vec![], vec![], "no program runs"),
        (vec![], line("7 denied"), "none of these"),
        (vec![path("a"), path("b")], line("7 http"), "2 programs run"),
    ] {
        let error = find::choose(answering, &lines).expect_err(words);
        assert!(error.status == 2 && error.message.contains(words), "{error:?}");
    }
}
