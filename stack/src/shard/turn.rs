//! One turn: the whole way of a frame, on one page.

use smoltcp::time::Instant;
use wirestack_nic::Nic;

use super::Shard;
use crate::observe::Stage;

impl Shard {
    /// Does what is to be done at `now`, and returns when to come again: at once if a budget was spent or
    /// something is ready, never (`None`) if only a frame or the application can change anything.
    ///
    /// `app` is where the application reads and writes: between what came and what goes, so that an answer
    /// leaves in the turn in which the question came. [`next_event`](Shard::next_event) tells which sockets have
    /// something for it.
    ///
    /// A turn is bounded, whatever peers send: so many frames in, so many timers, so many frames out; what is
    /// left over comes first in the next one. Nobody can starve another stage.
    pub fn turn<N: Nic>(
        &mut self,
        now: Instant,
        nic: &mut N,
        mut app: impl FnMut(&mut Self),
    ) -> Option<Instant> {
        let more = self.receive(now, nic);
        app(self);
        let due = self.send(nic);
        if more { Some(self.now()) } else { due }
    }

    /// The first half of a turn: what others want done, a burst of frames, timers. True: there is more than a turn takes,
    /// so the next one is to come at once. What the application does then leaves with [`send`](Self::send).
    pub fn receive<N: Nic>(&mut self, now: Instant, nic: &mut N) -> bool {
        let more_commands = self.begin_turn(now, nic);
        let more_in = self.receive_burst(nic);
        self.finish_receiving() || more_commands || more_in
    }

    /// What comes before the frames. True: there are more commands than were carried out.
    pub(crate) fn begin_turn<N: Nic>(&mut self, now: Instant, nic: &N) -> bool {
        self.begin(now, nic);
        let more_commands = self.apply_commands();
        self.enter(Stage::Ingress);
        more_commands
    }

    /// What comes after the frames.
    pub(crate) fn end_turn<N: Nic>(
        &mut self,
        nic: &mut N,
        app: &mut dyn FnMut(&mut Self),
        more: bool,
    ) -> Option<Instant> {
        let more = self.finish_receiving() || more;
        app(self);
        let due = self.send(nic);
        if more { Some(self.now()) } else { due }
    }

    fn finish_receiving(&mut self) -> bool {
        let more_looped = self.receive_looped();
        self.enter(Stage::Timers);
        self.fire_timers();
        self.enter(Stage::Application);
        // What there is until here, the application is about to see.
        self.take_news();
        more_looped
    }

    /// The second half of a turn: sends what is ready, and returns when to come again.
    pub fn send<N: Nic>(&mut self, nic: &mut N) -> Option<Instant> {
        self.enter(Stage::Egress);
        let more_out = self.send_burst(nic);
        self.enter(Stage::Idle);
        let more = more_out || !self.commands.is_empty() || self.take_news();
        if more { Some(self.now()) } else { self.next_deadline() }
    }

    /// Whether something was left here since the last turn that only another one carries out.
    pub fn has_work(&self) -> bool {
        self.tcp.has_ready()
            || !self.outbox.is_empty()
            || !self.looped.is_empty()
            || !self.commands.is_empty()
            || self.neighbors.has_output()
            || self.mail.len() > 0
            || self.sockets.has_news()
            || self.has_news
            || self.tcp.can_wake_starved()
    }

    /// Whether something for the application has come up after it had its turn, and nobody has fetched it. It
    /// is told once: an application that leaves it is not called for it again.
    fn take_news(&mut self) -> bool {
        let has_answer = std::mem::take(&mut self.has_news) && self.dns.has_event();
        // Memory that was given back is told of in the next turn.
        self.sockets.take_news() || has_answer || self.tcp.can_wake_starved()
    }

    /// Frames from the device, each to whom it is for. True: the budget was spent before the frames were. It is one of
    /// bytes as well: an application that reads what came in this turn finds it in the cache.
    fn receive_burst<N: Nic>(&mut self, nic: &mut N) -> bool {
        let now = self.now();
        let mut bytes = 0;
        for _ in 0..self.budgets.ingress_frames {
            let received = nic.receive_with(now, |frame, meta| {
                bytes += frame.len();
                self.handle_frame(frame, meta);
            });
            if received.is_none() {
                return false;
            }
            if bytes >= INGRESS_BYTES_PER_TURN {
                return true;
            }
        }
        true
    }

    /// Packets to ourselves, which never see a device.
    fn receive_looped(&mut self) -> bool {
        for _ in 0..self.budgets.looped_packets {
            if !self.handle_looped() {
                return false;
            }
        }
        !self.looped.is_empty()
    }

    /// Frames to the device, and one kick of the kernel. If the device has no room, a wait on it ends when
    /// there may be; so that is no reason to come again at once. What stays here has nothing to do with it.
    fn send_burst<N: Nic>(&mut self, nic: &mut N) -> bool {
        // Before what makes somebody send to a group that was joined.
        self.apply_link_changes(nic);
        let (more_frames, is_refused) = if nic.express_len() > 0 {
            self.send_in_turns(nic, self.budgets.egress_frames)
        } else {
            self.send_in_order(nic)
        };
        // If the link is down the frames stay queued; `wait` tells the loop.
        let _ = nic.flush();
        let waits = !self.outbox.is_empty() || self.neighbors.has_output();
        (waits || more_frames) && !is_refused || !self.looped.is_empty()
    }

    /// What waits in the outbox, and then what connections have. `(more, refused)`: they have more, or the device has no
    /// room.
    fn send_in_order<N: Nic>(&mut self, nic: &mut N) -> (bool, bool) {
        let (sent, is_refused) = self.outbox.send(self.now(), nic, self.budgets.egress_frames);
        self.counters.tx_frames += sent as u64;
        let (more, refuses_segments) = self.send_segments(nic, self.budgets.egress_frames - sent);
        (more, is_refused || refuses_segments)
    }
}

/// Bytes of frames that a turn takes: four super-frames, or more than a budget of small ones is.
const INGRESS_BYTES_PER_TURN: usize = 256 << 10;
