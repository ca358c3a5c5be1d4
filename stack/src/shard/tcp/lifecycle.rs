//! How connections come into being, and how they end.

use std::sync::Arc;

use smoltcp::time::Instant;

use super::{Connection, Due, Flow, Target, Tcp};
use crate::demux::FlowKey;
use crate::egress::PacketSpec;
use crate::ingress::Verdict;
use crate::ingress::input::TCP;
use crate::observe::DropReason;
use crate::policy::AttemptKind;
use crate::shard::{Shard, SocketId};
use crate::tcp::error::Failure;
use crate::tcp::handshake::Negotiated;
use crate::tcp::output::{Kind, Limits};
use crate::tcp::segment::Segment;
use crate::tcp::state::Ending;
use crate::tcp::tcb::Tcb;
use crate::tcp::time_wait::Remains;

impl Tcp {
    /// A half-open connection's SYN-ACK goes again at that time.
    pub(super) fn arm_half_open(&mut self, index: u32, at: Instant) {
        let slot = index as usize;
        if self.half_open_timers.len() <= slot {
            self.half_open_timers.resize(slot + 1, None);
        }
        if let Some(timer) = self.half_open_timers[slot].take() {
            self.wheel.cancel(timer);
        }
        self.half_open_timers[slot] = Some(self.wheel.insert(at, Due::HalfOpen(index)));
    }

    pub(super) fn disarm_half_open(&mut self, index: u32) {
        if let Some(timer) = self.half_open_timers.get_mut(index as usize).and_then(Option::take) {
            self.wheel.cancel(timer);
        }
    }

    /// Adds a connection; there is room, the caller has looked.
    pub(super) fn add(&mut self, tcb: Tcb, socket: Option<SocketId>, listener: Option<u32>) -> Option<u32> {
        let index = self.connections.vacant_key() as u32;
        self.flows.insert(tcb.flow, Flow::new(Target::Connection(index))).ok()?;
        let connection = Connection {
            tcb,
            socket,
            listener,
            policed: None,
            timer: None,
            is_queued: false,
            confirmed_at: Instant::ZERO,
        };
        self.connections.insert(Box::new(connection));
        Some(index)
    }

    /// Takes a connection away that is over and that nobody holds.
    pub(super) fn free(&mut self, index: u32) {
        let Some(mut connection) = self.connections.try_remove(index as usize) else { return };
        connection.tcb.send.clear(&mut self.pool);
        connection.tcb.recv.clear(&mut self.pool);
        if let Some((timer, _)) = connection.timer.take() {
            self.wheel.cancel(timer);
        }
        // If it is in `ready`, whoever gets the place next is asked once for nothing.
    }
}

impl Shard {
    pub(crate) fn has_connection_room(&self) -> bool {
        self.tcp.connections.len() < self.tcp.config.connections_max
            && self.tcp.pool.pressure() < crate::tcp::buffer::Pressure::Severe
    }

    /// MTU of the path of a flow, as routes and routers tell.
    pub(super) fn mtu_of_flow(&mut self, flow: &FlowKey) -> u16 {
        let path = self.path_of_flow(flow.local().ip(), flow.remote().ip());
        let mtu = path.map_or(self.mtu, |(path, _)| path.mtu);
        mtu.min(u16::MAX.into()) as u16
    }

    /// The MSS that we ask a peer for: by the link, for what it sends takes its own path.
    pub(super) fn mss_for(&self, flow: &FlowKey) -> u16 {
        let (remote, headers) = (flow.remote().ip(), if flow.local().is_ipv4() { 40 } else { 60 });
        let is_here = remote.is_loopback() || self.addresses.is_local(remote);
        let mtu = if is_here { usize::from(u16::MAX) } else { self.mtu_for(remote) };
        mtu.saturating_sub(headers).min(u16::MAX.into()) as u16
    }

    /// Both ends agree, and there is room: a connection waits to be accepted. A policy that has allowed it is told its
    /// end.
    pub(super) fn accept_connection(
        &mut self,
        listener: u32,
        flow: &FlowKey,
        agreed: &Negotiated,
        segment: &Segment<'_>,
        is_policed: bool,
    ) -> Verdict {
        let mtu = self.mtu_of_flow(flow);
        let Some(listening) = self.tcp.listeners.get(&listener) else {
            self.tell_flow_ended(is_policed.then_some(AttemptKind::Accept), flow);
            return self.refuse_segment(flow, segment);
        };
        let options = Arc::clone(&listening.options);
        let tcb = Tcb::established(*flow, agreed, options, mtu, self.now);
        let policed = is_policed.then_some(AttemptKind::Accept);
        let Some(index) = self.tcp.add(tcb, None, Some(listener)) else {
            self.tell_flow_ended(policed, flow);
            return Verdict::Dropped(DropReason::TcpListenOverflow);
        };
        if let Some(connection) = self.tcp.connections.get_mut(index as usize) {
            connection.policed = policed;
        }
        self.tcp.counters.passive_opens += 1;
        if let Some(listening) = self.tcp.listeners.get_mut(&listener) {
            listening.listener.push(index);
            self.sockets.mark_ready(listening.socket);
        }
        self.segment_for_connection(index, flow, segment)
    }

    /// A half-open connection is one no more, and nothing else either.
    pub(super) fn forget_half_open(&mut self, index: u32) {
        let Some((flow, _)) = self.tcp.half_opens.get(index) else { return };
        if self.take_half_open(index) {
            self.tell_flow_ended(Some(AttemptKind::Accept), &flow);
        }
    }

    /// A half-open connection becomes something else. True: a policy is to be told the end of that.
    pub(super) fn take_half_open(&mut self, index: u32) -> bool {
        let Some((flow, listener)) = self.tcp.half_opens.get(index) else { return false };
        let is_policed = self.tcp.half_opens.policed(index).is_some_and(std::mem::take);
        self.tcp.half_opens.remove(index);
        self.tcp.disarm_half_open(index);
        self.tcp.flows.remove(&flow);
        self.half_open_gone(listener);
        is_policed
    }

    pub(super) fn half_open_gone(&mut self, listener: u32) {
        if let Some(listening) = self.tcp.listeners.get_mut(&listener) {
            listening.listener.half_open = listening.listener.half_open.saturating_sub(1);
        }
    }

    /// Something has happened to a connection: the application hears of it, and what is due goes.
    pub(crate) fn touch_connection(&mut self, index: u32) {
        if let Some(socket) = self.tcp.touch(index) {
            self.sockets.mark_ready(socket);
        }
    }

    pub(super) fn fail_connection(&mut self, index: u32, failure: Failure) {
        self.end_connection(index, Ending::Failed(failure));
    }

    /// A connection is over.
    pub(super) fn end_connection(&mut self, index: u32, ending: Ending) {
        self.send_last_ack(index, ending);
        let now = self.now;
        let Some((connection, mut cx)) = self.tcp.with_cx(index, now) else { return };
        let failure = match ending {
            Ending::Failed(failure) => Some(failure),
            Ending::Closed | Ending::TimeWait => None,
        };
        let (flow, window) = (connection.tcb.flow, connection.tcb.window(cx.pool));
        let was_opening = connection.tcb.opening.is_some();
        let remains = Remains {
            snd_nxt: connection.tcb.sender.snd_nxt(),
            rcv_nxt: connection.tcb.rcv_nxt,
            window: window.1,
            rcv_wnd: window.0.since(connection.tcb.rcv_nxt),
            timestamps: connection.tcb.clock,
        };
        let policed = connection.policed.take();
        connection.tcb.end(&mut cx, failure);
        match failure {
            Some(Failure::Reset) => cx.counters.resets_received += 1,
            Some(Failure::TimedOut) => cx.counters.timed_out += 1,
            _ => {}
        }
        cx.counters.connects_failed += u64::from(was_opening && failure.is_some());
        self.tcp.flows.remove(&flow);
        self.tell_flow_ended(policed, &flow);
        if ending == Ending::TimeWait {
            self.add_time_wait(flow, remains);
        }
        let Some(connection) = self.tcp.connections.get_mut(index as usize) else { return };
        if let Some((timer, _)) = connection.timer.take() {
            self.tcp.wheel.cancel(timer);
        }
        if connection.socket.is_none() && connection.listener.is_none() {
            self.tcp.free(index);
        } else {
            self.touch_connection(index);
        }
    }

    /// What the peer has to know is said before the connection is gone: above all, that its FIN has come.
    fn send_last_ack(&mut self, index: u32, ending: Ending) {
        let limits = self.limits_for(0);
        let Some((connection, mut cx)) = self.tcp.with_cx(index, limits.now) else { return };
        if matches!(ending, Ending::Failed(_)) || !connection.tcb.ack.is_due {
            return;
        }
        let plan = connection.tcb.plan(&limits, cx.pool);
        let Some(plan) = plan.filter(|plan| plan.kind == Kind::Ack) else { return };
        connection.tcb.on_sent(&mut cx, &plan);
        let flow = connection.tcb.flow;
        self.send_header(&flow, &plan.header);
    }

    pub(super) fn limits_for(&self, gso_bytes_max: u32) -> Limits {
        Limits { now: self.now, gso_bytes_max, link_mtu: self.mtu.min(usize::from(u16::MAX)) as u16 }
    }

    fn add_time_wait(&mut self, flow: FlowKey, remains: Remains) {
        let (index, evicted) = self.tcp.time_waits.insert(self.now, flow, remains);
        if let Some(evicted) = evicted {
            self.tcp.flows.remove(&evicted);
        }
        self.tcp.counters.time_waits += 1;
        if self.tcp.flows.insert(flow, Flow::new(Target::TimeWait(index))).is_err() {
            self.tcp.time_waits.remove(index);
        }
    }

    /// Addresses have gone: the connections that have them are over (RFC 1122 does not say; they would send from an
    /// address that is somebody else's now).
    pub(crate) fn end_connections_of(&mut self, gone: std::net::IpAddr) {
        let ended: Vec<u32> = self
            .tcp
            .connections
            .iter()
            .filter(|(_, connection)| connection.tcb.local().ip() == gone)
            .map(|(index, _)| index as u32)
            .collect();
        for index in ended {
            self.fail_connection(index, Failure::AddressGone);
        }
    }

    /// A segment without payload that belongs to no connection, or to one that is about to end.
    pub(crate) fn send_header(&mut self, flow: &FlowKey, header: &crate::tcp::segment::Header) {
        let (local, remote) = (flow.local().ip(), flow.remote().ip());
        let spec = PacketSpec {
            src: Some(local),
            dont_fragment: false,
            discovers_path_mtu: true,
            ..PacketSpec::new(remote, TCP)
        };
        let transport = crate::egress::output::Transport {
            len: header.len(),
            checksum_at: Some(crate::tcp::segment::CHECKSUM_OFFSET),
            segment_bytes: None,
        };
        let sent = self.path(&spec).and_then(|path| {
            self.emit(&path, &spec, transport, |room| header.write(path.src, path.dst, 0, room))
        });
        match sent {
            Ok(()) => self.tcp.counters.frames_out += 1,
            Err(reason) => self.count_drop(reason),
        }
    }
}
