//! A bump in the wire: what one device receives, the other sends, both ways.
//!
//! ```text
//!            ┌─────────────── Bridge ───────────────┐
//!   A ──▶ receive ─▶ fits B's MTU? ─▶ impairment ─▶ send ──▶ B
//!   A ◀── send ◀─ impairment ◀─ fits A's MTU? ◀─ receive ◀── B
//!            └──────────────────────────────────────┘
//! ```
//!
//! **What passes.** Every frame that the devices deliver, unchanged: tagged ones, those for any group, and
//! those that a bridge between segments would keep (01:80:c2:00:00:00 to :0f: spanning tree, LACP, LLDP,
//! 802.1X), since a wire keeps nothing. Only pause frames of IEEE 802.3x do not: network cards do not hand
//! them over. Super-frames pass as such, absent checksums stay absent, and a device that cannot hand on
//! either does the work itself ([`Nic::transmit_with`]).
//!
//! **MTU.** What is longer than the other side carries is answered or fragmented; see `too_big` for the
//! rules. Super-frames count by their pieces.
//!
//! **Impairment.** A direction with an [`ImpairSpec`] splits super-frames first, so that loss means the same
//! for every sender, and fills in checksums, so that receivers find flipped bits. Answers on the MTU are not
//! impaired.
//!
//! **Full.** A device that takes no frame holds its direction up for 20 ms; after that, frames are dropped and
//! counted until it takes one. So it is as well while a side is down: what its queue holds goes out when it
//! is up again.
//!
//! **Time.** [`turn`](Bridge::turn) reads no clock and sleeps never; with a clock of the caller's, the same
//! frames and the same seed give the same run.
//!
//! What a bridge does not do: learn addresses, look for loops, or speak. Between two devices of one segment
//! it makes a loop. The kernel sees the frames as well, and is to have no address on either interface.

mod direction;
mod fragment;
mod too_big;

pub use direction::DirectionCounters;

use nix::poll::PollFlags;
use smoltcp::phy::{Device, Medium};
use smoltcp::time::{Duration, Instant};

use crate::impair::ImpairSpec;
use crate::offload::ETHERNET_HEADER_LEN;
use crate::{Counters, LinkError, LinkState, Nic, Wake, Waker, wait};

use direction::{Direction, Progress};

/// Two devices of Ethernet as one wire.
#[derive(Debug)]
pub struct Bridge<A, B> {
    a: A,
    b: B,
    a_to_b: Direction,
    b_to_a: Direction,
    /// What the last turn was left with, from A and from B.
    progress: [Progress; 2],
    /// Neither carries frames: it is looked at now and then.
    is_down: [bool; 2],
    /// Since when the devices were not given a chance to do what they do when they wait; `None`: nothing has
    /// moved.
    untidy_since: Option<Instant>,
}

/// What a [`Bridge`] does beside forwarding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BridgeConfig {
    /// What happens from A to B; `None`: super-frames pass whole.
    pub a_to_b: Option<ImpairSpec>,
    /// What happens from B to A.
    pub b_to_a: Option<ImpairSpec>,
    /// Reproduces the chances of a run. The two directions draw different numbers from it.
    pub seed: u64,
}

/// One of the two devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// A device was removed: the bridge is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the interface is gone")]
pub struct Gone(pub Side);

/// What a bridge and its devices have counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BridgeCounters {
    /// Frames from A to B.
    pub a_to_b: DirectionCounters,
    /// Frames from B to A.
    pub b_to_a: DirectionCounters,
    /// Of the device A.
    pub a: Counters,
    /// Of the device B.
    pub b: Counters,
}

impl<A: Nic, B: Nic> Bridge<A, B> {
    /// Joins two devices.
    pub fn new(a: A, b: B, config: BridgeConfig) -> Self {
        let BridgeConfig { a_to_b, b_to_a, seed } = config;
        Self {
            a_to_b: Direction::new(mtu(&b), a_to_b, seed),
            b_to_a: Direction::new(mtu(&a), b_to_a, !seed),
            a,
            b,
            progress: [Progress::Drained; 2],
            is_down: [false; 2],
            untidy_since: None,
        }
    }

    /// Moves a burst each way. Returns when to come again even if no frame comes; `None`: no need to.
    ///
    /// # Errors
    /// [`Gone`]: a device does not exist any more. One that is down is no error.
    pub fn turn(&mut self, now: Instant) -> Result<Option<Instant>, Gone> {
        let before = self.moved();
        let Self { a, b, a_to_b, b_to_a, .. } = self;
        // Each direction is on its way, and its answers are on theirs, before the other has its turn.
        let from_a = a_to_b.run(now, a, b);
        let first = [b.flush(), a.flush()];
        let from_b = b_to_a.run(now, b, a);
        let second = [b.flush(), a.flush()];
        self.progress = [from_a, from_b];
        for [of_b, of_a] in [first, second] {
            self.heard(Side::B, of_b)?;
            self.heard(Side::A, of_a)?;
        }
        if self.moved() != before {
            self.untidy_since.get_or_insert(now);
        }
        if self.progress.contains(&Progress::More) {
            return Ok(Some(now));
        }
        let [a_to_b, b_to_a] = [&self.a_to_b, &self.b_to_a].map(|direction| direction.deadline(now));
        Ok(a_to_b.into_iter().chain(b_to_a).min())
    }

    /// Sleeps until a device may have a frame, the [`waker`](Self::waker) was called, or `deadline`.
    ///
    /// # Errors
    /// [`Gone`]: a device does not exist any more.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, Gone> {
        let now = wait::now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Ok(Wake::Deadline);
        }
        self.tidy(now)?;
        let tidy_at = self.untidy_since.map(|since| since + TIDY_INTERVAL);
        let look_at = self.is_down.contains(&true).then(|| now + LINK_CHECK_INTERVAL);
        let until = [deadline, tidy_at, look_at].into_iter().flatten().min();
        let woken = self.sleep(now, until)?;
        for side in [Side::A, Side::B] {
            if self.is_down[side as usize] {
                self.look(side)?;
            }
        }
        Ok(if woken == Wake::Deadline && until != deadline { Wake::Ready } else { woken })
    }

    /// Tells that a device carries longer, or shorter, packets than before: its MTU in bytes. Until then it
    /// is what the device said when the bridge was made.
    pub fn set_mtu(&mut self, side: Side, mtu: usize) {
        match side {
            Side::A => self.b_to_a.set_mtu(mtu),
            Side::B => self.a_to_b.set_mtu(mtu),
        }
    }

    /// What was counted so far.
    pub fn counters(&mut self) -> BridgeCounters {
        BridgeCounters {
            a_to_b: self.a_to_b.counters(),
            b_to_a: self.b_to_a.counters(),
            a: self.a.counters(),
            b: self.b.counters(),
        }
    }

    /// A handle by which another thread ends a [`wait`](Self::wait).
    pub fn waker(&self) -> Waker {
        self.a.waker()
    }

    /// The devices. Frames taken from them or given to them are not bridged.
    pub fn devices_mut(&mut self) -> (&mut A, &mut B) {
        (&mut self.a, &mut self.b)
    }

    /// Something that changes whenever a frame moves.
    fn moved(&self) -> [u64; 4] {
        let [there, back] = [&self.a_to_b, &self.b_to_a].map(Direction::counters);
        [there.frames, there.too_big, back.frames, back.too_big]
    }

    fn sleep(&mut self, now: Instant, until: Option<Instant>) -> Result<Wake, Gone> {
        let Self { a, b, progress, .. } = self;
        let (Some(from_a), Some(from_b)) = (a.descriptor(), b.descriptor()) else {
            return self.sleep_on_one(now, until);
        };
        // A device whose frames cannot go on now is not listened to: it would say that it has some.
        let interest = |progress| match progress {
            Progress::Blocked => PollFlags::empty(),
            Progress::Drained | Progress::More => PollFlags::POLLIN,
        };
        let sockets = [(from_a, interest(progress[0])), (from_b, interest(progress[1]))];
        let (events, wake) = wait::sleep_on_two(sockets, &a.waker(), until);
        for (side, events) in [Side::A, Side::B].into_iter().zip(events) {
            if events.contains(PollFlags::POLLERR) {
                self.ask(side, now)?;
                self.look(side)?;
            }
        }
        Ok(wake)
    }

    /// Of two devices that cannot be slept on together: sleeps on the first, and not for long.
    fn sleep_on_one(&mut self, now: Instant, until: Option<Instant>) -> Result<Wake, Gone> {
        let soon = now + ONE_DEVICE_INTERVAL;
        let result = self.a.wait(Some(until.map_or(soon, |until| until.min(soon))));
        self.ask(Side::B, now)?;
        match result {
            Ok(Wake::Deadline) if until.is_none_or(|until| until > soon) => Ok(Wake::Ready),
            Ok(wake) => Ok(wake),
            Err(error) => self.heard(Side::A, Err(error)).map(|()| Wake::Ready),
        }
    }

    /// Lets the devices do what they do when they wait (a capture writes its file, a ring asks what was
    /// dropped), when enough time has passed.
    fn tidy(&mut self, now: Instant) -> Result<(), Gone> {
        if self.untidy_since.is_none_or(|since| now < since + TIDY_INTERVAL) {
            return Ok(());
        }
        self.untidy_since = None;
        self.ask(Side::A, now)?;
        self.ask(Side::B, now)
    }

    /// Has a device look at itself: a wait that is over at once.
    fn ask(&mut self, side: Side, now: Instant) -> Result<(), Gone> {
        let moment = Some(now + Duration::from_micros(1));
        let result = match side {
            Side::A => self.a.wait(moment),
            Side::B => self.b.wait(moment),
        };
        self.heard(side, result.map(|_| ()))
    }

    /// Looks whether a device carries frames, exists at all.
    fn look(&mut self, side: Side) -> Result<(), Gone> {
        let state = match side {
            Side::A => self.a.link_state(),
            Side::B => self.b.link_state(),
        };
        self.is_down[side as usize] = state == LinkState::Down;
        if state == LinkState::Gone { Err(Gone(side)) } else { Ok(()) }
    }

    fn heard(&mut self, side: Side, result: Result<(), LinkError>) -> Result<(), Gone> {
        match result {
            Ok(()) => Ok(()),
            Err(LinkError::Down) => {
                self.is_down[side as usize] = true;
                Ok(())
            }
            Err(LinkError::Gone) => Err(Gone(side)),
        }
    }
}

/// The longest packet that a device carries.
fn mtu(nic: &impl Device) -> usize {
    let capabilities = nic.capabilities();
    match capabilities.medium {
        Medium::Ethernet => capabilities.max_transmission_unit.saturating_sub(ETHERNET_HEADER_LEN),
        #[allow(unreachable_patterns, reason = "smoltcp has more media with other features")]
        _ => capabilities.max_transmission_unit,
    }
}

/// How often a side that is down is looked at.
const LINK_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How long the devices may be without a wait of their own.
const TIDY_INTERVAL: Duration = Duration::from_millis(100);
/// How long to sleep on one device while the other cannot wake us.
const ONE_DEVICE_INTERVAL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
