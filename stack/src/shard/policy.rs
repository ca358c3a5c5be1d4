//! Who is asked whether somebody may listen, connect and be accepted: see [`policy`](crate::policy).
//!
//! What was allowed by the policy is marked where it is (listener, half-open connection, connection; sockets of UDP in a
//! list here), and the mark is taken when it ends: so the policy hears of each end once.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use smoltcp::time::Instant;

use super::{Shard, SocketId};
use crate::demux::FlowKey;
use crate::ingress::Verdict;
use crate::observe::DropReason;
use crate::policy::{Action, Attempt, AttemptKind, Denials, Policy, PolicyError, Protocol};
use crate::tcp::segment::Segment;

/// A policy, and what is known of its doings.
pub(crate) struct Policed {
    policy: Box<dyn Policy>,
    /// What is done when it fails.
    default: Action,
    denials: Denials,
    /// What it has allowed of UDP. As many as there are sockets, at most.
    udp: HashMap<SocketId, AllowedUdp>,
}

/// Where a socket is, and where it is connected from and to.
#[derive(Debug, Clone, Copy, Default)]
struct AllowedUdp {
    bound: Option<SocketAddr>,
    connected: Option<(SocketAddr, SocketAddr)>,
}

impl fmt::Debug for Policed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policed").field("default", &self.default).finish_non_exhaustive()
    }
}

impl Policed {
    fn ended(&mut self, now: Instant, attempt: &Attempt) -> Result<(), Panicked> {
        let policy = AssertUnwindSafe(&mut self.policy);
        catch_unwind(|| { policy }.ended(now, attempt)).map_err(|_| Panicked)
    }
}

/// A policy has panicked; what it said, the hook for panics has printed.
struct Panicked;

impl Shard {
    /// From now on `policy` decides who may listen, connect and be accepted; and `default` applies when it cannot. A
    /// policy that was there before is told that all it has allowed has ended. What exists already, stays, and the new
    /// policy hears nothing of it.
    ///
    /// ```
    /// use wirestack::policy::{Action, Attempt, AttemptKind};
    /// use wirestack::shard::{Shard, ShardConfig, TcpListen};
    /// use wirestack::EthernetAddress;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// let config = ShardConfig::new(EthernetAddress([2, 0, 0, 0, 0, 1]));
    /// let mut shard = Shard::new(config, wirestack::nic::wait::now())?;
    /// let only_http = |_now, attempt: &Attempt| match attempt.kind {
    ///     AttemptKind::Listen if attempt.local.port() == 80 => Ok(Action::Allow),
    ///     AttemptKind::Accept => Ok(Action::Allow),
    ///     _ => Ok(Action::Reject),
    /// };
    /// shard.set_policy(Box::new(only_http), Action::Deny);
    /// assert!(shard.tcp_listen(TcpListen::new("0.0.0.0:80".parse()?)).is_ok());
    /// assert!(shard.tcp_listen(TcpListen::new("0.0.0.0:22".parse()?)).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_policy(&mut self, policy: Box<dyn Policy>, default: Action) {
        self.clear_policy();
        let (denials, udp) = (Denials::default(), HashMap::new());
        self.policy = Some(Box::new(Policed { policy, default, denials, udp }));
    }

    /// From now on everything is allowed. The policy that was there is told that all it has allowed has ended. It walks
    /// all connections.
    pub fn clear_policy(&mut self) {
        if self.policy.is_none() {
            return;
        }
        let mut over = Vec::new();
        for (_, connection) in &mut self.tcp.connections {
            over.extend(connection.policed.take().map(|kind| (kind, connection.tcb.flow)));
        }
        let half_opens = &mut self.tcp.half_opens;
        over.extend(half_opens.take_policed().into_iter().map(|flow| (AttemptKind::Accept, flow)));
        for (kind, flow) in over {
            self.tell_flow_ended(Some(kind), &flow);
        }
        let listeners = self.tcp.listeners.values_mut();
        let policed = listeners.filter_map(|listening| {
            std::mem::take(&mut listening.is_policed).then_some(listening.listener.local)
        });
        for local in policed.collect::<Vec<_>>() {
            self.tell_ended(AttemptKind::Listen, Protocol::Tcp, local, None);
        }
        let sockets = self.policy.iter().flat_map(|policed| policed.udp.keys().copied());
        for id in sockets.collect::<Vec<_>>() {
            self.forget_udp(id);
        }
        self.policy = None;
    }

    /// Whether an attempt may go on. True: the policy is to be told its end.
    #[inline]
    pub(super) fn admit(
        &mut self,
        kind: AttemptKind,
        protocol: Protocol,
        local: SocketAddr,
        remote: Option<SocketAddr>,
    ) -> Result<bool, Action> {
        match self.policy {
            Some(_) => self.ask(&Attempt { kind, protocol, local, remote }),
            None => Ok(false),
        }
    }

    /// The same of a peer, by what it has sent: a SYN, or an ACK that brings a cookie back.
    #[inline]
    pub(super) fn admit_peer(&mut self, flow: &FlowKey, segment: &Segment<'_>) -> Result<bool, Verdict> {
        if self.policy.is_none() {
            return Ok(false);
        }
        let (local, remote) = (flow.local(), Some(flow.remote()));
        self.admit(AttemptKind::Accept, Protocol::Tcp, local, remote).map_err(|action| {
            if action == Action::Reject {
                self.refuse_segment(flow, segment);
            }
            Verdict::Dropped(DropReason::TcpForbidden)
        })
    }

    #[cold]
    fn ask(&mut self, attempt: &Attempt) -> Result<bool, Action> {
        let Some(policed) = &mut self.policy else { return Ok(false) };
        let now = self.now;
        let policy = AssertUnwindSafe(&mut policed.policy);
        let decided = catch_unwind(|| { policy }.decide(now, attempt));
        let decided = decided.unwrap_or_else(|_| Err(PolicyError::new("it has panicked")));
        let (action, line) = match decided {
            Ok(Action::Allow) => return Ok(true),
            Ok(action) => (action, policed.denials.on_denied(now, attempt, action)),
            Err(PolicyError { reason }) => {
                self.counters.policy_failed += 1;
                let default = policed.default;
                (default, policed.denials.on_failure(now, attempt, &reason, default))
            }
        };
        if let Some(line) = line {
            log::warn!("{line}");
        }
        if action == Action::Allow {
            // By default: the policy does not know of it.
            return Ok(false);
        }
        match attempt.kind {
            AttemptKind::Listen => self.counters.policy_listens_denied += 1,
            AttemptKind::Connect => self.counters.policy_connects_denied += 1,
            AttemptKind::Accept => self.counters.policy_accepts_denied += 1,
        }
        Err(action)
    }

    /// What the policy has allowed is over.
    pub(super) fn tell_ended(
        &mut self,
        kind: AttemptKind,
        protocol: Protocol,
        local: SocketAddr,
        remote: Option<SocketAddr>,
    ) {
        let Some(policed) = &mut self.policy else { return };
        let attempt = Attempt { kind, protocol, local, remote };
        if let Err(Panicked) = policed.ended(self.now, &attempt) {
            self.counters.policy_failed += 1;
        }
    }

    /// The same of a flow of TCP; `None`: no policy has allowed it.
    #[inline]
    pub(super) fn tell_flow_ended(&mut self, policed: Option<AttemptKind>, flow: &FlowKey) {
        if let Some(kind) = policed {
            self.tell_ended(kind, Protocol::Tcp, flow.local(), Some(flow.remote()));
        }
    }

    /// A socket of UDP was allowed to be at `local`, or to be connected to `remote` from there.
    pub(super) fn note_udp(&mut self, id: SocketId, local: SocketAddr, remote: Option<SocketAddr>) {
        let Some(policed) = &mut self.policy else { return };
        let allowed = policed.udp.entry(id).or_default();
        match remote {
            Some(remote) => allowed.connected = Some((local, remote)),
            None => allowed.bound = Some(local),
        }
    }

    /// It is connected no more.
    pub(super) fn forget_udp_connection(&mut self, id: SocketId) {
        let Some(policed) = &mut self.policy else { return };
        let connected = policed.udp.get_mut(&id).and_then(|allowed| allowed.connected.take());
        if let Some((local, remote)) = connected {
            self.tell_ended(AttemptKind::Connect, Protocol::Udp, local, Some(remote));
        }
    }

    /// It is closed.
    pub(super) fn forget_udp(&mut self, id: SocketId) {
        self.forget_udp_connection(id);
        let Some(policed) = &mut self.policy else { return };
        if let Some(local) = policed.udp.remove(&id).and_then(|allowed| allowed.bound) {
            self.tell_ended(AttemptKind::Listen, Protocol::Udp, local, None);
        }
    }
}
