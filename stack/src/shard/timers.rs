//! What is due, and when something will be. Each part keeps its own deadlines; here they meet.

use smoltcp::time::Instant;

use super::Shard;

impl Shard {
    /// When something is to be done if nothing comes. `None`: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        // Asked twice a turn: an iterator over these takes ten times as many instructions.
        let mut next = self.next_address_deadline();
        sooner(&mut next, self.tcp.next_deadline());
        sooner(&mut next, self.neighbors.next_deadline());
        sooner(&mut next, self.reassembly.next_deadline());
        sooner(&mut next, self.membership.next_deadline());
        sooner(&mut next, self.routes.next_deadline());
        sooner(&mut next, self.path_mtu.next_deadline());
        sooner(&mut next, self.dns.next_deadline());
        if let Some(slaac) = &self.slaac {
            sooner(&mut next, slaac.next_deadline());
        }
        if let Some(dhcp) = &self.dhcp {
            sooner(&mut next, dhcp.next_deadline());
        }
        if let Some(dhcp6) = &self.dhcp6 {
            sooner(&mut next, dhcp6.next_deadline());
        }
        next
    }

    /// Does what is due. Each part bounds what it does at once; the rest stays due.
    pub(crate) fn fire_timers(&mut self) {
        let now = self.now;
        if self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.fire_tcp_timers();
            self.neighbors.handle_timeout(now);
            self.routes.handle_timeout(now);
            self.path_mtu.handle_timeout(now);
            self.membership.handle_timeout(now);
            self.handle_service_timeouts();
            self.expire_addresses();
        }
        // No timer tells of memory that was given back.
        self.wake_starved();
        // Joining a group or asking for a name between turns has made something to be sent as well.
        self.drain_neighbors();
        self.drain_reassembly();
        self.drain_membership();
        self.drain_services();
    }
}

/// Takes a deadline if it comes before the one that is known.
#[inline]
pub(super) fn sooner(next: &mut Option<Instant>, other: Option<Instant>) {
    if let Some(at) = other
        && next.is_none_or(|next| at < next)
    {
        *next = other;
    }
}
