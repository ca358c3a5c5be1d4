//! Which groups a socket has joined, and from whom it wants what is sent there (RFC 3376 section 2,
//! RFC 3810 section 2). What the interface tells the routers is the sum of all sockets, and not here.

use std::net::IpAddr;

/// How the list of sources of a [`Membership`] is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterMode {
    /// Only from these.
    Include,
    /// From all but these.
    Exclude,
}

/// A group that a socket has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: IpAddr,
    /// How `sources` is meant.
    pub mode: FilterMode,
    /// At most [`SOURCES_MAX`].
    pub sources: Vec<IpAddr>,
}

impl Membership {
    /// Whether a datagram from `source` to the group is wanted.
    pub fn wants(&self, source: IpAddr) -> bool {
        self.sources.contains(&source) == (self.mode == FilterMode::Include)
    }
}

/// Why a membership was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// The address is no group.
    #[error("{address} is not a multicast address")]
    NotAGroup {
        /// As asked for.
        address: IpAddr,
    },
    /// A source that is a group, or of the other IP version.
    #[error("{source_address} cannot be a source for the group")]
    BadSource {
        /// As asked for.
        source_address: IpAddr,
    },
    /// The socket is in it already, in this way.
    #[error("already a member")]
    AlreadyMember,
    /// The socket is not in it, or not in this way.
    #[error("not a member")]
    NotAMember,
    /// The other mode: sources are blocked of a group joined as a whole, joined of one joined by source.
    #[error("the group was joined in the other mode")]
    OtherMode,
    /// More than [`MEMBERSHIPS_MAX`] groups.
    #[error("{MEMBERSHIPS_MAX} groups are joined already, and no more are accepted")]
    TooManyGroups,
    /// More than [`SOURCES_MAX`] sources.
    #[error("{SOURCES_MAX} sources are listed already, and no more are accepted")]
    TooManySources,
}

impl From<MembershipError> for std::io::Error {
    fn from(error: MembershipError) -> Self {
        use std::io::ErrorKind;
        let kind = match error {
            MembershipError::NotAGroup { .. }
            | MembershipError::BadSource { .. }
            | MembershipError::OtherMode => ErrorKind::InvalidInput,
            MembershipError::AlreadyMember => ErrorKind::AddrInUse,
            MembershipError::NotAMember => ErrorKind::AddrNotAvailable,
            MembershipError::TooManyGroups | MembershipError::TooManySources => ErrorKind::QuotaExceeded,
        };
        Self::new(kind, error)
    }
}

/// All groups of a socket: few, so a list. Each change that succeeds is to be told to IGMP or MLD.
#[derive(Debug, Clone, Default)]
pub struct Memberships(Vec<Membership>);

impl Memberships {
    /// Joins a group, from whomever (IP_ADD_MEMBERSHIP).
    ///
    /// # Errors
    /// It is no group, is joined already, or there are too many.
    pub fn join(&mut self, group: IpAddr) -> Result<(), MembershipError> {
        if self.get(group).is_some() {
            return Err(MembershipError::AlreadyMember);
        }
        self.add(Membership { group, mode: FilterMode::Exclude, sources: Vec::new() })
    }

    /// Leaves a group, however it was joined (IP_DROP_MEMBERSHIP).
    ///
    /// # Errors
    /// [`MembershipError::NotAMember`].
    pub fn leave(&mut self, group: IpAddr) -> Result<(), MembershipError> {
        let position = self.0.iter().position(|membership| membership.group == group);
        self.0.swap_remove(position.ok_or(MembershipError::NotAMember)?);
        Ok(())
    }

    /// Joins a group from one source, beside those from which it is joined (IP_ADD_SOURCE_MEMBERSHIP).
    ///
    /// # Errors
    /// As for [`join`](Self::join); also if the group is joined as a whole.
    pub fn join_source(&mut self, group: IpAddr, source: IpAddr) -> Result<(), MembershipError> {
        check_source(group, source)?;
        match self.get_mut(group) {
            Some(membership) => add_source(membership, FilterMode::Include, source),
            None => self.add(Membership { group, mode: FilterMode::Include, sources: vec![source] }),
        }
    }

    /// Takes one source off (IP_DROP_SOURCE_MEMBERSHIP). Without the last one, the group is left.
    ///
    /// # Errors
    /// It was not joined in this way.
    pub fn leave_source(&mut self, group: IpAddr, source: IpAddr) -> Result<(), MembershipError> {
        let membership = self.get_mut(group).ok_or(MembershipError::NotAMember)?;
        remove_source(membership, FilterMode::Include, source)?;
        if membership.sources.is_empty() { self.leave(group) } else { Ok(()) }
    }

    /// Wants nothing any more from one source (IP_BLOCK_SOURCE).
    ///
    /// # Errors
    /// The group is not joined as a whole, or too many sources are blocked.
    pub fn block(&mut self, group: IpAddr, source: IpAddr) -> Result<(), MembershipError> {
        check_source(group, source)?;
        let membership = self.get_mut(group).ok_or(MembershipError::NotAMember)?;
        add_source(membership, FilterMode::Exclude, source)
    }

    /// Wants it again (IP_UNBLOCK_SOURCE).
    ///
    /// # Errors
    /// It was not blocked.
    pub fn unblock(&mut self, group: IpAddr, source: IpAddr) -> Result<(), MembershipError> {
        let membership = self.get_mut(group).ok_or(MembershipError::NotAMember)?;
        remove_source(membership, FilterMode::Exclude, source)
    }

    /// Whether a datagram from `source` to `group` is wanted. Of a group that the socket has not joined
    /// nothing is, whoever else has (IP_MULTICAST_ALL of the kernel switched off).
    pub fn wants(&self, group: IpAddr, source: IpAddr) -> bool {
        self.get(group).is_some_and(|membership| membership.wants(source))
    }

    /// What is known of a group.
    pub fn get(&self, group: IpAddr) -> Option<&Membership> {
        self.0.iter().find(|membership| membership.group == group)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Membership> {
        self.0.iter()
    }

    /// Undoes a change of one group.
    pub(crate) fn restore(&mut self, group: IpAddr, before: Option<Membership>) {
        self.0.retain(|membership| membership.group != group);
        self.0.extend(before);
    }

    fn get_mut(&mut self, group: IpAddr) -> Option<&mut Membership> {
        self.0.iter_mut().find(|membership| membership.group == group)
    }

    fn add(&mut self, membership: Membership) -> Result<(), MembershipError> {
        if !membership.group.is_multicast() {
            return Err(MembershipError::NotAGroup { address: membership.group });
        }
        if self.0.len() >= MEMBERSHIPS_MAX {
            return Err(MembershipError::TooManyGroups);
        }
        self.0.push(membership);
        Ok(())
    }
}

fn check_source(group: IpAddr, source: IpAddr) -> Result<(), MembershipError> {
    let is_possible =
        !source.is_multicast() && !source.is_unspecified() && source.is_ipv4() == group.is_ipv4();
    if is_possible { Ok(()) } else { Err(MembershipError::BadSource { source_address: source }) }
}

fn add_source(membership: &mut Membership, mode: FilterMode, source: IpAddr) -> Result<(), MembershipError> {
    if membership.mode != mode {
        return Err(MembershipError::OtherMode);
    }
    if membership.sources.contains(&source) {
        return Err(MembershipError::AlreadyMember);
    }
    if membership.sources.len() >= SOURCES_MAX {
        return Err(MembershipError::TooManySources);
    }
    membership.sources.push(source);
    Ok(())
}

fn remove_source(
    membership: &mut Membership,
    mode: FilterMode,
    source: IpAddr,
) -> Result<(), MembershipError> {
    if membership.mode != mode {
        return Err(MembershipError::OtherMode);
    }
    let position = membership.sources.iter().position(|&listed| listed == source);
    membership.sources.swap_remove(position.ok_or(MembershipError::NotAMember)?);
    Ok(())
}

/// Groups of one socket, at most.
pub const MEMBERSHIPS_MAX: usize = 64;
/// Sources of one membership, at most.
pub const SOURCES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn modes_do_not_mix() {
        let (group, a, b) = (ip("239.1.1.1"), ip("10.0.0.1"), ip("10.0.0.2"));
        let mut all = Memberships::default();
        assert!(!all.wants(group, a));
        assert_eq!(all.join(group), Ok(()));
        assert_eq!(all.join(group), Err(MembershipError::AlreadyMember));
        assert_eq!(all.join_source(group, a), Err(MembershipError::OtherMode));
        assert_eq!(all.block(group, a), Ok(()));
        assert_eq!((all.wants(group, a), all.wants(group, b)), (false, true));
        assert_eq!(all.unblock(group, b), Err(MembershipError::NotAMember));
        assert_eq!(all.unblock(group, a), Ok(()));
        assert!(all.wants(group, a));
        assert_eq!(all.leave_source(group, a), Err(MembershipError::OtherMode));
        assert_eq!(all.leave(group), Ok(()));
        assert_eq!(all.leave(group), Err(MembershipError::NotAMember));

        assert_eq!(all.join_source(group, a), Ok(()));
        assert_eq!((all.wants(group, a), all.wants(group, b)), (true, false));
        assert_eq!(all.block(group, b), Err(MembershipError::OtherMode));
        assert_eq!(all.leave_source(group, b), Err(MembershipError::NotAMember));
        assert_eq!(all.unblock(group, a), Err(MembershipError::OtherMode));
        assert_eq!(all.leave_source(group, a), Ok(()));
        assert_eq!(all.get(group), None, "without the last source the group is left");
    }

    #[test]
    fn what_cannot_be_is_refused_and_lists_end() {
        let mut all = Memberships::default();
        let group = ip("ff02::77");
        assert_eq!(all.join(ip("10.0.0.1")), Err(MembershipError::NotAGroup { address: ip("10.0.0.1") }));
        for source in [ip("10.0.0.1"), ip("ff02::1"), ip("::")] {
            let bad = Err(MembershipError::BadSource { source_address: source });
            assert_eq!(all.join_source(group, source), bad);
        }
        for index in 0..SOURCES_MAX {
            assert_eq!(all.join_source(group, ip(&format!("fd00::{index:x}"))), Ok(()));
        }
        assert_eq!(all.join_source(group, ip("fd01::1")), Err(MembershipError::TooManySources));
        for index in 1..MEMBERSHIPS_MAX {
            assert_eq!(all.join(ip(&format!("ff05::{index:x}"))), Ok(()));
        }
        assert_eq!(all.join(ip("ff08::1")), Err(MembershipError::TooManyGroups));
    }
}
