//! Real ports, each with somebody at its other end.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use rustix::termios::{ControlModes, InputModes, LocalModes, tcgetattr};
use smoltcp::time::{Duration, Instant};

use super::super::spec::FlowControl;
use super::super::{Serial, SerialSpec};
use super::*;
use crate::meta::FrameMeta;
use crate::wait::{Wake, now};
use crate::{LinkError, Nic};

/// How long anything may take that ought to be quick, on a busy machine.
const LONG_MS: u16 = 60_000;

/// Sleeps until the port has bytes, its end included, or room.
fn wait_for(port: &impl Port, flags: PollFlags) {
    let [input, output] = port.descriptors();
    let wanted = if flags == PollFlags::POLLOUT { output } else { input };
    let wanted = wanted.expect("an open port");
    let ready = poll(&mut [PollFd::new(wanted, flags)], PollTimeout::from(LONG_MS)).expect("poll");
    assert_eq!(ready, 1, "{port:?}: nothing happens");
}

/// Reads so many bytes.
fn read_all(port: &mut impl Port, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut room = vec![0; 4_096];
    while bytes.len() < len {
        match port.read(&mut room) {
            Ok(0) => panic!("it has ended after {} bytes", bytes.len()),
            Ok(more) => bytes.extend_from_slice(&room[..more]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_for(port, PollFlags::POLLIN),
            Err(error) => panic!("{error}"),
        }
    }
    bytes
}

/// Writes until nothing finds room any more: it returns.
fn fill(port: &mut impl Port) -> usize {
    let mut len = 0;
    loop {
        match port.write(&[0x55; 4_096]) {
            Ok(more @ 1..) => len += more,
            Ok(0) => return len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return len,
            Err(error) => panic!("{error}"),
        }
        assert!(len < 64 << 20, "there is no end of it");
    }
}

/// What is so for any port: nothing to read is no wait, bytes arrive, and a full one says so and has room again.
fn carries(port: &mut impl Port, other: &mut (impl Read + Write)) {
    let error = port.read(&mut [0; 8]).expect_err("nothing was written");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    // Bytes that mean something to a terminal that is not raw.
    let all: Vec<u8> = (0..=255).collect();
    other.write_all(&all).expect("room");
    assert_eq!(read_all(port, 256), all);
    assert_eq!(port.write(&all).expect("room"), 256);
    let mut back = vec![0; 256];
    other.read_exact(&mut back).expect("bytes");
    assert_eq!(back, all);
    let len = fill(port);
    assert!(len > 0);
    let mut rest = vec![0; len];
    other.read_exact(&mut rest).expect("bytes");
    wait_for(port, PollFlags::POLLOUT);
    assert!(port.write(b"x").expect("room again") == 1);
}

fn raw_terminal(path: &Path) -> File {
    let noctty = libc::O_NOCTTY;
    File::options().read(true).write(true).custom_flags(noctty).open(path).expect("the lower end")
}

#[test]
fn a_terminal_of_our_own_carries_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let link = dir.path().join("line");
    let mut port = Pty::new(&link);
    assert_eq!(port.open().expect("a terminal"), Opening::Done);
    let mut lower = raw_terminal(&link);
    carries(&mut port, &mut lower);
    // Whoever has it and goes is no end of it: somebody else may come.
    drop(lower);
    let mut lower = raw_terminal(&link);
    lower.write_all(b"again").expect("room");
    assert_eq!(read_all(&mut port, 5), b"again");
    port.close();
    assert!(link.symlink_metadata().is_err(), "the link goes with it");
    port.open().expect("it can be made again");
    drop(port);
    assert!(link.symlink_metadata().is_err());
}

#[test]
fn a_link_of_the_dead_is_replaced_and_nothing_else_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let link = dir.path().join("line");
    symlink("/dev/pts/99999", &link).expect("a link");
    let mut port = Pty::new(&link);
    port.open().expect("the link of nobody is replaced");
    assert_ne!(fs::read_link(&link).expect("a link"), Path::new("/dev/pts/99999"));
    // Another program takes the name over: its link stays.
    fs::remove_file(&link).expect("it is there");
    symlink("/dev/pts/99998", &link).expect("a link");
    port.close();
    assert_eq!(fs::read_link(&link).expect("it stays"), Path::new("/dev/pts/99998"));
    for make in [
        |path: &Path| fs::write(path, "mine"),
        |path: &Path| symlink("/etc/passwd", path),
        |path: &Path| fs::create_dir(path),
    ] {
        let place = dir.path().join("place");
        make(&place).expect("room");
        let error = Pty::new(&place).open().expect_err("it is somebody else's").to_string();
        assert!(error.contains("place") && error.contains("a name that is free"), "{error}");
        assert!(place.symlink_metadata().is_ok());
        let _ = fs::remove_file(&place).or_else(|_| fs::remove_dir(&place));
    }
    let error = Pty::new(&dir.path().join("no/folder")).open().expect_err("no folder").to_string();
    assert!(error.contains("no/folder") && error.contains("No such file"), "{error}");
}

/// A terminal of software in the place of a serial port: the upper end, and the name of the lower one.
fn terminal() -> (File, String) {
    let upper =
        nix::pty::posix_openpt(nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NOCTTY).expect("a terminal");
    nix::pty::grantpt(&upper).expect("granted");
    nix::pty::unlockpt(&upper).expect("unlocked");
    let name = nix::pty::ptsname_r(&upper).expect("a name");
    (File::from(std::os::fd::OwnedFd::from(upper)), name)
}

#[test]
fn a_serial_port_is_raw_and_is_given_back_as_it_was() {
    let (mut upper, name) = terminal();
    let lower = raw_terminal(Path::new(&name));
    let before = tcgetattr(&lower).expect("settings");
    assert!(before.local_modes.contains(LocalModes::ICANON), "as a terminal is made");
    for flow in [FlowControl::None, FlowControl::XonXoff, FlowControl::RtsCts] {
        let mut port = Tty::new(Path::new(&name), 57_600, flow);
        assert_eq!(port.open().expect("a port"), Opening::Done);
        let set = tcgetattr(&lower).expect("settings");
        assert_eq!((set.input_speed(), set.output_speed()), (57_600, 57_600));
        assert!(!set.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        assert!(set.control_modes.contains(ControlModes::CLOCAL | ControlModes::CREAD | ControlModes::CS8));
        assert_eq!(set.input_modes.contains(InputModes::IXON), flow == FlowControl::XonXoff);
        assert_eq!(set.control_modes.contains(ControlModes::CRTSCTS), flow == FlowControl::RtsCts);
        if flow == FlowControl::None {
            carries(&mut port, &mut upper);
            assert!(port.unsent().is_some());
        }
        port.close();
        let after = tcgetattr(&lower).expect("settings");
        assert_eq!(format!("{after:?}"), format!("{before:?}"), "{flow}");
    }
    // Also when it is dropped, and at a rate that has no name.
    let mut port = Tty::new(Path::new(&name), 250_000, FlowControl::None);
    port.open().expect("a port");
    assert_eq!(tcgetattr(&lower).expect("settings").output_speed(), 250_000);
    drop(port);
    assert_eq!(format!("{:?}", tcgetattr(&lower).expect("settings")), format!("{before:?}"));
}

#[test]
fn a_serial_port_whose_other_end_goes_is_lost() {
    let (upper, name) = terminal();
    let mut port = Tty::new(Path::new(&name), 115_200, FlowControl::None);
    port.open().expect("a port");
    drop(upper);
    wait_for(&port, PollFlags::POLLIN);
    let is_end = match port.read(&mut [0; 8]) {
        Ok(len) => len == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    assert!(is_end, "a hang-up is an end, and no silence");
    assert!(port.write(b"x").is_err());
    port.close();
    let error = port.open().expect_err("it is gone").to_string();
    assert!(error.contains(&name) && error.contains("no such port"), "{error}");
}

#[test]
fn two_programs_do_not_share_a_port() {
    // The superuser is not held back, so somebody else is needed, and root to be somebody else.
    if !nix::unistd::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        return;
    }
    let (_upper, name) = terminal();
    fs::set_permissions(&name, Permissions::from_mode(0o666)).expect("ours");
    let open = || {
        let ids = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"];
        let script = format!("exec 3<>{name}");
        let ended = Command::new("setpriv").args(ids).args(["sh", "-c", &script]).output().expect("it runs");
        String::from_utf8_lossy(&ended.stderr).into_owned()
    };
    assert_eq!(open(), "");
    let mut port = Tty::new(Path::new(&name), 115_200, FlowControl::None);
    port.open().expect("a port");
    assert!(open().contains("busy"), "{}", open());
    port.close();
    assert_eq!(open(), "", "it is free again");
}

#[test]
fn what_is_no_port_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("room");
    for (path, words) in [
        (Path::new("/dev/nosuchport"), "there is no such port"),
        (Path::new("/dev/null"), "is no serial port"),
        (&*file, "is no serial port"),
        (dir.path(), ""),
    ] {
        let error = Tty::new(path, 9_600, FlowControl::None).open().expect_err("no port").to_string();
        assert!(error.contains(words) && error.contains(&*path.to_string_lossy()), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

/// Nobody listens any more. To close a listener is not enough: a program that another test starts just now has a copy.
fn deaf(listener: &impl AsRawFd) {
    shutdown(listener.as_raw_fd(), Shutdown::Both).expect("a listener");
}

#[test]
fn a_unix_socket_is_asked_until_somebody_is_there_and_again_when_they_have_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("socket");
    let mut port = Socket::unix(&path, false);
    let error = port.open().expect_err("nobody").to_string();
    assert!(error.contains("socket") && error.contains("No such file"), "{error}");
    for _ in 0..2 {
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        assert_eq!(port.open().expect("somebody"), Opening::Done);
        let (mut other, _) = listener.accept().expect("us");
        carries(&mut port, &mut other);
        drop(other);
        deaf(&listener);
        while port.read(&mut [0; 4_096]).is_ok_and(|len| len > 0) {}
        port.close();
        assert!(port.open().is_err(), "nobody listens any more");
    }
}

#[test]
fn somebody_is_waited_for_at_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("socket");
    let mut port = Socket::unix(&path, true);
    assert_eq!(port.open().expect("a socket"), Opening::InProgress);
    for _ in 0..2 {
        let mut other = UnixStream::connect(&path).expect("it listens");
        wait_for(&port, PollFlags::POLLIN);
        assert_eq!(port.open().expect("somebody"), Opening::Done);
        carries(&mut port, &mut other);
        drop(other);
        port.close();
        assert_eq!(port.open().expect("it waits"), Opening::InProgress);
    }
    let error = Socket::unix(&path, true).open().expect_err("it is taken").to_string();
    assert!(error.contains("socket") && error.contains("in use"), "{error}");
    assert!(path.exists(), "who was refused takes nothing away");
    drop(port);
    assert!(!path.exists(), "it goes with its owner");
    // That of a program that was killed.
    deaf(&UnixListener::bind(&path).expect("a socket"));
    assert!(fs::metadata(&path).expect("left").file_type().is_socket());
    assert_eq!(Socket::unix(&path, true).open().expect("it is replaced"), Opening::InProgress);
    // A file of somebody else's is none.
    let file = dir.path().join("file");
    fs::write(&file, "mine").expect("room");
    assert!(Socket::unix(&file, true).open().is_err());
    assert_eq!(fs::read_to_string(&file).expect("it stays"), "mine");
}

/// Opens it, however often that takes.
fn opened(port: &mut Socket) -> std::io::Result<()> {
    while port.open()? == Opening::InProgress {
        wait_for(port, PollFlags::POLLOUT);
    }
    Ok(())
}

#[test]
fn tcp_is_refused_and_then_there() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let name = listener.local_addr().expect("bound").to_string();
    deaf(&listener);
    drop(listener);
    let mut port = Socket::tcp(&name, false).expect("an address");
    for _ in 0..2 {
        let error = opened(&mut port).expect_err("nobody").to_string();
        assert!(error.contains(&name) && error.contains("refused"), "{error}");
    }
    let mut listening = Socket::tcp(&name, true).expect("an address");
    assert_eq!(listening.open().expect("a port"), Opening::InProgress);
    opened(&mut port).expect("somebody");
    wait_for(&listening, PollFlags::POLLIN);
    assert_eq!(listening.open().expect("us"), Opening::Done);
    assert_eq!(port.write(b"to and").expect("room"), 6);
    assert_eq!(read_all(&mut listening, 6), b"to and");
    assert_eq!(listening.write(b"fro").expect("room"), 3);
    assert_eq!(read_all(&mut port, 3), b"fro");
    let len = fill(&mut port);
    assert_eq!(read_all(&mut listening, len).len(), len);
    wait_for(&port, PollFlags::POLLOUT);
    // Of several addresses of a name, one has somebody.
    let port_of = name.rsplit_once(':').expect("a port").1.to_owned();
    let mut by_name = Socket::tcp(&format!("localhost:{port_of}"), false).expect("an address");
    opened(&mut by_name).expect("somebody");
    drop(listening);
    wait_for(&port, PollFlags::POLLIN);
    assert!(!matches!(port.read(&mut [0; 8]), Ok(1..)), "the end");
    assert!(
        Socket::tcp("127.0.0.1:ssh2x", false).is_err_and(|error| error.to_string().contains("HOST:PORT"))
    );
}

#[test]
fn a_command_carries_bytes_and_is_started_again() {
    let mut port = Exec::new("cat");
    for _ in 0..2 {
        assert_eq!(port.open().expect("it starts"), Opening::Done);
        assert_eq!(port.write(b"there").expect("room"), 5);
        assert_eq!(read_all(&mut port, 5), b"there");
        port.close();
        assert!(port.read(&mut [0; 8]).is_err());
    }
    let mut port = Exec::new("exit 3");
    port.open().expect("it starts");
    wait_for(&port, PollFlags::POLLIN);
    let error = port.read(&mut [0; 8]).expect_err("it has ended").to_string();
    assert!(error.contains("the command has ended"), "{error}");
    // One that reads nothing stops nobody.
    let mut port = Exec::new("exec sleep 1000");
    port.open().expect("it starts");
    assert!(fill(&mut port) > 0);
}

#[test]
fn a_command_ends_with_all_that_it_has_started() {
    let mut port = Exec::new("sleep 1000 & echo $!; wait");
    port.open().expect("it starts");
    let mut text = String::new();
    while !text.ends_with('\n') {
        text += &String::from_utf8_lossy(&read_all(&mut port, 1));
    }
    let process = format!("/proc/{}/stat", text.trim());
    let runs = || fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(runs());
    drop(port);
    let until = now() + Duration::from_secs(60);
    while runs() {
        assert!(now() < until, "it still runs");
        std::thread::yield_now();
    }
    // One that does not want to.
    let mut port = Exec::new("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    port.open().expect("it starts");
    assert_eq!(read_all(&mut port, 6), b"ready\n");
    drop(port);
}

/// A device at one end of a Unix socket, and the other end.
fn device(options: &str) -> (tempfile::TempDir, Serial<Box<dyn Port>>, UnixStream) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let spec: SerialSpec = format!("unix:{}{options}", path.display()).parse().expect("a line");
    let device = spec.open(now()).expect("somebody listens");
    let (other, _) = listener.accept().expect("us");
    (dir, device, other)
}

fn send(device: &mut Serial<Box<dyn Port>>, len: usize) -> bool {
    let write = |room: &mut [u8]| {
        room.fill(0x55);
        room[0] = 0x45;
    };
    device.transmit_with(now(), len, &FrameMeta::default(), write).is_some()
}

/// Far away: who comes to it has not been woken.
fn far() -> Option<Instant> {
    Some(now() + Duration::from_secs(60))
}

#[test]
fn a_wait_ends_when_bytes_come_when_there_is_room_and_when_somebody_asks() {
    let (_dir, mut device, mut other) = device("");
    other.write_all(&[0xc0, 0x45, 0, 0, 1, 0xc0]).expect("room");
    assert_eq!(device.wait(far()), Ok(Wake::Ready));
    while device.receive_with(now(), |_, _| ()).is_some() {}
    device.waker().wake();
    assert_eq!(device.wait(far()), Ok(Wake::Woken));
    assert_eq!(device.wait(Some(now())), Ok(Wake::Deadline));
    // Nobody reads at the other end, until there is no room anywhere.
    while send(&mut device, 1_006) {
        assert_eq!(device.flush(), Ok(()));
    }
    let mut room = vec![0; 1 << 20];
    let reader = std::thread::spawn(move || {
        let mut len = 0;
        // More than can be in the socket: somebody goes on to write.
        while len < 400_000 {
            len += other.read(&mut room).expect("bytes");
        }
        other
    });
    let mut len = 0;
    while !reader.is_finished() && len < 2_000_000 {
        let wake = device.wait(far());
        assert!(matches!(wake, Ok(Wake::Ready)), "{wake:?}: the wake-up was lost");
        while send(&mut device, 1_006) {
            len += 1_006;
            assert_eq!(device.flush(), Ok(()));
        }
    }
    drop(reader.join().expect("it reads"));
}

#[test]
fn a_device_finds_its_port_again() {
    let (dir, mut device, other) = device("");
    let path = dir.path().join("socket");
    fs::remove_file(&path).expect("it is there");
    drop(other);
    // The end is seen when it is read.
    assert_eq!(device.wait(far()), Ok(Wake::Ready));
    assert!(device.receive_with(now(), |_, _| ()).is_none());
    assert_eq!(device.wait(far()), Err(LinkError::Down));
    let listener = UnixListener::bind(&path).expect("a socket");
    let until = now() + Duration::from_secs(60);
    // It ends as soon as the port is there, with nothing to read and nobody who asks.
    let back = loop {
        match device.wait(far()) {
            Err(LinkError::Down) => assert!(now() < until, "it is not looked for"),
            other => break other,
        }
    };
    assert_eq!(back, Ok(Wake::Ready));
    let (mut other, _) = listener.accept().expect("us again");
    assert!(send(&mut device, 100));
    assert_eq!(device.flush(), Ok(()));
    let mut back = [0; 102];
    other.read_exact(&mut back).expect("a frame");
    assert_eq!(device.figures().snapshot().losses, 1);
}
