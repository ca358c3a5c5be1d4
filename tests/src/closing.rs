//! Closing a socket of the kernel's, and being sure of it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::fstat;
use wirestack_apps::testbed::Namespace;

/// Where the kernel lists the sockets that belong to a descriptor, by the number of their inode.
const LISTS: [&str; 4] = ["tcp", "tcp6", "udp", "udp6"];

/// Column of the inode in these lists; of one that is on its own it is 0.
const INODE: usize = 9;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Closes a socket, and comes back when it is closed.
///
/// Until a program that another thread starts just now has begun, it has copies of all descriptors, and as long as one
/// is open, the socket has its port and takes what is sent there.
///
/// # Errors
/// It is still open after ten seconds.
pub fn close(namespace: &Namespace, socket: impl Into<OwnedFd>) -> io::Result<()> {
    let socket = socket.into();
    let inode = fstat(&socket)?.st_ino.to_string();
    drop(socket);
    let deadline = Instant::now() + TIMEOUT;
    while namespace.run(|| is_listed(&inode))? {
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "somebody else has this socket, too"));
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn is_listed(inode: &str) -> io::Result<bool> {
    for list in LISTS {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{list}"))?;
        if text.lines().any(|line| line.split_whitespace().nth(INODE) == Some(inode)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_copy_keeps_it_open() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = fstat(&socket).unwrap().st_ino.to_string();
        let copy = socket.try_clone().unwrap();
        drop(socket);
        assert!(is_listed(&inode).unwrap());
        drop(copy);
        // Programs that other tests start may have copies for a moment: what this is about.
        let deadline = Instant::now() + TIMEOUT;
        while is_listed(&inode).unwrap() {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(1));
        }
    }
}
