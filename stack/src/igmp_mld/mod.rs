//! Membership in multicast groups: IGMP (RFC 2236, 3376) and MLD (RFC 2710, 3810).
