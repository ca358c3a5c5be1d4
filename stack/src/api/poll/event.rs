//! Tokens, events, and handles of sockets by their kind.

use crate::shard::SocketId;
use crate::tcp::Failure;

/// What the caller calls a socket, a timer or a waker. Several may have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Token(pub usize);

/// A connection. The handle of a closed one is never that of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TcpId(pub(super) SocketId);

/// A listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub(super) SocketId);

/// A socket for datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UdpId(pub(super) SocketId);

macro_rules! is_a_socket {
    ($($id:ident)*) => {$(
        impl From<$id> for SocketId {
            fn from(id: $id) -> Self {
                id.0
            }
        }

        impl $id {
            /// A number for tables of the caller's own: unique among the sockets that exist at a time.
            pub fn index(self) -> usize {
                self.0.index() as usize
            }
        }
    )*};
}
is_a_socket!(TcpId ListenerId UdpId);

/// What an event is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A listener: there are connections to [accept](super::Sockets::accept).
    Listener(ListenerId),
    /// A connection.
    Tcp(TcpId),
    /// A socket for datagrams.
    Udp(UdpId),
    /// A timer whose time has come; it is no more.
    Timer,
    /// A [`Waker`](super::Waker) was called.
    Waker,
}

/// Something has happened; the rest is what can be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What the caller calls it.
    pub token: Token,
    /// What it is of.
    pub source: Source,
    /// There is something to read or to accept, or the end of it, or a failure to be told.
    pub readable: bool,
    /// There is room; or writing would tell a failure.
    pub writable: bool,
    /// The handshake is done, and the connection has not failed.
    pub connected: bool,
    /// The peer has finished sending. What it has sent may still be there to be read.
    pub peer_finished: bool,
    /// The connection has failed, or everything is sent and received in both directions: it is to be closed.
    pub closed: bool,
    /// Why it has failed.
    pub failure: Option<Failure>,
}

impl Event {
    /// One that says nothing beside that it is there.
    pub(super) fn new(token: Token, source: Source) -> Self {
        Self {
            token,
            source,
            readable: false,
            writable: false,
            connected: false,
            peer_finished: false,
            closed: false,
            failure: None,
        }
    }

    /// The connection that it is of.
    pub fn tcp(&self) -> Option<TcpId> {
        match self.source {
            Source::Tcp(id) => Some(id),
            _ => None,
        }
    }
}

/// Events that were collected by [`Poll::poll`](super::Poll::poll).
#[derive(Debug, Clone)]
pub struct Events {
    pub(super) list: Vec<Event>,
    pub(super) len_max: usize,
}

impl Events {
    /// Room for so many at a time, at least one; what finds none comes with the next call.
    pub fn with_capacity(len_max: usize) -> Self {
        Self { list: Vec::with_capacity(len_max), len_max: len_max.max(1) }
    }

    /// In the order in which they came up.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
