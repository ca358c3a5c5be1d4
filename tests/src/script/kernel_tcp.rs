//! Connections of the kernel: sockets that never block, and what `ss` tells of them.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::thread;
use std::time::Duration as StdDuration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpMaxSeg;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, ipproto, socket_with, sockopt};
use smoltcp::time::Duration;
use wirestack_apps::testbed::Namespace;
use wirestack_nic::wait;

use super::call::{CONGESTION, CallResult, IpVersion, SocketOption};
use super::call_tcp::{InfoField, TcpCall};
use super::packet::stream;
use crate::closing::close;
use crate::programs::output;

/// How often a socket is asked again.
const STEP: StdDuration = StdDuration::from_micros(200);

/// How long the program that tells of sockets may take.
const PROGRAM_TIMEOUT: StdDuration = StdDuration::from_secs(10);

/// Connections and listeners by their names.
#[derive(Debug, Default)]
pub(super) struct KernelStreams {
    streams: BTreeMap<String, Stream>,
}

#[derive(Debug)]
struct Stream {
    /// A listener too: what it can is asked of its descriptor.
    socket: TcpStream,
    /// Bytes of the stream that were read and written.
    read: u32,
    written: u32,
}

impl Stream {
    fn new(socket: OwnedFd) -> Self {
        Self { socket: socket.into(), read: 0, written: 0 }
    }
}

/// What a call gives: a result, or a script that is wrong.
type Called = Result<io::Result<CallResult>, String>;

impl KernelStreams {
    pub(super) fn has(&self, name: &str) -> bool {
        self.streams.contains_key(name)
    }

    pub(super) fn open(&mut self, name: &str, version: IpVersion) -> io::Result<()> {
        let family = match version {
            IpVersion::V4 => AddressFamily::INET,
            IpVersion::V6 => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if version == IpVersion::V6 {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        self.streams.insert(name.to_owned(), Stream::new(socket));
        Ok(())
    }

    pub(super) fn bind(&self, name: &str, address: &SocketAddr) -> Result<io::Result<()>, String> {
        Ok(rustix::net::bind(&self.get(name)?.socket, address).map_err(io::Error::from))
    }

    /// Begins a connection; that it is not there yet is no error.
    pub(super) fn connect(&self, name: &str, address: &SocketAddr) -> Result<io::Result<()>, String> {
        Ok(match rustix::net::connect(&self.get(name)?.socket, address) {
            Err(rustix::io::Errno::INPROGRESS) => Ok(()),
            result => result.map_err(io::Error::from),
        })
    }

    pub(super) fn close(&mut self, name: &str, namespace: &Namespace) -> Result<io::Result<()>, String> {
        let stream = self.streams.remove(name).ok_or_else(|| format!("there is no connection `{name}`"))?;
        Ok(close(namespace, stream.socket))
    }

    fn get(&self, name: &str) -> Result<&Stream, String> {
        self.streams.get(name).ok_or_else(|| format!("there is no connection `{name}`"))
    }

    fn get_mut(&mut self, name: &str) -> Result<&mut Stream, String> {
        self.streams.get_mut(name).ok_or_else(|| format!("there is no connection `{name}`"))
    }

    pub(super) fn call(
        &mut self,
        call: &TcpCall,
        wanted: &CallResult,
        patience: Duration,
        namespace: &Namespace,
    ) -> Called {
        match call {
            TcpCall::Listen(name, backlog) => {
                let backlog = i32::try_from(*backlog).unwrap_or(i32::MAX);
                let listened = rustix::net::listen(&self.get(name)?.socket, backlog);
                Ok(listened.map(|()| CallResult::Ok).map_err(io::Error::from))
            }
            TcpCall::Accept(name, connection) => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let listener = &self.get(name)?.socket;
                let accepted = again(patience, || accept_with(listener, flags).map_err(io::Error::from));
                Ok(accepted.map(|socket| {
                    let name = connection.clone().unwrap_or_default();
                    self.streams.insert(name, Stream::new(socket));
                    CallResult::Ok
                }))
            }
            TcpCall::Write(name, len) => {
                let stream = self.get_mut(name)?;
                let written = stream.socket.write(&super::packet::stream(stream.written, *len));
                Ok(written.map(|len| {
                    stream.written = stream.written.wrapping_add(len as u32);
                    CallResult::Number(len as u64)
                }))
            }
            TcpCall::Read(name) => self.get_mut(name)?.read(wanted, patience),
            TcpCall::Shutdown(name) => {
                Ok(self.get(name)?.socket.shutdown(Shutdown::Write).map(|()| CallResult::Ok))
            }
            TcpCall::Abort(name) => {
                let stream = self.streams.remove(name).ok_or_else(|| format!("there is no `{name}`"))?;
                sockopt::set_socket_linger(&stream.socket, Some(StdDuration::ZERO))
                    .map_err(|error| error.to_string())?;
                Ok(close(namespace, stream.socket).map(|()| CallResult::Ok))
            }
            TcpCall::Error(name) => {
                let socket = &self.get(name)?.socket;
                let wants_error = matches!(wanted, CallResult::Error(_));
                let patience = if wants_error { patience } else { Duration::ZERO };
                let failed = again(patience, || {
                    socket.take_error()?.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))
                });
                Ok(failed.map_or(Ok(CallResult::Ok), Err))
            }
            TcpCall::Info(name, field) => {
                let local = self.get(name)?.socket.local_addr().map_err(|error| error.to_string())?;
                // There is none before the connection is.
                let remote = self.get(name)?.socket.peer_addr().ok();
                info(namespace, local, remote, *field).map(Ok)
            }
        }
    }

    pub(super) fn set(&self, name: &str, option: SocketOption, value: u32) -> Result<io::Result<()>, String> {
        let socket = &self.get(name)?.socket;
        let seconds = StdDuration::from_secs(value.into());
        let result = match option {
            SocketOption::NoDelay => sockopt::set_tcp_nodelay(socket, value != 0),
            SocketOption::Cork => sockopt::set_tcp_cork(socket, value != 0),
            SocketOption::Keepalive => sockopt::set_socket_keepalive(socket, value != 0),
            SocketOption::KeepaliveIdle => sockopt::set_tcp_keepidle(socket, seconds),
            SocketOption::KeepaliveInterval => sockopt::set_tcp_keepintvl(socket, seconds),
            SocketOption::KeepaliveProbes => sockopt::set_tcp_keepcnt(socket, value),
            SocketOption::UserTimeout => sockopt::set_tcp_user_timeout(socket, value),
            SocketOption::Linger => sockopt::set_socket_linger(socket, Some(seconds)),
            SocketOption::QuickAck => sockopt::set_tcp_quickack(socket, value != 0),
            SocketOption::Congestion => {
                let name = CONGESTION.get(value as usize).ok_or("there are three congestion controls")?;
                sockopt::set_tcp_congestion(socket, name)
            }
            SocketOption::RecvBuffer => sockopt::set_socket_recv_buffer_size(socket, value as usize),
            SocketOption::SendBuffer => sockopt::set_socket_send_buffer_size(socket, value as usize),
            SocketOption::Mss => return Ok(setsockopt(socket, TcpMaxSeg, &value).map_err(io::Error::from)),
            SocketOption::Ttl => sockopt::set_ip_ttl(socket, value),
            _ => return Err(format!("{option} is no option of TCP")),
        };
        Ok(result.map_err(io::Error::from))
    }
}

impl Stream {
    /// Reads as much as is wanted, if so much comes, and looks whether it is what the peer has sent.
    fn read(&mut self, wanted: &CallResult, patience: Duration) -> Called {
        let (want, patience) = match wanted {
            CallResult::Number(len) => (*len as usize, patience),
            CallResult::Range(_, len) => (*len as usize, BRIEF),
            CallResult::Error(name) if name == "WouldBlock" => (1, BRIEF),
            _ => (1, patience),
        };
        let mut bytes = vec![0; want.max(1)];
        let mut len = 0;
        while len < bytes.len() {
            let socket = &mut self.socket;
            match again(patience, || socket.read(&mut bytes[len..])) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(_) if len > 0 => break,
                Err(error) => return Ok(Err(error)),
            }
        }
        check_stream(self.read, &bytes[..len])?;
        self.read = self.read.wrapping_add(len as u32);
        Ok(Ok(CallResult::Number(len as u64)))
    }
}

/// How long nothing must come, so that it is believed that nothing does.
const BRIEF: Duration = Duration::from_millis(5);

/// Whether these are the bytes of the stream from there on.
pub(super) fn check_stream(start: u32, bytes: &[u8]) -> Result<(), String> {
    let right = stream(start, bytes.len());
    match right.iter().zip(bytes).position(|(right, came)| right != came) {
        None => Ok(()),
        Some(at) => {
            let (right, came) = (right[at], bytes[at]);
            Err(format!("byte {} of the stream is {came:#04x}, not {right:#04x}", start as usize + at))
        }
    }
}

/// Tries until it does not block, or for so long.
fn again<T>(patience: Duration, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = wait::now() + patience;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && wait::now() < until => {
                thread::sleep(STEP);
            }
            result => return result,
        }
    }
}

/// Asks `ss`.
fn info(
    namespace: &Namespace,
    local: SocketAddr,
    remote: Option<SocketAddr>,
    field: InfoField,
) -> Result<CallResult, String> {
    let mut command = Command::new("ss");
    command.args(["-tinaOH", "sport", "=", &format!(":{}", local.port())]);
    if let Some(remote) = remote {
        command.args(["and", "dport", "=", &format!(":{}", remote.port())]);
    }
    let told = namespace.run(|| output(&mut command, PROGRAM_TIMEOUT)).map_err(|error| error.to_string())?;
    info_of(&told.stdout, field).ok_or_else(|| format!("ss tells nothing of it: {}", told.stdout))
}

/// A field of a line of `ss`.
fn info_of(line: &str, field: InfoField) -> Option<CallResult> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    let number = |text: &str| text.parse::<f64>().ok().map(|number| CallResult::Number(number as u64));
    match field {
        InfoField::State => Some(CallResult::Word(state(words.first()?))),
        InfoField::CongestionWindow => number(value("cwnd:")?),
        InfoField::SlowStartThreshold => number(value("ssthresh:").unwrap_or("0")),
        InfoField::Rto => number(value("rto:")?),
        InfoField::RoundTrip => number(value("rtt:")?.split('/').next()?),
        InfoField::Mss => number(value("mss:")?),
        InfoField::Retransmits => {
            number(value("retrans:").and_then(|text| text.split('/').nth(1)).unwrap_or("0"))
        }
        InfoField::Backoffs => number(value("backoff:").unwrap_or("0")),
    }
}

/// A state in the words of RFC 9293.
fn state(word: &str) -> String {
    match word {
        "ESTAB" => "ESTABLISHED",
        "SYN-RECV" => "SYN-RECEIVED",
        "UNCONN" => "CLOSED",
        word => word,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ss_is_read() {
        let line = "ESTAB 0 0 10.0.0.2:80 10.0.0.1:40000 cubic wscale:7,7 rto:220 backoff:2 rtt:20.5/10 mss:988 cwnd:10 ssthresh:7 retrans:1/3 lost:1";
        for (field, value) in [
            (InfoField::State, CallResult::Word("ESTABLISHED".to_owned())),
            (InfoField::CongestionWindow, CallResult::Number(10)),
            (InfoField::SlowStartThreshold, CallResult::Number(7)),
            (InfoField::Rto, CallResult::Number(220)),
            (InfoField::RoundTrip, CallResult::Number(20)),
            (InfoField::Mss, CallResult::Number(988)),
            (InfoField::Retransmits, CallResult::Number(3)),
            (InfoField::Backoffs, CallResult::Number(2)),
        ] {
            assert_eq!(info_of(line, field), Some(value), "{field}");
        }
        assert_eq!(info_of("ESTAB 0 0", InfoField::Retransmits), Some(CallResult::Number(0)));
        assert_eq!(info_of("", InfoField::State), None);
    }
}
