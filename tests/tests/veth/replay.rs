//! `wirestack replay` beside tcpreplay: the same file through both, and tcpdump at the other end.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::process::Command;

use wirestack_apps::testbed::Wire;
use wirestack_nic::replay::CaptureFile;
use wirestack_tests::programs::{Child, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, stay_on_one_core, veth_test};

use crate::support::{LONG, counter, noise};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let tcpdump = |cases| require_program("tcpdump", cases);
    vec![
        tcpdump(require_program("tcpreplay", veth_test("replay::the_same_as_tcpreplay", same_as_tcpreplay))),
        tcpdump(veth_test("replay::loops_and_times", loops_and_times)),
        veth_test("replay::bad_input", bad_input),
    ]
}

/// An EtherType that no kernel answers (IEEE 802, local experimental).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// A pcap file of frames of all lengths, a millisecond apart.
fn write_file(path: &Path, frames: &[Vec<u8>]) -> io::Result<()> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    for (number, frame) in frames.iter().enumerate() {
        let len = frame.len() as u32;
        for value in [1_700_000_000, number as u32 * 1000, len, len] {
            file.extend(u32::to_le_bytes(value));
        }
        file.extend(frame);
    }
    std::fs::write(path, file)
}

fn frames(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| {
            let mut frame = vec![0x02, 0, 0, 0, 0, 9, 0x02, 0, 0, 0, 0, 8];
            frame.extend(ETHERTYPE);
            frame.extend(noise(number as u64, 46 + number * 7 % 1455));
            frame
        })
        .collect()
}

fn read_file(path: &Path) -> Result<Vec<Vec<u8>>, libtest_mimic::Failed> {
    let mut file = CaptureFile::new(BufReader::new(File::open(path)?))?;
    let mut frames = Vec::new();
    while file.advance()? {
        frames.push(file.record().frame.to_vec());
    }
    Ok(frames)
}

/// What tcpdump at the peer sees while `sender` runs to its end.
fn seen(
    wire: &Wire,
    path: &Path,
    count: usize,
    sender: &mut Command,
) -> Result<(Vec<Vec<u8>>, String), libtest_mimic::Failed> {
    let mut tcpdump = Command::new("tcpdump");
    let count = count.to_string();
    tcpdump.args(["-i", wire.peer().name(), "-B", "16384", "-U", "-c", &count, "-w"]).arg(path);
    tcpdump.args(["ether", "proto", "0x88b5"]);
    let mut tcpdump = wire.at_peer(|| Child::start(&mut tcpdump))?;
    tcpdump.wait_for_line("tcpdump: listening", LONG)?;
    let ended = wire.at_ours(|| output(sender, LONG))?;
    tcpdump.wait(LONG)?;
    Ok((read_file(path)?, ended.stdout))
}

fn same_as_tcpreplay(wire: &Wire) -> Outcome {
    stay_on_one_core();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file.pcap");
    let frames = frames(2000);
    write_file(&file, &frames)?;
    let name = wire.ours().name();
    let mut theirs = Command::new("tcpreplay");
    theirs.args(["-q", "--topspeed", "-i", name]).arg(&file);
    let (by_theirs, _) = seen(wire, &dir.path().join("theirs"), frames.len(), &mut theirs)?;
    let mut ours = wirestack(["replay", "--speed", "fast", "--json", "--nic", &format!("packet:{name}")]);
    let (by_ours, counters) = seen(wire, &dir.path().join("ours"), frames.len(), ours.arg(&file))?;
    assert!(by_theirs == frames, "tcpreplay sends what is in the file");
    assert!(by_ours == by_theirs, "and so do we");
    let counters: serde_json::Value = serde_json::from_str(counters.lines().last().unwrap_or_default())?;
    assert_eq!(counters["frames"], 2000);
    assert_eq!(counters["tx_oversize"], 0);
    Ok(())
}

fn loops_and_times(wire: &Wire) -> Outcome {
    stay_on_one_core();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file.pcap");
    let frames = frames(100);
    write_file(&file, &frames)?;
    let nic = format!("packet:{}", wire.ours().name());
    // 99 ms at this speed, and once more.
    let mut ours = wirestack(["replay", "--speed", "2", "--loops", "2", "--json", "--nic", &nic]);
    let (by_ours, counters) = seen(wire, &dir.path().join("ours"), 200, ours.arg(&file))?;
    assert!(by_ours == [frames.clone(), frames].concat());
    let counters: serde_json::Value = serde_json::from_str(counters.lines().last().unwrap_or_default())?;
    assert!(counters["seconds"].as_f64() >= Some(0.099), "{counters}");
    Ok(())
}

fn bad_input(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let nic = format!("packet:{}", wire.ours().name());
    let text = dir.path().join("text");
    std::fs::write(&text, "this is no capture")?;
    let cut = dir.path().join("cut");
    write_file(&cut, &frames(10))?;
    let whole = std::fs::read(&cut)?;
    std::fs::write(&cut, &whole[..whole.len() - 5])?;
    let corrupt = dir.path().join("corrupt");
    let mut bytes = whole.clone();
    bytes[24 + 8 + 3] = 0xff;
    std::fs::write(&corrupt, bytes)?;
    let packets = dir.path().join("packets");
    let mut bytes = whole;
    bytes[20] = 101;
    std::fs::write(&packets, bytes)?;
    let run = |file: &Path, more: &[&str]| -> io::Result<_> {
        let mut command = wirestack(["replay"]);
        command.args(more).arg(file);
        wire.at_ours(|| Child::start(&mut command))?.wait(LONG)
    };
    let on = ["--nic", &nic];
    for (file, more, words) in [
        (dir.path().join("none"), &on[..], &["FILE", "none", "No such file"][..]),
        (dir.path().to_owned(), &on, &["FILE", "Is a directory"]),
        (text, &on, &["FILE", "neither pcap nor pcapng"]),
        (packets, &on, &["--nic", &nic, "tun:IFNAME"]),
        (cut.clone(), &["--nic", "packet:none0"], &["--nic packet:none0", "No such device"]),
        (cut.clone(), &["--nic", "nfqueue:1"], &["--nic nfqueue:1", "packet:IFNAME"]),
        (cut.clone(), &["--nic", &nic, "--speed", "0"], &["--speed", "a factor above 0"]),
    ] {
        let ended = run(&file, more)?;
        assert_eq!(ended.status.code(), Some(2), "{ended}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended}");
        for word in words {
            assert!(ended.stderr.contains(word), "{word:?} is missing: {ended}");
        }
    }
    // One that is corrupt further on is sent up to there.
    let ended = run(&corrupt, &["--nic", &nic, "--json"])?;
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("at byte 24: a record of more than 256 KiB"), "{ended}");
    // One that was cut off is no error: whatever wrote it was killed.
    let ended = run(&cut, &["--nic", &nic, "--json"])?;
    assert_eq!(ended.status.code(), Some(0), "{ended}");
    assert_eq!((counter(&ended, "frames"), counter(&ended, "truncated")), (9, 1), "{ended}");
    Ok(())
}
