//! What must hold for a connection after a turn, by what it says of itself.

use std::collections::BTreeMap;

use smoltcp::time::{Duration, Instant};
use wirestack::shard::{Shard, SocketId};
use wirestack::tcp::TcpInfo;

/// Connections that are looked at in every turn, beside those that the application had to do with.
const LOOKED_AT: usize = 8;
/// Beyond the RTO, until a timer that was set before it became shorter must have come.
const SLACK: Duration = Duration::from_secs(3);
/// The longest time between two probes of a shut window, or between two attempts of a handshake.
const PERSIST_MAX: Duration = Duration::from_secs(121);
/// Bytes of the longest frame: a buffer takes it whole.
const FRAME_MAX: u32 = 1 << 16;

/// The connections of a shard, and what they were when they were looked at last.
#[derive(Debug, Default)]
pub struct Connections {
    known: BTreeMap<SocketId, TcpInfo>,
    /// Whom to look at next.
    cursor: Option<SocketId>,
}

impl Connections {
    /// Looks at some connections after a turn that wants the next one at `next`.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(
        &mut self,
        shard: &Shard,
        touched: &[SocketId],
        now: Instant,
        next: Option<Instant>,
    ) -> Result<(), String> {
        for &id in touched {
            self.check_one(shard, id, now, next)?;
        }
        for _ in 0..self.known.len().min(LOOKED_AT) {
            let behind = self.cursor.and_then(|id| {
                let mut rest = self.known.range((std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded));
                rest.next()
            });
            let Some(id) = behind.or_else(|| self.known.first_key_value()).map(|(id, _)| *id) else { break };
            self.cursor = Some(id);
            self.check_one(shard, id, now, next)?;
        }
        Ok(())
    }

    fn check_one(
        &mut self,
        shard: &Shard,
        id: SocketId,
        now: Instant,
        next: Option<Instant>,
    ) -> Result<(), String> {
        let Some(info) = shard.tcp_info(id) else {
            self.known.remove(&id);
            return Ok(());
        };
        let is_over = shard.tcp_readiness(id).closed;
        let before = self.known.get(&id);
        // What is over keeps nothing to be sent.
        let checked = if is_over { Ok(()) } else { check_numbers(&info) }
            .and_then(|()| if is_over { Ok(()) } else { check_timer(&info, now, next) })
            .and_then(|()| before.map_or(Ok(()), |before| check_counters(before, &info, is_over)));
        checked.map_err(|wrong| format!("{wrong}, next turn at {next:?}: {info:?}"))?;
        self.known.insert(id, info);
        Ok(())
    }
}

fn check_numbers(info: &TcpInfo) -> Result<(), String> {
    let outstanding = info.snd_nxt.wrapping_sub(info.snd_una);
    if outstanding >= 1 << 31 {
        return Err("snd_una is behind snd_nxt".to_owned());
    }
    if info.in_flight > outstanding {
        return Err(format!("{} are in flight of {outstanding} that were sent", info.in_flight));
    }
    // A FIN takes a number and no room.
    if outstanding > info.send_buffered.saturating_add(2) {
        return Err(format!("{outstanding} are sent, {} are kept", info.send_buffered));
    }
    if info.send_buffered > info.send_buffer_max.saturating_add(FRAME_MAX) {
        return Err("more is kept to be sent than may be".to_owned());
    }
    let received = info.recv_buffered.saturating_add(info.recv_early);
    if received > info.recv_buffer_max.saturating_add(FRAME_MAX) {
        return Err("more has come than may be kept".to_owned());
    }
    if info.rcv_wnd > info.recv_buffer_max.saturating_add(FRAME_MAX) {
        return Err("the window is larger than the buffer may be".to_owned());
    }
    // A FIN that is sent again counts as a byte of what is repeated, and not of what is sent.
    let counters = &info.counters;
    let sent = counters.bytes_sent + u64::from(counters.retransmits);
    if counters.bytes_retransmitted > sent {
        return Err("more was sent again than was sent".to_owned());
    }
    let once = sent - counters.bytes_retransmitted;
    if counters.bytes_acked > once {
        return Err(format!("{} were acknowledged, {once} were sent", counters.bytes_acked));
    }
    Ok(())
}

/// What is not acknowledged, and what waits before a shut window, has somebody who comes back to it.
fn check_timer(info: &TcpInfo, now: Instant, next: Option<Instant>) -> Result<(), String> {
    let bound = if info.snd_nxt != info.snd_una {
        info.rto + SLACK
    } else if info.send_buffered > 0 {
        PERSIST_MAX
    } else {
        return Ok(());
    };
    let is_lost = next.is_none_or(|next| next > now + bound);
    if is_lost {
        return Err(format!("something is not done, and no timer is due before {:?}", now + bound));
    }
    Ok(())
}

fn check_counters(before: &TcpInfo, info: &TcpInfo, is_over: bool) -> Result<(), String> {
    let [old, new] = [before.counters, info.counters].map(|counters| {
        [
            ("bytes_acked", counters.bytes_acked),
            ("bytes_received", counters.bytes_received),
            ("bytes_sent", counters.bytes_sent),
            ("bytes_retransmitted", counters.bytes_retransmitted),
            ("segments_out", counters.segments_out.into()),
            ("segments_in", counters.segments_in.into()),
            ("retransmits", counters.retransmits.into()),
            ("timeouts", counters.timeouts.into()),
            ("probes", counters.probes.into()),
            ("recoveries", counters.recoveries.into()),
            ("undone", counters.undone.into()),
            ("dsacks", counters.dsacks.into()),
            ("ecn_reductions", counters.ecn_reductions.into()),
            ("early_segments", counters.early_segments.into()),
            ("duplicate_bytes", counters.duplicate_bytes),
        ]
    });
    for ((name, old), (_, new)) in old.into_iter().zip(new) {
        if new < old {
            return Err(format!("{name} went from {old} to {new}"));
        }
    }
    if is_over {
        return Ok(());
    }
    let moved = info.snd_una.wrapping_sub(before.snd_una);
    if moved >= 1 << 31 || info.snd_nxt.wrapping_sub(before.snd_nxt) >= 1 << 31 {
        return Err(format!("snd_una or snd_nxt went back, from {} and {}", before.snd_una, before.snd_nxt));
    }
    if info.rcv_nxt.wrapping_sub(before.rcv_nxt) >= 1 << 31 {
        return Err(format!("rcv_nxt went back from {}", before.rcv_nxt));
    }
    let acked = info.counters.bytes_acked - before.counters.bytes_acked;
    if acked > u64::from(moved) || acked + 2 < u64::from(moved) {
        return Err(format!("snd_una went by {moved}, and {acked} bytes are counted"));
    }
    // What was written is kept until it is acknowledged.
    let written = |info: &TcpInfo| info.counters.bytes_acked + u64::from(info.send_buffered);
    if written(info) < written(before) {
        return Err(format!("{} bytes were written, now {}", written(before), written(info)));
    }
    Ok(())
}
