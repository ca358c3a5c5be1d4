//! dnsmasq and radvd at the peer, for the tests of what a shard asks servers and routers for.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use wirestack_apps::testbed::{VethOptions, Wire, WireOptions};
use wirestack_tests::programs::Child;

use crate::shard_end::set_peer;
use crate::support::LONG;

/// A wire whose peer has a link-local address, as routers must.
pub(crate) fn with_link_local() -> WireOptions {
    WireOptions { veth: VethOptions { link_local: true, ..VethOptions::default() }, ..WireOptions::default() }
}

/// Starts dnsmasq at the peer: without files of this machine, and with its log on standard error.
pub(crate) fn dnsmasq(wire: &Wire, dir: &Path, args: &[&str]) -> io::Result<Child> {
    let mut command = Command::new("dnsmasq");
    // With this it stays the user that it is: in a user namespace there is no other one to become.
    command.args(["--no-daemon", "--log-facility=-"]);
    command.args([
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--no-poll",
        "--no-ping",
        "--log-dhcp",
    ]);
    command.arg(format!("--dhcp-leasefile={}", dir.join("leases").display()));
    command.arg(format!("--pid-file={}", dir.join("dnsmasq.pid").display()));
    command
        .arg(format!("--interface={}", wire.peer().name()))
        .args(["--except-interface=lo", "--bind-interfaces"]);
    command.args(args);
    let child = wire.at_peer(|| Child::start(&mut command))?;
    wait_for_log(&child, "started, version")?;
    Ok(child)
}

/// Sleeps until a program has logged this.
pub(crate) fn wait_for_log(child: &Child, words: &str) -> io::Result<()> {
    wait_for_logs(child, words, 1)
}

/// The same for so many lines.
pub(crate) fn wait_for_logs(child: &Child, words: &str, count: usize) -> io::Result<()> {
    let deadline = std::time::Instant::now() + LONG;
    while logged(child, words) < count {
        if std::time::Instant::now() >= deadline {
            return Err(io::Error::other(format!(
                "{count} lines with {words:?} are not in\n{}",
                child.stderr()
            )));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(())
}

/// How many lines with these words a program has logged.
pub(crate) fn logged(child: &Child, words: &str) -> usize {
    child.stderr().lines().filter(|line| line.contains(words)).count()
}

/// Starts radvd at the peer, with what it advertises on its interface.
pub(crate) fn radvd(wire: &Wire, dir: &Path, advertised: &str) -> io::Result<Child> {
    set_peer(wire, &[("ipv6/conf/all/forwarding", "1")])?;
    write_radvd(wire, dir, advertised)?;
    let mut command = Command::new("radvd");
    command.args(["--nodaemon", "--logmethod", "stderr", "--debug", "1"]);
    command.arg("--config").arg(dir.join("radvd.conf")).arg("--pidfile").arg(dir.join("radvd.pid"));
    wire.at_peer(|| Child::start(&mut command))
}

/// What it is to advertise from its next SIGHUP on.
pub(crate) fn write_radvd(wire: &Wire, dir: &Path, advertised: &str) -> io::Result<()> {
    let text = format!(
        "interface {} {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; {advertised} }};\n",
        wire.peer().name()
    );
    fs::write(dir.join("radvd.conf"), text)
}
