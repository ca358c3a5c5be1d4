use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use wirestack::EthernetAddress;
use wirestack::nic::Waker;
use wirestack::shard::{Shard, ShardConfig};
use wirestack::smoltcp;

use super::*;
use crate::report::{About, Sort};
use crate::serve::Figures;

fn report(request: Request) -> Report {
    Report {
        program: "test".to_owned(),
        pid: 7,
        counters: [("wanted".to_owned(), request.connections as u64)].into(),
        ..Report::default()
    }
}

/// A socket in a directory of its own, on which `source` answers.
fn serving(
    source: impl Fn(Request) -> Option<Report> + Send + Sync + 'static,
) -> (tempfile::TempDir, Serving) {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::at(&dir.path().join("7.sock")).expect("a socket");
    let serving = control.serve(source).expect("a thread");
    (dir, serving)
}

#[test]
fn requests_are_read() {
    let request = |connections, sort| Ok(Request { connections, sort });
    for (line, expected) in [
        ("report", request(1_000, Sort::Rate)),
        ("  report\t connections=0\r", request(0, Sort::Rate)),
        ("report connections=200 sort=rtt", request(200, Sort::Rtt)),
        ("", Err("report is accepted")),
        ("hello", Err("\"hello\": report is accepted")),
        ("report connections=1001", Err("0..=1000")),
        ("report connections=-1", Err("0..=1000")),
        ("report sort=speed", Err("rate, rtt, retransmits, cwnd or peer")),
        ("report more", Err("\"more\": report is accepted")),
    ] {
        match (parse(line.as_bytes()), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{line:?}"),
            (Err(found), Err(words)) => assert!(found.contains(words), "{line:?}: {found}"),
            (found, _) => panic!("{line:?}: {found:?}"),
        }
    }
    assert!(parse(b"report \xff").is_err());
    assert!(parse(&[b' '; REQUEST_BYTES_MAX]).is_err());
}

#[test]
fn readers_are_answered_line_by_line_and_the_socket_is_gone_afterwards() {
    let (dir, serving) = serving(|request| Some(report(request)));
    let path = dir.path().join("7.sock");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).expect("a reader");
    let mut lines = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
    for connections in [3, 4] {
        stream.write_all(format!("report connections={connections}\n").as_bytes()).expect("written");
        let line = lines.next().expect("a line").expect("read");
        let answer = client::parse(line.as_bytes()).expect("a report");
        assert_eq!(answer.counters["wanted"], connections);
    }
    assert_eq!(
        ask(&path, Request { connections: 9, sort: Sort::Peer }).expect("a report").counters["wanted"],
        9
    );
    assert_eq!(place::list(dir.path()), [Running { pid: 7, path: path.clone() }]);
    drop(serving);
    assert!(!path.exists());
    assert!(matches!(ask(&path, Request::default()), Err(AskError::Gone)));
}

#[test]
fn garbage_is_answered_by_one_line_and_the_end_and_harms_nobody() {
    let (dir, _serving) = serving(|request| Some(report(request)));
    let path = dir.path().join("7.sock");
    // One who says nothing and stays.
    let _silent = UnixStream::connect(&path).expect("a reader");
    let long = vec![b'x'; 100_000];
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\xff\n", b"\n", &long] {
        let mut stream = UnixStream::connect(&path).expect("a reader");
        // He may be thrown out before he has said all.
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        if end.is_ok() || !answer.is_empty() {
            let text = String::from_utf8_lossy(&answer);
            assert!(text.starts_with("{\"error\":\"") && text.lines().count() == 1, "{text}");
        }
    }
    assert!(ask(&path, Request::default()).is_ok());
}

#[test]
fn readers_are_bounded() {
    let (dir, _serving) = serving(|request| Some(report(request)));
    let path = dir.path().join("7.sock");
    let silent: Vec<_> = (0..READERS_MAX).map(|_| UnixStream::connect(&path).expect("a reader")).collect();
    let one_more = ask(&path, Request::default());
    // He is told, or finds the door shut before he has asked.
    match one_more {
        Err(AskError::Odd(problem)) => assert!(problem.contains("served already"), "{problem}"),
        Err(AskError::Gone) => {}
        other => panic!("{other:?}"),
    }
    drop(silent);
    // As soon as they have gone there is room; how soon, the threads decide.
    let again = (0..10_000).any(|_| ask(&path, Request::default()).is_ok());
    assert!(again);
}

#[test]
fn who_takes_nothing_is_given_up_by_the_clock() {
    let (mine, _theirs) = UnixStream::pair().expect("a pair");
    let full = Timed::new(&mine, Duration::ZERO).write_all(&vec![0; 8 << 20]);
    let kind = full.expect_err("nobody reads").kind();
    assert!(matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{kind}");
}

#[test]
fn a_program_that_does_not_answer_is_an_error_for_the_reader() {
    let (dir, _serving) = serving(|_| None);
    let error = ask(&dir.path().join("7.sock"), Request::default()).expect_err("no answer");
    assert!(error.to_string().contains("does not answer"), "{error}");
}

#[test]
fn answers_of_somebody_else_are_an_error() {
    for answer in
        [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"{}\n", b"[1]\n", b"{\"error\":\"no\x1b\"}\n", b"\xff\n"]
    {
        assert!(matches!(client::parse(answer), Err(AskError::Odd(_))), "{answer:?}");
    }
    let (dir, path) = (tempfile::tempdir().expect("a directory"), "x.sock");
    let listener = UnixListener::bind(dir.path().join(path)).expect("a socket");
    let hangs_up = thread::spawn(move || drop(listener.accept()));
    assert!(matches!(ask(&dir.path().join(path), Request::default()), Err(AskError::Gone)));
    hangs_up.join().expect("it has ended");
    // Nobody any more.
    assert!(matches!(ask(&dir.path().join(path), Request::default()), Err(AskError::Gone)));
}

/// Nobody listens any more. To close a listener is not enough: a program that another test starts just now has a copy.
fn deaf(listener: &UnixListener) {
    nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).expect("a listener");
}

#[test]
fn sockets_of_dead_processes_are_removed_and_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let dead = dir.path().join("4194304.sock"); // beyond the largest process number
    let other = dir.path().join("notes.txt");
    fs::write(&other, "x").expect("written");
    deaf(&UnixListener::bind(&dead).expect("a socket"));
    assert!(dead.exists());
    let control = Control::at(&dead).expect("its place can be had");
    assert_eq!(place::list(dir.path()).len(), 1);
    // Somebody is there.
    let taken = place::bind(&dead).expect_err("taken");
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    drop(control);
    deaf(&UnixListener::bind(&dead).expect("a socket"));
    assert!(place::list(dir.path()).is_empty());
    assert!(!dead.exists() && other.exists());
    assert!(place::list(&dir.path().join("none")).is_empty());
}

#[test]
fn a_directory_that_others_can_write_to_is_not_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let (made, open) = (dir.path().join("made"), dir.path().join("open"));
    place::make_directory(&made).expect("it can be made");
    place::make_directory(&made).expect("and is there");
    fs::create_dir(&open).expect("made");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("ours");
    std::os::unix::fs::symlink(&made, dir.path().join("link")).expect("a link");
    for bad in [&open, &dir.path().join("link"), &dir.path().join("no/where")] {
        place::make_directory(bad).expect_err("not ours alone");
    }
}

#[test]
fn a_path_that_cannot_be_had_is_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "x").expect("written");
    let long = dir.path().join("x".repeat(120));
    for (path, words) in [
        (file.as_path(), "no socket"),
        (Path::new("/nowhere/at/all.sock"), "No such file"),
        (&long, "SUN_LEN"),
    ] {
        let error = Control::open(Some(path)).expect_err("no place");
        assert_eq!((error.status, error.message.lines().count()), (2, 1), "{error:?}");
        assert!(error.message.starts_with("--control ") && error.message.contains(words), "{error:?}");
    }
    assert_eq!(fs::read_to_string(&file).expect("it is as it was"), "x");
    assert!(Control::open(Some(Path::new("none"))).expect("none is right").is_none());
}

/// Many ask at once: a loop that sleeps is woken, and each gets the answer to his question.
#[test]
fn a_loop_answers_in_its_turns() {
    let waker = Waker::new().expect("an event");
    let mac = EthernetAddress([2, 0, 0, 0, 0, 1]);
    let shard = Shard::new(ShardConfig::new(mac), smoltcp::time::Instant::ZERO).expect("a shard");
    let (mut desk, asker) = Desk::new(About::new("loop", "none"), 5, waker);
    assert!(!desk.turn(&shard, Figures::default), "nobody has asked");
    let answers = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let (asker, answers) = (asker.clone(), answers.clone());
            thread::spawn(move || {
                let answer = asker.ask(Request { connections: number, sort: Sort::Rate });
                answers.lock().expect("nobody panics").push(answer.expect("it is answered").program);
            })
        })
        .collect();
    // Who is not answered gives up by the clock, and fails.
    while !threads.iter().all(JoinHandle::is_finished) {
        desk.turn(&shard, Figures::default);
        thread::yield_now();
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_eq!(*answers.lock().expect("nobody panics"), vec!["loop"; 8]);
    assert!(!desk.turn(&shard, Figures::default));
}

#[test]
fn shards_answer_together() {
    let mac = EthernetAddress([2, 0, 0, 0, 0, 1]);
    let made = |number: u32| {
        let waker = Waker::new().expect("an event");
        let shard = Shard::new(ShardConfig::new(mac), smoltcp::time::Instant::ZERO).expect("a shard");
        (shard, Desk::new(About::new("loops", "none"), number, waker))
    };
    let (mut shards, mut askers) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let (shard, (desk, asker)) = made(number);
        shards.push((shard, desk));
        askers.push(asker);
    }
    let asks = thread::spawn(move || ask_all(&askers, Request::default()));
    while !asks.is_finished() {
        for (shard, desk) in &mut shards {
            desk.turn(shard, || Figures { program: vec![("accepted", 5)], ..Figures::default() });
        }
        thread::yield_now();
    }
    let report = asks.join().expect("no panic").expect("all have answered");
    assert_eq!((report.shards, report.counters["accepted"]), (3, 15));
    assert!(ask_all(&[], Request::default()).is_none());
}
