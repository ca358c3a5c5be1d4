//! What shards tell each other. A shard is reached from another thread through this and nothing else.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::dhcp::v4::{Lease, LostReason};
use crate::ingress::Verdict;
use crate::observe::DropReason;

/// A message to another shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mail {
    /// A whole IP packet for that shard: of a flow of its, put together from fragments here, or for a client that only the
    /// first shard has.
    Packet(Vec<u8>),
    /// A frame about the link (ARP, NDP, IGMP, MLD), from which every shard learns and which one has answered.
    Control(Vec<u8>),
    /// What a client of the first shard has learned.
    Learned(Box<Learned>),
}

/// What clients that only the first shard has tell the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learned {
    /// A lease, or the same one for a longer time.
    Lease(Lease),
    /// It has ended.
    LeaseLost {
        /// The address that is not ours any more.
        address: Ipv4Addr,
        /// Why.
        reason: LostReason,
    },
    /// What DHCPv6 has told of name servers.
    Dhcp6 {
        /// They.
        servers: Vec<Ipv6Addr>,
        /// Domains to search.
        search: Vec<String>,
    },
}

impl Mail {
    /// How many messages may wait before this one is lost, where that is `len_max` for those that peers cause. What was
    /// learned is little, and nobody says it twice.
    pub(crate) fn len_max(&self, len_max: usize) -> usize {
        match self {
            Self::Packet(_) | Self::Control(_) => len_max,
            Self::Learned(_) => len_max.saturating_add(LEARNED_MAX),
        }
    }
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
        if self.waiting.len() >= mail.len_max(self.len_max) {
            return Verdict::Dropped(DropReason::MailboxFull);
        }
        self.waiting.push_back((shard, mail));
        Verdict::Forwarded
    }

    /// Sends a frame to all shards but this one. Returns how many of them do not get it, for want of room.
    pub(crate) fn send_to_others(&mut self, frame: &[u8]) -> usize {
        self.send_all(|| Mail::Control(frame.to_vec()))
    }

    /// The same of what was learned.
    pub(crate) fn tell_others(&mut self, learned: &Learned) -> usize {
        self.send_all(|| Mail::Learned(Box::new(learned.clone())))
    }

    fn send_all(&mut self, mail: impl Fn() -> Mail) -> usize {
        let own = self.shard;
        let others = (0..self.shards).filter(|&shard| shard != own);
        others.filter(|&shard| self.send(shard, mail()) != Verdict::Forwarded).count()
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

/// Messages about what was learned, beyond those that may wait otherwise.
const LEARNED_MAX: usize = 64;
