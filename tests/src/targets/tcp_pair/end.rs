//! One end: a shard with its device and its application, and what must hold after each of its turns.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use smoltcp::time::Instant;
use wirestack::shard::{Shard, ShardConfig, SocketId, TcpConnect, TcpListen};
use wirestack::tcp::{TcpInfo, TcpOptions};

use super::nic::{Packet, PairNic};

/// Turns at a time that stands still, beside those for each byte: a window may be one byte, and the peer ourselves.
const TURNS_MAX: usize = 400;

pub(super) fn address(end: usize, is_v6: bool) -> IpAddr {
    let last = end as u8 + 1;
    match is_v6 {
        true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into(),
        false => Ipv4Addr::new(10, 0, 0, last).into(),
    }
}

/// A connection of an application.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: SocketId,
    pub(super) local: u16,
    pub(super) remote: u16,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) has_finished: bool,
}

/// A byte of what a port sends to another.
fn pattern(from: u16, to: u16, at: u64) -> u8 {
    let at = at as u32;
    let mixed = (at ^ u32::from(from) << 3 ^ u32::from(to) << 7).wrapping_mul(0x9e37_79b1);
    (mixed >> 24) as u8 ^ (at >> 11) as u8
}

/// An application.
#[derive(Debug, Default)]
pub(super) struct App {
    pub(super) listeners: Vec<SocketId>,
    pub(super) conns: Vec<Conn>,
    /// It reads and accepts what there is at once.
    pub(super) is_eager: bool,
    /// What comes is what was sent.
    pub(super) trusts: bool,
    room: Vec<u8>,
    /// Bytes that were written, and how many may be.
    pub(super) written: usize,
    written_max: usize,
}

impl App {
    fn turn(&mut self, shard: &mut Shard) {
        while shard.next_event().is_some() {}
        if !self.is_eager {
            return;
        }
        for index in 0..self.listeners.len() {
            while self.accept(shard, index) {}
        }
        for index in 0..self.conns.len() {
            while self.recv(shard, index, 16_384, 0) > 0 {}
        }
    }

    pub(super) fn accept(&mut self, shard: &mut Shard, index: usize) -> bool {
        let Some(&listener) = self.listeners.get(index) else { return false };
        let Some(id) = shard.tcp_accept(listener) else { return false };
        self.add(shard, id);
        true
    }

    fn add(&mut self, shard: &Shard, id: SocketId) {
        let ends = shard.tcp_ends(id);
        let Some((local, Some(remote))) = ends else { panic!("a connection without ends: {ends:?}") };
        let (local, remote) = (local.port(), remote.port());
        self.conns.push(Conn { id, local, remote, sent: 0, received: 0, has_finished: false });
    }

    /// Reads up to `len` bytes in one of three ways, and returns how many came.
    pub(super) fn recv(&mut self, shard: &mut Shard, index: usize, len: usize, how: u8) -> usize {
        let Some(conn) = self.conns.get_mut(index) else { return 0 };
        self.room.resize(len, 0);
        let before = shard.tcp_readable(conn.id);
        let read = match how % 3 {
            0 => shard.tcp_recv(conn.id, &mut self.room),
            1 => {
                let peeked = shard.tcp_peek(conn.id, &mut self.room);
                assert_eq!(shard.tcp_readable(conn.id), before, "looking takes nothing");
                peeked
            }
            _ => shard.tcp_recv_with(conn.id, |piece| {
                let len = piece.len().min(self.room.len());
                self.room[..len].copy_from_slice(&piece[..len]);
                (len, len)
            }),
        };
        let Ok(Some(len)) = read else { return 0 };
        assert!(len <= before);
        if self.trusts {
            let expected = (0..len).map(|at| pattern(conn.remote, conn.local, conn.received + at as u64));
            assert!(self.room[..len].iter().copied().eq(expected), "other bytes at {}", conn.received);
        }
        if how % 3 != 1 {
            assert_eq!(shard.tcp_readable(conn.id), before - len);
            conn.received += len as u64;
        }
        len
    }

    /// Writes `len` bytes in one of three ways.
    pub(super) fn send(&mut self, shard: &mut Shard, index: usize, len: usize, how: u8) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        let len = len.min(self.written_max - self.written);
        let room = shard.tcp_room(conn.id);
        let (from, to, sent) = (conn.local, conn.remote, conn.sent);
        let data: Vec<u8> = (0..len).map(|at| pattern(from, to, sent + at as u64)).collect();
        let written = match how % 3 {
            0 => shard.tcp_send(conn.id, &data),
            1 => shard.tcp_send_owned(conn.id, data).map(|back| if back.is_none() { len } else { 0 }),
            _ => shard.tcp_send_with(conn.id, |room| {
                let len = data.len().min(room.len());
                room[..len].copy_from_slice(&data[..len]);
                len
            }),
        };
        let Ok(written) = written else { return };
        assert!(written <= room.max(len), "{written} of {room}");
        conn.sent += written as u64;
        self.written += written;
    }
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) shard: Shard,
    pub(super) nic: PairNic,
    pub(super) app: App,
    config: ShardConfig,
    /// A connection was closed.
    has_closed: bool,
    /// When it wants the next turn.
    pub(super) next: Option<Instant>,
}

impl End {
    pub(super) fn new(
        config: ShardConfig,
        nic: PairNic,
        is_eager: bool,
        written_max: usize,
        now: Instant,
    ) -> Self {
        let shard = Shard::new(config.clone(), now).expect("a configuration that is right");
        let app = App { is_eager, trusts: true, written_max, ..App::default() };
        Self { shard, nic, app, config, has_closed: false, next: Some(now) }
    }

    /// Turns until none is wanted at once, and hands over what was sent.
    pub(super) fn settle(&mut self, now: Instant, mut sent: impl FnMut(Rc<Packet>)) {
        let turns = TURNS_MAX + 4 * self.app.written;
        for _ in 0..turns {
            let app = &mut self.app;
            self.next = self.shard.turn(now, &mut self.nic, |shard| app.turn(shard));
            let was_refused = std::mem::take(&mut self.nic.was_refused);
            assert!(self.nic.tx.len() <= self.nic.tx_max.min(self.config.budgets.egress_frames));
            self.nic.tx.drain(..).for_each(|packet| sent(Rc::new(packet)));
            let is_at_once = self.next.is_some_and(|next| next <= now);
            if !is_at_once && !was_refused && self.nic.rx.is_empty() {
                return self.check();
            }
        }
        panic!("{turns} turns at {now}, and another is wanted: {:?}", self.infos());
    }

    fn infos(&self) -> Vec<Option<TcpInfo>> {
        self.app.conns.iter().map(|conn| self.shard.tcp_info(conn.id)).collect()
    }

    fn check(&self) {
        let (now, tcp) = (self.shard.occupancy(), &self.config.tcp);
        assert!(now.tcp_connections <= tcp.connections_max, "{now:?}");
        assert!(now.tcp_half_open <= tcp.half_open_max, "{now:?}");
        assert!(now.tcp_time_waits <= tcp.time_wait_max, "{now:?}");
        assert!(now.tcp_flows <= now.tcp_connections + now.tcp_half_open + now.tcp_time_waits, "{now:?}");
        assert!(now.tcp_timers <= now.tcp_connections + now.tcp_half_open, "{now:?}");
        assert!(now.tcp_buffer_bytes <= tcp.pool_bytes_max, "{now:?}");
        for conn in &self.app.conns {
            let Some(info) = self.shard.tcp_info(conn.id) else { continue };
            if info.state != "CLOSED" {
                check_info(&info, self.next);
            }
        }
    }

    /// Whether a connection may have come into being again after its end: a cookie is good for a while, and its ACK may
    /// come late; or `has_late_syn`, and at a clock that stands the numbers are those of before.
    pub(super) fn may_come_again(&self, has_late_syn: bool) -> bool {
        let has_failed = |conn: &Conn| self.shard.tcp_failure(conn.id).is_some();
        let has_ended = self.has_closed || self.app.conns.iter().any(has_failed);
        has_ended && (has_late_syn || self.shard.tcp_counters().cookies_accepted > 0)
    }

    /// Whether nothing is left of any connection, and no timer runs.
    pub(super) fn is_over(&self) -> bool {
        let now = self.shard.occupancy();
        let left =
            [now.tcp_connections, now.tcp_half_open, now.tcp_time_waits, now.tcp_flows, now.tcp_timers];
        left.iter().all(|left| *left == 0) && self.next.is_none()
    }

    pub(super) fn listen(&mut self, at: SocketAddr, backlog: usize, resets: bool, options: TcpOptions) {
        let listen = TcpListen { backlog, resets_on_overflow: resets, options, ..TcpListen::new(at) };
        self.app.listeners.extend(self.shard.tcp_listen(listen));
    }

    pub(super) fn connect(&mut self, remote: SocketAddr, local: Option<SocketAddr>, options: TcpOptions) {
        if let Ok(id) = self.shard.tcp_connect(TcpConnect { remote, local, options }) {
            self.app.add(&self.shard, id);
        }
    }

    /// Closes a connection; the handle is of none then.
    pub(super) fn close(&mut self, index: usize) {
        if index < self.app.conns.len() {
            let conn = self.app.conns.swap_remove(index);
            self.shard.close(conn.id);
            self.has_closed = true;
            assert!(self.shard.tcp_info(conn.id).is_none());
        }
    }

    pub(super) fn close_listener(&mut self, index: usize) {
        if index < self.app.listeners.len() {
            self.shard.close(self.app.listeners.swap_remove(index));
        }
    }

    /// Closes everything; what need not end otherwise is aborted.
    pub(super) fn close_all(&mut self, aborts: bool) {
        while !self.app.listeners.is_empty() {
            self.close_listener(0);
        }
        while let Some(conn) = self.app.conns.first() {
            if aborts {
                self.shard.tcp_abort(conn.id);
            }
            self.close(0);
        }
    }
}

fn check_info(info: &TcpInfo, next: Option<Instant>) {
    let outstanding = info.snd_nxt.wrapping_sub(info.snd_una);
    assert!(outstanding < 1 << 31, "SND.UNA is behind SND.NXT: {info:?}");
    assert!(info.in_flight <= outstanding, "{info:?}");
    // A SYN and a FIN take numbers and no room.
    assert!(outstanding <= info.send_buffered.saturating_add(2), "{info:?}");
    let unit = info.window_scale.map_or(0, |(_, ours)| (1_u32 << ours) - 1);
    let received = u64::from(info.recv_buffered) + u64::from(info.recv_early);
    assert!(received <= u64::from(info.recv_buffer_max) + u64::from(unit), "{info:?}");
    let window = u64::from(info.recv_buffered) + u64::from(info.rcv_wnd);
    assert!(window <= u64::from(info.recv_buffer_max) + u64::from(unit), "{info:?}");
    let counters = &info.counters;
    assert!(counters.bytes_received >= u64::from(info.recv_buffered), "{info:?}");
    // What is not acknowledged, or waits to be sent, has somebody who comes back to it.
    let waits = outstanding > 0 || info.send_buffered > 0 || info.state == "SYN-SENT";
    assert!(!waits || next.is_some(), "nobody comes back: {info:?}");
}
