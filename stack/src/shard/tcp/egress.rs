//! Whoever has something to send, sends: from the send buffer straight into the memory of the device.

use smoltcp::wire::EthernetAddress;
use wirestack_nic::meta::{ChecksumState, Gso, GsoKind};
use wirestack_nic::{FrameMeta, Nic};

use crate::egress::PacketSpec;
use crate::egress::output::{Hop, LINK_HEADER_LEN, Path, ethertype, write_link};
use crate::ingress::input::TCP;
use crate::ip::header;
use crate::neighbor::Lookup;
use crate::observe::DropReason;
use crate::shard::Shard;
use crate::tcp::error::Failure;
use crate::tcp::output::{Limits, Plan};
use crate::tcp::segment::CHECKSUM_OFFSET;
use crate::tcp::tcb::Tcb;

/// What became of a frame.
enum Sent {
    /// It left, or is on its way to.
    Yes,
    /// The device has no room; it is planned again when there is.
    NoRoom,
    /// It cannot leave: it counts as sent and lost, so that a timer tries again.
    Lost(DropReason),
}

/// The way of a connection's segments, and whether they may be split on it.
pub(super) type Found = Result<(Path, bool), DropReason>;

/// What became of a plan.
pub(super) enum Outcome {
    /// It was carried out.
    Done,
    /// The device has no room for it.
    NoRoom,
    /// It could not be carried out, and the connection has ended with it.
    Over,
}

impl Shard {
    /// Sends what connections have, `frames_max` frames at most, in turn. `(more, refused)`: something is left, or the
    /// device has no room for it.
    ///
    /// A turn ends after some bytes, too: what lies between two kicks of the kernel stays in the cache, and the peer
    /// has something to do meanwhile.
    pub(crate) fn send_segments<N: Nic>(&mut self, nic: &mut N, frames_max: usize) -> (bool, bool) {
        let gso_max = self.gso_max(nic);
        let (mut frames, bytes_end) = (0, self.tcp.bytes_out + BYTES_PER_TURN);
        while frames < frames_max && self.tcp.bytes_out < bytes_end {
            let Some(index) = self.tcp.ready.pop_front() else { return (false, false) };
            let Some(connection) = self.tcp.connections.get_mut(index as usize) else { continue };
            connection.is_queued = false;
            let limits = self.limits_of(index, &gso_max);
            let bounds = (frames_max - frames, bytes_end);
            let (sent, refused) = self.send_for(nic, index, &limits, bounds);
            frames += sent;
            if refused {
                self.requeue(index, true);
                return (true, true);
            }
        }
        (self.tcp.has_ready(), false)
    }

    /// Bytes of IP packets that the device splits, IPv4 and IPv6.
    pub(super) fn gso_max<N: Nic>(&self, nic: &N) -> [u32; 2] {
        let offloads = nic.offloads();
        let link = self.link_header_len();
        let bytes = |max: Option<std::num::NonZeroUsize>| {
            max.map_or(0, |max| max.get().saturating_sub(link).min(u16::MAX.into()) as u32)
        };
        [bytes(offloads.gso_tcpv4), bytes(offloads.gso_tcpv6)]
    }

    pub(super) fn limits_of(&self, index: u32, gso_max: &[u32; 2]) -> Limits {
        self.limits_for(gso_max[usize::from(!connection_is_v4(self, index))])
    }

    pub(super) fn link_header_len(&self) -> usize {
        if self.medium == smoltcp::phy::Medium::Ip { 0 } else { LINK_HEADER_LEN }
    }

    fn requeue(&mut self, index: u32, is_front: bool) {
        let Some(connection) = self.tcp.connections.get_mut(index as usize) else { return };
        if std::mem::replace(&mut connection.is_queued, true) {
            return;
        }
        if is_front {
            self.tcp.ready.push_front(index);
        } else {
            self.tcp.ready.push_back(index);
        }
    }

    /// Sends for one connection, a bounded number of frames; it comes last again if it has more.
    fn send_for<N: Nic>(
        &mut self,
        nic: &mut N,
        index: u32,
        limits: &Limits,
        (frames_max, bytes_end): (usize, u64),
    ) -> (usize, bool) {
        let mut sent = 0;
        while sent < FRAMES_PER_VISIT.min(frames_max) && self.tcp.bytes_out < bytes_end {
            // The path was looked at for the frame before: whoever has nothing more is left alone.
            let has_more = sent == 0 || self.tcp.may_send(index);
            let Some((plan, found)) = has_more.then(|| self.plan_for(index, limits)).flatten() else {
                self.nothing_to_send(index);
                return (sent, false);
            };
            match self.send_plan(nic, index, &plan, found) {
                Outcome::NoRoom => return (sent, true),
                Outcome::Over => return (sent + 1, false),
                Outcome::Done => sent += 1,
            }
        }
        self.requeue(index, false);
        (sent, false)
    }

    /// Carries a plan out.
    pub(super) fn send_plan<N: Nic>(
        &mut self,
        nic: &mut N,
        index: u32,
        plan: &Plan,
        found: Found,
    ) -> Outcome {
        match self.transmit(nic, index, plan, found) {
            Sent::NoRoom => {
                if let Some(connection) = self.tcp.connections.get_mut(index as usize) {
                    connection.tcb.is_refused = true;
                }
                return Outcome::NoRoom;
            }
            Sent::Yes => {
                self.tcp.counters.frames_out += 1;
                self.tcp.bytes_out += plan.len as u64;
            }
            Sent::Lost(reason) => {
                self.count_drop(reason);
                if self.is_hopeless(index, reason) {
                    return Outcome::Over;
                }
            }
        }
        self.note_sent(index, plan);
        Outcome::Done
    }

    /// The path may have changed since the last frame; segments follow it.
    pub(super) fn plan_for(&mut self, index: u32, limits: &Limits) -> Option<(Plan, Found)> {
        let connection = self.tcp.connections.get(index as usize)?;
        let flow = connection.tcb.flow;
        let found = self.path_of_flow(flow.local().ip(), flow.remote().ip());
        let mtu = found.as_ref().map_or(self.mtu, |(path, _)| path.mtu).min(u16::MAX.into()) as u16;
        let (connection, cx) = self.tcp.with_cx(index, limits.now)?;
        connection.tcb.set_path_mtu(limits.now, mtu);
        // The path may have told that something is to be sent again.
        let plan = if connection.tcb.may_send() { connection.tcb.plan(limits, cx.pool) } else { None };
        plan.map(|plan| (plan, found))
    }

    fn note_sent(&mut self, index: u32, plan: &Plan) {
        if let Some((connection, mut cx)) = self.tcp.with_cx(index, self.now) {
            connection.tcb.on_sent(&mut cx, plan);
        }
    }

    pub(super) fn nothing_to_send(&mut self, index: u32) {
        let now = self.now;
        if let Some((connection, _)) = self.tcp.with_cx(index, now) {
            connection.tcb.on_nothing_to_send(now);
        }
        self.touch_timers(index);
    }

    /// A connection that cannot begin for want of a way is told at once; one that exists waits for better times.
    fn is_hopeless(&mut self, index: u32, reason: DropReason) -> bool {
        let Some(connection) = self.tcp.connections.get_mut(index as usize) else { return true };
        let failure = match reason {
            DropReason::NeighborUnreachable => Failure::HostUnreachable,
            DropReason::NoRoute => Failure::NetworkUnreachable,
            DropReason::NoSource => Failure::AddressGone,
            _ => return false,
        };
        connection.tcb.soft_error = Some(failure);
        let is_opening = connection.tcb.opening.is_some();
        if is_opening {
            self.fail_connection(index, failure);
        }
        is_opening
    }

    fn transmit<N: Nic>(&mut self, nic: &mut N, index: u32, plan: &Plan, found: Found) -> Sent {
        let Some(connection) = self.tcp.connections.get(index as usize) else { return Sent::NoRoom };
        let (local, remote) = (connection.tcb.local().ip(), connection.tcb.remote().ip());
        let ecn = if plan.is_ect { ECT_0 } else { 0 };
        let spec = PacketSpec {
            src: Some(local),
            hop_limit: connection.tcb.options.hop_limit,
            traffic_class: connection.tcb.options.traffic_class & !3 | ecn,
            discovers_path_mtu: true,
            ..PacketSpec::new(remote, TCP)
        };
        let (path, may_fragment) = match found {
            Ok(found) => found,
            Err(reason) => return Sent::Lost(reason),
        };
        let spec = PacketSpec { dont_fragment: !may_fragment, ..spec };
        let mac = match path.hop {
            Hop::Link(mac) => mac,
            Hop::Bare => EthernetAddress([0; 6]),
            Hop::Looped => return self.queue_segment(index, plan, &path, &spec),
            Hop::Neighbor(neighbor) => match self.neighbors.lookup(self.now, neighbor) {
                Lookup::Known(mac) => mac,
                Lookup::Unreachable => return Sent::Lost(DropReason::NeighborUnreachable),
                Lookup::Pending => return self.queue_segment(index, plan, &path, &spec),
            },
        };
        self.transmit_to(nic, index, plan, (&path, &spec), mac)
    }

    /// To the device, if its frames before have left.
    fn transmit_to<N: Nic>(
        &mut self,
        nic: &mut N,
        index: u32,
        plan: &Plan,
        (path, spec): (&Path, &PacketSpec),
        mac: EthernetAddress,
    ) -> Sent {
        // Where small frames pass others, whoever calls has seen whose turn it is.
        if !self.outbox.is_empty() && nic.express_len() == 0 {
            return Sent::NoRoom;
        }
        let (link_len, ip_len) = (self.link_header_len(), header::header_len(spec));
        let (own, hop_limit, id) = (self.config.mac, self.hop_limit, self.identification(path, spec));
        let Some(connection) = self.tcp.connections.get_mut(index as usize) else { return Sent::NoRoom };
        //= rfc6864#4.1
        //# Originating sources MAY set the IPv4 ID field of atomic datagrams
        //# to any value.
        // On a line whose headers are compressed, one that goes up by one with each segment of a connection takes no byte
        // (RFC 1144), and one that stays takes three.
        let id = if spec.dont_fragment && nic.express_len() > 0 { connection.tcb.next_id } else { id };
        let len = link_len + ip_len + plan.header.len() + plan.len;
        let meta = segment_meta(plan, path, link_len + ip_len);
        let sent = nic.transmit_with(self.now, len, &meta, |room| {
            let (link, rest) = room.split_at_mut(link_len);
            if !link.is_empty() {
                write_link(link, mac, own, ethertype(path.dst));
            }
            write_packet(&connection.tcb, plan, (path, spec), (hop_limit, id), rest);
        });
        match sent {
            Some(()) => {
                connection.tcb.next_id = connection.tcb.next_id.wrapping_add(1);
                self.counters.tx_frames += 1;
                Sent::Yes
            }
            None => Sent::NoRoom,
        }
    }

    /// By way of a queue: to ourselves, or to a neighbour that is asked for its address.
    fn queue_segment(&mut self, index: u32, plan: &Plan, path: &Path, spec: &PacketSpec) -> Sent {
        let ip_len = header::header_len(spec);
        let (hop_limit, id) = (self.hop_limit, self.identification(path, spec));
        let meta = segment_meta(plan, path, ip_len);
        let mut packet = std::mem::take(&mut self.scratch);
        packet.clear();
        packet.resize(ip_len + plan.header.len() + plan.len, 0);
        if let Some(connection) = self.tcp.connections.get(index as usize) {
            write_packet(&connection.tcb, plan, (path, spec), (hop_limit, id), &mut packet);
        }
        let queued = self.queue(path, packet.len(), &meta, |room| room.copy_from_slice(&packet));
        self.scratch = packet;
        match queued {
            Ok(()) => Sent::Yes,
            // To ourselves, room comes when what is there has been received.
            Err(DropReason::OutboxFull) if path.hop == Hop::Looped => Sent::NoRoom,
            Err(reason) => Sent::Lost(reason),
        }
    }
}

/// Headers and payload into `room`, which has just their length.
fn write_packet(
    tcb: &Tcb,
    plan: &Plan,
    (path, spec): (&Path, &PacketSpec),
    (hop_limit, id): (u8, u16),
    room: &mut [u8],
) {
    let tcp_len = plan.header.len();
    let (ip, rest) = room.split_at_mut(header::header_len(spec));
    let (tcp, payload) = rest.split_at_mut(tcp_len);
    // Families and lengths are right: nothing is left that could fail.
    let _ = header::write(spec, path.src, hop_limit, tcp_len + plan.len, id, ip);
    plan.header.write(path.src, path.dst, plan.len, tcp);
    tcb.send.copy_out(plan.offset, payload);
}

fn connection_is_v4(shard: &Shard, index: u32) -> bool {
    shard.tcp.connections.get(index as usize).is_some_and(|connection| connection.tcb.is_v4())
}

/// What is left to the device: the checksum, and splitting.
fn segment_meta(plan: &Plan, path: &Path, transport_at: usize) -> FrameMeta {
    let kind = if path.src.is_ipv4() { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
    // RFC 3168 section 6.1.2: CWR is for the first segment only.
    let ecn = plan.header.flags.has(crate::tcp::segment::Flags::CWR);
    FrameMeta {
        checksum: ChecksumState::Partial { start: transport_at as u16, offset: CHECKSUM_OFFSET },
        gso: plan.segment_bytes.map(|size| Gso { kind, size, ecn }),
        ..FrameMeta::default()
    }
}

/// Bytes of payload in a turn before the kernel is kicked: four super-frames, which take longer to copy than a kick.
const BYTES_PER_TURN: u64 = 256 << 10;
/// Frames of a connection before the next one has its turn.
const FRAMES_PER_VISIT: usize = 16;
/// ECN-capable transport (RFC 3168 section 5).
const ECT_0: u8 = 2;
