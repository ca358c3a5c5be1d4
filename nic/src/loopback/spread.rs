//! One device in memory opposite several, which share its frames as the members of a fanout group do.

use std::os::fd::AsFd;

use nix::poll::PollFlags;
use smoltcp::phy::{Device, DeviceCapabilities};
use smoltcp::time::Instant;

use super::{Bell, Loopback, LoopbackConfig, LoopbackError, Readiness, RxToken, TxToken, offloads};
use crate::meta::{FrameMeta, OffloadCapabilities};
use crate::steer::{flow_hash, flow_hash_of_packet, shard_of};
use crate::{Counters, LinkError, LinkState, Nic, Wake, Waker, wait};

/// What is opposite a group: a frame that is sent here comes to the member of its flow, as the kernel's fanout mode `flow`
/// would have it ([`flow_hash`]); what any member sends is received here.
///
/// For frames that are sent by [`Nic::transmit_with`]. What is sent by tokens, which cannot tell their flow before they are
/// written, comes to the first member.
#[derive(Debug)]
pub struct Spread {
    ends: Vec<Loopback<'static>>,
    seed: u32,
    /// Shared by all ends: rung by every member.
    bell: Bell,
    waker: Waker,
    /// Whose turn it is to be received from.
    next: usize,
    frame: Vec<u8>,
}

impl Spread {
    /// A device, and the members of the group opposite, each with queues of its own, in the order of their numbers.
    ///
    /// # Errors
    /// As [`Loopback::pair`].
    pub fn group(
        config: &LoopbackConfig,
        members: usize,
        seed: u32,
    ) -> Result<(Self, Vec<Loopback<'static>>), LoopbackError> {
        let bell = Bell::new()?;
        let (mut ends, mut group) = (Vec::new(), Vec::new());
        for _ in 0..members {
            let (end, member) = Loopback::pair_with_bell(config, &bell)?;
            ends.push(end);
            group.push(member);
        }
        Ok((Self { ends, seed, bell, waker: Waker::new()?, next: 0, frame: Vec::new() }, group))
    }

    /// Which member a frame comes to.
    fn member_of(&self, frame: &[u8]) -> usize {
        let is_ethernet = self.ends.first().is_some_and(|end| end.medium == smoltcp::phy::Medium::Ethernet);
        let hash =
            if is_ethernet { flow_hash(self.seed, frame) } else { flow_hash_of_packet(self.seed, frame) };
        shard_of(hash, self.ends.len())
    }

    /// Ends, beginning with the one whose turn it is.
    fn turns(&mut self) -> impl Iterator<Item = usize> + use<> {
        let (first, len) = (self.next, self.ends.len());
        (0..len).map(move |step| (first + step) % len)
    }
}

impl Device for Spread {
    type RxToken<'t> = RxToken<'t, 'static>;
    type TxToken<'t> = TxToken<'t, 'static>;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let is_ready = |end: &mut Loopback<'_>| matches!(end.readiness(false), Readiness::Frame(_));
        let ready = self.turns().find(|&number| is_ready(&mut self.ends[number]))?;
        self.next = ready + 1;
        self.ends[ready].receive(now)
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        self.ends.first_mut()?.transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.ends.first().map(Device::capabilities).unwrap_or_default()
    }
}

impl Nic for Spread {
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Wake, LinkError> {
        let (mut until, mut gone) = (deadline, 0);
        for end in &mut self.ends {
            end.ring_peer();
            match end.readiness(true) {
                Readiness::Gone => gone += 1,
                Readiness::Frame(_) => until = Some(Instant::ZERO),
                Readiness::Room => {
                    end.tx.refused = 0;
                    until = Some(Instant::ZERO);
                }
                Readiness::Nothing => {}
            }
        }
        if gone == self.ends.len() {
            return Err(LinkError::Gone);
        }
        let (_, wake) = wait::sleep(Some((self.bell.event.as_fd(), PollFlags::POLLIN)), &self.waker, until);
        self.bell.silence();
        for end in &self.ends {
            end.rx.pipe.lock().receiver_asleep = false;
        }
        match wake {
            Wake::Deadline if until != deadline => Ok(Wake::Ready),
            wake => Ok(wake),
        }
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        let gone = self.ends.iter_mut().filter_map(|end| end.flush().err()).count();
        if gone == self.ends.len() { Err(LinkError::Gone) } else { Ok(()) }
    }

    fn link_state(&mut self) -> LinkState {
        let is_up = self.ends.iter_mut().any(|end| end.link_state() == LinkState::Up);
        if is_up { LinkState::Up } else { LinkState::Gone }
    }

    fn counters(&mut self) -> Counters {
        self.ends.iter_mut().fold(Counters::default(), |sum, end| sum + end.counters())
    }

    fn offloads(&self) -> OffloadCapabilities {
        self.ends.first().map(|end| end.offloads).unwrap_or_default()
    }

    fn receive_with<R>(&mut self, now: Instant, f: impl FnOnce(&[u8], &FrameMeta) -> R) -> Option<R> {
        let mut f = Some(f);
        for number in self.turns() {
            let received =
                self.ends[number].receive_with(now, |frame, meta| f.take().map(|f| f(frame, meta)));
            if let Some(received) = received.flatten() {
                self.next = number + 1;
                return Some(received);
            }
        }
        None
    }

    fn transmit_with<R>(
        &mut self,
        now: Instant,
        len: usize,
        meta: &FrameMeta,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        // Before it is written nobody knows whose it is: a member without room holds up all of them.
        let is_gone = |end: &Loopback<'_>| end.tx.pipe.lock().receiver_gone;
        if self.ends.iter().all(is_gone) || !self.ends.iter_mut().all(|end| is_gone(end) || end.tx.admits(1))
        {
            return None;
        }
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame.resize(len, 0);
        let result = f(&mut frame);
        let member = self.member_of(&frame);
        if let Some(end) = self.ends.get_mut(member) {
            // A frame that is to be split may still find too little room: then it is lost, as on a wire.
            end.transmit_with(now, len, meta, |room| room.copy_from_slice(&frame));
        }
        self.frame = frame;
        Some(result)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Loopback<'static> {
    /// A pair whose first end is woken by a bell that it shares with others.
    fn pair_with_bell(config: &LoopbackConfig, bell: &Bell) -> Result<(Self, Self), LoopbackError> {
        let (mut first, mut second) = Self::pair(config)?;
        first.rx.bell = bell.clone();
        second.tx.peer_bell = bell.clone();
        debug_assert_eq!(first.offloads, offloads(config));
        Ok((first, second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet of UDP between these ports.
    fn frame(port: u16) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&46_u16.to_be_bytes());
        frame[23] = 17;
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame[36..38].copy_from_slice(&7_u16.to_be_bytes());
        frame
    }

    fn send(nic: &mut impl Nic, frame: &[u8]) {
        let sent = nic.transmit_with(Instant::ZERO, frame.len(), &FrameMeta::default(), |room| {
            room.copy_from_slice(frame);
        });
        sent.expect("room");
    }

    #[test]
    fn a_frame_comes_to_the_member_of_its_flow_and_back() {
        let (mut far, mut members) = Spread::group(&LoopbackConfig::default(), 3, 9).expect("a group");
        let mut seen = [0; 3];
        for port in 1000..1050 {
            let frame = frame(port);
            send(&mut far, &frame);
            let expected = shard_of(flow_hash(9, &frame), 3);
            for (number, member) in members.iter_mut().enumerate() {
                let received = member.receive_with(Instant::ZERO, |frame, _| frame.to_vec());
                assert_eq!(received.as_ref(), (number == expected).then_some(&frame));
            }
            seen[expected] += 1;
            send(&mut members[expected], &frame);
            assert_eq!(far.receive_with(Instant::ZERO, |frame, _| frame.to_vec()), Some(frame));
        }
        assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
        assert_eq!((far.counters().tx_frames, far.counters().rx_frames), (50, 50));
    }

    #[test]
    fn any_member_ends_a_sleep_and_all_of_them_the_link() {
        let (mut far, mut members) = Spread::group(&LoopbackConfig::default(), 2, 0).expect("a group");
        assert_eq!(far.wait(Some(Instant::ZERO)), Ok(Wake::Deadline));
        for number in 0..2 {
            let mut member = members.swap_remove(number);
            let thread = std::thread::spawn(move || {
                send(&mut member, &frame(1));
                member.flush().expect("a link");
                member
            });
            assert_eq!(far.wait(None), Ok(Wake::Ready));
            members.insert(number, thread.join().expect("no panic"));
            assert!(far.receive_with(Instant::ZERO, |_, _| ()).is_some());
        }
        members.pop();
        assert_eq!(far.link_state(), LinkState::Up);
        members.pop();
        assert_eq!((far.wait(None), far.link_state()), (Err(LinkError::Gone), LinkState::Gone));
    }
}
