//! `capture`, with trafgen as the sender, and tcpdump and tshark as the judges of what was written.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use smoltcp::phy::Medium;
use smoltcp::time::Instant;
use wirestack_apps::testbed::{OURS_IPV4, PEER_IPV4, Wire};
use wirestack_nic::capture::file::{CaptureFileConfig, Rotation};
use wirestack_nic::capture::pcapng::{InterfaceStatistics, TimeUnit};
use wirestack_nic::capture::{CaptureFile, Direction, PcapngInterface, PcapngWriter};
use wirestack_nic::ethtool::Offload;
use wirestack_tests::programs::{Child, Ended, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, test, veth_test};

use crate::bad_input::assert_refused;
use crate::support::LONG;
use crate::talk::{through, wait_until};
use crate::testbed::address_ours;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let judged = |cases| {
        ["trafgen", "tcpdump", "tshark"]
            .into_iter()
            .fold(cases, |cases, program| require_program(program, cases))
    };
    let tshark = |cases| require_program("tshark", cases);
    vec![
        tshark(test("capture::readers_understand_the_formats", readers_understand)),
        judged(veth_test("capture::every_mode_counts_every_frame", every_mode_counts)),
        judged(veth_test("capture::it_agrees_with_tcpdump_frame_by_frame", agrees_with_tcpdump)),
        judged(veth_test("capture::a_flow_has_one_thread", a_flow_has_one_thread)),
        judged(veth_test("capture::a_count_is_exact", a_count_is_exact)),
        judged(veth_test("capture::files_rotate", files_rotate)),
        judged(veth_test("capture::a_killed_capture_is_readable", killed)),
        judged(require_program(
            "unshare",
            veth_test("capture::a_full_disk_keeps_what_was_written", full_disk),
        )),
        judged(veth_test("capture::a_removed_interface_ends_it", removed)),
        veth_test("capture::seconds_end_it", seconds_end_it),
        judged(veth_test("capture::lists_of_prefixes", lists_of_prefixes)),
        veth_test("capture::flows_are_analysed", flows_are_analysed),
        veth_test("capture::segments_of_super_frames_are_counted", segments_are_counted),
        require_program("tcpdump", veth_test("capture::bad_input", bad_input)),
    ]
}

/// Frames of the test, and of nobody else.
const FILTER: &str = "udp dst port 2000";

/// What trafgen sends: UDP of 64 flows, in frames of 60 to 1060 bytes.
fn traffic(wire: &Wire) -> String {
    let (from, to) = (wire.peer().mac(), wire.ours().mac());
    let packet = |len: usize| {
        format!(
            "{{ eth(da={}, sa={}), ipv4(sa={PEER_IPV4}, da={OURS_IPV4}), udp(sp=dinc(1000, 1063), dp=2000), \
             fill(0x41, {len}) }}\n",
            to.to_string().replace('-', ":"),
            from.to_string().replace('-', ":"),
        )
    };
    [18, 100, 1018].map(packet).concat()
}

/// Starts trafgen at the peer.
fn trafgen(wire: &Wire, folder: &Path, config: &str, count: u64) -> io::Result<Child> {
    let file = folder.join("traffic.cfg");
    fs::write(&file, config)?;
    let mut command = Command::new("trafgen");
    command.args(["--cpus", "1", "--no-sock-mem", "--out", wire.peer().name(), "--num", &count.to_string()]);
    command.arg("--conf").arg(&file);
    wire.at_peer(|| Child::start(&mut command))
}

/// Sends so many frames from the peer.
fn send(wire: &Wire, folder: &Path, config: &str, count: u64) -> Outcome {
    let ended = trafgen(wire, folder, config, count)?.wait(LONG)?;
    if ended.status.success() { Ok(()) } else { Err(format!("trafgen failed\n{ended}").into()) }
}

/// `capture` on our end.
fn capture(wire: &Wire, more: &[&str]) -> Command {
    let nic = format!("packet:{}", wire.ours().name());
    wirestack([&["capture", "--nic", &nic, "--json"], more].concat())
}

/// Starts a capture and waits until it takes frames.
fn start(wire: &Wire, more: &[&str]) -> io::Result<Child> {
    let mut child = wire.at_ours(|| Child::start(&mut capture(wire, more)))?;
    child.wait_ready(LONG)?;
    Ok(child)
}

/// The object that a capture prints at its end.
fn figures(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended}"))
}

fn end(child: Child) -> io::Result<Value> {
    child.terminate()?;
    let ended = child.wait(LONG)?;
    assert!(ended.status.success(), "{ended}");
    Ok(figures(&ended))
}

/// How many frames tcpdump and tshark read from a whole file.
fn read_count(file: &Path) -> io::Result<u64> {
    let mut tcpdump = Command::new("tcpdump");
    let by_tcpdump = output(tcpdump.arg("-nr").arg(file), LONG)?.stdout.lines().count();
    let mut tshark = Command::new("tshark");
    let by_tshark = output(tshark.arg("-nr").arg(file), LONG)?.stdout.lines().count();
    assert_eq!(by_tcpdump, by_tshark, "{}", file.display());
    Ok(by_tshark as u64)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the test")
}

/// Fields of all frames in a file, a line for each, as tshark sees them.
fn fields(file: &Path, fields: &[&str]) -> io::Result<Vec<String>> {
    let mut command = Command::new("tshark");
    command.arg("-nr").arg(file).args(["-T", "fields", "-E", "separator=,"]);
    command.args(fields.iter().flat_map(|field| ["-e", field]));
    Ok(output(&mut command, LONG)?.stdout.lines().map(str::to_owned).collect())
}

/// What the writers of the library write, tshark reads: nanoseconds, several interfaces, cut frames.
fn readers_understand() -> Outcome {
    let folder = tempfile::tempdir()?;
    let interface = |name, snap_len| PcapngInterface { name, medium: Medium::Ethernet, snap_len };
    let nanos = 1_700_000_000_123_456_789;
    let seen = ["frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_name"];

    let path = folder.path().join("several.pcapng");
    let mut writer = PcapngWriter::with_unit(fs::File::create(&path)?, interface("one", 0), TimeUnit::Nanos)?;
    let two = writer.add_interface(interface("two", 20), TimeUnit::Micros)?;
    writer.write_frame_of(Default::default(), nanos, Direction::Inbound, &[0; 60])?;
    writer.write_frame_of(two, nanos, Direction::Outbound, &[0; 60])?;
    let statistics =
        InterfaceStatistics { start_nanos: nanos, end_nanos: nanos + 5, received: 7, dropped: 3 };
    writer.write_statistics(two, &statistics)?;
    let lines = fields(&path, &seen)?;
    assert_eq!(lines, ["1700000000.123456789,60,60,one", "1700000000.123456000,60,20,two"]);

    for name in ["x.pcap", "x.pcapng"] {
        let path = folder.path().join(name);
        let config =
            CaptureFileConfig { path: &path, interface: interface("one", 20), rotation: Rotation::default() };
        let mut file = CaptureFile::create(config, Instant::ZERO)?;
        let mut buffer = file.buffer();
        buffer.push(nanos, Direction::Inbound, &[0; 60]);
        buffer.push(nanos + 1, Direction::Outbound, &[0; 19]);
        file.write(&mut buffer, Instant::ZERO)?;
        file.finish(&statistics)?;
        let lines = fields(&path, &seen[..3])?;
        assert_eq!(lines, ["1700000000.123456789,60,20", "1700000000.123456790,19,19"], "{name}");
    }
    Ok(())
}

const MODES: [&[&str]; 4] = [
    &["--mode", "recv"],
    &["--mode", "recv-fanout", "--threads", "2"],
    &["--mode", "ring"],
    &["--mode", "ring-fanout", "--threads", "2"],
];

fn every_mode_counts(wire: &Wire) -> Outcome {
    let folder = tempfile::tempdir()?;
    let traffic = traffic(wire);
    for mode in MODES {
        for name in ["x.pcap", "x.pcapng"] {
            let file = folder.path().join(name);
            let child = start(wire, &[mode, &["--write", text(&file), FILTER]].concat())?;
            send(wire, folder.path(), &traffic, 3000)?;
            let figures = end(child)?;
            assert_eq!(
                (&figures["frames"], &figures["packets_dropped"]),
                (&3000.into(), &0.into()),
                "{figures}"
            );
            // Three sizes, each with the headers of Ethernet, IPv4 and UDP.
            assert_eq!(figures["bytes"], 1000 * (60 + 142 + 1060), "{figures}");
            assert_eq!((&figures["file"]["frames"], &figures["mode"]), (&3000.into(), &mode[1].into()));
            assert_eq!(figures["file"]["bytes"], fs::metadata(&file)?.len(), "{figures}");
            assert_eq!(read_count(&file)?, 3000, "{mode:?} {name}");
        }
    }
    Ok(())
}

/// Tagged frames, and both directions, while tcpdump looks at the same interface.
fn agrees_with_tcpdump(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let folder = tempfile::tempdir()?;
    let lines = |file: &Path| -> io::Result<Vec<String>> {
        // All bytes, and no times: those of two sockets differ by a little.
        let mut command = Command::new("tcpdump");
        Ok(output(command.args(["-tnexxr"]).arg(file), LONG)?.stdout.lines().map(str::to_owned).collect())
    };
    let tagged = traffic(wire).replace(", ipv4(", ", vlan(id=7, 1q), ipv4(");
    let theirs = folder.path().join("theirs.pcap");
    let mut command = Command::new("tcpdump");
    command.args(["-i", wire.ours().name(), "-nUw"]).arg(&theirs);
    let mut tcpdump = wire.at_ours(|| Child::start(&mut command))?;
    tcpdump.wait_for_line("tcpdump: listening on", LONG)?;
    for name in ["ours.pcap", "ours.pcapng"] {
        let ours = folder.path().join(name);
        let child = start(wire, &["--write", text(&ours)])?;
        send(wire, folder.path(), &(traffic(wire) + &tagged), 600)?;
        // Answered by our kernel, so that there are outgoing frames.
        send(wire, folder.path(), &traffic(wire), 6)?;
        end(child)?;
        let found = lines(&ours)?;
        assert!(found.iter().any(|line| line.contains("vlan 7")), "tags are in the frames");
        // What was there before and after this capture is in their file only; what tcpdump has seen it
        // writes up to a second later.
        wait_until("the same frames in the same order", || {
            // It is written while it is read.
            Ok(lines(&theirs).is_ok_and(|all| all.windows(found.len()).any(|window| window == found)))
        })?;
    }
    Ok(())
}

fn a_flow_has_one_thread(wire: &Wire) -> Outcome {
    let folder = tempfile::tempdir()?;
    for mode in ["recv-fanout", "ring-fanout"] {
        let child = start(wire, &["--mode", mode, "--threads", "2", "--analyze", FILTER])?;
        send(wire, folder.path(), &traffic(wire), 3072)?;
        let figures = end(child)?;
        assert_eq!((&figures["frames"], &figures["packets_dropped"]), (&3072.into(), &0.into()));
        let threads = figures["threads"].as_array().ok_or("no threads")?;
        let mut ports = Vec::new();
        for thread in threads {
            let flows = thread["analysis"]["flows"].as_array().ok_or("no flows")?;
            assert!(!flows.is_empty(), "both threads have flows");
            ports.extend(flows.iter().map(|flow| flow["src_port"].as_u64()));
        }
        ports.sort_unstable();
        assert_eq!(ports, (1000..1064).map(Some).collect::<Vec<_>>(), "{mode}");
    }
    Ok(())
}

fn a_count_is_exact(wire: &Wire) -> Outcome {
    let folder = tempfile::tempdir()?;
    for mode in MODES {
        let file = folder.path().join("x.pcapng");
        let child = start(wire, &[mode, &["-c", "1000", "--write", text(&file), FILTER]].concat())?;
        send(wire, folder.path(), &traffic(wire), 3000)?;
        let ended = child.wait(LONG)?;
        assert!(ended.status.success(), "{ended}");
        let figures = figures(&ended);
        assert_eq!(
            (&figures["frames"], &figures["file"]["frames"]),
            (&1000.into(), &1000.into()),
            "{figures}"
        );
        assert_eq!(read_count(&file)?, 1000, "{mode:?}");
    }
    Ok(())
}

fn files_rotate(wire: &Wire) -> Outcome {
    let folder = tempfile::tempdir()?;
    for (name, first) in [("x.pcap", "x_00001.pcap"), ("y.pcapng", "y_00001.pcapng")] {
        let file = folder.path().join(name);
        let child = start(wire, &["--write", text(&file), "--rotate-size", "100kB", FILTER])?;
        send(wire, folder.path(), &traffic(wire), 3000)?;
        let figures = end(child)?;
        let paths = figures["file"]["paths"].as_array().ok_or("no paths")?;
        let paths: Vec<_> = paths.iter().filter_map(Value::as_str).map(PathBuf::from).collect();
        assert_eq!(paths[0], folder.path().join(first));
        // 1.26 MB of frames.
        assert!(paths.len() > 12, "{paths:?}");
        let mut count = 0;
        for path in &paths {
            // The statistics come on top of the last one.
            assert!(fs::metadata(path)?.len() <= 100_000 + 200, "{}", path.display());
            count += read_count(path)?;
        }
        assert_eq!(count, 3000);
    }
    let kept = folder.path().join("z.pcapng");
    let child =
        start(wire, &["--write", text(&kept), "--rotate-size", "100kB", "--rotate-files", "3", FILTER])?;
    send(wire, folder.path(), &traffic(wire), 3000)?;
    let figures = end(child)?;
    assert_eq!(figures["file"]["paths"].as_array().map(Vec::len), Some(3), "{figures}");
    assert_eq!((&figures["file"]["frames"], kept.exists()), (&3000.into(), false), "{figures}");
    let names = fs::read_dir(folder.path())?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert_eq!(names.filter(|name| name.starts_with("z_")).count(), 3);
    Ok(())
}

fn killed(wire: &Wire) -> Outcome {
    let folder = tempfile::tempdir()?;
    for name in ["x.pcap", "x.pcapng"] {
        let file = folder.path().join(name);
        let child = start(wire, &["--write", text(&file), FILTER])?;
        let sender = trafgen(wire, folder.path(), &traffic(wire), 100_000_000)?;
        wait_until("a file of some size", || Ok(fs::metadata(&file)?.len() > 5 << 20))?;
        child.kill_hard()?;
        drop(sender);
        // The kernel may have been in the middle of a write: readers say so, and show what is before it.
        let mut command = Command::new("tshark");
        let read = Child::start(command.arg("-nr").arg(&file))?.wait(LONG)?;
        assert!(read.stdout.lines().count() > 5000, "{name}: {}", read.stderr);
    }
    Ok(())
}

fn full_disk(wire: &Wire) -> Outcome {
    let folder = tempfile::tempdir()?;
    for name in ["x.pcap", "x.pcapng"] {
        let copy = folder.path().join(name);
        let disk = folder.path().join("disk");
        fs::create_dir_all(&disk)?;
        // The disk is there for the program and its shell only.
        let script = "mount -t tmpfs -o size=1m none \"$1\" && shift || exit 99; copy=$1; shift; \
                      \"$@\"; status=$?; cp \"$DISK/x\"* \"$copy\"; exit $status";
        let file = disk.join(name);
        let prefix = ["unshare", "-m", "sh", "-c", script, "sh", text(&disk), text(&copy)];
        let mut command = through(&prefix, &capture(wire, &["--write", text(&file), FILTER]));
        let mut child = wire.at_ours(|| Child::start(command.env("DISK", &disk)))?;
        child.wait_ready(LONG)?;
        let sender = trafgen(wire, folder.path(), &traffic(wire), 100_000_000)?;
        let ended = child.wait(LONG)?;
        drop(sender);
        assert_eq!(ended.status.code(), Some(1), "{ended}");
        assert!(
            ended.stderr.contains("--write") && ended.stderr.contains("No space left on device"),
            "{ended}"
        );
        assert!(!ended.stderr.contains("panicked"), "{ended}");
        let figures = figures(&ended);
        let written = figures["file"]["frames"].as_u64().ok_or("no frames")?;
        let lost = figures["file"]["frames_lost"].as_u64().ok_or("no frames")?;
        assert!(written > 1000 && lost > 0, "{figures}");
        assert_eq!(Some(written + lost), figures["frames"].as_u64());
        assert_eq!(fs::metadata(&copy)?.len(), figures["file"]["bytes"].as_u64().ok_or("no bytes")?);
        assert_eq!(read_count(&copy)?, written, "{name}");
    }
    Ok(())
}

fn removed(wire: &Wire) -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("x.pcapng");
    let child = start(wire, &["--mode", "ring-fanout", "--threads", "2", "--write", text(&file), FILTER])?;
    send(wire, folder.path(), &traffic(wire), 300)?;
    wire.ours().delete()?;
    let ended = child.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("the interface is gone"), "{ended}");
    let figures = figures(&ended);
    assert_eq!((&figures["frames"], &figures["file"]["frames"]), (&300.into(), &300.into()), "{figures}");
    assert_eq!(read_count(&file)?, 300);
    Ok(())
}

fn seconds_end_it(wire: &Wire) -> Outcome {
    let ended = start(wire, &["--seconds", "1.2"])?.wait(LONG)?;
    assert!(ended.status.success(), "{ended}");
    let figures = figures(&ended);
    assert!(figures["seconds"].as_f64().is_some_and(|seconds| seconds >= 1.2), "{figures}");
    assert_eq!(figures["intervals"].as_array().map(|all| !all.is_empty()), Some(true), "{figures}");
    // For people: a line a second on stdout, the totals on stderr.
    let nic = format!("packet:{}", wire.ours().name());
    let mut command = wirestack(["capture", "--nic", &nic, "--seconds", "1.2", "--threads", "2"]);
    let ended = wire.at_ours(|| Child::start(&mut command))?.wait(LONG)?;
    assert!(ended.stdout.starts_with("ready capture ") && ended.stdout.contains("pps"), "{ended}");
    assert!(ended.stdout.contains("[1]") && ended.stderr.contains("dropped in "), "{ended}");
    let signalled = start(wire, &[])?;
    signalled.signal(Signal::SIGINT)?;
    assert!(signalled.wait(LONG)?.status.success());
    Ok(())
}

/// A transport stream from the kernel of the peer, in which packets are missing.
fn flows_are_analysed(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    for mode in MODES {
        let child = start(wire, &[mode, &["--analyze"]].concat())?;
        let socket = wire.at_peer(|| UdpSocket::bind((PEER_IPV4, 4000)))?;
        for first in (0..700u16).step_by(7).filter(|first| first % 70 != 0) {
            let packet =
                |n: u16| [&[0x47, 1, 0, 0x10 | (n % 16) as u8][..], &n.to_be_bytes(), &[0; 182]].concat();
            let datagram: Vec<u8> = (first..first + 7).flat_map(packet).collect();
            socket.send_to(&datagram, (OURS_IPV4, 5000))?;
        }
        let figures = end(child)?;
        let threads = figures["threads"].as_array().ok_or("no threads")?;
        let flows = threads.iter().filter_map(|thread| thread["analysis"]["flows"].as_array()).flatten();
        let flow = flows.into_iter().find(|flow| flow["src_port"] == 4000).ok_or("no flow")?;
        assert_eq!((&flow["frames"], &flow["dst_port"]), (&90.into(), &5000.into()), "{flow}");
        assert!(flow["inter_arrival_us"]["p99"].as_f64() > Some(0.0), "{flow}");
        assert!(flow["packets_per_ms"]["max"].as_u64() >= Some(1), "{flow}");
        // The first datagram was left out as well, which nobody can know: nine gaps of seven packets.
        let stream = &flow["mpeg_ts"];
        assert_eq!((&stream["packets"], &stream["continuity_errors"]), (&630.into(), &9.into()), "{flow}");
        assert_eq!(
            (&stream["packets_lost_min"], &stream["pids"][0]["pid"]),
            (&63.into(), &256.into()),
            "{flow}"
        );
    }
    Ok(())
}

/// The kernel's TCP with itself: with offloads on, frames on a veth pair are far longer than the MTU.
fn segments_are_counted(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let listener = wire.at_ours(|| TcpListener::bind((OURS_IPV4, 4000)))?;
    let child = start(wire, &["--analyze", "tcp"])?;
    let mut sender = wire.at_peer(|| TcpStream::connect((OURS_IPV4, 4000)))?;
    let (mut receiver, _) = listener.accept()?;
    let reader = std::thread::spawn(move || io::copy(&mut receiver, &mut io::sink()));
    sender.write_all(&vec![0; 4 << 20])?;
    drop(sender);
    assert_eq!(reader.join().expect("no panic")?, 4 << 20);
    let figures = end(child)?;
    let flows = figures["threads"][0]["analysis"]["flows"].as_array().ok_or("no flows")?;
    // The one with the most bytes is the first, and there is one for each direction.
    assert_eq!((flows.len(), &flows[0]["dst_port"], &flows[1]["src_port"]), (2, &4000.into(), &4000.into()));
    let figure = |name: &str| flows[0][name].as_f64().unwrap_or_default();
    let (frames, packets, bytes) = (figure("frames"), figure("packets"), figure("bytes"));
    // Of an MTU of 1500, 1448 bytes are left behind the headers and the option with timestamps.
    assert!(packets >= f64::from(4 << 20) / 1448.0 && bytes > f64::from(4 << 20), "{}", flows[0]);
    if wire.peer().offloads()?.has(Offload::Tso) {
        assert!(packets > 2.0 * frames, "{}", flows[0]);
    } else {
        assert_eq!(packets, frames, "{}", flows[0]);
    }
    Ok(())
}

/// Lists of 100 000 prefixes, and senders that are on them and are not. trafgen's frames have 64 senders,
/// and every address of a quarter of these is in the list.
fn lists_of_prefixes(wire: &Wire) -> Outcome {
    let folder = tempfile::tempdir()?;
    let list = folder.path().join("list");
    // 100.64.0.0 to 101.xxx, each with a neighbour left out, and the senders 10.9.0.0/28.
    let far = (0..100_000u32).map(|number| format!("{}/32\n", Ipv4Addr::from(0x6440_0000 + 2 * number)));
    fs::write(&list, far.chain(["# near\n10.9.0.0/28\n".to_owned()]).collect::<String>())?;
    let (from, to) = (wire.peer().mac(), wire.ours().mac());
    let mac = |mac: String| mac.replace('-', ":");
    let config = format!(
        "{{ eth(da={}, sa={}, type=0x0800), 0x45, 0, c16(46), c32(0), 64, 17, c16(0), 10, 9, 0, dinc(0, 63), 10, 9, 1, 1, \
         c16(1000), c16(2000), c16(26), c16(0), fill(0x41, 18) }}",
        mac(to.to_string()),
        mac(from.to_string()),
    );
    for (flag, wanted) in [("--allow", 1600u64), ("--deny", 4800)] {
        for mode in ["recv", "ring-fanout"] {
            let file = folder.path().join("x.pcapng");
            let child = start(wire, &["--mode", mode, flag, text(&list), "--write", text(&file), FILTER])?;
            send(wire, folder.path(), &config, 6400)?;
            let figures = end(child)?;
            assert_eq!(
                (&figures["frames"], &figures["frames_filtered"]),
                (&wanted.into(), &(6400 - wanted).into())
            );
            assert_eq!(read_count(&file)?, wanted);
            let near = fields(&file, &["ip.src"])?.iter().all(|from| {
                let last: u8 = from.rsplit('.').next().and_then(|last| last.parse().ok()).unwrap_or(255);
                (last < 16) == (flag == "--allow")
            });
            assert!(near, "{flag} {mode}");
        }
    }
    Ok(())
}

fn bad_input(wire: &Wire) -> Outcome {
    let refused = |more: &[&str], words: &[&str]| assert_refused(wire, &mut capture(wire, more), words);
    let on = |nic: &str| wirestack(["capture", "--nic", nic]);
    assert_refused(wire, &mut on("packet:nosuchnic0"), &["--nic", "packet:nosuchnic0", "No such device"])?;
    refused(&["--mode", "mmap"], &["--mode", "mmap", "recv, recv-fanout, ring or ring-fanout"])?;
    refused(&["--threads", "0"], &["--threads", "0", "1..=256"])?;
    refused(&["--seconds", "0"], &["--seconds", "0", "0.001"])?;
    refused(&["-c", "0"], &["--count", "0"])?;
    refused(&["--snap-len", "0"], &["--snap-len", "0", "262144"])?;
    refused(&["--ring-size", "1MB"], &["--ring-size", "4 MiB"])?;
    refused(&["--ring-size", "lots"], &["--ring-size", "lots", "as in 100MB"])?;
    refused(&["--ring-size", "5GiB"], &["--ring-size", "4 GiB"])?;
    refused(&["--pin", "1023"], &["--pin", "1023", "this process may run on CPUs"])?;
    refused(&["--write", "/no/such/dir/x.pcap"], &["--write", "/no/such/dir/x.pcap", "No such file"])?;
    refused(&["--write", "/dev/full"], &["--write", "/dev/full", "No space left on device"])?;
    refused(&["--rotate-size", "1MB"], &["--write"])?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("x.pcap");
    refused(&["--write", text(&file), "--rotate-files", "3"], &["--rotate-files", "3", "--rotate-size"])?;
    refused(&["--write", text(&file), "nonsense", "here"], &["nonsense here", "pcap-filter(7)"])?;
    let both = ["--mode", "ring", "--threads", "2", "--write", text(&file)];
    refused(&both, &["--threads", "2", "ring-fanout"])?;
    refused(&["--allow", "/no/such/list"], &["--allow", "/no/such/list", "No such file"])?;
    let list = folder.path().join("list");
    fs::write(&list, "192.0.2.0/24\n# nothing\n192.0.2.0/33\n")?;
    refused(&["--deny", text(&list)], &["--deny", text(&list), "line 3", "\"33\" is no length"])?;
    assert!(!file.exists(), "no file was made");
    Ok(())
}
