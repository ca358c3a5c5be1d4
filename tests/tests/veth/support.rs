//! What several modules of tests need: the program under test on a wire.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use wirestack_apps::testbed::{IPV4_PREFIX_LEN, IPV6_PREFIX_LEN, OURS_IPV4, OURS_IPV6, Wire};
use wirestack_tests::programs::{Child, Ended, wirestack};
use wirestack_tests::runner::Outcome;

/// How long anything may take that ought to be quick, on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Both addresses of the stack.
pub(crate) const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(OURS_IPV4), IpAddr::V6(OURS_IPV6)];

thread_local! {
    static BACKEND: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Runs a test with the TCP of smoltcp in all programs that [`serve`] starts.
pub(crate) fn on_smoltcp(test: impl FnOnce() -> Outcome) -> Outcome {
    BACKEND.set(Some("smoltcp"));
    let outcome = test();
    BACKEND.set(None);
    outcome
}

/// Whether this is such a test.
pub(crate) fn is_smoltcp() -> bool {
    BACKEND.get().is_some()
}

/// Starts a serving program at our end with both addresses and waits until it serves. `args` begin
/// with the program's name.
pub(crate) fn serve(wire: &Wire, args: &[&str]) -> io::Result<Child> {
    let nic = format!("packet:{}", wire.ours().name());
    let (v4, v6) = (format!("{OURS_IPV4}/{IPV4_PREFIX_LEN}"), format!("{OURS_IPV6}/{IPV6_PREFIX_LEN}"));
    let (program, rest) = args.split_first().expect("a program's name");
    let host = ["--nic", &nic, "--address", &v4, "--address", &v6];
    let backend = BACKEND.get().map(|name| ["--backend", name]);
    let backend = backend.as_ref().map_or(&[][..], |words| &words[..]);
    // A program may have programs of its own: `perf server`.
    let words: Vec<_> = program.split(' ').collect();
    let mut command = wirestack([&words, &host[..], backend, rest].concat());
    let mut child = wire.at_ours(|| Child::start(&mut command))?;
    child.wait_ready(LONG)?;
    Ok(child)
}

/// Asks a program to end, and checks that it does so in good order.
pub(crate) fn end(child: Child) -> io::Result<Ended> {
    child.terminate()?;
    let ended = child.wait(LONG)?;
    if ended.status.success() { Ok(ended) } else { Err(io::Error::other(format!("a bad end\n{ended}"))) }
}

/// The final counter of a program that ran with `--json`.
pub(crate) fn counter(ended: &Ended, name: &str) -> u64 {
    let object = ended.stdout.lines().last().unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(object).expect("--json prints an object at the end");
    value[name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {object}"))
}

/// A host as part of a URL.
pub(crate) fn url_host(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

/// Bytes that differ from those of every other seed and position.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
