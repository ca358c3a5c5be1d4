//! One turn: the whole way of a frame, on one page.

use smoltcp::iface::{PollIngressSingleResult, PollResult};
use smoltcp::time::{Duration, Instant};
use wirestack_nic::Nic;

use super::Host;

impl<N: Nic> Host<'_, N> {
    /// Does what is to be done at `now`, and returns when to come again: at once if a budget was spent,
    /// never (`None`) if only a frame can change anything.
    ///
    /// A turn is bounded, whatever the peers send: so many frames in, so many rounds of frames out.
    /// (smoltcp's own `poll` is not; a crafted peer can keep it busy for ever.)
    pub fn turn(&mut self, now: Instant) -> Option<Instant> {
        self.stats.turns += 1;
        self.iface.poll_maintenance(now);

        let more_in = self.receive_burst(now);
        self.serve(now);
        let more_out = self.send_burst(now);
        self.reap(now);
        self.replenish(now);

        // If the link is down the frames stay queued; `wait` tells the loop.
        let _ = self.nic.flush();
        if more_in || more_out {
            return Some(now);
        }
        // What is due now could not be sent: the device has no room. smoltcp says "now" until it has.
        let engine = self.iface.poll_at(now, &self.sockets).map(|due| due.max(now + RETRY_INTERVAL));
        [engine, self.next_connection_deadline(), self.next_udp_deadline(now)].into_iter().flatten().min()
    }

    /// Frames from the device into sockets. True: the budget was spent before the frames were.
    fn receive_burst(&mut self, now: Instant) -> bool {
        for _ in 0..INGRESS_FRAMES_MAX {
            match self.iface.poll_ingress_single(now, &mut self.nic, &mut self.sockets) {
                PollIngressSingleResult::None => return false,
                PollIngressSingleResult::PacketProcessed => {}
                // It may have been a SYN that took a listener's spare socket: the next SYN needs one.
                PollIngressSingleResult::SocketStateChanged => self.replenish(now),
            }
        }
        true
    }

    /// Segments from sockets to the device. smoltcp sends one segment of each socket a round, and one
    /// fragment of a datagram beyond the MTU, of which it does not tell.
    fn send_burst(&mut self, now: Instant) -> bool {
        let mut fragments = std::mem::take(&mut self.fragments);
        for _ in 0..EGRESS_ROUNDS_MAX {
            let result = self.iface.poll_egress(now, &mut self.nic, &mut self.sockets);
            if result == PollResult::None && fragments == 0 {
                return false;
            }
            fragments = fragments.saturating_sub(1);
        }
        true
    }
}

/// Frames taken from the device in one turn: about a millisecond's work.
const INGRESS_FRAMES_MAX: usize = 256;
/// How soon what could not be sent is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// Rounds of egress in one turn: a window of 64 KB in segments of 1 448 bytes has 46.
const EGRESS_ROUNDS_MAX: usize = 256;
