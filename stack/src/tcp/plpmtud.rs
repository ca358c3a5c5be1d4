//! Path MTU, found by probes of its own (RFC 4821, RFC 8899): for paths that swallow what is too long and say
//! nothing, or tell less than they take.
//!
//! ```text
//!       mtu                                high              top, mtu_max
//!   ─────┼───────────────┬──────────────────┼──────────────────┼─────▶ bytes of a packet
//!    gets through    probed next    was lost, or top     asked for at most
//! ```
//!
//! The search tries the top first, for most paths take it, and halves what is left when that is lost. One loss may
//! be chance, so it only directs the search; when there is nothing left to halve, the size above is tried until it
//! gets through after all or was lost three times. So a path is known after eight probes
//! at most if the link is an Ethernet, and after fourteen if it takes 9000 bytes.
//!
//! A probe is ordinary data, one segment longer than others. What it takes is that more follows behind it: then its
//! loss is seen by the ACKs of what follows, and not by a timeout.

use smoltcp::time::{Duration, Instant};

use super::seq::Seq;

#[cfg(test)]
mod tests;

/// What a search wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing changes.
    Nothing,
    /// Segments of this size from now on, in bytes of the IP packet. What was sent and is longer has to be repeated if
    /// `lost` says so (a black hole).
    Mtu {
        /// Bytes of an IP packet.
        mtu: u16,
        /// What is longer has not got through.
        lost: bool,
    },
}

/// The search of one connection. Small: every connection has one.
#[derive(Debug, Clone, Copy)]
pub struct Plpmtud {
    /// Until then nothing is tried. [`FIRST_ACK`]: the time counts from the first ACK on.
    resume_at: Instant,
    probe_start: Seq,
    probe_end: Seq,
    /// Bytes of the probe that is on its way; 0: none is.
    probe_bytes: u16,
    /// What gets through.
    mtu: u16,
    /// Was lost `lost` times, or, if that is 0, may be tried.
    high: u16,
    /// What this search asks for at most.
    top: u16,
    /// What the link takes.
    mtu_max: u16,
    lost: u8,
    is_v4: bool,
    /// A router has told meanwhile that the probe is too long: what becomes of it tells nothing more.
    is_probe_void: bool,
}

impl Plpmtud {
    /// `mtu`: what the path takes as far as is known; `mtu_max`: what the link takes, and the peer. `is_v4` for the
    /// floor (a base of 1024 bytes and 576 at least, or 1280 of IPv6).
    ///
    /// If it is known that the path takes less than the link, a router has told, and the first search begins
    /// [`AGAIN`](Self::AGAIN) after the first ACK.
    pub fn new(mtu: u16, mtu_max: u16, is_v4: bool) -> Self {
        Self {
            resume_at: FIRST_ACK,
            probe_start: Seq(0),
            probe_end: Seq(0),
            probe_bytes: 0,
            mtu: mtu.min(mtu_max),
            high: mtu_max,
            top: mtu_max,
            mtu_max,
            lost: 0,
            is_v4,
            is_probe_void: false,
        }
    }

    /// What the path takes as far as is known.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// A router has told (and it was checked), or the link or the route has changed.
    ///
    /// Less than is known counts at once. More does not, even if the link takes it: the path may be a black hole for
    /// what nobody has complained of. It is tried at once.
    pub fn set_mtu(&mut self, now: Instant, mtu: u16, mtu_max: u16) {
        let mtu = mtu.min(mtu_max);
        self.mtu_max = mtu_max;
        self.is_probe_void |= self.probe_bytes > mtu;
        if mtu <= self.mtu {
            self.mtu = mtu;
            self.rest(now);
        } else if mtu != self.top {
            self.search_to(now, mtu);
        }
    }

    /// The size of a packet that may be tried now, if it is time: only if there is enough data and nothing is being
    /// repaired.
    ///
    /// Enough is the probe, and some segments behind it that leave at once.
    pub fn probe(&self, now: Instant) -> Option<u16> {
        if self.probe_bytes != 0 || now < self.resume_at { None } else { self.candidate() }
    }

    /// It was sent, and ends before `end`.
    pub fn on_probe_sent(&mut self, now: Instant, start: Seq, end: Seq) {
        if let Some(bytes) = self.probe(now) {
            self.probe_bytes = bytes;
            self.is_probe_void = false;
            (self.probe_start, self.probe_end) = (start, end);
        }
    }

    /// Everything before `una` is acknowledged.
    pub fn on_ack(&mut self, now: Instant, una: Seq) -> Found {
        if self.resume_at == FIRST_ACK {
            self.resume_at = now + Self::AGAIN;
        }
        if self.probe_bytes == 0 || una.is_before(self.probe_end) {
            return Found::Nothing;
        }
        let bytes = std::mem::take(&mut self.probe_bytes);
        if self.is_probe_void || bytes <= self.mtu {
            return Found::Nothing;
        }
        self.mtu = bytes;
        if bytes >= self.high {
            // It was chance that this size was lost before, if it was.
            self.high = self.top;
            self.lost = 0;
        }
        if self.candidate().is_none() {
            self.rest(now);
        }
        Found::Mtu { mtu: bytes, lost: false }
    }

    /// Something that begins at `start` was found lost. True: it was the probe, and is no sign of congestion.
    pub fn on_lost(&mut self, now: Instant, start: Seq) -> bool {
        //= rfc4821#7.6.2
        //# When only the probe is lost, it is treated as an indication that the
        //# Path MTU is smaller than the probe size.  In this case alone, the
        //# loss SHOULD NOT be interpreted as congestion signal.
        let is_probe = self.probe_bytes != 0 && start == self.probe_start;
        if is_probe {
            self.fail(now);
        }
        is_probe
    }

    /// What lies from `start` to before `end` was sent again, in segments of a size that gets through. If the probe is
    /// among it, it counts as lost, whether [`on_lost`](Self::on_lost) has told or not: the ACK that comes now is that
    /// of the repetition.
    pub fn on_resent(&mut self, now: Instant, start: Seq, end: Seq) {
        let is_among = start.is_before(self.probe_end) && end.is_after(self.probe_start);
        if self.probe_bytes != 0 && is_among {
            self.fail(now);
        }
    }

    /// The RTO has expired for the `backoffs`-th time in a row, and what is outstanding begins with a packet of
    /// `bytes`: perhaps a black hole.
    pub fn on_timeout(&mut self, now: Instant, backoffs: u32, bytes: u16) -> Found {
        let was_resting = now < self.resume_at;
        if self.probe_bytes != 0 {
            // The ACKs behind it should have told. Whatever it was, that must not happen all the time.
            self.fail(now);
            self.resume_at = self.resume_at.max(now + PAUSE);
        }
        //= rfc4821#7.7
        //= type=exception
        //= reason=less than 576 is for links that nobody has; an outage must not end in tiny segments
        //# Upon additional successive timeouts, search_low and eff_pmtu SHOULD be halved, with a
        //# lower bound of 68 bytes for IPv4 and 1280 bytes for IPv6.
        let (base, floor) = if self.is_v4 { (BASE_V4, FLOOR_V4) } else { (BASE_V6, BASE_V6) };
        let mtu = match backoffs {
            2.. if bytes > base => base,
            4.. if bytes > floor => floor,
            _ => return Found::Nothing,
        };
        if self.mtu <= mtu {
            return Found::Nothing;
        }
        // The link may have been down, so what there was is tried again soon; but more than that is not, while what a
        // router has told still counts.
        let top = if was_resting { self.mtu } else { self.top };
        self.mtu = mtu;
        self.search_to(now, top);
        Found::Mtu { mtu, lost: true }
    }

    /// How long until a search begins anew.
    //= rfc8899#5.1.1
    //# This timer has a period of 600
    //# seconds, as recommended by PLPMTUD [RFC4821].
    //= rfc8201#4
    //# An attempt to detect an increase (by sending a packet larger than the
    //# current estimate) must not be done less than 5 minutes after a Packet
    //# Too Big message has been received for the given path.
    pub const AGAIN: Duration = Duration::from_secs(600);

    /// What to try next. `None`: the search has ended.
    fn candidate(&self) -> Option<u16> {
        let gap = self.high.checked_sub(self.mtu).filter(|gap| *gap > 0)?;
        if self.lost == 0 || gap <= gap_max(self.high) {
            return Some(self.high);
        }
        // Beyond a link of long frames there is most likely an Ethernet, and nothing longer.
        let is_link_long = self.high / 2 >= ETHERNET;
        Some(match self.mtu {
            ..ETHERNET if is_link_long => ETHERNET,
            ETHERNET if is_link_long => ETHERNET + gap_max(ETHERNET),
            mtu => mtu + gap / 2,
        })
    }

    /// The probe has not got through.
    fn fail(&mut self, now: Instant) {
        let bytes = std::mem::take(&mut self.probe_bytes);
        if self.is_probe_void || bytes <= self.mtu {
            return;
        }
        //= rfc8899#5.3.1
        //# Each time the PROBE_TIMER
        //# expires, the PROBE_COUNT is incremented, the PROBE_TIMER is
        //# reinitialized, and a new probe of the same size or any other size
        //# (determined by the search algorithm) can be sent.
        self.lost = if bytes == self.high { self.lost.saturating_add(1) } else { 1 };
        self.high = bytes;
        if self.lost >= LOST_MAX {
            self.rest(now);
        }
    }

    /// A search begins.
    fn search_to(&mut self, now: Instant, top: u16) {
        self.resume_at = now;
        (self.top, self.high, self.lost) = (top, top, 0);
    }

    /// A search has ended; the next one will ask for all that the link takes.
    fn rest(&mut self, now: Instant) {
        self.search_to(now + Self::AGAIN, self.mtu_max);
    }
}

/// Of [`Plpmtud::resume_at`]: not known yet when.
const FIRST_ACK: Instant = Instant::from_micros_const(i64::MAX);
/// How long nothing is tried after a probe that ended in a timeout (RFC 8899 section 5.1.1: more than 15 seconds).
const PAUSE: Duration = Duration::from_secs(20);
/// Times that one size is lost until it counts (MAX_PROBES of RFC 8899 section 5.1.2).
const LOST_MAX: u8 = 3;
/// Bytes between what gets through and what does not that are not worth more probes.
const fn gap_max(bytes: u16) -> u16 {
    if bytes < 2048 { 16 } else { bytes / 64 }
}

/// What an Ethernet takes.
const ETHERNET: u16 = 1500;
/// What is fallen back to first (RFC 4821 section 7.2).
const BASE_V4: u16 = 1024;
/// The same of IPv6, and what every link takes (RFC 8200 section 5).
const BASE_V6: u16 = 1280;
/// What is fallen back to in the end: a segment of the default MSS (RFC 9293 section 3.7.1).
const FLOOR_V4: u16 = 576;
