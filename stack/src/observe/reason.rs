//! Why something was thrown away: one enum is the index of the counter and the printed name, so a new
//! reason cannot lack either.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a frame, a packet or a message was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name of the counter.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// The frame ends before its link header does.
    LinkTruncated = "link_truncated",
    /// For another hardware address.
    LinkNotForUs = "link_not_for_us",
    /// For one host by its IP address, and for many by its hardware address (RFC 1122 section 3.3.6).
    LinkToMany = "link_to_many",
    /// An EtherType that we do not speak.
    LinkUnknownType = "link_unknown_type",
    /// A VLAN that is not ours, or more than two tags.
    LinkVlan = "link_vlan",
    /// From our own hardware address: a loop, or somebody who has taken it.
    LinkFromOurselves = "link_from_ourselves",
    /// The packet ends before its header, or before the length that the header tells.
    IpTruncated = "ip_truncated",
    /// A version, header length or total length that cannot be.
    IpMalformed = "ip_malformed",
    /// The checksum of the IPv4 header is wrong.
    IpChecksum = "ip_checksum",
    /// Options or extension headers that cannot be, or too many of them.
    IpOptions = "ip_options",
    /// A source route, which nobody follows any more (RFC 5095, RFC 7126).
    IpSourceRoute = "ip_source_route",
    /// A source that nobody can have: a group, broadcast, 127/8 or ::1 on a wire.
    IpMartianSource = "ip_martian_source",
    /// A destination that must not be on a wire: 127/8, ::1, 0.0.0.0, ::.
    IpMartianDestination = "ip_martian_destination",
    /// From an address of ours, and not from us.
    IpFromOurselves = "ip_from_ourselves",
    /// For an address that is not ours; we are no router.
    IpNotForUs = "ip_not_for_us",
    /// A protocol that nobody here speaks.
    IpUnknownProtocol = "ip_unknown_protocol",
    /// An extension header or option whose sender is told (RFC 8200 section 4.2).
    IpProblem = "ip_problem",
    /// A fragment that cannot be: past 64 KB, a length that is no multiple of 8.
    FragmentMalformed = "fragment_malformed",
    /// A fragment that overlaps another one: the whole datagram goes (RFC 5722, RFC 8200).
    FragmentOverlap = "fragment_overlap",
    /// A fragment for which there is no room, of one source or in total; or an older datagram, all fragments of
    /// it, that made room for another.
    FragmentNoRoom = "fragment_no_room",
    /// A datagram whose fragments did not all come in time.
    FragmentTimeout = "fragment_timeout",
    /// A first fragment without the whole header chain (RFC 7112).
    FragmentHeaders = "fragment_headers",
    /// An ARP message that cannot be, or a probe with nothing to learn from.
    ArpMalformed = "arp_malformed",
    /// An ARP message that is not about us.
    ArpNotForUs = "arp_not_for_us",
    /// An ARP answer for which nobody asked, about somebody we do not know.
    ArpUnsolicited = "arp_unsolicited",
    /// Somebody has our address (RFC 5227).
    ArpConflict = "arp_conflict",
    /// An NDP message that RFC 4861 tells to ignore: hop limit, length, options, addresses.
    NdpMalformed = "ndp_malformed",
    /// An NDP message that is not about us.
    NdpNotForUs = "ndp_not_for_us",
    /// A neighbour advertisement about somebody we do not know.
    NdpUnsolicited = "ndp_unsolicited",
    /// Somebody has our address (RFC 4862 section 5.4).
    NdpConflict = "ndp_conflict",
    /// A redirect that is not followed: that was not wanted, or its router or target is not the right one.
    RedirectIgnored = "redirect_ignored",
    /// A new neighbour for which there is no room.
    NeighborNoRoom = "neighbor_no_room",
    /// A packet that waited for a neighbour, thrown away for one that came later.
    NeighborQueueFull = "neighbor_queue_full",
    /// A packet that waited for a neighbour who did not answer.
    NeighborUnreachable = "neighbor_unreachable",
    /// An ICMP message that is too short, or whose checksum is wrong.
    IcmpMalformed = "icmp_malformed",
    /// The checksum of an ICMP message is wrong.
    IcmpChecksum = "icmp_checksum",
    /// An ICMP message that nobody here needs.
    IcmpIgnored = "icmp_ignored",
    /// An ICMP error about a packet that we cannot have sent (RFC 5927).
    IcmpSpoofed = "icmp_spoofed",
    /// An answer or error that was due and not sent, for there had been many.
    IcmpRateLimited = "icmp_rate_limited",
    /// An echo request to a group or broadcast address.
    IcmpEchoIgnored = "icmp_echo_ignored",
    /// A message about groups that RFC 3376 or RFC 3810 tell to ignore.
    GroupMalformed = "group_malformed",
    /// A message about groups that is for routers, or of an unknown type.
    GroupIgnored = "group_ignored",
    /// A datagram whose length cannot be.
    UdpMalformed = "udp_malformed",
    /// The checksum of a datagram is wrong, or absent over IPv6.
    UdpChecksum = "udp_checksum",
    /// A datagram for a port where nobody is.
    UdpNoSocket = "udp_no_socket",
    /// A datagram for a socket whose queue is full.
    UdpQueueFull = "udp_queue_full",
    /// A segment that cannot be.
    TcpMalformed = "tcp_malformed",
    /// The checksum of a segment is wrong.
    TcpChecksum = "tcp_checksum",
    /// A segment for whoever serves TCP, who is behind.
    TcpQueueFull = "tcp_queue_full",
    /// A connection for which its listener has no room, or a SYN for such a listener.
    TcpListenOverflow = "tcp_listen_overflow",
    /// A SYN while as many connections have begun as may.
    TcpSynQueueFull = "tcp_syn_queue_full",
    /// A segment outside the window.
    TcpOutOfWindow = "tcp_out_of_window",
    /// An acknowledgment of what was never sent, or too old to be true (RFC 5961 section 5).
    TcpBadAck = "tcp_bad_ack",
    /// A reset that is not where the connection is (RFC 5961 section 3).
    TcpBadReset = "tcp_bad_reset",
    /// A SYN for a connection that exists (RFC 5961 section 4).
    TcpSyn = "tcp_syn",
    /// A segment that is too old by its timestamp (RFC 7323 section 5).
    TcpPaws = "tcp_paws",
    /// Timestamps were agreed on, and it has none.
    TcpNoTimestamp = "tcp_no_timestamp",
    /// A segment that makes no sense in the state of the connection, such as one without ACK.
    TcpUnexpected = "tcp_unexpected",
    /// A segment while nobody serves TCP here.
    TcpNoSocket = "tcp_no_socket",
    /// A segment with control bits that do not go together.
    TcpBadFlags = "tcp_bad_flags",
    /// A segment without an acknowledgment where there has to be one.
    TcpNoAck = "tcp_no_ack",
    /// A segment for a connection that is over, with nothing that is to be answered; a reset among others
    /// (RFC 1337).
    TcpTimeWait = "tcp_time_wait",
    /// An answer that was due and not sent, for there had been one lately.
    TcpThrottled = "tcp_throttled",
    /// A connection that the policy of the application does not allow.
    TcpForbidden = "tcp_forbidden",
    /// A packet for a raw or ICMP socket whose queue is full.
    RawQueueFull = "raw_queue_full",
    /// A DHCP message that cannot be, or not for us.
    DhcpIgnored = "dhcp_ignored",
    /// A DNS message that cannot be, or that answers no question of ours.
    DnsIgnored = "dns_ignored",
    /// A router advertisement that cannot be.
    RouterAdvertisementMalformed = "router_advertisement_malformed",
    /// A router, a prefix, a route or a name server of an advertisement for which there is no room.
    RouterAdvertisementNoRoom = "router_advertisement_no_room",
    /// The way out is full.
    OutboxFull = "outbox_full",
    /// There is no route to the destination.
    NoRoute = "no_route",
    /// No address of ours can be the source.
    NoSource = "no_source",
    /// Longer than the path takes, and not to be fragmented.
    TooLong = "too_long",
    /// The mailbox of another shard is full.
    MailboxFull = "mailbox_full",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each [`DropReason`] occurred.
#[derive(Debug, Clone)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl Drops {
    /// Counts one.
    pub fn count(&mut self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts several.
    pub fn add(&mut self, reason: DropReason, count: u64) {
        self.0[reason as usize] += count;
    }

    /// Adds those of another shard.
    pub fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// How many there were.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// All counts by name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DropReason::ALL.iter().map(|&reason| (reason.name(), self.get(reason)))
    }
}
