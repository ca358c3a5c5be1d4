//! Our TCP and the kernel's at the two ends of a wire that `wirestack bridge` makes worse.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;

use wirestack_apps::testbed::Chain;
use wirestack_tests::programs::{Child, output, wirestack};
use wirestack_tests::runner::{Case, Outcome, chain_test, note, require_program};

use crate::bridge::{bridge, count};
use crate::support::{LONG, counter, end, noise, url_host};

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let usual = [1500, 1500];
    vec![
        require_program("curl", chain_test("tcp::downloads_over_a_lossy_wire", usual, downloads)),
        chain_test("tcp::uploads_over_a_lossy_wire", usual, uploads),
        require_program("curl", chain_test("tcp::downloads_over_a_wire_that_swaps", usual, swaps)),
        require_program("curl", chain_test("tcp::many_over_a_lossy_wire", usual, many)),
        require_program("curl", chain_test("tcp::downloads_over_a_narrow_wire", usual, narrow)),
    ]
}

/// Of our stack, beside the left kernel.
pub(crate) const OURS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 78, 0, 9)), IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 9))];

/// A program of ours at the left end.
fn serve_left(chain: &Chain, args: &[&str]) -> io::Result<Child> {
    let nic = format!("packet:{}", chain.left().name());
    let (program, rest) = args.split_first().expect("a program's name");
    let (v4, v6) = (format!("{}/24", OURS[0]), format!("{}/64", OURS[1]));
    let host = ["--nic", &nic, "--address", &v4, "--address", &v6, "--json"];
    let mut command = wirestack([&[*program], &host[..], rest].concat());
    let mut child = chain.at_left(|| Child::start(&mut command))?;
    child.wait_ready(LONG)?;
    Ok(child)
}

/// Downloads so many bytes of the pattern with the right kernel's TCP, and checks each.
fn download(chain: &Chain, address: IpAddr, len: usize) -> Outcome {
    let url = format!("http://{}/bytes/{len}", url_host(address));
    let file = tempfile::NamedTempFile::new()?;
    let mut curl = Command::new("curl");
    curl.args(["-gsS", "--fail", "--max-time", "60", &url, "-o"]).arg(file.path());
    chain.at_right(|| output(&mut curl, LONG))?;
    let bytes = std::fs::read(file.path())?;
    assert_eq!(bytes.len(), len, "{url}");
    let wrong = bytes.iter().enumerate().find(|(position, byte)| **byte != (position % 251) as u8);
    assert_eq!(wrong, None, "{url}");
    Ok(())
}

fn downloads(chain: &Chain) -> Outcome {
    for (congestion, seed) in [("cubic", "1"), ("reno", "2"), ("bbr", "3")] {
        note(format!("--impair loss=1%,delay=5ms --seed {seed}, {congestion}"));
        let worse = bridge(chain, &["--impair", "loss=1%,delay=5ms", "--seed", seed])?;
        let server = serve_left(chain, &["http", "--congestion", congestion])?;
        for address in OURS {
            download(chain, address, 6 << 20)?;
        }
        let (ended, wire) = (end(server)?, end(worse)?);
        assert!(count(&wire, "a_to_b", "impaired_lost") > 20, "{}", wire.stdout);
        assert!(counter(&ended, "tcp_retransmits") > 20, "{}", ended.stdout);
        // Nearly all is repaired without waiting for a timer, and a busy machine makes some more wait.
        let timeouts = counter(&ended, "tcp_timeouts");
        assert!(timeouts <= 20, "{timeouts} timeouts: {}", ended.stdout);
    }
    Ok(())
}

/// The kernel sends, we receive with holes; then we send it back.
fn uploads(chain: &Chain) -> Outcome {
    note("--impair loss=1%,delay=2ms --seed 7");
    let worse = bridge(chain, &["--impair", "loss=1%,delay=2ms", "--seed", "7"])?;
    let server = serve_left(chain, &["echo"])?;
    let bytes = noise(9, 6 << 20);
    for address in OURS {
        let at = SocketAddr::new(address, 7);
        let mut stream = chain.at_right(|| TcpStream::connect_timeout(&at, LONG))?;
        stream.set_read_timeout(Some(LONG))?;
        let mut reader = stream.try_clone()?;
        let back = thread::spawn(move || {
            let mut back = Vec::new();
            reader.read_to_end(&mut back).map(|_| back)
        });
        stream.write_all(&bytes)?;
        stream.shutdown(Shutdown::Write)?;
        let back = back.join().expect("the reader does not panic")?;
        assert!(back == bytes, "{address}: {} bytes came back, or others", back.len());
    }
    end(server)?;
    end(worse)?;
    Ok(())
}

fn swaps(chain: &Chain) -> Outcome {
    note("--impair reorder=2%,duplicate=1%,delay=3ms,jitter=1ms --seed 8");
    let spec = "reorder=2%,duplicate=1%,delay=3ms,jitter=1ms";
    let worse = bridge(chain, &["--impair", spec, "--seed", "8"])?;
    let server = serve_left(chain, &["http"])?;
    for address in OURS {
        download(chain, address, 8 << 20)?;
    }
    end(server)?;
    end(worse)?;
    Ok(())
}

/// Handshakes and ends are lost, too.
fn many(chain: &Chain) -> Outcome {
    note("--impair loss=3%,delay=1ms --seed 9");
    let worse = bridge(chain, &["--impair", "loss=3%,delay=1ms", "--seed", "9"])?;
    let server = serve_left(chain, &["http"])?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().display();
    let script = format!(
        "for i in $(seq 60); do curl -sS --fail --max-time 50 http://{}/bytes/30000 -o {path}/$i & done; wait",
        OURS[0]
    );
    let ended = chain.at_right(|| output(Command::new("sh").args(["-c", &script]), LONG))?;
    assert_eq!(ended.stderr, "", "curl has nothing to complain about");
    for number in 1..=60 {
        assert_eq!(std::fs::metadata(dir.path().join(number.to_string()))?.len(), 30_000);
    }
    end(server)?;
    end(worse)?;
    Ok(())
}

/// 50 Mbit/s with a short queue: the window is found, and what the queue throws away is sent again.
fn narrow(chain: &Chain) -> Outcome {
    for congestion in ["cubic", "bbr"] {
        note(format!("--impair rate=50mbit,queue=64,delay=5ms --seed 10, {congestion}"));
        let worse = bridge(chain, &["--impair", "rate=50mbit,queue=64,delay=5ms", "--seed", "10"])?;
        let server = serve_left(chain, &["http", "--congestion", congestion])?;
        download(chain, OURS[0], 12 << 20)?;
        let ended = end(server)?;
        end(worse)?;
        // Of some 8 700 frames on the wire.
        let again = counter(&ended, "tcp_retransmits");
        assert!(
            again < 3_000 + 200 * counter(&ended, "tcp_timeouts"),
            "{again} frames sent again: {}",
            ended.stdout
        );
    }
    Ok(())
}
