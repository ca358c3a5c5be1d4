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
pub use rtt::RtoBounds;
