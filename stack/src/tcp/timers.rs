//! What is due: the deadlines of a connection, and what happens when they come.
//!
//! RTO, probe of the tail and the age of segments are the sender's; a delayed ACK is that of the policy. The shard's
//! wheel has one timer for each connection, that of the first deadline.

use smoltcp::time::{Duration, Instant};

use super::config::Linger;
use super::error::Failure;
use super::plpmtud::Found;
use super::sender::{LimitedBy, Timeout};
use super::state::{Ending, State};
use super::tcb::{Cx, Probe, Tcb};

/// A timer of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Our SYN, or SYN-ACK, goes again.
    Handshake,
    /// The peer's window is shut: ask.
    Persist,
    /// The peer is silent: ask.
    Keepalive,
    /// An orphan has lasted long enough: FIN-WAIT-2, or lingering.
    Orphan,
    /// Pacing lets the next piece go.
    Pace,
}

/// Deadlines by [`Timer`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timers([Instant; TIMERS]);

const TIMERS: usize = 5;
/// A deadline that does not come.
const NEVER: Instant = Instant::from_micros_const(i64::MAX);

impl Timers {
    pub(crate) fn new() -> Self {
        Self([NEVER; TIMERS])
    }

    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = at;
    }

    /// Not later than this.
    fn bring_forward(&mut self, timer: Timer, at: Instant) {
        self.set(timer, self.0[timer as usize].min(at));
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = NEVER;
    }

    pub(crate) fn clear_all(&mut self) {
        *self = Self::new();
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize] != NEVER
    }

    fn first(&self) -> Option<Instant> {
        self.0.iter().copied().min().filter(|at| *at != NEVER)
    }

    /// Whether it is due; it is cleared then.
    fn take(&mut self, timer: Timer, now: Instant) -> bool {
        let is_due = self.0[timer as usize] <= now;
        if is_due {
            self.clear(timer);
        }
        is_due
    }
}

impl Tcb {
    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let sender = self.state.is_synchronized().then(|| self.sender.deadline()).flatten();
        let parts = [sender, self.ack.deadline(), self.timers.first(), self.user_deadline()];
        parts.into_iter().flatten().min()
    }

    /// When the user gives up what is not acknowledged (RFC 5482).
    fn user_deadline(&self) -> Option<Instant> {
        let timeout = self.options.user_timeout?;
        let is_outstanding = self.state.is_synchronized() && self.sender.snd_una() != self.sender.snd_nxt();
        let since = if self.snd_wnd == 0 { self.progress_at.max(self.heard_at) } else { self.progress_at };
        is_outstanding.then_some(since + timeout)
    }

    /// Does what is due. `Some`: the connection is over.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>) -> Option<Ending> {
        let now = cx.now;
        self.ack.handle_timeout(now);
        // What waits for it goes when the connection is asked, which it is after this.
        self.timers.take(Timer::Pace, now);
        if self.timers.take(Timer::Orphan, now) {
            return Some(Ending::Failed(Failure::Aborted));
        }
        //= rfc9293#3.10.8
        //# For any state if the user timeout expires, flush all queues, signal the user "error: connection aborted due
        //# to user timeout" in general and for any outstanding calls, delete the TCB, enter the CLOSED state, and
        //# return.
        if self.user_deadline().is_some_and(|at| at <= now) {
            return Some(Ending::Failed(self.soft_error.unwrap_or(Failure::TimedOut)));
        }
        if self.timers.take(Timer::Handshake, now)
            && let Some(failure) = self.on_handshake_timeout(cx)
        {
            return Some(Ending::Failed(failure));
        }
        if self.timers.take(Timer::Keepalive, now)
            && let Some(failure) = self.on_keepalive(cx)
        {
            return Some(Ending::Failed(failure));
        }
        if self.timers.take(Timer::Persist, now)
            && let Some(failure) = self.on_persist(cx)
        {
            return Some(Ending::Failed(failure));
        }
        let is_due = self.state.is_synchronized() && self.sender.deadline().is_some_and(|at| at <= now);
        let failure = if is_due { self.on_sender_timeout(cx) } else { None };
        failure.map(Ending::Failed)
    }

    /// The link is there again: what was sent meanwhile has not arrived, and what waits for a timer that has backed off
    /// goes on at once.
    pub(crate) fn on_link_up(&mut self, now: Instant) {
        if let Some(opening) = &mut self.opening {
            opening.is_due |= opening.sent > 0;
            return;
        }
        if !self.state.is_synchronized() {
            return;
        }
        self.sender.retry(now);
        if self.timers.is_set(Timer::Persist) {
            self.persist_backoff = 0;
            self.timers.set(Timer::Persist, now);
        }
        if self.probes_unanswered > 0 && self.timers.is_set(Timer::Keepalive) {
            self.timers.set(Timer::Keepalive, now);
        }
    }

    fn on_sender_timeout(&mut self, cx: &mut Cx<'_>) -> Option<Failure> {
        if self.is_refused && self.sender.wait_for_device(cx.now) {
            return None;
        }
        match self.sender.on_timeout(cx.now) {
            Timeout::Nothing => {}
            Timeout::Lost => self.note_lost_probe(cx),
            Timeout::Probe(seq, len) => {
                cx.counters.loss_probes += 1;
                self.probe = Some(Probe::Tail(seq, len));
            }
            Timeout::Retransmit => {
                cx.counters.timeouts += 1;
                let backoffs = self.sender.rtt().backoffs();
                if self.has_waited_enough(cx, backoffs) {
                    return Some(self.soft_error.unwrap_or(Failure::TimedOut));
                }
                self.note_lost_probe(cx);
                self.note_application_limit(cx.now);
                self.look_for_black_hole(cx, backoffs);
            }
        }
        None
    }

    /// Whether a peer that acknowledges nothing is given up.
    //= rfc9293#3.8.3
    //# (c)  When the number of transmissions of the same segment reaches a threshold R2 greater
    //# than R1, close the connection.
    fn has_waited_enough(&self, cx: &Cx<'_>, times: u32) -> bool {
        //= rfc9293#3.8.6
        //# The sender MAY also retransmit old data beyond SND.UNA+SND.WND (MAY-7), but SHOULD NOT time out the
        //# connection if data beyond the right window edge is not acknowledged (SHLD-17).
        if self.snd_wnd == 0 && !self.is_orphan {
            // What was sent into a window that has shut since: while the peer says so, it is there. Nobody waits for an
            // orphan's data: a peer is not to keep that for ever (RFC 6429).
            let silence = self.options.user_timeout.unwrap_or(self.options.rto.max * 2);
            return cx.now > self.heard_at + silence;
        }
        match self.options.user_timeout {
            Some(timeout) => cx.now >= self.progress_at + timeout,
            None => times > cx.config.data_retries,
        }
    }

    /// Large segments may be what does not get through (RFC 4821 section 7.7).
    fn look_for_black_hole(&mut self, cx: &mut Cx<'_>, backoffs: u32) {
        if !self.options.mtu_probing {
            return;
        }
        let outstanding = self.sender.snd_nxt().since(self.sender.snd_una()).min(self.sender.mss());
        let headers = self.ip_header_len() as u32 + 20 + self.fixed_options_len();
        if let Found::Mtu { lost, .. } =
            self.plpmtud.on_timeout(cx.now, backoffs, (outstanding + headers) as u16)
        {
            cx.counters.black_holes += 1;
            self.apply_mss(cx.now, lost);
        }
    }

    fn on_handshake_timeout(&mut self, cx: &mut Cx<'_>) -> Option<Failure> {
        let opening = self.opening.as_mut()?;
        //= rfc9293#3.8.3
        //= type=exception
        //= reason=As on Linux, six repetitions, 127 s: who asks for more has `syn_retries` and the user timeout.
        //# R2 for a SYN segment MUST be set large enough to provide retransmission of the segment for at least 3
        //# minutes (MUST-23).
        let has_waited = match self.options.user_timeout {
            Some(timeout) => opening.sent_at.is_none_or(|at| cx.now >= at + timeout),
            None => opening.sent == 0 || opening.sent > cx.config.syn_retries,
        };
        if has_waited {
            return Some(self.soft_error.unwrap_or(Failure::TimedOut));
        }
        opening.is_due = true;
        // A device may not take it for long.
        self.limit_handshake();
        None
    }

    /// A SYN was sent for the `sent`-th time: when it goes again. Not later than the user gives up.
    pub(crate) fn arm_handshake(&mut self, now: Instant) {
        let Some(opening) = &self.opening else { return };
        let rto = self.options.rto;
        let backed_off = rto.initial * (1 << opening.sent.saturating_sub(1).min(16));
        let again = now + backed_off.min(rto.max);
        self.timers.set(Timer::Handshake, again);
        self.limit_handshake();
    }

    /// The peer remembers a connection of before and is told that it is over, so the next SYN will find it gone. It goes soon,
    /// instead of after a second, as that of Linux does; once, for anybody can send what has brought us here.
    pub(crate) fn hasten_handshake(&mut self, cx: &Cx<'_>) {
        let is_first = self.opening.as_ref().is_some_and(|opening| opening.sent == 1);
        let is_repeated = self.options.user_timeout.is_some() || cx.config.syn_retries > 0;
        if is_first && is_repeated {
            self.timers.bring_forward(Timer::Handshake, cx.now + SYN_AGAIN);
        }
    }

    /// A handshake lasts no longer than the user waits, from the first SYN on.
    pub(crate) fn limit_handshake(&mut self) {
        let first = self.opening.as_ref().and_then(|opening| opening.sent_at);
        if let (Some(first), Some(timeout)) = (first, self.options.user_timeout) {
            self.timers.bring_forward(Timer::Handshake, first + timeout);
        }
    }

    /// The peer is there: silence begins anew.
    pub(crate) fn restart_keepalive(&mut self, now: Instant) {
        match self.options.keepalive {
            Some(keepalive) if self.state.is_synchronized() => {
                self.timers.set(Timer::Keepalive, now + keepalive.idle);
            }
            _ => self.timers.clear(Timer::Keepalive),
        }
    }

    //= rfc9293#3.8.4
    //# Keep-alive packets MUST only be sent when no sent data is outstanding, and no data or acknowledgment
    //# packets have been received for the connection within an interval (MUST-26).
    fn on_keepalive(&mut self, cx: &mut Cx<'_>) -> Option<Failure> {
        let keepalive = self.options.keepalive?;
        let (now, silent_from) = (cx.now, self.heard_at + keepalive.idle);
        let is_outstanding =
            self.sender.snd_una() != self.sender.snd_nxt() || self.timers.is_set(Timer::Persist);
        if is_outstanding || now < silent_from {
            // What is outstanding asks the peer already.
            self.timers.set(Timer::Keepalive, silent_from.max(now + keepalive.interval));
            return None;
        }
        let probes = u32::from(self.probes_unanswered);
        let is_over = match self.options.user_timeout {
            Some(timeout) => probes > 0 && now >= self.heard_at + timeout,
            None => probes >= keepalive.probes && self.probe != Some(Probe::Alive),
        };
        if is_over {
            return Some(self.soft_error.unwrap_or(Failure::TimedOut));
        }
        if self.probe == Some(Probe::Alive) {
            // The device has not taken the last one: nobody was asked.
            self.timers.set(Timer::Keepalive, now + keepalive.interval);
            return None;
        }
        cx.counters.keepalives += 1;
        self.probes_unanswered = self.probes_unanswered.saturating_add(1);
        self.probe = Some(Probe::Alive);
        self.timers.set(Timer::Keepalive, now + keepalive.interval);
        None
    }

    /// Sets or clears the persist timer: it runs while there is something to be sent, nothing is in flight whose
    /// acknowledgment could tell of a window, and the window does not take it.
    pub(crate) fn update_persist(&mut self, now: Instant) {
        let is_idle = self.sender.snd_una() == self.sender.snd_nxt();
        let has_more = self.unsent() > 0 || self.owes_fin();
        if !self.state.is_synchronized() || !is_idle || !has_more {
            self.timers.clear(Timer::Persist);
            if !has_more || !is_idle {
                self.persist_backoff = 0;
            }
            return;
        }
        if !self.timers.is_set(Timer::Persist) {
            self.timers.set(Timer::Persist, now + self.persist_interval());
        }
    }

    //= rfc9293#3.8.6.1
    //# The transmitting host SHOULD send the first zero-window probe when a zero window has existed for the
    //# retransmission timeout period (SHLD-29) (Section 3.8.1), and SHOULD increase exponentially the interval
    //# between successive probes (SHLD-30).
    fn persist_interval(&self) -> Duration {
        let rto = self.sender.rtt().rto();
        (rto * (1 << u32::from(self.persist_backoff).min(16))).min(self.options.rto.max)
    }

    //= rfc9293#3.8.6.1
    //# As long as the receiving TCP peer continues to send acknowledgments in response to the probe
    //# segments, the sending TCP peer MUST allow the connection to stay open (MUST-37).
    fn on_persist(&mut self, cx: &mut Cx<'_>) -> Option<Failure> {
        let silent_for = cx.now - self.heard_at.min(cx.now);
        let is_over = match self.options.user_timeout {
            Some(timeout) => self.probes_unanswered > 0 && silent_for >= timeout,
            None => u32::from(self.probes_unanswered) > cx.config.data_retries,
        };
        if self.probe == Some(Probe::Window) && !is_over {
            // The device has not taken the last one: nobody was asked.
            self.timers.set(Timer::Persist, cx.now + self.persist_interval());
            return None;
        }
        // Nobody here waits for an orphan's data: a peer that only answers probes is not to keep it for ever.
        let is_abandoned = self.is_orphan && self.persist_backoff >= ORPHAN_PROBES_MAX;
        if is_over || is_abandoned {
            return Some(self.soft_error.unwrap_or(Failure::TimedOut));
        }
        cx.counters.window_probes += 1;
        self.sender.set_limited_by(cx.now, LimitedBy::Receiver);
        self.probes_unanswered = self.probes_unanswered.saturating_add(1);
        self.persist_backoff = self.persist_backoff.saturating_add(1);
        self.probe = Some(Probe::Window);
        self.timers.set(Timer::Persist, cx.now + self.persist_interval());
        None
    }

    /// The application is gone: how long the rest may take.
    pub(crate) fn arm_orphan(&mut self, cx: &Cx<'_>) {
        if !self.is_orphan {
            return;
        }
        if self.state == State::FinWait2 {
            self.timers.set(Timer::Orphan, cx.now + cx.config.fin_wait_2);
        } else if let Linger::For(time) = self.options.linger
            && !self.timers.is_set(Timer::Orphan)
        {
            self.timers.set(Timer::Orphan, cx.now + time);
        }
    }
}

/// Probes of a shut window for an application that has closed (as tcp_orphan_retries of Linux).
const ORPHAN_PROBES_MAX: u8 = 8;
/// From the refusal of an old acknowledgment to the next SYN: the reset is there first (TCP_TIMEOUT_MIN of Linux, at 1000 Hz).
const SYN_AGAIN: Duration = Duration::from_millis(2);
