//! Devices around the device, as flags of the programs: a worse wire, and a capture that others read.

use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use wirestack_apps::testbed::{OURS_IPV4, Wire};
use wirestack_tests::programs::output;
use wirestack_tests::runner::{Case, Outcome, note, require_program, stay_on_one_core, veth_test};

use crate::support::{ADDRESSES, LONG, counter, end, noise, serve, url_host};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        require_program("curl", veth_test("wire::a_bad_wire_harms_no_byte", a_bad_wire)),
        require_program(
            "tshark",
            require_program("curl", veth_test("wire::captures_are_read_by_tshark", captures)),
        ),
        require_program("ping", veth_test("wire::delay_is_what_was_asked_for", delay)),
    ]
}

/// Loss, copies, swaps and flipped bits: all of them happen, and TCP hides them.
fn a_bad_wire(wire: &Wire) -> Outcome {
    let dir = tempfile::tempdir()?;
    let bytes = noise(3, 400_000);
    fs::write(dir.path().join("file"), &bytes)?;
    let spec = "loss=0.5%,duplicate=2%,reorder=2%,corrupt=0.5%,delay=1ms,jitter=500us";
    note(format!("--impair {spec} --seed 11"));
    let path = dir.path().to_str().expect("a plain path");
    let server = serve(wire, &["http", "--dir", path, "--impair", spec, "--seed", "11", "--json"])?;
    let fetched = dir.path().join("fetched");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "--max-time", "50", &format!("http://{OURS_IPV4}/file"), "-o"]).arg(&fetched);
    wire.at_peer(|| output(&mut curl, LONG))?;
    assert_eq!(Sha256::digest(fs::read(fetched)?), Sha256::digest(&bytes));
    let ended = end(server)?;
    for happened in ["impaired_duplicated", "impaired_reordered"] {
        assert!(counter(&ended, happened) > 0, "{happened}: {}", ended.stdout);
    }
    assert!(
        counter(&ended, "impaired_dropped") + counter(&ended, "impaired_corrupted") > 0,
        "{}",
        ended.stdout
    );
    Ok(())
}

/// Fields of every frame of a capture that a display filter lets through.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> std::io::Result<Vec<String>> {
    // It looks for settings in the home directory, which whoever runs the tests may not be able to read.
    let home = file.parent().unwrap_or(file);
    let mut command = Command::new("tshark");
    command.env("HOME", home).env_remove("XDG_CONFIG_HOME");
    command.arg("-r").arg(file).args(["-n", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
    command.args(["-o", "udp.check_checksum:TRUE", "-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    Ok(output(&mut command, LONG)?.stdout.lines().map(str::to_owned).collect())
}

fn captures(wire: &Wire) -> Outcome {
    stay_on_one_core();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("capture.pcapng");
    let server = serve(wire, &["http", "--pcap", file.to_str().expect("a plain path"), "--json"])?;
    for address in ADDRESSES {
        let url = format!("http://{}/bytes/300000", url_host(address));
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-g", "--fail", &url, "-o", "/dev/null"]);
        wire.at_peer(|| output(&mut curl, LONG))?;
    }
    let ended = end(server)?;
    let directions = tshark(&file, "frame", &["frame.packet_flags_direction"])?;
    // tshark prints the direction as a number, in hexadecimal in some versions.
    let of = |wanted: &str| directions.iter().filter(|flag| flag.ends_with(wanted)).count() as u64;
    assert_eq!(of("1"), counter(&ended, "rx_frames"), "inbound");
    assert_eq!(of("2"), counter(&ended, "tx_frames"), "outbound");
    assert_eq!(counter(&ended, "capture_lost"), 0);

    let bad = "tcp.checksum.status == 0 || ip.checksum.status == 0 || _ws.malformed || _ws.expert.severity == 8388608";
    let bad = tshark(&file, bad, &["frame.number", "_ws.col.Info"])?;
    assert!(bad.is_empty(), "{bad:#?}");
    // On a clean wire nothing is lost, and nobody resets.
    let odd = "tcp.analysis.lost_segment || tcp.flags.reset == 1";
    let odd = tshark(&file, odd, &["frame.number", "_ws.col.Info"])?;
    assert!(odd.is_empty(), "{odd:#?}");
    // Nothing is sent again but what had to wait: a peer that is not scheduled looks like one that has lost something.
    let of = |name| counter(&ended, name);
    assert!(of("tcp_timeouts") > 0 || of("tcp_retransmits") <= of("tcp_loss_probes"), "{ended}");
    assert!(!tshark(&file, "http.response.code == 200", &["frame.number"])?.is_empty());
    Ok(())
}

fn delay(wire: &Wire) -> Outcome {
    let server = serve(wire, &["http", "--impair", "delay=20ms"])?;
    let mut ping = Command::new("ping");
    ping.args(["-c", "5", "-i", "0.2", "-w", "10", "-q", &OURS_IPV4.to_string()]);
    let ended = wire.at_peer(|| output(&mut ping, LONG))?;
    // rtt min/avg/max/mdev = 40.1/40.2/40.3/0.1 ms: there and back. The upper bound is the machine's.
    let line = ended.stdout.lines().find(|line| line.starts_with("rtt ")).unwrap_or_default();
    let min = line.split(['=', '/', ' ']).find_map(|word| word.parse::<f64>().ok());
    assert!(min.is_some_and(|min| min >= 40.0), "{ended}");
    end(server)?;
    Ok(())
}
