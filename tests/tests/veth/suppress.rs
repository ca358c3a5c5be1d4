//! The kernel at our end kept silent, seen from the peer: no reset and no ICMP error leaves our end
//! while the user stack serves an address that the kernel has too, or that the kernel would forward.
//!
//! Each claim is tested against its opposite: without rules the same traffic fails, and is seen to.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

use wirestack_apps::testbed::{Namespace, OURS_IPV4, Wire};
use wirestack_tests::programs::{self, Child, wirestack};
use wirestack_tests::runner::{Case, Outcome, note, require_program, veth_test};

use crate::support::{
    LONG, connect_error, echo_tcp, echo_udp, fetch, fetch_all, host_args, ours, serve, wait_until,
};
use crate::testbed::address_ours;
use crate::watch::Watch;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    let iptables = |cases| require_program("iptables", require_program("ip6tables", cases));
    vec![
        veth_test("suppress::nft_keeps_the_kernel_silent", |wire| keeps_silent(wire, "nft")),
        iptables(veth_test("suppress::iptables_keeps_the_kernel_silent", |wire| {
            keeps_silent(wire, "iptables")
        })),
        veth_test("suppress::without_rules_the_kernel_resets", without_rules_the_kernel_resets),
    ]
}

fn keeps_silent(wire: &Wire, method: &str) -> Outcome {
    address_ours(wire)?;
    let watch = Watch::begin(wire)?;
    let child = serve(wire, "http", &["--suppress", method])?;
    fetch_all(wire, 80)?;
    watch.take(wire)?.assert_silent();
    child.terminate()?;
    let ended = child.wait(LONG)?;
    assert!(ended.status.success(), "{ended}");
    // The kernel is itself again.
    for address in ours() {
        let refused = connect_error(wire.peer().namespace(), SocketAddr::new(address, 80));
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "{address}");
    }
    assert!(watch.take(wire)?.resets >= ours().len());
    Ok(())
}

fn without_rules_the_kernel_resets(wire: &Wire) -> Outcome {
    address_ours(wire)?;
    let watch = Watch::begin(wire)?;
    let child = serve(wire, "http", &["--suppress", "none"])?;
    assert!(child.stderr().contains("iptables -w 5 -t raw -I PREROUTING"), "{}", child.stderr());
    for address in ours() {
        let refused = connect_error(wire.peer().namespace(), SocketAddr::new(address, 80));
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "{address}");
    }
    assert!(watch.take(wire)?.resets >= ours().len());
    Ok(())
}
