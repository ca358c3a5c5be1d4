//! What a line has done, to be seen from other threads while it runs.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Figures of a line, kept by its device and read by anybody.
#[derive(Debug, Default)]
pub struct LineFigures {
    pub(super) rx_bytes: AtomicU64,
    pub(super) rx_packets: AtomicU64,
    pub(super) rx_packet_bytes: AtomicU64,
    pub(super) rx_errors: AtomicU64,
    pub(super) rx_garbage_bytes: AtomicU64,
    pub(super) tx_bytes: AtomicU64,
    pub(super) tx_packets: AtomicU64,
    pub(super) tx_packet_bytes: AtomicU64,
    pub(super) queue_bytes: AtomicU64,
    pub(super) losses: AtomicU64,
    pub(super) is_up: AtomicBool,
}

/// [`LineFigures`] at one moment. All but `queue_bytes` and `is_up` are counts since the device was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineSnapshot {
    /// Bytes that were read from the port.
    pub rx_bytes: u64,
    /// Packets among them.
    pub rx_packets: u64,
    /// Bytes of these packets, without framing and with whole headers.
    pub rx_packet_bytes: u64,
    /// Frames that were no packets.
    pub rx_errors: u64,
    /// Bytes of the line in those.
    pub rx_garbage_bytes: u64,
    /// Bytes that were handed to the port.
    pub tx_bytes: u64,
    /// Packets among them, the last one perhaps in part.
    pub tx_packets: u64,
    /// Bytes of these packets, without framing and with whole headers.
    pub tx_packet_bytes: u64,
    /// Bytes of packets that wait for the line.
    pub queue_bytes: u64,
    /// Times that the port was lost.
    pub losses: u64,
    /// Whether it is there now.
    pub is_up: bool,
}

impl LineFigures {
    /// The figures of now.
    pub fn snapshot(&self) -> LineSnapshot {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LineSnapshot {
            rx_bytes: of(&self.rx_bytes),
            rx_packets: of(&self.rx_packets),
            rx_packet_bytes: of(&self.rx_packet_bytes),
            rx_errors: of(&self.rx_errors),
            rx_garbage_bytes: of(&self.rx_garbage_bytes),
            tx_bytes: of(&self.tx_bytes),
            tx_packets: of(&self.tx_packets),
            tx_packet_bytes: of(&self.tx_packet_bytes),
            queue_bytes: of(&self.queue_bytes),
            losses: of(&self.losses),
            is_up: self.is_up.load(Ordering::Relaxed),
        }
    }
}

/// Adds to a count that one thread writes.
pub(super) fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}

/// One line, for people.
impl fmt::Display for LineSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in {} bytes, {} packets, {} errors; out {} bytes, {} packets; {} bytes wait",
            self.rx_bytes, self.rx_packets, self.rx_errors, self.tx_bytes, self.tx_packets, self.queue_bytes
        )?;
        match self.losses {
            0 => {}
            1 => f.write_str("; lost once")?,
            losses => write!(f, "; lost {losses} times")?,
        }
        if !self.is_up {
            f.write_str("; the port is not there")?;
        }
        Ok(())
    }
}
