//! Packet scripts: what goes in and what must come out, one event a line.
//!
//! A script is run against a [`Subject`]: a shard in virtual time ([`ShardSubject`]), or the kernel of a namespace behind a
//! TAP interface ([`KernelSubject`]), so that our reading of an RFC is held against Linux. Scripts are in
//! `tests/scripts`.
//!
//! ```text
//! # Who has our address gets an answer.
//! host 10.0.0.2/24 fd00::2/64 mac 02:00:00:00:00:02      the subject
//! peer 10.0.0.1 fd00::1 mac 02:00:00:00:00:01            who the script is
//! gateway 10.0.0.1                                       default route, of each IP version
//! mtu 1500
//! sysctl net.ipv4.ipfrag_time=1                          for the kernel; a shard knows a few
//! option kernel: skip "why"                              the script is for the other only
//!
//! s = socket udp                                         a socket call: what it gives, if not ok
//! bind(s, 10.0.0.2:7)
//! < ip ttl=3 udp 1000 > 7 "hello"                        injected: what is not written is as usual
//! recv(s) = "hello" from 10.0.0.1:1000
//! sendto(s, data=100, 10.0.0.1:1000) = 100
//! > udp 7 > 1000 data=100                                expected next: only what is written counts
//! +10ms < icmp echo-request id=1 seq=1 data=56           10 ms after the event before
//! +0..1s > icmp echo-reply id=1                          within a second of it
//! @1.5s < tcp 40000 > 80 S seq=0 <mss 1460,sackOK>       at a time of the script
//! > none for 2s                                          nothing may come
//! > any-order {
//!   > icmp6 neighbor-advertisement fd00::2
//!   > icmp echo-reply
//! }
//! wait 10s
//! differs "RFC 1122 section 3.2.2: why"                  the next lines are for one subject each
//! kernel: > none for 100ms
//! shard: > icmp unreachable port
//! ```
//!
//! Calls are `bind`, `connect`, `sendto`, `send`, `recv`, `close`, `set` (ttl, broadcast, multicast-ttl,
//! multicast-loop, errors, path-mtu), `join` and `leave`, on sockets `udp`, `udp6`, `icmp`, `icmp6`, `raw N` and `raw6 N`. The
//! names of TCP's calls are reserved.
//!
//! Layers are `eth`, `arp`, `ip`, `ip6`, `hop-by-hop`, `destination`, `routing`, `frag`, `udp`, `tcp`,
//! `icmp`, `icmp6` and `igmp`, each with `name=value` fields and flags (`df`, or `!df`); an IP header without fields may
//! be left out. Data is `"text"`, `data=100` (generated), `data=16*0x58` or `data=0x0102`. A fragment is cut
//! out of the whole: `ip frag(id=7, 0..24) udp 1000 > 7 data=100` (`more` and `offset=` say otherwise). An error quotes: `icmp unreachable port
//! quoting(udp 1000 > 7)`. Frames can be broken: `bad-checksum`, `len=`, `truncate=20`, `pad=6`; or be written
//! as bytes: `< frame 0x...`. TCP numbers are relative to the SYN of their sender.
//!
//! What the subject sends on its own (ARP, neighbour discovery, router solicitations, MLD, IGMP) is not
//! looked at unless the script has a packet of that kind; then the script must say it all. As long as a
//! script has no ARP or neighbour message, those that ask for the peer or a gateway are answered for it.
//!
//! | module | what it owns |
//! |---|---|
//! | `token`, `parse` | lines as words; the events of a script, and errors with file and line |
//! | `packet`, `names` | layers with fields; words for ICMP messages and TCP options |
//! | `syntax`, `print` | packets from text, and as text |
//! | `build`, `decode` | frames from packets, and packets from frames |
//! | `compare`, `sequence` | expected against came; relative TCP numbers |
//! | `call` | socket calls |
//! | `run`, `trace` | a script against a subject, and what is told when it fails |
//! | `subject`, `kernel`, `shard` | who is tested |

mod build;
mod call;
mod call_tcp;
mod compare;
mod decode;
mod kernel;
mod kernel_tcp;
mod names;
mod packet;
mod parse;
mod prelude;
mod print;
mod run;
mod sequence;
mod shard;
mod shard_tcp;
mod subject;
mod syntax;
mod tcp_options;
#[cfg(test)]
mod tests;
mod token;
mod trace;

pub use build::End;
pub use call::{Call, CallResult, ERRORS, IpVersion, SocketKind, SocketOption};
pub use call_tcp::{InfoField, TcpCall};
pub use kernel::KernelSubject;
pub use parse::{Script, ScriptError, Setup};
pub use run::run;
pub use shard::ShardSubject;
pub use subject::{Subject, SubjectKind};
