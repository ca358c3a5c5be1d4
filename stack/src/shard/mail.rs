//! What shards tell each other. A shard is reached from another thread through this and nothing else.

use std::collections::VecDeque;

use crate::ingress::Verdict;
use crate::observe::DropReason;

/// A message to another shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mail {
    /// A whole IP packet of a flow of that shard, put together from fragments here.
    Packet(Vec<u8>),
    /// A frame about the link (ARP, NDP, IGMP, MLD), from which every shard learns and which one has answered.
    Control(Vec<u8>),
}

/// Messages that wait to be fetched by whoever carries them; bounded.
#[derive(Debug)]
pub(crate) struct Mailbox {
    waiting: VecDeque<(usize, Mail)>,
    len_max: usize,
    shard: usize,
    shards: usize,
}

impl Mailbox {
    pub(crate) fn new(shard: usize, shards: usize, len_max: usize) -> Self {
        Self { waiting: VecDeque::new(), len_max, shard, shards }
    }

    /// Sends a message to one shard.
    pub(crate) fn send(&mut self, shard: usize, mail: Mail) -> Verdict {
        if self.waiting.len() >= self.len_max {
            return Verdict::Dropped(DropReason::MailboxFull);
        }
        self.waiting.push_back((shard, mail));
        Verdict::Forwarded
    }

    /// Sends a frame to all shards but this one. Returns how many of them do not get it, for want of room.
    pub(crate) fn send_to_others(&mut self, frame: &[u8]) -> usize {
        let own = self.shard;
        let others = (0..self.shards).filter(|&shard| shard != own);
        others.filter(|&shard| self.send(shard, Mail::Control(frame.to_vec())) != Verdict::Forwarded).count()
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The next message, and to whom it goes.
    pub(crate) fn take(&mut self) -> Option<(usize, Mail)> {
        self.waiting.pop_front()
    }
}
