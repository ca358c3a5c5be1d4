//! Bounds and times of the neighbour table.

use smoltcp::time::Duration;

/// Bounds and times of a [`Table`](super::Table). The times are those of RFC 4861 section 10 unless said
/// otherwise; ARP uses them as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighborConfig {
    /// Neighbours of both families at most, static ones included. An entry takes about 200 bytes.
    pub entries_max: usize,
    /// Neighbours being resolved at the same time, at most. Less than `entries_max`, so that a scan of the
    /// link leaves room for those who are there.
    pub incomplete_max: usize,
    /// Frames that wait for one neighbour, at most: as many as the fragments of the longest datagram.
    pub parked_frames_max: usize,
    /// What the frames that wait for one neighbour take, at most. A super-frame of 64 KB fits by default.
    pub parked_bytes_max: usize,
    /// What all waiting frames take, at most, those included that were released and not yet fetched.
    pub parked_total_bytes_max: usize,
    /// Requests, probes and announcements that were not yet fetched, at most; more are sent later.
    pub requests_queued_max: usize,
    /// Answers that were not yet fetched, at most; more are dropped and counted. So this is the bound of
    /// answers in a turn.
    pub answers_queued_max: usize,
    /// Timers that fire in one call, at most; the others fire in the next one.
    pub timeouts_per_call_max: usize,
    /// BaseReachableTime, REACHABLE_TIME: how long, on average, a neighbour is thought to be there after a
    /// sign of it. The time in use is 0.5 to 1.5 of it, by chance.
    pub base_reachable_time: Duration,
    /// RetransTimer, RETRANS_TIMER: from one request to the next one.
    pub retrans_timer: Duration,
    /// DELAY_FIRST_PROBE_TIME: how long upper layers have to say that the neighbour is there.
    pub delay_first_probe_time: Duration,
    /// MAX_MULTICAST_SOLICIT: requests to all before a neighbour is given up.
    pub multicast_solicit_max: u8,
    /// MAX_UNICAST_SOLICIT: requests to the known hardware address before it is forgotten.
    pub unicast_solicit_max: u8,
    /// How long a neighbour that did not answer is not asked again. RFC 4861 leaves it open.
    pub negative_lifetime: Duration,
    /// How long a hardware address that was learned by ARP cannot be changed by ARP: of two answers the first
    /// one counts. `locktime` of arp(7).
    pub lock_time: Duration,
    /// How our own addresses are probed before they are used.
    pub probes: AddressProbes,
    /// What is done when somebody else uses an IPv4 address of ours.
    pub defence: AddressDefence,
    /// DupAddrDetectTransmits of RFC 4862 section 5.1: probes for an IPv6 address; 0 for none.
    pub dup_addr_detect_transmits: u8,
}

impl Default for NeighborConfig {
    fn default() -> Self {
        Self {
            entries_max: 16_384,
            incomplete_max: 12_288,
            parked_frames_max: 64,
            parked_bytes_max: 128 * 1024,
            parked_total_bytes_max: 8 * 1024 * 1024,
            requests_queued_max: 1024,
            answers_queued_max: 256,
            timeouts_per_call_max: 1024,
            base_reachable_time: Duration::from_secs(30),
            retrans_timer: Duration::from_secs(1),
            delay_first_probe_time: Duration::from_secs(5),
            multicast_solicit_max: 3,
            unicast_solicit_max: 3,
            negative_lifetime: Duration::from_secs(3),
            lock_time: Duration::from_secs(1),
            probes: AddressProbes::Full,
            defence: AddressDefence::Once,
            dup_addr_detect_transmits: 1,
        }
    }
}

/// How an address of ours is probed before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressProbes {
    /// As RFC 5227 section 2.1.1 (4 to 7 seconds) and RFC 4862 section 5.4 (1 to 2 seconds) say.
    Full,
    /// One probe at once; ready after 200 ms without an answer.
    Quick,
    /// Ready at once: somebody else makes sure that it is ours.
    None,
}

/// What is done when somebody else uses an IPv4 address of ours (RFC 5227 section 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressDefence {
    /// (a): the address is given up at once.
    GiveUp,
    /// (b): the address is defended once in ten seconds, and given up if that does not help.
    Once,
    /// (c): the address is defended once in ten seconds, and never given up.
    Always,
}
