//! Who serves TCP for a program: the stack's own engine, or smoltcp's over a shard, for comparison.
//!
//! | file | what it owns |
//! |---|---|
//! | `connections` | the connections of a program in the turns of a shard: accepted, served by events, given up |
//! | `over` | the same on smoltcp's TCP, in a loop of one thread |
//! | `watched` | that one, asked about itself while it runs |

pub(crate) mod connections;
mod over;
mod watched;

use std::fmt;
use std::str::FromStr;

use smoltcp::time::{Duration, Instant};
use wirestack::nic::{LinkError, Nic};
use wirestack::shard::Shard;
use wirestack::tcp::{Algorithm, Keepalive, Nagle, TcpOptions};

use crate::cli::TcpArgs;
use crate::error::AppError;
use crate::net::Net;
use crate::serve::{Figures, Service};

pub(crate) use watched::Watched;

/// What a program does in each turn of the shard beside TCP.
pub type InTurn = Box<dyn FnMut(&mut Shard)>;

/// A shard, its device and TCP, with the service of a program on them.
pub(crate) trait Engine {
    /// Does everything that is to be done at `now`, and returns when to come again.
    fn turn(&mut self, now: Instant) -> Option<Instant>;

    /// Sleeps until there may be something to do, or `deadline`.
    ///
    /// # Errors
    /// As for [`Nic::wait`].
    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), LinkError>;

    /// The shard.
    fn shard(&mut self) -> &mut Shard;

    /// True: the addresses that can be used are others than when this was asked last.
    fn follow_addresses(&mut self) -> bool;

    /// Accepts nobody any more and finishes every connection: what was written is still sent.
    fn close(&mut self);

    /// Whether no connection has anything left to send or to be acknowledged.
    fn is_quiet(&mut self) -> bool;

    /// Ends every connection at once; the next turn sends a RST for each.
    fn abort(&mut self);

    /// What was counted.
    fn figures(&mut self) -> Figures;
}

/// Puts a service on a device, with smoltcp's TCP.
///
/// # Errors
/// A port that cannot be had, a limit that is out of its bounds. One line.
pub(crate) fn over<'e, 'a: 'e, N: Nic + 'e>(
    nic: N,
    net: Net<'a>,
    service: &impl Service,
    tcp: &TcpArgs,
) -> Result<Box<dyn Engine + 'e>, AppError> {
    Ok(Box::new(over::open(nic, net, service, tcp)?))
}

/// Whose TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// The stack's own.
    #[default]
    Wirestack,
    /// That of smoltcp, over a shard.
    Smoltcp,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wirestack => "wirestack",
            Self::Smoltcp => "smoltcp",
        })
    }
}

impl FromStr for Backend {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "wirestack" => Ok(Self::Wirestack),
            "smoltcp" => Ok(Self::Smoltcp),
            _ => Err("wirestack or smoltcp is accepted"),
        }
    }
}

/// How the connections of a program behave on a device with these manners. They answer at once, since the programs write
/// whole answers; and a peer that has gone without a word is found out, since it holds a place.
pub(crate) fn options(device: &TcpOptions, congestion: Option<Algorithm>) -> TcpOptions {
    TcpOptions {
        congestion: congestion.unwrap_or(device.congestion),
        nagle: Nagle::Off,
        keepalive: device.keepalive.or(Some(KEEPALIVE)),
        user_timeout: device.user_timeout.or(Some(USER_TIMEOUT)),
        ..*device
    }
}

/// A silent peer is asked after a minute, and given up after three more.
const KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(20), probes: 9 };
/// How long data may go without an answer.
const USER_TIMEOUT: Duration = Duration::from_secs(300);
