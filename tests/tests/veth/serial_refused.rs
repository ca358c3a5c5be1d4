//! What a person can get wrong with a serial line: one line, status 2, and nothing is left.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use wirestack_tests::programs::Child;
use wirestack_tests::runner::{Case, Outcome, note, require_program, root_test, test};

use crate::demo::as_nobody;
use crate::serial::Desk;
use crate::support::LONG;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        test("serial::bad_input", bad_input),
        require_program("socat", test("serial::bad_input_with_a_taken_socket", with_a_terminal)),
        require_program("setpriv", root_test("serial::no_permission_names_the_group", no_permission)),
    ]
}

fn assert_refused(desk: &Desk, command: &mut Command, words: &[&str]) -> Outcome {
    note(format!("{command:?}"));
    let files = || -> std::io::Result<Vec<_>> {
        let folder = desk.path("x");
        let folder = folder.parent().expect("a folder");
        Ok(fs::read_dir(folder)?.flatten().map(|entry| entry.file_name()).collect())
    };
    let before = files()?;
    let ended = desk.host.run(|| Child::start(command))?.wait(LONG)?;
    assert_eq!((ended.status.code(), ended.stderr.lines().count()), (Some(2), 1), "{words:?}: {ended}");
    assert_eq!(ended.stdout, "", "{words:?}: {ended}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is missing: {ended}");
    }
    assert_eq!(files()?, before, "{ended}");
    Ok(())
}

/// A line, the words behind it, and what is said of them.
type Wrong = (&'static str, &'static [&'static str], &'static [&'static str]);

const WRONG: [Wrong; 19] = [
    ("/dev/nosuchport", &["echo"], &["--nic", "/dev/nosuchport", "there is no such port"]),
    ("/dev/null", &["echo"], &["/dev/null", "is no serial port"]),
    ("ttyUSB0", &["echo"], &["--nic", "ttyUSB0", "/dev/ttyUSB0@115200"]),
    ("/dev/ttyS0@fast", &["echo"], &["--nic", "50 to 100000000"]),
    ("/dev/ttyS0@9600,parity=even", &["echo"], &["--nic", "framing=slip|cslip"]),
    ("/dev/ttyS0@9600,framing=ppp", &["echo"], &["--nic", "framing=slip|cslip"]),
    ("unix:/tmp/x,flow=rtscts", &["echo"], &["flow=rtscts", "serial port"]),
    ("unix:@/nobody", &["echo"], &["--nic", "serial:unix:", "nobody", "No such file"]),
    ("unix:@/nowhere/x,listen=on", &["echo"], &["--nic", "serial:unix:", "nowhere", "No such file"]),
    ("tcp:127.0.0.1:1", &["echo"], &["--nic", "serial:tcp:127.0.0.1:1: ", "refused"]),
    ("tcp:127.0.0.1:ssh2x", &["echo"], &["--nic", "serial:tcp:127.0.0.1:ssh2x", "HOST:PORT"]),
    ("pty:@/file", &["echo"], &["--nic", "file", "a name that is free"]),
    ("pty:@/x", &["--address", "10.0.2.2", "echo"], &["--peer", "10.0.2.2", "--address"]),
    ("pty:@/x", &["--address", "dhcp", "echo"], &["--address", "dhcp"]),
    ("pty:@/x", &["echo", "--shards", "2"], &["--shards", "2", "1 is accepted"]),
    ("pty:@/x", &["echo", "--device", "profile=bulk"], &["--device", "leave --device out"]),
    ("pty:@/x", &["echo", "--seccomp"], &["--seccomp", "leave it out"]),
    ("pty:@/x", &["--address", "fd00::1", "--peer", "fd00::2", "echo"], &["--nic", "mtu=1280"]),
    ("pty:@/x", &["forward", "80"], &["80", "PORT:HOST:PORT"]),
];

fn bad_input() -> Outcome {
    let desk = Desk::new()?;
    fs::write(desk.path("file"), "mine")?;
    for (line, words, said) in WRONG {
        assert_refused(&desk, &mut desk.command(line, words), said)?;
    }
    assert_eq!(fs::read_to_string(desk.path("file"))?, "mine");
    let packet = ["echo", "--nic", "packet:lo", "--address", "10.0.0.1/24", "--progress"];
    assert_refused(&desk, &mut wirestack_tests::programs::wirestack(packet), &["--progress"])?;
    let dhcp = ["echo", "--nic", &format!("serial:{}", desk.line("pty:@/x")), "--address", "dhcp"];
    assert_refused(&desk, &mut wirestack_tests::programs::wirestack(dhcp), &["--address", "dhcp"])
}

fn with_a_terminal() -> Outcome {
    let desk = Desk::new()?;
    let cable = desk.terminals()?;
    // A terminal of software has no wires to stop anybody with, and says so or not; a second program is told of the first.
    let (_first, mut second) =
        (desk.serve("unix:@/s,listen=on", &["echo"])?, desk.command("unix:@/s,listen=on", &["echo"]));
    assert_refused(&desk, &mut second, &["--nic", "in use"])?;
    cable.kill_hard()?;
    Ok(())
}

fn no_permission() -> Outcome {
    let (desk, copy) = (Desk::new()?, tempfile::tempdir()?);
    let folder = desk.path("x");
    fs::set_permissions(folder.parent().expect("a folder"), fs::Permissions::from_mode(0o755))?;
    let port = desk.path("port");
    fs::write(&port, "")?;
    // A group that every Debian has for this.
    let group = nix::unistd::Group::from_name("dialout")?.ok_or("no group dialout")?;
    chown(&port, None, Some(group.gid.as_raw()))?;
    fs::set_permissions(&port, fs::Permissions::from_mode(0o660))?;
    let mut command = as_nobody(copy.path(), &desk.command("@/port", &["echo"]))?;
    assert_refused(&desk, &mut command, &["no permission", "group dialout", "usermod -aG dialout"])?;
    fs::set_permissions(&port, fs::Permissions::from_mode(0o600))?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]);
    command.arg(copy.path().join("wirestack")).args(desk.command("@/port", &["echo"]).get_args());
    assert_refused(&desk, &mut command, &["no permission"])
}
