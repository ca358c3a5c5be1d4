//! What is due.

use super::Due;
use crate::policy::AttemptKind;
use crate::shard::Shard;
use crate::tcp::half_open::HalfOpenTimeout;

impl Shard {
    /// Does what is due, a bounded number of times.
    pub(crate) fn fire_tcp_timers(&mut self) {
        for _ in 0..TIMERS_PER_TURN {
            let Some((_, due)) = self.tcp.wheel.pop_expired(self.now) else { break };
            match due {
                Due::Connection(index) => self.connection_due(index),
                Due::HalfOpen(index) => self.half_open_due(index),
            }
        }
        for _ in 0..TIMERS_PER_TURN {
            let Some(flow) = self.tcp.time_waits.pop_expired(self.now) else { break };
            self.tcp.flows.remove(&flow);
        }
    }

    fn connection_due(&mut self, index: u32) {
        let now = self.now;
        let Some((connection, mut cx)) = self.tcp.with_cx(index, now) else { return };
        connection.timer = None;
        // The timer may come early: the deadline has moved on since.
        let is_due = connection.tcb.deadline().is_some_and(|deadline| deadline <= now);
        let ending = if is_due { connection.tcb.handle_timeout(&mut cx) } else { None };
        match ending {
            Some(ending) => {
                let header = connection.tcb.reset_now();
                if connection.tcb.state.is_synchronized() {
                    // The peer may be there after all, and hear nothing of us.
                    self.send_reset(index, &header);
                }
                self.end_connection(index, ending);
            }
            None => self.touch_connection(index),
        }
    }

    /// The link is there again: nobody waits for a timer that has backed off meanwhile.
    pub(crate) fn retry_connections(&mut self) {
        let now = self.now;
        let indices: Vec<u32> = self.tcp.connections.iter().map(|(index, _)| index as u32).collect();
        for index in indices {
            if let Some(connection) = self.tcp.connections.get_mut(index as usize) {
                connection.tcb.on_link_up(now);
            }
            self.touch_connection(index);
        }
    }

    fn half_open_due(&mut self, index: u32) {
        if let Some(timer) = self.tcp.half_open_timers.get_mut(index as usize) {
            *timer = None;
        }
        let Some((flow, listener)) = self.tcp.half_opens.get(index) else { return };
        let is_policed = self.tcp.half_opens.policed(index).is_some_and(|is_policed| *is_policed);
        match self.tcp.half_opens.on_timeout(self.now, index) {
            HalfOpenTimeout::Resend(header, at) => {
                self.tcp.arm_half_open(index, at);
                self.send_header(&flow, &header);
            }
            HalfOpenTimeout::GaveUp => {
                self.tcp.flows.remove(&flow);
                self.half_open_gone(listener);
                self.tell_flow_ended(is_policed.then_some(AttemptKind::Accept), &flow);
            }
        }
    }

    /// The deadline of a connection may be another.
    pub(super) fn touch_timers(&mut self, index: u32) {
        self.tcp.arm(index);
    }

    /// Memory has come back: who found none may try again, a few at a time.
    pub(crate) fn wake_starved(&mut self) {
        if !self.tcp.can_wake_starved() {
            return;
        }
        for _ in 0..STARVED_PER_TURN {
            let Some(index) = self.tcp.starved.pop_front() else { return };
            if let Some(connection) = self.tcp.connections.get_mut(index as usize) {
                connection.tcb.news.writable |= std::mem::take(&mut connection.tcb.wants_room);
                self.touch_connection(index);
            }
        }
    }
}

/// Timers of one turn; the others come first in the next.
const TIMERS_PER_TURN: usize = 1_024;
const STARVED_PER_TURN: usize = 16;
