//! One connection: the transmission control block of RFC 9293 section 3.3.1.
//!
//! It does no I/O. A [`Segment`](super::segment::Segment) goes in (`state/`), a [`Plan`](super::output::Plan) comes out (`output`), and
//! [`deadline`](Tcb::deadline) tells when to call [`handle_timeout`](Tcb::handle_timeout) (`timers`).

use std::net::SocketAddr;
use std::sync::Arc;

use smoltcp::time::Instant;

use super::ack_policy::AckPolicy;
use super::buffer::{Pool, Pressure, ReceiveTuning, RecvBuffer, SendBuffer};
use super::config::{TcpConfig, TcpOptions};
use super::counters::TcpCounters;
use super::error::Failure;
use super::handshake::{Clock, Negotiated, milliseconds, window_scale_for};
use super::info::{InfoCounters, TcpInfo};
use super::plpmtud::Plpmtud;
use super::segment::HEADER_LEN;
use super::sender::{Sender, SenderConfig};
use super::seq::Seq;
use super::state::State;
use super::timers::{Timer, Timers};
use crate::demux::FlowKey;

/// What of the shard a connection touches while it handles something.
#[derive(Debug)]
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) config: &'a TcpConfig,
    pub(crate) pool: &'a mut Pool,
    pub(crate) counters: &'a mut TcpCounters,
}

/// The first part of a connection, until both SYNs are acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    /// A SYN, or SYN-ACK, is to be sent now.
    pub(crate) is_due: bool,
    /// How often it was sent.
    pub(crate) sent: u32,
    /// When it was sent first.
    pub(crate) sent_at: Option<Instant>,
    /// What the peer's SYN has offered, in SYN-RECEIVED.
    pub(crate) offered: Option<Negotiated>,
    /// ECN was asked for; a SYN that is repeated asks no more (RFC 3168 section 6.1.1.1).
    pub(crate) asks_ecn: bool,
}

/// What the application is to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// There is something to read, or its end.
    pub(crate) readable: bool,
    /// There is room, where there was none.
    pub(crate) writable: bool,
    /// The handshake is done, or the connection is over.
    pub(crate) changed: bool,
}

impl News {
    pub(crate) fn any(self) -> bool {
        self.readable || self.writable || self.changed
    }
}

/// What to try once more, or to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Of the tail (RFC 8985 section 7): new data, or else this range again.
    Tail(Seq, u32),
    /// Of a window that is shut (RFC 9293 section 3.8.6.1).
    Window,
    /// Of a silent peer (RFC 9293 section 3.8.4).
    Alive,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Tcb {
    pub(crate) flow: FlowKey,
    pub(crate) state: State,
    pub(crate) options: Arc<TcpOptions>,
    pub(crate) opening: Option<Box<Opening>>,

    // What we send. SND.UNA and SND.NXT are the sender's.
    pub(crate) iss: Seq,
    pub(crate) sender: Sender,
    pub(crate) send: SendBuffer,
    /// Bytes that may wait in it.
    pub(crate) send_limit: u32,
    pub(crate) snd_wnd: u32,
    /// The largest window that the peer has ever offered.
    pub(crate) max_snd_wnd: u32,
    pub(crate) snd_wl1: Seq,
    pub(crate) snd_wl2: Seq,
    pub(crate) snd_scale: u8,
    /// Behind the last segment that was less than a full one (snd_sml of Minshall).
    pub(crate) snd_sml: Seq,
    /// The number of our FIN, when it was sent.
    pub(crate) fin_sent: Option<Seq>,
    /// The application has had less room than it wanted.
    pub(crate) wants_room: bool,

    // What we receive.
    pub(crate) irs: Seq,
    pub(crate) rcv_nxt: Seq,
    /// The right edge of the window that we have offered: it never goes back.
    pub(crate) rcv_adv: Seq,
    pub(crate) rcv_scale: u8,
    pub(crate) recv: RecvBuffer,
    /// Bytes that may be in it.
    pub(crate) recv_limit: u32,
    /// Bytes that the application has read.
    pub(crate) copied: Seq,
    pub(crate) tuning: ReceiveTuning,
    /// The number of the peer's FIN, if it came.
    pub(crate) fin_received: Option<Seq>,
    /// A repetition to be told (RFC 2883).
    pub(crate) dsack: Option<(Seq, Seq)>,

    // Acknowledging, timestamps, ECN.
    pub(crate) ack: AckPolicy,
    /// Last.ACK.sent of RFC 7323.
    pub(crate) last_ack_sent: Seq,
    pub(crate) clock: Option<Clock>,
    /// When TS.Recent was set.
    pub(crate) recent_at: Instant,
    pub(crate) has_sack: bool,
    pub(crate) has_window_scale: bool,
    pub(crate) has_ecn: bool,
    /// What we send may be marked.
    pub(crate) sends_ect: bool,
    /// Congestion was marked, and the peer has not said that it knows.
    pub(crate) echoes_ce: bool,
    /// The next new data says that we know (CWR).
    pub(crate) owes_cwr: bool,

    // The path.
    pub(crate) peer_mss: u16,
    /// What routes and routers have told last.
    pub(crate) path_mtu: u16,
    pub(crate) plpmtud: Plpmtud,

    // Time.
    pub(crate) timers: Timers,
    pub(crate) probe: Option<Probe>,
    /// Identification of the next packet of IPv4, where one that goes up is of use.
    pub(crate) next_id: u16,
    /// The device had no room for what was planned last: it was not sent, so nobody can have left it unanswered.
    pub(crate) is_refused: bool,
    /// When a segment of the peer was last taken.
    pub(crate) heard_at: Instant,
    /// When it last acknowledged something, or something was sent after everything was acknowledged.
    pub(crate) progress_at: Instant,
    /// Window or keepalive probes without an answer.
    pub(crate) probes_unanswered: u8,
    /// Of window probes.
    pub(crate) persist_backoff: u8,
    /// When an invalid segment was last answered.
    pub(crate) challenged_at: Option<Instant>,

    // The application.
    /// Nobody reads any more.
    pub(crate) is_orphan: bool,
    /// The application has finished before the handshake was done.
    pub(crate) wants_finish: bool,
    pub(crate) failure: Option<Failure>,
    pub(crate) soft_error: Option<Failure>,
    pub(crate) news: News,
    pub(crate) counters: InfoCounters,
}

impl Tcb {
    /// A connection that begins here; a SYN is due.
    pub(crate) fn connecting(
        flow: FlowKey,
        iss: Seq,
        clock_offset: u32,
        options: Arc<TcpOptions>,
        path_mtu: u16,
        now: Instant,
    ) -> Self {
        let offered = Negotiated {
            iss,
            irs: Seq(0),
            peer_mss: default_mss(&flow),
            window_scale: None,
            sack: false,
            timestamps: None,
            ecn: false,
            snd_wnd: 0,
            snd_wl: (Seq(0), iss),
            rcv_wnd: options.recv_buffer.min(u16::MAX.into()),
            rtt: None,
            is_lossy: false,
        };
        let mut tcb = Self::established(flow, &offered, options, path_mtu, now);
        tcb.state = State::SynSent;
        // Keepalive begins with the connection.
        tcb.timers.clear_all();
        // Our side of the timestamps; TS.Recent is not known yet.
        tcb.clock = tcb.options.timestamps.then_some(Clock { offset: clock_offset, recent: 0 });
        let asks_ecn = tcb.options.ecn;
        let opening = Opening { is_due: true, sent: 0, sent_at: None, offered: None, asks_ecn };
        tcb.opening = Some(Box::new(opening));
        // If no device ever takes the SYN: as long as the first repetitions of one would take.
        let unsent = tcb.options.user_timeout.unwrap_or(tcb.options.rto.initial * UNSENT_RTOS);
        tcb.timers.set(Timer::Handshake, now + unsent);
        tcb
    }

    /// A connection whose handshake is done.
    pub(crate) fn established(
        flow: FlowKey,
        agreed: &Negotiated,
        options: Arc<TcpOptions>,
        path_mtu: u16,
        now: Instant,
    ) -> Self {
        let rcv_nxt = agreed.irs + 1;
        let (snd_scale, rcv_scale) = agreed.window_scale.unwrap_or_default();
        let mut tcb = Self {
            flow,
            state: State::Established,
            opening: None,
            iss: agreed.iss,
            sender: Sender::new(&sender_config(&options, agreed, MSS_MIN), now),
            send: SendBuffer::default(),
            send_limit: options.send_buffer_max.min(SEND_LIMIT_INITIAL),
            snd_wnd: agreed.snd_wnd,
            max_snd_wnd: agreed.snd_wnd,
            snd_wl1: agreed.snd_wl.0,
            snd_wl2: agreed.snd_wl.1,
            snd_scale,
            snd_sml: agreed.iss,
            fin_sent: None,
            wants_room: false,
            irs: agreed.irs,
            rcv_nxt,
            rcv_adv: rcv_nxt + agreed.rcv_wnd,
            rcv_scale,
            recv: RecvBuffer::default(),
            recv_limit: options.recv_buffer,
            copied: rcv_nxt,
            tuning: ReceiveTuning::new(now, agreed.rcv_wnd),
            fin_received: None,
            dsack: None,
            ack: AckPolicy::new(agreed.peer_mss),
            last_ack_sent: rcv_nxt,
            clock: agreed.timestamps,
            recent_at: now,
            has_sack: agreed.sack,
            has_window_scale: agreed.window_scale.is_some(),
            has_ecn: agreed.ecn,
            sends_ect: agreed.ecn,
            echoes_ce: false,
            owes_cwr: false,
            peer_mss: agreed.peer_mss.max(PEER_MSS_MIN),
            path_mtu,
            plpmtud: Plpmtud::new(path_mtu, path_mtu, matches!(flow, FlowKey::V4(_))),
            timers: Timers::new(),
            probe: None,
            next_id: 0,
            is_refused: false,
            heard_at: now,
            progress_at: now,
            probes_unanswered: 0,
            persist_backoff: 0,
            challenged_at: None,
            is_orphan: false,
            wants_finish: false,
            failure: None,
            soft_error: None,
            news: News::default(),
            counters: InfoCounters::default(),
            options,
        };
        // Now that the overhead of a segment is known.
        tcb.sender = Sender::new(&sender_config(&tcb.options, agreed, tcb.mss()), now);
        tcb.restart_keepalive(now);
        tcb
    }

    /// Both ends agree at last, in SYN-SENT or SYN-RECEIVED: what was offered is replaced by what is.
    pub(crate) fn establish(&mut self, agreed: &Negotiated, now: Instant) {
        let rcv_nxt = agreed.irs + 1;
        (self.snd_scale, self.rcv_scale) = agreed.window_scale.unwrap_or_default();
        self.has_window_scale = agreed.window_scale.is_some();
        (self.snd_wnd, self.max_snd_wnd) = (agreed.snd_wnd, agreed.snd_wnd);
        (self.snd_wl1, self.snd_wl2) = agreed.snd_wl;
        (self.irs, self.rcv_nxt, self.copied, self.last_ack_sent) = (agreed.irs, rcv_nxt, rcv_nxt, rcv_nxt);
        // In SYN-RECEIVED more may have been offered since.
        let edge = rcv_nxt + agreed.rcv_wnd;
        self.rcv_adv = if self.state == State::SynReceived { self.rcv_adv.max(edge) } else { edge };
        self.clock = agreed.timestamps;
        self.recent_at = now;
        (self.has_sack, self.has_ecn) = (agreed.sack, agreed.ecn);
        // A SYN that is repeated does not ask for ECN.
        //= rfc3168#6.1.1
        //# A host MUST NOT set ECT on data packets unless it has sent at
        //# least one ECN-setup SYN or ECN-setup SYN-ACK packet, and has
        //# received at least one ECN-setup SYN or ECN-setup SYN-ACK packet,
        //# and has sent no non-ECN-setup SYN or non-ECN-setup SYN-ACK
        //# packet.
        self.sends_ect = agreed.ecn && !agreed.is_lossy;
        self.peer_mss = agreed.peer_mss.max(PEER_MSS_MIN);
        self.tuning = ReceiveTuning::new(now, agreed.rcv_wnd);
        self.sender = Sender::new(&sender_config(&self.options, agreed, self.mss()), now);
        self.opening = None;
        // An application that has closed before may linger still.
        self.timers.clear(Timer::Handshake);
        (self.heard_at, self.progress_at) = (now, now);
        self.state = State::Established;
        self.restart_keepalive(now);
        self.news.changed = true;
        self.news.writable = true;
        if self.wants_finish {
            self.finish();
        }
    }

    /// Other manners from now on; what a handshake settles stays as it is.
    pub(crate) fn set_options(&mut self, now: Instant, options: TcpOptions) {
        // What our SYN has offered stays: the peer goes by it.
        let options = if self.opening.is_some() { options.offering_as(&self.options) } else { options };
        let before = std::mem::replace(&mut self.options, Arc::new(options));
        if before.congestion != options.congestion {
            self.sender.set_algorithm(now, options.congestion);
        }
        self.send_limit = self.send_limit.min(options.send_buffer_max.max(1));
        self.limit_handshake();
        self.restart_keepalive(now);
        self.apply_mss(now, false);
    }

    /// Our end.
    pub(crate) fn local(&self) -> SocketAddr {
        self.flow.local()
    }

    /// That of the peer.
    pub(crate) fn remote(&self) -> SocketAddr {
        self.flow.remote()
    }

    pub(crate) fn is_v4(&self) -> bool {
        matches!(self.flow, FlowKey::V4(_))
    }

    /// Bytes of an IP header without options.
    pub(crate) fn ip_header_len(&self) -> usize {
        if self.is_v4() { 20 } else { 40 }
    }

    /// Bytes of the options that every segment has.
    pub(crate) fn fixed_options_len(&self) -> u32 {
        if self.clock.is_some() { TIMESTAMPS_LEN } else { 0 }
    }

    /// Bytes that a segment has for options and payload (Eff.snd.MSS of RFC 9293 section 3.7.1 before options are
    /// taken off).
    //= rfc6691#2
    //# When calculating the value to put in the TCP MSS option, the MTU
    //# value SHOULD be decreased by only the size of the fixed IP and TCP
    //# headers and SHOULD NOT be decreased to account for any possible IP or
    //# TCP options; conversely, the sender MUST reduce the TCP data length
    //# to account for any IP or TCP options that it is including in the
    //# packets that it sends.
    pub(crate) fn segment_room(&self) -> u32 {
        self.segment_room_of(self.plpmtud.mtu())
    }

    pub(crate) fn segment_room_of(&self, mtu: u16) -> u32 {
        let of_path = u32::from(mtu).saturating_sub((self.ip_header_len() + HEADER_LEN) as u32);
        let of_options = self.options.mss_max.map_or(u32::MAX, u32::from);
        of_path.min(self.peer_mss.into()).min(of_options).max(MSS_MIN)
    }

    /// Bytes of payload of a full segment.
    pub(crate) fn mss(&self) -> u32 {
        self.segment_room().saturating_sub(self.fixed_options_len()).max(MSS_MIN / 2)
    }

    /// The MSS that we ask the peer for.
    pub(crate) fn local_mss(&self, link_mtu: u16) -> u16 {
        let room = usize::from(link_mtu).saturating_sub(self.ip_header_len() + HEADER_LEN);
        (room as u16).min(self.options.mss_max.unwrap_or(u16::MAX))
    }

    /// The window scale that we offer.
    pub(crate) fn offered_scale(&self) -> Option<u8> {
        let max = self.options.recv_buffer_max.max(self.options.recv_buffer);
        self.options.window_scaling.then(|| window_scale_for(max))
    }

    /// The path takes packets of so many bytes, as far as routes and routers tell.
    pub(crate) fn set_path_mtu(&mut self, now: Instant, mtu: u16) {
        if self.path_mtu == mtu {
            return;
        }
        // What is under way and longer does not arrive.
        let is_less = mtu < self.plpmtud.mtu();
        self.path_mtu = mtu;
        if self.options.mtu_probing {
            self.plpmtud.set_mtu(now, mtu, mtu);
        } else {
            self.plpmtud = Plpmtud::new(mtu, mtu, self.is_v4());
        }
        self.apply_mss(now, is_less);
    }

    pub(crate) fn apply_mss(&mut self, now: Instant, marks_lost: bool) {
        let mss = self.mss();
        if mss != self.sender.mss() {
            self.sender.set_mss(now, mss, marks_lost);
        }
    }

    /// Our TSval now.
    pub(crate) fn ts_val(&self, now: Instant) -> Option<u32> {
        self.clock.map(|clock| milliseconds(now).wrapping_add(clock.offset))
    }

    /// The number behind the last byte that the application has written.
    pub(crate) fn data_end(&self) -> Seq {
        let una = self.sender.snd_una();
        // Behind a FIN that was acknowledged there is nothing.
        una + self.send.len() as u32
    }

    /// Bytes that were written and never sent.
    pub(crate) fn unsent(&self) -> u32 {
        match self.fin_sent {
            Some(_) => 0,
            None => self.data_end().since(self.sender.snd_nxt()),
        }
    }

    /// Whether our FIN is to be sent and was not.
    pub(crate) fn owes_fin(&self) -> bool {
        self.state.is_finishing() && self.fin_sent.is_none()
    }

    /// Whether everything that we have sent, our FIN too, is acknowledged.
    pub(crate) fn is_fin_acked(&self) -> bool {
        self.fin_sent.is_some_and(|fin| self.sender.snd_una().is_after(fin))
    }

    /// Bytes that the peer's window still takes.
    pub(crate) fn usable_window(&self) -> u32 {
        let edge = self.sender.snd_una() + self.snd_wnd;
        let nxt = self.sender.snd_nxt();
        if edge.is_after(nxt) { edge.since(nxt) } else { 0 }
    }

    /// Bytes that the application may write now.
    pub(crate) fn room(&self) -> usize {
        if !self.state.sends() {
            return 0;
        }
        (self.send_limit as usize).saturating_sub(self.send.len())
    }

    /// The buffer grows with what is in flight, so that there is always as much again to be sent.
    pub(crate) fn grow_send_limit(&mut self, pool: &Pool) {
        if pool.pressure() > Pressure::None {
            return;
        }
        let cwnd = self.sender.in_flight().saturating_add(self.sender.allowance());
        let wanted = cwnd.saturating_mul(2).min(self.options.send_buffer_max);
        self.send_limit = self.send_limit.max(wanted);
    }

    /// There is room again for who wanted it: a quarter of the buffer, so that it does not come in crumbs. If all that
    /// was written is on its way, less is enough: a buffer that just holds what the path takes in a round trip would
    /// leave a quarter of it empty.
    pub(crate) fn tell_room(&mut self) {
        let part = if self.unsent() == 0 { 16 } else { 4 };
        if self.wants_room && self.room() >= (self.send_limit as usize / part).max(1) {
            self.wants_room = false;
            self.news.writable = true;
        }
    }

    /// Our window: its right edge, which never goes back, and what goes into the header.
    ///
    //= rfc9293#3.8.6.2.2
    //# The suggested SWS avoidance algorithm for the receiver is to keep RCV.NXT+RCV.WND fixed until the
    //# reduction satisfies:
    pub(crate) fn window(&self, pool: &Pool) -> (Seq, u16) {
        let old = if self.rcv_adv.is_after(self.rcv_nxt) { self.rcv_adv.since(self.rcv_nxt) } else { 0 };
        let unit = 1_u32 << self.rcv_scale;
        let max = u32::from(u16::MAX) << self.rcv_scale;
        let free = self.recv_limit.saturating_sub(self.recv.readable() as u32);
        let free = match pool.pressure() {
            Pressure::None => free,
            // No more than is needed to go on.
            Pressure::Moderate => free.min(PRESSED_WINDOW),
            Pressure::Severe => 0,
        };
        let free = (free & !(unit - 1)).min(max);
        let threshold = (self.recv_limit / 2).min(self.ack.rcv_mss());
        if free >= old.saturating_add(threshold) {
            return (self.rcv_nxt + free, (free >> self.rcv_scale) as u16);
        }
        // What was offered stays. A part of a unit is rounded up, so that the peer does not see the edge go back; but
        // only into room that there is, or the window would never close.
        let rounded = (old.saturating_add(unit - 1) & !(unit - 1)).min(max);
        if rounded <= free {
            (self.rcv_nxt + rounded, (rounded >> self.rcv_scale) as u16)
        } else {
            (self.rcv_nxt + old, (old >> self.rcv_scale).min(u16::MAX.into()) as u16)
        }
    }

    /// The application has read: is it time to tell the peer that the window is larger?
    pub(crate) fn wants_window_update(&self, pool: &Pool) -> bool {
        if !self.state.receives() {
            return false;
        }
        let edge = self.window(pool).0;
        let offered = if self.rcv_adv.is_after(self.rcv_nxt) { self.rcv_adv.since(self.rcv_nxt) } else { 0 };
        let gain = edge.since(self.rcv_adv);
        edge.is_after(self.rcv_adv)
            && (gain >= self.recv_limit / 2 || gain >= 2 * self.ack.rcv_mss() && offered < gain)
    }

    /// The application has read `len` bytes.
    pub(crate) fn on_read(&mut self, cx: &mut Cx<'_>, len: usize) {
        self.copied += len as u32;
        if cx.pool.pressure() == Pressure::None {
            let max = self.options.recv_buffer_max.max(self.recv_limit);
            if let Some(limit) = self.tuning.on_read(cx.now, self.copied, self.recv_limit, max) {
                self.recv_limit = limit;
            }
        }
        if self.wants_window_update(cx.pool) {
            self.ack.force();
        }
    }

    /// Whether there is nothing more to be read, ever, but for what is in the buffer.
    pub(crate) fn has_peer_finished(&self) -> bool {
        self.fin_received.is_some_and(|fin| self.rcv_nxt.is_after(fin))
    }

    /// What it knows of itself and of its path.
    pub(crate) fn info(&self, now: Instant) -> TcpInfo {
        let mut info = TcpInfo {
            state: self.state.name(),
            snd_una: self.sender.snd_una().since(self.iss),
            snd_nxt: self.sender.snd_nxt().since(self.iss),
            snd_wnd: self.snd_wnd,
            rcv_nxt: self.rcv_nxt.since(self.irs),
            rcv_wnd: if self.rcv_adv.is_after(self.rcv_nxt) { self.rcv_adv.since(self.rcv_nxt) } else { 0 },
            mss: self.mss(),
            rcv_rtt: self.tuning.rtt(),
            window_scale: self.has_window_scale.then_some((self.snd_scale, self.rcv_scale)),
            sack: self.has_sack,
            timestamps: self.clock.is_some(),
            ecn: self.has_ecn,
            send_buffered: self.send.len() as u32,
            send_buffer_max: self.send_limit,
            recv_buffered: self.recv.readable() as u32,
            recv_early: self.recv.early() as u32,
            recv_buffer_max: self.recv_limit,
            path_mtu: self.plpmtud.mtu(),
            counters: self.counters,
            ..TcpInfo::default()
        };
        self.sender.fill_info(now, &mut info);
        info
    }

    /// Ends it. Buffers stay readable unless it failed.
    pub(crate) fn end(&mut self, cx: &mut Cx<'_>, failure: Option<Failure>) {
        self.state = State::Closed;
        self.failure = self.failure.or(failure);
        self.send.clear(cx.pool);
        if self.is_orphan {
            self.recv.clear(cx.pool);
        }
        self.opening = None;
        self.probe = None;
        self.timers.clear_all();
        self.ack = AckPolicy::new(self.peer_mss);
        self.news.changed = true;
    }

    /// Whether an abort sends a reset in this state.
    //= rfc9293#3.10.5
    //# Respond with "ok" and delete the TCB, enter CLOSED state, and return.
    pub(crate) fn is_reset_by_abort(&self) -> bool {
        !matches!(self.state, State::SynSent | State::Closing | State::LastAck | State::Closed)
    }

    /// The application finishes sending.
    //= rfc9293#3.10.4
    //= type=exception
    //= reason=In SYN-RECEIVED the FIN waits for ESTABLISHED in any case, as data does.
    //# If no SENDs have been issued and there is no pending data to send, then form a FIN segment and send it, and
    //# enter FIN-WAIT-1 state; otherwise, queue for processing after entering ESTABLISHED state.
    pub(crate) fn finish(&mut self) {
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            other => other,
        };
        self.wants_finish = self.opening.is_some();
    }
}

/// What a sender begins with.
fn sender_config(options: &TcpOptions, agreed: &Negotiated, mss: u32) -> SenderConfig {
    SenderConfig {
        start: agreed.iss + 1,
        mss,
        rto: options.rto,
        algorithm: options.congestion,
        initial_window: options.initial_window,
        sack: agreed.sack,
        timestamps: agreed.timestamps.is_some(),
        handshake_rtt: agreed.rtt,
        handshake_lost: agreed.is_lossy,
        pacing: options.pacing,
    }
}

/// Without an MSS option (RFC 9293 section 3.7.1).
pub(crate) fn default_mss(flow: &FlowKey) -> u16 {
    if matches!(flow, FlowKey::V4(_)) { 536 } else { 1_220 }
}

/// A peer that asks for less gets this: 48 bytes, as on Linux; each segment has to carry something.
const PEER_MSS_MIN: u16 = 48;
/// No path takes less.
const MSS_MIN: u32 = 48;
/// Bytes of the option with its padding.
pub(crate) const TIMESTAMPS_LEN: u32 = 12;
/// Initial RTOs that a SYN waits for a device that takes it.
const UNSENT_RTOS: u32 = 64;
/// Bytes of a send buffer before it has grown.
const SEND_LIMIT_INITIAL: u32 = 64 << 10;
/// A window while memory is short.
const PRESSED_WINDOW: u32 = 16 << 10;
