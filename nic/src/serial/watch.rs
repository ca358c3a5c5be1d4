//! What a person is told of a line on which something is wrong: each thing once.

use std::fmt;

use smoltcp::time::{Duration, Instant};

use super::framing::FrameError;

/// Looks at what comes, and warns.
#[derive(Debug, Default)]
pub(super) struct Watch {
    name: String,
    mtu: usize,
    packet_max: usize,
    /// Bytes that were no packet since the last one that was.
    garbage: usize,
    /// Whether a packet has come since the line was opened.
    has_packet: bool,
    warned_garbage: bool,
    warned_mtu: bool,
    /// What was said of the port lately: when it began, and how often.
    told: Option<(Instant, u32)>,
}

impl Watch {
    pub(super) fn new(name: &str, mtu: usize, packet_max: usize) -> Self {
        Self { name: name.to_owned(), mtu, packet_max, ..Self::default() }
    }

    /// A packet of this length came.
    pub(super) fn packet(&mut self, len: usize) {
        self.garbage = 0;
        self.has_packet = true;
        if len > self.mtu && !std::mem::replace(&mut self.warned_mtu, true) {
            log::warn!(
                "{}: a packet of {len} bytes came, mtu is {} here: the other end has a larger one; give both the same, \
                 as in mtu={}",
                self.name,
                self.mtu,
                len.max(1_500)
            );
        }
    }

    /// So many bytes were no packet. True: a person should be asked whether anybody there speaks this at all.
    pub(super) fn garbage(&mut self, error: FrameError, len: usize) {
        log::debug!("{}: {len} bytes are no packet: {error}", self.name);
        self.garbage = self.garbage.saturating_add(len);
        if error == FrameError::TooLong && self.has_packet && !std::mem::replace(&mut self.warned_mtu, true) {
            log::warn!(
                "{}: {len} bytes came in one frame, packets of {} are taken: is the mtu of the other end larger than {}?",
                self.name,
                self.packet_max,
                self.mtu
            );
        }
        if self.garbage >= GARBAGE_BYTES_MAX && !std::mem::replace(&mut self.warned_garbage, true) {
            let since = if self.has_packet { "since the last packet" } else { "and no packet" };
            log::warn!(
                "{}: {} bytes have come {since} ({error}): does the other end speak the same framing, with crc or without, \
                 at the same baud rate?",
                self.name,
                self.garbage
            );
        }
    }

    /// Something about the port: a few times as it is, and quietly for a while if there is no end of it.
    pub(super) fn tell(&mut self, now: Instant, what: &dyn fmt::Display) {
        let (since, count) = self.told.filter(|(since, _)| now < *since + TELL_INTERVAL).unwrap_or((now, 0));
        self.told = Some((since, count.saturating_add(1)));
        match count {
            0..TELLS_MAX => log::warn!("{}: {what}", self.name),
            TELLS_MAX => log::warn!("{}: {what}; and so on", self.name),
            _ => log::debug!("{}: {what}", self.name),
        }
    }

    /// The line was lost: who comes next may be somebody else.
    pub(super) fn reset(&mut self) {
        (self.garbage, self.has_packet, self.warned_garbage, self.warned_mtu) = Default::default();
    }
}

/// Garbage at a stretch that is worth a warning: four packets of the largest usual MTU at least, so that noise is not.
const GARBAGE_BYTES_MAX: usize = 4_096;
/// How often the port is told of, in this time.
const TELLS_MAX: u32 = 6;
const TELL_INTERVAL: Duration = Duration::from_secs(60);
