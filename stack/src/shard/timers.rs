//! What is due, and when something will be. Each part keeps its own deadlines; here they meet.

use smoltcp::time::Instant;

use super::Shard;

impl Shard {
    /// When something is to be done if nothing comes. `None`: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        [
            self.neighbors.next_deadline(),
            self.reassembly.next_deadline(),
            self.membership.next_deadline(),
            self.routes.next_deadline(),
            self.path_mtu.next_deadline(),
            self.slaac.as_ref().and_then(|slaac| slaac.next_deadline()),
            self.dhcp.as_ref().and_then(|dhcp| dhcp.next_deadline()),
            self.dhcp6.as_ref().and_then(|dhcp6| dhcp6.next_deadline()),
            self.dns.next_deadline(),
            self.next_address_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due. Each part bounds what it does at once; the rest stays due.
    pub(crate) fn fire_timers(&mut self) {
        let now = self.now;
        if self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.neighbors.handle_timeout(now);
            self.routes.handle_timeout(now);
            self.path_mtu.handle_timeout(now);
            self.membership.handle_timeout(now);
            self.handle_service_timeouts();
            self.expire_addresses();
        }
        // Joining a group or asking for a name between turns has made something to be sent as well.
        self.drain_neighbors();
        self.drain_reassembly();
        self.drain_membership();
        self.drain_services();
    }
}
