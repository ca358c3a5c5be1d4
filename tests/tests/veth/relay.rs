//! A relay: our TCP towards the wire, the kernel's towards a server on its own host. So a program of others that
//! serves talks to the wire by our TCP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use wirestack::shard::{Shard, SocketId, TcpListen};
use wirestack_nic::Waker;
use wirestack_tests::runner::Failed;

use crate::shard_end::End;

/// What a relay has done so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Connections that were accepted, and how many of these are over.
    pub(crate) accepted: u64,
    pub(crate) over: u64,
    /// Connections that ended in both directions, each with a FIN.
    pub(crate) finished: u64,
    /// Bytes that came from the wire, and that went there.
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// What tells them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relay(Arc<Mutex<Totals>>);

impl Relay {
    /// Joins a port of our stack, at all of its addresses, to the same port of the kernel's 127.0.0.1.
    pub(crate) fn start(end: &End, port: u16) -> Result<Self, Failed> {
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let listener = end.call(move |shard| shard.tcp_listen(TcpListen::new(any)))??;
        let (relay, waker) = (Self::default(), end.waker());
        let (totals, mut pairs) = (relay.clone(), Vec::new());
        end.always(move |shard| {
            while let Some(socket) = shard.tcp_accept(listener) {
                totals.add(|totals| totals.accepted += 1);
                match Pair::open(socket, port, &waker) {
                    Ok(pair) => pairs.push(pair),
                    Err(_) => {
                        shard.tcp_abort(socket);
                        shard.close(socket);
                        totals.add(|totals| totals.over += 1);
                    }
                }
            }
            pairs.retain_mut(|pair: &mut Pair| totals.add(|totals| pair.turn(shard, totals)));
        });
        Ok(relay)
    }

    pub(crate) fn totals(&self) -> Totals {
        self.add(|totals| *totals)
    }

    fn add<R>(&self, f: impl FnOnce(&mut Totals) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection of ours, and the kernel's that belongs to it. The kernel's has a thread for each direction, which
/// waits as it may; the shard never does.
struct Pair {
    socket: SocketId,
    stream: TcpStream,
    /// What comes from the wire. `None`: that was all.
    to_kernel: Option<SyncSender<Vec<u8>>>,
    /// Pieces that have found no room yet.
    up: Option<Vec<u8>>,
    down: Option<Vec<u8>>,
    from_kernel: Receiver<Vec<u8>>,
    /// The kernel's side has finished, and so has ours.
    has_finished: bool,
}

/// How a connection goes on.
enum Next {
    Stay,
    /// Both directions have ended.
    Done,
    /// One side is gone.
    Broken,
}

impl Pair {
    fn open(socket: SocketId, port: u16, waker: &Waker) -> std::io::Result<Self> {
        // To the same host: it does not take long. The threads are of the namespace of this one.
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let (to_kernel, to_write) = mpsc::sync_channel::<Vec<u8>>(PIECES);
        let (read, from_kernel) = mpsc::sync_channel(PIECES);
        let (mut writer, mut reader) = (stream.try_clone()?, stream.try_clone()?);
        let (of_writer, of_reader) = (waker.clone(), waker.clone());
        thread::spawn(move || {
            for piece in to_write {
                if writer.write_all(&piece).is_err() {
                    break;
                }
                of_writer.wake();
            }
            // As it may be closed already, nobody minds if it fails.
            let _ = writer.shutdown(Shutdown::Write);
            of_writer.wake();
        });
        thread::spawn(move || {
            // An empty piece is the end; a channel that is gone without one, a failure.
            let mut room = vec![0; PIECE_BYTES];
            while let Ok(len) = reader.read(&mut room) {
                if read.send(room[..len].to_vec()).is_err() || len == 0 {
                    break;
                }
                of_reader.wake();
            }
            drop(read);
            of_reader.wake();
        });
        Ok(Self {
            socket,
            stream,
            to_kernel: Some(to_kernel),
            up: None,
            down: None,
            from_kernel,
            has_finished: false,
        })
    }

    /// Moves what can be moved. False: it is over.
    fn turn(&mut self, shard: &mut Shard, totals: &mut Totals) -> bool {
        let next = match self.take_from_wire(shard, totals) {
            Next::Stay => self.give_to_wire(shard, totals),
            broken => broken,
        };
        match next {
            Next::Stay => return true,
            Next::Done => totals.finished += 1,
            Next::Broken => {
                shard.tcp_abort(self.socket);
                let _ = self.stream.shutdown(Shutdown::Both);
            }
        }
        shard.close(self.socket);
        totals.over += 1;
        false
    }

    fn take_from_wire(&mut self, shard: &mut Shard, totals: &mut Totals) -> Next {
        while let Some(to_kernel) = &self.to_kernel {
            if let Some(piece) = self.up.take() {
                match to_kernel.try_send(piece) {
                    Ok(()) => {}
                    Err(TrySendError::Full(piece)) => {
                        self.up = Some(piece);
                        break;
                    }
                    Err(TrySendError::Disconnected(_)) => return Next::Broken,
                }
            }
            let mut room = vec![0; PIECE_BYTES];
            match shard.tcp_recv(self.socket, &mut room) {
                Ok(None) => break,
                // Half-closed: the other half goes on.
                Ok(Some(0)) => self.to_kernel = None,
                Ok(Some(len)) => {
                    totals.received += len as u64;
                    room.truncate(len);
                    self.up = Some(room);
                }
                Err(_) => return Next::Broken,
            }
        }
        Next::Stay
    }

    fn give_to_wire(&mut self, shard: &mut Shard, totals: &mut Totals) -> Next {
        while !self.has_finished {
            if self.down.is_none() {
                match self.from_kernel.try_recv() {
                    Ok(piece) => self.down = Some(piece),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Next::Broken,
                }
            }
            let Some(piece) = self.down.take() else { break };
            let len = piece.len();
            if len == 0 {
                shard.tcp_finish(self.socket);
                self.has_finished = true;
                break;
            }
            match shard.tcp_send_owned(self.socket, piece) {
                Ok(None) => totals.sent += len as u64,
                Ok(refused) => {
                    self.down = refused;
                    break;
                }
                Err(_) => return Next::Broken,
            }
        }
        // What is left is to be heard by the peer: only then it is over on the wire, too.
        let is_done = self.has_finished && self.to_kernel.is_none();
        if is_done && shard.tcp_readiness(self.socket).closed { Next::Done } else { Next::Stay }
    }
}

/// Bytes that are moved at a time, and how many of these may wait in each direction.
const PIECE_BYTES: usize = 32 << 10;
const PIECES: usize = 8;
