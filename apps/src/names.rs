//! Whom the stack asks for names: files of this host, and servers.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use wirestack::dns::{self, Hosts, ResolvConf};

/// What the resolver of the stack is told: names of /etc/hosts, and the servers of `--dns` or, unless somebody
/// on the link names some, of /etc/resolv.conf.
pub(crate) fn config(
    servers: &[IpAddr],
    has_lease: bool,
    ports: std::ops::RangeInclusive<u16>,
) -> dns::Config {
    let conf = ResolvConf::parse(&read(Path::new("/etc/resolv.conf")));
    let mut config = conf.to_config();
    // A server on this host's loopback is out of reach: the stack has one of its own.
    config.servers.retain(|server| !server.ip().is_loopback());
    if has_lease {
        config.servers.clear();
    }
    if !servers.is_empty() {
        config.servers = servers.iter().map(|&server| SocketAddr::new(server, DNS_PORT)).collect();
    }
    config.hosts = Hosts::parse(&read(Path::new("/etc/hosts")));
    config.ports = ports;
    config
}

/// A file that need not be there.
fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

const DNS_PORT: u16 = 53;
