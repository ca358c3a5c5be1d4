//! The peer's kernel talks to our end, and our end is looked at with the programs of an administrator.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

use wirestack_apps::testbed::{IPV4_PREFIX_LEN, IPV6_PREFIX_LEN, Namespace, Wire};
use wirestack_tests::programs;

use crate::support::{ADDRESSES, LONG};

/// Bytes that are moved where many frames are wanted; a ring has room for all of them.
pub(crate) const BULK: usize = 2 << 20;

/// `--nic` and `--address` for both addresses, and then `more`.
pub(crate) fn host_args(wire: &Wire, program: &str, more: &[&str]) -> Vec<String> {
    // A program may have programs of its own: `perf server`.
    let mut args: Vec<_> = program.split(' ').map(str::to_owned).collect();
    args.extend(["--nic".to_owned(), format!("packet:{}", wire.ours().name())]);
    for address in ADDRESSES {
        let prefix_len = if address.is_ipv4() { IPV4_PREFIX_LEN } else { IPV6_PREFIX_LEN };
        args.extend(["--address".to_owned(), format!("{address}/{prefix_len}")]);
    }
    args.extend(more.iter().map(|&word| word.to_owned()));
    args
}

/// The same program, started by another one that takes a program and its arguments: `setpriv`, `sh`.
pub(crate) fn through<A: AsRef<OsStr>>(prefix: &[A], program: &Command) -> Command {
    let mut command = Command::new(&prefix[0]);
    command.args(&prefix[1..]).arg(program.get_program()).args(program.get_args());
    command
}

/// Fetches a path as the kernel of a namespace does: the body.
pub(crate) fn fetch(namespace: &Namespace, server: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = namespace.run(|| TcpStream::connect_timeout(&server, LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head_len = answer.windows(4).position(|window| window == b"\r\n\r\n");
    match head_len {
        Some(head_len) if answer.starts_with(b"HTTP/1.1 200 ") => Ok(answer.split_off(head_len + 4)),
        _ => Err(io::Error::other(format!("{server} answers {:.200?}", String::from_utf8_lossy(&answer)))),
    }
}

/// Fetches the page and [`BULK`] bytes from each of our addresses.
pub(crate) fn fetch_all(wire: &Wire, port: u16) -> io::Result<()> {
    for address in ADDRESSES {
        let server = SocketAddr::new(address, port);
        let page = fetch(wire.peer().namespace(), server, "/")?;
        assert!(String::from_utf8_lossy(&page).contains("wirestack"), "{server} serves another page");
        let bulk = fetch(wire.peer().namespace(), server, &format!("/bytes/{BULK}"))?;
        assert_eq!(bulk.len(), BULK, "from {server}");
    }
    Ok(())
}

/// Sends bytes to an echo server and gives what comes back.
pub(crate) fn echo_tcp(namespace: &Namespace, server: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = namespace.run(|| TcpStream::connect_timeout(&server, LONG))?;
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(bytes)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    Ok(back)
}

/// Sends a datagram and gives the answer.
pub(crate) fn echo_udp(namespace: &Namespace, server: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = namespace.run(|| UdpSocket::bind(any))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(LONG))?;
    socket.send(bytes)?;
    let mut back = vec![0; 65_536];
    let len = socket.recv(&mut back)?;
    back.truncate(len);
    Ok(back)
}

/// What a connection attempt from a namespace ends with, in the kernel's word.
pub(crate) fn connect_error(namespace: &Namespace, server: SocketAddr) -> Option<io::ErrorKind> {
    namespace.run(|| TcpStream::connect_timeout(&server, LONG)).err().map(|error| error.kind())
}

/// Looks again and again until something is so.
pub(crate) fn wait_until(
    what: &str,
    mut is_so: impl FnMut() -> io::Result<bool>,
) -> Result<(), libtest_mimic::Failed> {
    let deadline = Instant::now() + LONG;
    while !is_so()? {
        if Instant::now() >= deadline {
            return Err(format!("{what}: not so after {LONG:?}").into());
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(())
}

/// Runs a line of shell at our end.
pub(crate) fn shell(wire: &Wire, line: &str) -> io::Result<String> {
    let mut command = Command::new("sh");
    Ok(wire.at_ours(|| programs::output(command.args(["-c", line]), LONG))?.stdout)
}

/// All rules of the kernel at our end, in words: those of nftables, and those of iptables' table raw.
pub(crate) fn rules(wire: &Wire) -> io::Result<String> {
    // Counters change by themselves.
    let nft = shell(wire, "nft --stateless list ruleset")?;
    let iptables = shell(wire, "iptables -t raw -S; ip6tables -t raw -S")?;
    Ok(format!("{nft}{iptables}"))
}
