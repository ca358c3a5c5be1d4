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
//! multicast-loop, errors, path-mtu), `join` and `leave`, on sockets `udp`, `udp6`, `icmp`, `icmp6`, `raw N` and `raw6 N`.
//!
//! Layers are `eth`, `arp`, `ip`, `ip6`, `hop-by-hop`, `destination`, `routing`, `frag`, `udp`, `tcp`,
//! `icmp`, `icmp6` and `igmp`, each with `name=value` fields and flags (`df`, or `!df`); an IP header without fields may
//! be left out. Data is `"text"`, `data=100` (generated), `data=16*0x58` or `data=0x0102`. A fragment is cut
//! out of the whole: `ip frag(id=7, 0..24) udp 1000 > 7 data=100` (`more` and `offset=` say otherwise). An error quotes: `icmp unreachable port
//! quoting(udp 1000 > 7)`. Frames can be broken: `bad-checksum`, `len=`, `truncate=20`, `pad=6`; or be written
//! as bytes: `< frame 0x...`. Where a number is expected, `1..5` is one from the first to the second.
//!
//! # TCP
//!
//! ```text
//! # Three duplicate acknowledgments (RFC 5681 section 3.2).
//! use established sack mss=1000 rtt=20ms                 a connection `c` of the listener `l`
//!
//! write(c, 10000)
//! > 10 x tcp A seq=1 ack=1 data=1000                     ten segments, each behind the one before
//! +20ms < tcp A seq=1 ack=1 <sack 1001:4001>
//! > tcp A seq=1 ack=1 data=1000
//! +20ms < tcp A seq=1 ack=10001
//! info(c, cwnd) = 5..7
//! ```
//!
//! | line | what it means |
//! |---|---|
//! | `use ports` | default addresses (10.0.0.2/24 and 10.0.0.1, or fd00::2/64 and fd00::1), ports and window; no packet |
//! | `use listening` | the same, and a listener `l` at port 80 |
//! | `use established` | the same, and a handshake from port 40000: `c` was accepted |
//! | `use connected` | the host connects from port 40000 to port 80: `c` is established |
//! | `... v6 port=N peer-port=N` | over IPv6; the port of the host and of the peer |
//! | `... mss=1000 sack ts wscale=7 ecn` | what the SYN of the peer offers; with `ts` the MSS is 12 more, so that full segments have `mss` bytes |
//! | `... win=65535 rtt=20ms backlog=5` | window of the peer in all its segments that do not say it; time until the peer answers; backlog |
//! | `... nodelay=1 rcvbuf=30000 ...` | options of `set`, before listening or connecting |
//!
//! Calls: `s = socket tcp` (or `tcp6`), `bind`, `listen(s, BACKLOG)`, `c = accept(s)` (or `accept(s) = error
//! WouldBlock`), `connect(s, ADDRESS)` (which only begins), `write(c, N)` (N bytes of the stream), `read(c) = N` (which
//! must be those of the stream; 0 is its end), `shutdown(c)` (for sending), `close(c)`, `abort(c)` (a reset), `error(c) =
//! error NAME` (why it is no more; once), `info(c, FIELD) = VALUE`. Fields are `state` (in the words of RFC 9293), `cwnd` and
//! `ssthresh` (in segments), `rto` and `rtt` (in milliseconds), `mss`, `retransmits`, `backoffs`. `set` knows `nodelay`,
//! `cork`, `keepalive`, `keepalive-idle` and `keepalive-interval` (seconds), `keepalive-probes`, `user-timeout` (milliseconds),
//! `linger` (seconds), `quickack`, `congestion` (`reno`, `cubic`, `bbr`), `pacing` (of a shard), `rcvbuf`, `sndbuf`, `max-segment`, `ttl`. A call of the
//! kernel waits for what it is to give; a shard has it already.
//!
//! Numbers are relative to the SYN of their sender (and the peer's begin 1024 before they wrap), those of SACK
//! blocks too; the host's timestamps count from its SYN, the peer's begin with 1000 and count milliseconds. Where
//! both SYNs had timestamps the peer's segments have them without a word, unless `<!TS>` is written; `<TS any any>` is the
//! usual one. `data=1000` is the part of the stream that is at `seq`; `data=any` may be anything, or nothing; a
//! segment for which no data is written has none. Flags are F S R P A U E W (CWR); where P is not
//! written there may be one. All options are written, in any order, but for timestamps; `...` stands for any others, `!mss` for
//! none of a kind, `raw 0x...` for bytes. Ports that are not written are those of `use`.
//!
//! | line | what it means |
//! |---|---|
//! | `> PACKET or PACKET` | one of them |
//! | `> ? PACKET` | it may come |
//! | `> until PACKET` | others may come before it |
//! | `> any for 50ms` | whatever comes in this time |
//! | `> 10 x PACKET`, `< 10 x PACKET` | so many, each behind the one before in the stream |
//!
//! Times are exact for a shard. For the kernel what is late by less than [`tolerance`](Subject::tolerance) is in time, for
//! machines are busy; what is early is not. The congestion control is `reno`, without pacing, unless a script says otherwise, for that
//! is what a kernel lets everybody use. What the subject leaves to a device to split is looked at as the wire carries it.
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
//! | `prelude` | `use` |
//! | `tcp_options` | options of TCP, related and compared |
//! | `call`, `call_tcp` | socket calls |
//! | `run`, `trace` | a script against a subject, and what is told when it fails |
//! | `subject`, `kernel`, `kernel_tcp`, `shard`, `shard_tcp` | who is tested |

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
