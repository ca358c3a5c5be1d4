//! Sending on a device that is slow, and on which small frames pass others ([`Nic::express_len`]): who sends when.
//!
//! Whoever has a small frame sends it at once. The others stand in a line of which the first sends one frame when there is
//! room, and is the last one then; frames that wait in the outbox (UDP, ICMP) and connections take turns. So nobody
//! starves, and a key stroke waits for nobody.

use wirestack_nic::Nic;

use super::egress::{Found, Outcome};
use crate::shard::Shard;
use crate::tcp::output::Plan;

/// What became of somebody's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// A frame has left.
    Sent,
    /// There was nothing to be sent.
    Nothing,
    /// There is no room in the device.
    Refused,
}

impl Shard {
    /// Sends what waits in the outbox and what connections have, `frames_max` frames at most. `(more, refused)`:
    /// something is left, or the device has no room for it.
    pub(crate) fn send_in_turns<N: Nic>(&mut self, nic: &mut N, frames_max: usize) -> (bool, bool) {
        let gso_max = self.gso_max(nic);
        let (mut sent, mut is_refused) = self.send_small(nic, &gso_max, frames_max);
        let mut idle = 0;
        while sent < frames_max && idle < 2 {
            let turn = if self.tcp.has_turn { self.send_held(nic, &gso_max) } else { self.send_queued(nic) };
            match turn {
                Turn::Sent => (sent, idle) = (sent + 1, 0),
                Turn::Nothing => idle += 1,
                Turn::Refused => {
                    // It is this one's turn when there is room.
                    is_refused = true;
                    break;
                }
            }
            self.tcp.has_turn = !self.tcp.has_turn;
        }
        if is_refused && !self.outbox.is_empty() {
            let small = self.outbox.send_small(self.now, nic, nic.express_len());
            self.counters.tx_frames += small as u64;
        }
        self.tcp.is_refused = is_refused;
        (!self.outbox.is_empty() || self.tcp.has_ready(), is_refused)
    }

    /// Whoever is ready sends small frames, and stands in line with a long one. Every visit sends a frame or takes somebody
    /// out of the queue. Returns how many have left, and whether the device has refused one.
    fn send_small<N: Nic>(&mut self, nic: &mut N, gso_max: &[u32; 2], frames_max: usize) -> (usize, bool) {
        let mut sent = 0;
        while sent < frames_max {
            let Some(index) = self.tcp.ready.pop_front() else { break };
            let Some((plan, found)) = self.next_plan(index, gso_max) else { continue };
            if self.frame_len(index, &plan) > nic.express_len() {
                self.tcp.held.push_back(index);
                // It may be long until it is asked again.
                self.touch_timers(index);
                continue;
            }
            match self.send_plan(nic, index, &plan, found) {
                Outcome::Done => {
                    sent += 1;
                    self.tcp.ready.push_back(index);
                }
                Outcome::Over => sent += 1,
                Outcome::NoRoom => {
                    self.tcp.ready.push_front(index);
                    self.touch_timers(index);
                    return (sent, true);
                }
            }
        }
        (sent, false)
    }

    /// The first in line sends a frame, and is the last one then.
    fn send_held<N: Nic>(&mut self, nic: &mut N, gso_max: &[u32; 2]) -> Turn {
        while let Some(index) = self.tcp.held.pop_front() {
            let Some((plan, found)) = self.next_plan(index, gso_max) else { continue };
            return match self.send_plan(nic, index, &plan, found) {
                Outcome::Done => {
                    self.tcp.held.push_back(index);
                    self.touch_timers(index);
                    Turn::Sent
                }
                Outcome::Over => Turn::Sent,
                Outcome::NoRoom => {
                    self.tcp.held.push_front(index);
                    Turn::Refused
                }
            };
        }
        Turn::Nothing
    }

    fn send_queued<N: Nic>(&mut self, nic: &mut N) -> Turn {
        let (sent, is_refused) = self.outbox.send(self.now, nic, 1);
        self.counters.tx_frames += sent as u64;
        match (sent, is_refused) {
            (_, true) => Turn::Refused,
            (0, false) => Turn::Nothing,
            _ => Turn::Sent,
        }
    }

    /// What a connection that was taken out of a queue sends next. `None`: nothing, and it is in no queue any more.
    fn next_plan(&mut self, index: u32, gso_max: &[u32; 2]) -> Option<(Plan, Found)> {
        self.tcp.connections.get(index as usize)?;
        let limits = self.limits_of(index, gso_max);
        let plan = self.plan_for(index, &limits);
        if plan.is_none() {
            if let Some(connection) = self.tcp.connections.get_mut(index as usize) {
                connection.is_queued = false;
            }
            self.nothing_to_send(index);
        }
        plan
    }

    fn frame_len(&self, index: u32, plan: &Plan) -> usize {
        let ip_len = self.tcp.connections.get(index as usize).map_or(0, |it| it.tcb.ip_header_len());
        self.link_header_len() + ip_len + plan.header.len() + plan.len
    }
}
