//! The host's side of one protocol: IGMP for the groups of IPv4, MLD for those of IPv6. They are the same
//! but for the formats (RFC 3810 section 1).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::time::{Duration, Instant};

use super::filter::Filter;
use super::group::{Change, Group};
use super::message::{self, Message, Query, Record};
use super::{JoinError, MembershipLimits, Outbox, Version};
use crate::random::Random;

/// Groups and timers of one protocol.
#[derive(Debug)]
pub(super) struct Machine {
    is_v4: bool,
    groups: BTreeMap<IpAddr, Group>,
    /// Pairs of a socket and a group.
    pub(super) memberships: usize,
    pub(super) robustness: u8,
    pub(super) query_interval: Duration,
    pub(super) response_interval: Duration,
    /// Until when routers of IGMPv1, and of IGMPv2 or MLDv1, are taken to be there.
    pub(super) oldest_until: Option<Instant>,
    pub(super) older_until: Option<Instant>,
    /// When a query about all groups is to be answered.
    general: Option<Instant>,
}

impl Machine {
    pub(super) fn new(is_v4: bool) -> Self {
        Self {
            is_v4,
            groups: BTreeMap::new(),
            memberships: 0,
            robustness: ROBUSTNESS,
            query_interval: QUERY_INTERVAL,
            response_interval: RESPONSE_INTERVAL,
            oldest_until: None,
            older_until: None,
            general: None,
        }
    }

    /// Which version routers are to hear.
    pub(super) fn version(&self) -> Version {
        match (self.is_v4, self.oldest_until, self.older_until) {
            (true, Some(_), _) => Version::Igmpv1,
            (true, None, Some(_)) => Version::Igmpv2,
            (true, None, None) => Version::Igmpv3,
            (false, _, Some(_)) => Version::Mldv1,
            (false, _, None) => Version::Mldv2,
        }
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (IpAddr, &Group)> {
        self.groups
            .iter()
            .map(|(&group, state)| (group, state))
            .filter(|(_, state)| !state.sockets.is_empty())
    }

    pub(super) fn group(&self, group: IpAddr) -> Option<&Group> {
        self.groups.get(&group).filter(|state| !state.sockets.is_empty())
    }

    /// Sets what a socket wants of a group. `true`: nobody was in the group before.
    pub(super) fn set(
        &mut self,
        now: Instant,
        (socket, group): (u32, IpAddr),
        filter: Filter,
        limits: &MembershipLimits,
    ) -> Result<bool, JoinError> {
        self.check_room((socket, group), &filter, limits)?;
        let state = self.groups.entry(group).or_insert_with(Group::new);
        let is_first = state.sockets.is_empty();
        if state.sockets.insert(socket, filter).is_none() {
            self.memberships += 1;
        }
        self.on_change(now, group, limits, None);
        Ok(is_first)
    }

    /// Forgets what a socket wants of a group; `None`: it wanted nothing. `true`: nobody is left.
    pub(super) fn unset(
        &mut self,
        now: Instant,
        (socket, group): (u32, IpAddr),
        limits: &MembershipLimits,
        outbox: &mut Outbox,
    ) -> Option<bool> {
        let state = self.groups.get_mut(&group)?;
        state.sockets.remove(&socket)?;
        let is_last = state.sockets.is_empty();
        self.memberships -= 1;
        self.on_change(now, group, limits, Some(outbox));
        Some(is_last)
    }

    fn check_room(
        &mut self,
        (socket, group): (u32, IpAddr),
        filter: &Filter,
        limits: &MembershipLimits,
    ) -> Result<(), JoinError> {
        let known = self.groups.get(&group);
        if known.is_none_or(|state| !state.sockets.contains_key(&socket))
            && self.memberships >= limits.memberships_max
        {
            return Err(JoinError::TooManyMemberships { max: limits.memberships_max });
        }
        // As if all sockets were of mode INCLUDE: then the list stays short when others leave.
        let others = known.into_iter().flat_map(|state| state.sockets.iter());
        let others = others.filter(|&(&other, filter)| other != socket && filter.mode == INCLUDE);
        let included = Filter::merge(others.map(|(_, filter)| filter).chain(std::iter::once(filter)));
        if filter.sources.len() > limits.sources_max || included.sources.len() > limits.sources_max {
            return Err(JoinError::TooManySources { max: limits.sources_max });
        }
        if known.is_none() && self.groups.len() >= limits.groups_max {
            // One that nobody is in any more: routers were told at least once, or ask again.
            let left = self.groups.iter().find(|(_, state)| state.sockets.is_empty()).map(|(&left, _)| left);
            let Some(left) = left else { return Err(JoinError::TooManyGroups { max: limits.groups_max }) };
            self.groups.remove(&left);
        }
        Ok(())
    }

    /// The sockets of a group have changed; `outbox` where one has gone.
    fn on_change(
        &mut self,
        now: Instant,
        group: IpAddr,
        limits: &MembershipLimits,
        outbox: Option<&mut Outbox>,
    ) {
        let version = self.version();
        let Entry::Occupied(mut entry) = self.groups.entry(group) else { return };
        let state = entry.get_mut();
        let merged = Filter::merge(state.sockets.values());
        let old = std::mem::replace(&mut state.merged, merged);
        let is_gone = state.merged.is_none();
        if !is_reported(group) {
            if is_gone {
                entry.remove();
            }
            return;
        }
        if version.is_current() {
            state.note_change(&old, now, self.robustness, limits.sources_max);
            if is_gone && state.change.at.is_none() {
                entry.remove();
            }
        } else if is_gone {
            //= rfc2236#3
            //# When a host leaves a multicast group, if it was the last host to reply to a Query with a
            //# Membership Report for that group, it SHOULD send a Leave Group message
            let says_so = state.is_last_reporter && version != Version::Igmpv1;
            if let (true, Some(outbox)) = (says_so, outbox) {
                outbox.push(message::leave(group));
            }
            entry.remove();
        } else if old.is_none() {
            state.change = Change { at: Some(now), mode_left: self.robustness, ..Change::default() };
        }
    }

    /// The link has come back, and may be another one: all that is known of routers is forgotten, and they
    /// are told of all groups.
    pub(super) fn restart(&mut self, now: Instant) {
        let groups = std::mem::take(&mut self.groups);
        let memberships = self.memberships;
        *self = Self { memberships, ..Self::new(self.is_v4) };
        self.groups = groups;
        self.cancel();
        for (&group, state) in &mut self.groups {
            if is_reported(group) {
                // The whole state, whatever was told before.
                state.change = Change { at: Some(now), mode_left: self.robustness, ..Change::default() };
            }
        }
    }

    pub(super) fn handle(
        &mut self,
        now: Instant,
        message: Message,
        limits: &MembershipLimits,
        random: &mut Random,
    ) {
        match message {
            Message::Query(query) => self.on_query(now, query, limits, random),
            Message::Report(group) => self.on_report(group),
        }
    }

    /// Somebody else has said that there are members: that is enough for routers of older versions.
    fn on_report(&mut self, group: IpAddr) {
        if self.version().is_current() {
            return;
        }
        let Some(state) = self.groups.get_mut(&group) else { return };
        //= rfc2236#3
        //# If the host receives another host's Report (version 1 or 2) while it has a timer running, it stops
        //# its timer for the specified group and does not send a Report
        if state.deadline().is_some() {
            state.response = None;
            state.change = Change::default();
            state.is_last_reporter = false;
        }
    }

    fn on_query(&mut self, now: Instant, query: Query, limits: &MembershipLimits, random: &mut Random) {
        if query.version.is_current() {
            self.robustness = query.robustness.unwrap_or(ROBUSTNESS);
            self.query_interval = query.interval.unwrap_or(QUERY_INTERVAL);
        }
        if query.group.is_none() {
            self.response_interval = query.max_response;
        }
        let before = self.version();
        //= rfc3376#8.12
        //# This value MUST be ((the Robustness Variable) times (the Query Interval in the last Query received))
        //# plus (one Query Response Interval).
        let timeout = self.query_interval * u32::from(self.robustness) + self.response_interval;
        match query.version {
            Version::Igmpv1 => self.oldest_until = Some(now + timeout),
            // Of IGMPv2, only a query about all groups tells who the querier is (RFC 3376 section 7.2.1).
            Version::Igmpv2 if query.group.is_some() => {}
            Version::Igmpv2 | Version::Mldv1 => self.older_until = Some(now + timeout),
            Version::Igmpv3 | Version::Mldv2 => {}
        }
        self.on_version(before);

        let is_current = self.version().is_current();
        match query.group {
            None if is_current => {
                //= rfc3376#5.2
                //# If there is a pending response to a previous General Query scheduled sooner than the
                //# selected delay, no additional response needs to be scheduled.
                let at = now + delay(query.max_response, random);
                self.general = Some(self.general.map_or(at, |pending| pending.min(at)));
            }
            None => {
                for (&group, state) in &mut self.groups {
                    if is_reported(group) {
                        delay_report(state, now, query.max_response, random);
                    }
                }
            }
            Some(group) => {
                let Some(state) = self.groups.get_mut(&group).filter(|_| is_reported(group)) else { return };
                if is_current {
                    let at = now + delay(query.max_response, random);
                    state.note_query(at, query.sources, limits.sources_max);
                } else {
                    delay_report(state, now, query.max_response, random);
                }
            }
        }
    }

    fn on_version(&mut self, before: Version) {
        if self.version() != before {
            log::debug!("groups: {before:?} becomes {:?}", self.version());
            self.cancel();
        }
    }

    //= rfc3376#7.2.1
    //# Whenever a host changes its compatibility mode, it cancels all its pending response and retransmission
    //# timers.
    fn cancel(&mut self) {
        self.general = None;
        self.groups.retain(|_, state| {
            state.response = None;
            state.change = Change::default();
            !state.sockets.is_empty()
        });
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let own = [self.general, self.oldest_until, self.older_until];
        own.into_iter().flatten().chain(self.groups.values().filter_map(Group::deadline)).min()
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        mtu: u16,
        random: &mut Random,
        outbox: &mut Outbox,
    ) {
        let is_due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        let before = self.version();
        is_due(&mut self.oldest_until);
        is_due(&mut self.older_until);
        self.on_version(before);
        let version = self.version();
        if !version.is_current() {
            return self.send_older(now, version, random, outbox);
        }
        let mut current = Vec::new();
        let mut changes = Vec::new();
        let is_general = is_due(&mut self.general);
        for (&group, state) in &mut self.groups {
            let response = state.response.take_if(|response| response.at <= now);
            if is_general && is_reported(group) {
                current.extend(state.current(group));
            } else if let Some(response) = response {
                current.extend(state.answer(group, &response.sources));
            }
            if is_due(&mut state.change.at) {
                let next = now + delay(UNSOLICITED_INTERVAL, random);
                state.take_change(group, next, &mut changes);
            }
            state.is_last_reporter = true;
        }
        self.groups.retain(|_, state| !state.sockets.is_empty() || state.change.at.is_some());
        Self::send(&current, mtu, outbox);
        Self::send(&changes, mtu, outbox);
    }

    fn send(records: &[Record], mtu: u16, outbox: &mut Outbox) {
        message::reports(records, mtu, |report| outbox.push(report));
    }

    fn send_older(&mut self, now: Instant, version: Version, random: &mut Random, outbox: &mut Outbox) {
        for (&group, state) in &mut self.groups {
            let is_asked = state.response.take_if(|response| response.at <= now).is_some();
            let is_change = state.change.at.take_if(|at| *at <= now).is_some();
            if is_change {
                state.change.mode_left = state.change.mode_left.saturating_sub(1);
                let next = now + delay(OLDER_UNSOLICITED_INTERVAL, random);
                state.change.at = (state.change.mode_left > 0).then_some(next);
            }
            if is_asked || is_change {
                state.is_last_reporter = true;
                outbox.push(message::older_report(version, group));
            }
        }
    }
}

/// A group is never told of where everybody is in it, or where it does not leave the node.
fn is_reported(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group != ALL_SYSTEMS,
        IpAddr::V6(group) => group != ALL_NODES && group.octets()[1] & 0x0f > 1,
    }
}

fn delay_report(state: &mut Group, now: Instant, max: Duration, random: &mut Random) {
    // A timer that runs is kept unless what is left of it is more than the router grants (RFC 2236
    // section 3).
    if state.response.as_ref().is_none_or(|pending| pending.at > now + max) {
        state.response = None;
        state.note_query(now + delay(max, random), Default::default(), 0);
    }
}

/// A random time of up to `max`, and more than none if there is any.
fn delay(max: Duration, random: &mut Random) -> Duration {
    match max.total_micros() {
        0 => Duration::ZERO,
        micros => Duration::from_micros(1 + random.u64() % micros),
    }
}

const INCLUDE: super::FilterMode = super::FilterMode::Include;
/// The group of all hosts, of which everybody is a member.
pub(super) const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// The same of IPv6.
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Defaults of the RFCs, until a router says otherwise (RFC 3376 section 8, RFC 3810 section 9).
const ROBUSTNESS: u8 = 2;
const QUERY_INTERVAL: Duration = Duration::from_secs(125);
const RESPONSE_INTERVAL: Duration = Duration::from_secs(10);
/// Within which a change is told again (RFC 3376 section 8.11, RFC 3810 section 9.11).
const UNSOLICITED_INTERVAL: Duration = Duration::from_secs(1);
/// The same in older versions (RFC 2236 section 8.10, RFC 2710 section 7.10).
const OLDER_UNSOLICITED_INTERVAL: Duration = Duration::from_secs(10);
