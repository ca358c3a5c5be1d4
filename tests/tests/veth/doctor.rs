//! `wirestack doctor` on a good wire, on one that is down, and without privileges.

use std::io;
use std::process::Command;

use wirestack_apps::testbed::{OURS_IPV4, PEER_IPV4, Wire};
use wirestack_tests::programs::{Child, Ended, wirestack};
use wirestack_tests::runner::{Case, Outcome, require_program, test};

use crate::support::{LONG, end, serve};
use crate::talk::through;

pub(crate) fn cases() -> Vec<Vec<Case>> {
    vec![
        test("doctor::a_good_wire", good),
        test("doctor::an_interface_that_is_down_or_not_there", down),
        test("doctor::an_address_that_the_kernel_has", kernels_address),
        require_program("setpriv", test("doctor::no_privilege", no_privilege)),
        test("doctor::bad_input", bad_input),
    ]
}

fn doctor(wire: &Wire, more: &[&str]) -> Command {
    let nic = format!("packet:{}", wire.ours().name());
    wirestack([&["doctor", "--nic", &nic], more].concat())
}

fn run(wire: &Wire, command: &mut Command) -> io::Result<Ended> {
    wire.at_ours(|| Child::start(command))?.wait(LONG)
}

/// The line of a check.
fn line<'a>(ended: &'a Ended, check: &str) -> &'a str {
    let is_it = |line: &&str| line.get(6..).is_some_and(|rest| rest.starts_with(&format!("{check}: ")));
    ended.stdout.lines().find(is_it).unwrap_or_else(|| panic!("no {check}\n{ended}"))
}

fn good() -> Outcome {
    let wire = Wire::new()?;
    wire.pair().set_offloads(true)?;
    let address = format!("{OURS_IPV4}/24");
    let ended = run(&wire, &mut doctor(&wire, &["--address", &address]))?;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{ended}");
    for check in [
        "kernel",
        "CAP_NET_RAW",
        "CAP_NET_ADMIN",
        "interface",
        "link",
        "MTU",
        "hardware address",
        "rings",
        "virtio_net_hdr",
        "fanout",
        "address",
        "forwarding",
        "DHCP client",
        "other packet sockets",
    ] {
        assert!(line(&ended, check).starts_with("ok    "), "{check}\n{ended}");
    }
    assert!(!ended.stdout.contains("fail "), "{ended}");
    let ended = run(&wire, &mut doctor(&wire, &["--json"]))?;
    let object: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!((object["fail"].as_u64(), object["checks"][0]["check"].as_str()), (Some(0), Some("kernel")));
    // Who is there is seen, and named.
    let server = serve(&wire, &["echo"])?;
    let ended = run(&wire, &mut doctor(&wire, &[]))?;
    let others = line(&ended, "other packet sockets");
    assert!(others.starts_with("warn ") && others.contains(&format!("({})", server.id())), "{others}");
    end(server)?;
    Ok(())
}

fn down() -> Outcome {
    let wire = Wire::new()?;
    let name = wire.ours().name();
    wire.ours().set_down()?;
    let ended = run(&wire, &mut doctor(&wire, &[]))?;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(1), ""), "{ended}");
    let link = line(&ended, "link");
    assert!(
        link.starts_with("fail  ") && link.ends_with(&format!("sudo ip link set dev {name} up")),
        "{link}"
    );
    assert!(line(&ended, "rings").contains("not tried"), "{ended}");
    // The other end is down: there is no carrier.
    wire.ours().set_up()?;
    wire.peer().set_down()?;
    let ended = run(&wire, &mut doctor(&wire, &[]))?;
    assert!(line(&ended, "link").contains("no carrier"), "{ended}");
    let ended =
        wire.at_ours(|| Child::start(&mut wirestack(["doctor", "--nic", "packet:nosuch0"])))?.wait(LONG)?;
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(line(&ended, "interface").contains("ip link"), "{ended}");
    Ok(())
}

fn kernels_address() -> Outcome {
    let wire = Wire::new()?;
    wire.ours().add_address(OURS_IPV4.into(), 24)?;
    let address = format!("{OURS_IPV4}/24");
    let ended = run(&wire, &mut doctor(&wire, &["--address", &address, "--port", "8080"]))?;
    let line_of_address = line(&ended, "address");
    assert!(line_of_address.starts_with("warn "), "{ended}");
    for words in ["--suppress nft", "iptables", "8080", &OURS_IPV4.to_string()] {
        assert!(line_of_address.contains(words), "{words} is missing in {line_of_address}");
    }
    // Tried where it concerns nobody.
    assert!(line(&ended, "suppression").starts_with("ok "), "{ended}");
    assert!(!ended.stdout.contains(&PEER_IPV4.to_string()), "{ended}");
    Ok(())
}

fn no_privilege() -> Outcome {
    let wire = Wire::new()?;
    let without = |capabilities: &str, more: &[&str]| {
        through(
            &["setpriv", "--bounding-set", capabilities, "--inh-caps", capabilities],
            &doctor(&wire, more),
        )
    };
    let ended = run(&wire, &mut without("-net_raw,-net_admin", &[]))?;
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    let raw = line(&ended, "CAP_NET_RAW");
    assert!(raw.starts_with("fail  ") && raw.contains("setcap cap_net_raw,cap_net_admin+ep '/"), "{raw}");
    for check in ["rings", "virtio_net_hdr", "fanout"] {
        assert!(line(&ended, check).contains("for want of CAP_NET_RAW"), "{ended}");
    }
    assert!(line(&ended, "CAP_NET_ADMIN").starts_with("warn "), "{ended}");
    // It is needed where the kernel has the address.
    wire.ours().add_address(OURS_IPV4.into(), 24)?;
    let address = format!("{OURS_IPV4}/24");
    let ended = run(&wire, &mut without("-net_admin", &["--address", &address]))?;
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(line(&ended, "CAP_NET_ADMIN").starts_with("fail  "), "{ended}");
    assert!(line(&ended, "rings").starts_with("ok "), "{ended}");
    Ok(())
}

fn bad_input() -> Outcome {
    for (args, words) in [
        (&["doctor"][..], "--nic"),
        (&["doctor", "--nic", "eth0"], "packet:IFNAME"),
        (&["doctor", "--nic", "packet:a", "--address", "10.0.0.1"], "prefix length"),
        (&["doctor", "--nic", "packet:a", "--port", "0"], "1..=65535"),
    ] {
        let ended = Child::start(&mut wirestack(args))?.wait(LONG)?;
        assert_eq!((ended.status.code(), ended.stderr.lines().count()), (Some(2), 1), "{ended}");
        assert!(ended.stderr.contains(words) && ended.stdout.is_empty(), "{ended}");
    }
    Ok(())
}
