//! TCP: RFC 9293 and what has grown around it.
//!
//! | file | what it is |
//! |---|---|
//! | [`seq`], [`segment`], [`options`] | sequence numbers; a segment as it comes, a header as it goes |
//! | [`config`], [`error`], [`counters`], [`info`] | limits and manners; what can be wrong; what is told |
//! | [`isn`], [`syn_cookie`], [`half_open`], [`accept_queue`], [`handshake`] | how a connection begins at a listener |
//! | [`challenge`] | how often attacks are answered |
//! | [`buffer`] | memory of what is sent and received |
//! | [`sender`] | what becomes of data that was sent |
//! | [`sack`], [`rack`], [`recovery`], [`rtt`], [`congestion`] | its parts |
//! | `tcb` | one connection |
//! | `state` | what a segment does to it, step by step as in RFC 9293 section 3.10 |
//! | `output` | what it sends next |
//! | `ack_policy`, `timers` | when it acknowledges, and what is due |
//! | [`plpmtud`] | how long segments may be |
//! | [`time_wait`] | what is left of a connection |
//!
//! **When memory is short.** All buffers of a shard come from one [pool](buffer::Pool). A connection that is idle holds
//! nothing of it. From three quarters on, nobody's limits grow and a window is 16 KB more than what is unread at
//! most; from seven eighths on, nothing is offered beyond what was offered, what comes early is dropped (SACK allows
//! it), and new connections are refused: their SYNs wait. What was acknowledged is never dropped, and what was promised
//! by a window finds room first. An application that finds the pool empty is told when there is room again.
//!
//! **What a hostile peer gets.**
//!
//! | attack | answer |
//! |---|---|
//! | a flood of SYNs | a record of 128 bytes each, up to a bound; then cookies, which cost nothing ([`syn_cookie`]) |
//! | forged RST, SYN, ACK | RFC 5961: only at the exact number, or a challenge ACK, of which there are few ([`challenge`]) |
//! | forged ICMP | the quoted number must be in flight; errors end no connection that exists (RFC 5927) |
//! | old duplicates | PAWS |
//! | ACKs of what was never sent | refused; ACKs cut in pieces: windows grow by bytes, not by ACKs |
//! | ACKs of what has not arrived (optimistic) | believed if it was sent: only the peer's own data is lost. The rate is bounded by the window, as for anybody |
//! | SACK blocks of every other byte | looked up, never walked; records are split down to segments and no further |
//! | tiny segments out of order | 256 ranges at most; a window that shuts |
//! | a window that stays shut, or opens by bytes | probed while the peer answers; silly windows are not filled; once the application has closed, given up after eight probes |
//! | a tiny MSS | 48 bytes at least |
//! | URG | data like other data |
//!
//! A segment costs a bounded number of steps, whoever sends it, and no list of connections is walked for it.

pub mod accept_queue;
pub(crate) mod ack_policy;
pub mod buffer;
pub mod challenge;
pub mod config;
pub mod congestion;
pub mod counters;
pub mod error;
pub mod half_open;
pub mod handshake;
pub mod info;
pub mod isn;
pub mod line;
pub mod options;
pub(crate) mod output;
pub mod plpmtud;
pub mod rack;
pub mod recovery;
pub mod rtt;
pub mod sack;
pub mod segment;
pub mod sender;
pub mod seq;
pub(crate) mod state;
pub mod syn_cookie;
pub(crate) mod tcb;
pub mod time_wait;
pub(crate) mod timers;

pub use config::{Cookies, Keepalive, Linger, Nagle, TcpConfig, TcpOptions};
pub use congestion::Algorithm;
pub use counters::TcpCounters;
pub use error::{ConnectError, Failure, ListenError, RecvError, SendError};
pub use info::TcpInfo;
pub use line::LineProfile;
pub use rtt::RtoBounds;
