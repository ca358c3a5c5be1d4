//! The demo, as a person runs it: without arguments, with a command, as root and as nobody, and ended in
//! every way.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use wirestack_apps::testbed::{NAME_PREFIX, Namespace, Wire};
use wirestack_tests::programs::{Child, Ended, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, root_test, test};

use crate::support::LONG;
use crate::talk::wait_until;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let curl = |cases| require_program("curl", cases);
    vec![
        test("demo::prints_the_page_and_figures", prints_the_page_and_figures),
        test("demo::json_is_one_object", json_is_one_object),
        test("demo::a_command_gives_its_status", a_command_gives_its_status),
        curl(test("demo::a_command_reaches_the_page", a_command_reaches_the_page)),
        test("demo::a_worse_wire_loses_nothing", a_worse_wire_loses_nothing),
        test("demo::the_capture_is_written", the_capture_is_written),
        test("demo::nothing_is_left_after_sigkill", nothing_is_left_after_sigkill),
        require_program("setpriv", root_test("demo::anybody_can_run_it", anybody_can_run_it)),
        require_program("setpriv", root_test("demo::host_is_for_root", host_is_for_root)),
        curl(root_test("demo::host_serves_until_sigint", host_serves_until_sigint)),
        root_test("demo::host_needs_networks_that_are_free", host_needs_networks_that_are_free),
        curl(root_test("demo::host_leaves_nothing_after_sigkill", host_leaves_nothing_after_sigkill)),
    ]
}

/// The demo samples for some seconds, and the machine may be busy.
const DEMO_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) fn demo(args: &[&str]) -> io::Result<Ended> {
    Child::start(&mut demo_command(args))?.wait(DEMO_TIMEOUT)
}

fn demo_command(args: &[&str]) -> Command {
    wirestack(["demo"].iter().chain(args))
}

pub(crate) fn assert_prints_all(ended: &Ended) {
    assert!(ended.status.success(), "{ended}");
    for part in [
        "│ This page was served by wirestack",
        "connect         p50 ",
        "64-byte echo    p50 ",
        "Gbit/s, every byte checked",
        "Gbit/s each way, every byte checked",
        "counted by the stack: accepted=",
        "next:",
    ] {
        assert!(ended.stdout.contains(part), "{part:?} is missing: {ended}");
    }
}

fn prints_the_page_and_figures() -> Outcome {
    let before = interfaces()?;
    let ended = demo(&[])?;
    assert_prints_all(&ended);
    assert_eq!(ended.stderr, "", "{ended}");
    assert_eq!(interfaces()?, before);
    Ok(())
}

/// Interfaces of the calling thread's namespace.
fn interfaces() -> io::Result<Vec<String>> {
    let table = fs::read_to_string("/proc/thread-self/net/dev")?;
    Ok(table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}

fn json_is_one_object() -> Outcome {
    let ended = demo(&["--json"])?;
    assert!(ended.status.success(), "{ended}");
    let report: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(ended.stdout.lines().count(), 1, "{ended}");
    let number = |path: &str| {
        let value = report.pointer(path).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("{path} is no number: {ended}"))
    };
    for series in ["connect_us", "rtt_us"] {
        let [p50, p99, p999] = ["p50", "p99", "p999"].map(|share| number(&format!("/{series}/{share}")));
        assert!(0.0 < p50 && p50 <= p99 && p99 <= p999, "{series}: {ended}");
    }
    for figure in ["/page_bytes", "/download_bits_per_second", "/echo_bits_per_second", "/counters/rx_frames"]
    {
        assert!(number(figure) > 0.0, "{figure}: {ended}");
    }
    assert!(number("/counters/accepted") >= 4.0, "{ended}");
    Ok(())
}

fn a_command_gives_its_status() -> Outcome {
    assert!(demo(&["--exec", "true"])?.status.success());
    let ended = demo(&["--exec", "exit 7"])?;
    assert_eq!(ended.status.code(), Some(7), "{ended}");
    assert!(ended.stderr.contains("--exec exit 7: exit status: 7"), "{ended}");
    assert_eq!(demo(&["--exec", "no-such-program-at-all"])?.status.code(), Some(127));
    Ok(())
}

fn a_command_reaches_the_page() -> Outcome {
    for url in ["$URL", "$URL6", "http://$ADDRESS/"] {
        let ended = demo(&["--exec", &format!("curl -sS --globoff {url}")])?;
        assert!(ended.status.success(), "{ended}");
        assert!(ended.stdout.starts_with("This page was served by wirestack"), "{ended}");
    }
    Ok(())
}

fn a_worse_wire_loses_nothing() -> Outcome {
    let ended = demo(&["--impair", "loss=1%,delay=2ms"])?;
    assert_prints_all(&ended);
    let dropped = ended.stdout.split("impaired_dropped=").nth(1).and_then(|rest| rest.split(' ').next());
    assert!(dropped.is_some_and(|dropped| dropped.trim() != "0"), "nothing was lost: {ended}");
    Ok(())
}

fn the_capture_is_written() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("demo.pcapng");
    let path = file.display().to_string();
    let ended = demo(&["--pcap", &path, "--exec", "true"])?;
    assert!(ended.status.success(), "{ended}");
    // The block type of a section header, in either byte order.
    assert!(fs::read(&file)?.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]));
    let ended = demo(&["--pcap", "/no/such/dir/x", "--exec", "true"])?;
    assert_eq!(ended.status.code(), Some(2), "{ended}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended}");
    assert!(ended.stderr.contains("--pcap /no/such/dir/x: No such file or directory"), "{ended}");
    Ok(())
}

/// Namespaces live by descriptor, so those of a process go with it, and interfaces with them.
fn nothing_is_left_after_sigkill() -> Outcome {
    let namespace = Namespace::new()?;
    let mut child =
        namespace.run(|| Child::start(&mut demo_command(&["--exec", "echo begun; exec sleep 1000"])))?;
    child.wait_for_line("begun", LONG)?;
    let id = child.id();
    child.kill_hard()?;
    assert!(!Path::new(&format!("/proc/{id}")).exists());
    assert_eq!(namespace.run(interfaces)?, ["lo"]);
    Ok(())
}

/// The program as a user who is nobody: a copy that everybody may run.
pub(crate) fn as_nobody(folder: &Path, program: &Command) -> io::Result<Command> {
    let copy = folder.join("wirestack");
    // By a program that has ended: a file that we have written may be open in a program that starts just now, and what is
    // open for writing cannot be run.
    output(Command::new("cp").arg(program.get_program()).arg(&copy), LONG)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]);
    command.arg(copy).args(program.get_args());
    Ok(command)
}

fn anybody_can_run_it() -> Outcome {
    let folder = tempfile::tempdir()?;
    let ended = Child::start(&mut as_nobody(folder.path(), &demo_command(&[]))?)?.wait(DEMO_TIMEOUT)?;
    assert_prints_all(&ended);
    let ended = Child::start(&mut as_nobody(folder.path(), &demo_command(&["--exec", "id -u; exit 7"]))?)?
        .wait(LONG)?;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(7), "0\n"), "{ended}");
    Ok(())
}

fn host_is_for_root() -> Outcome {
    let folder = tempfile::tempdir()?;
    let ended = Child::start(&mut as_nobody(folder.path(), &demo_command(&["--host"]))?)?.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(2), "{ended}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended}");
    assert!(ended.stderr.contains("--host") && ended.stderr.contains("root"), "{ended}");
    Ok(())
}

/// The demo with its other end in a namespace that plays the host.
fn start_on(host: &Namespace) -> Result<Child, libtest_mimic::Failed> {
    let mut child = host.run(|| Child::start(&mut demo_command(&["--host"])))?;
    child.wait_ready(LONG)?;
    let added = host.run(interfaces)?;
    assert!(added.iter().any(|name| name.starts_with(NAME_PREFIX)), "{added:?}");
    Ok(child)
}

fn curl(host: &Namespace, url: &str) -> io::Result<Child> {
    host.run(|| Child::start(Command::new("curl").args(["-sSN", "--max-time", "60", "--globoff", url])))
}

fn host_serves_until_sigint() -> Outcome {
    let host = Namespace::new()?;
    let child = start_on(&host)?;
    for url in ["http://10.77.0.2/", "http://[fd77::2]/"] {
        let ended = curl(&host, url)?.wait(LONG)?;
        assert!(ended.stdout.starts_with("This page was served by wirestack"), "{ended}");
    }
    child.signal(Signal::SIGINT)?;
    let ended = child.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(0), "{ended}");
    assert!(ended.stderr.contains("accepted=2"), "{ended}");
    assert_eq!(host.run(interfaces)?, ["lo"], "the interface is gone when the program is");
    Ok(())
}

fn host_needs_networks_that_are_free() -> Outcome {
    // The peer's end of a wire is in the networks that the demo uses.
    let wire = Wire::new()?;
    let ended = wire.at_peer(|| Child::start(&mut demo_command(&["--host"])))?.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(2), "{ended}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended}");
    for word in ["--host", "10.77.0.", wire.peer().name()] {
        assert!(ended.stderr.contains(word), "{word}: {ended}");
    }
    Ok(())
}

fn host_leaves_nothing_after_sigkill() -> Outcome {
    let host = Namespace::new()?;
    let child = start_on(&host)?;
    // A terabyte, so that it is cut off in the middle.
    let mut download = host.run(|| {
        let mut command = Command::new("sh");
        let line = "curl -sSN --max-time 60 http://10.77.0.2/bytes/1099511627776 | \
                    { head -c 100000 > /dev/null; echo begun; exec cat > /dev/null; }";
        Child::start(command.args(["-c", line]))
    })?;
    download.wait_for_line("begun", LONG)?;
    child.kill_hard()?;
    // The kernel takes a namespace apart in the background. The interface at the host's end goes with
    // the other end, so when it is gone, so is the namespace.
    wait_until("no interface is left", || Ok(host.run(interfaces)? == ["lo"]))?;
    drop(download);
    // And the next one finds its place free.
    let child = start_on(&host)?;
    let ended = curl(&host, "http://10.77.0.2/")?.wait(LONG)?;
    assert!(ended.stdout.starts_with("This page was served by wirestack"), "{ended}");
    child.signal(Signal::SIGTERM)?;
    assert!(child.wait(LONG)?.status.success());
    Ok(())
}
