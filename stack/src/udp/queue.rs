//! A bounded queue of datagrams or packets, each in one piece.
//!
//! The payloads lie in a ring of bytes, one after the other; what does not fit before the end of the ring
//! begins at its start. The records beside it say where. Both grow by doubling and stay: a queue that has
//! been as full as it gets does not allocate any more, and one that was never used holds no memory.
//!
//! ```text
//!   bytes    ┌────┬──────────┬───────────────────────────┬─────────────┬───────────────┬──────┐
//!            │ D  │    E     │           free            │      B      │       C       │ gap  │
//!            └────┴──────────┴───────────────────────────┴─────────────┴───────────────┴──────┘
//!   records   B C D E                                     ▲ front.at
//! ```
//!
//! The gap before the end is why the ring may become twice as long as what the queue is allowed to hold:
//! then whatever is within the bounds fits, however it lies.

use std::collections::VecDeque;
use std::num::NonZeroU16;

/// How much a [`Queue`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes of payload, 0 to [`QUEUE_BYTES_MAX`].
    pub bytes_max: usize,
    /// Datagrams; each of those that came in one merged frame counts.
    pub datagrams_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { bytes_max: 212_992, datagrams_max: 4096 }
    }
}

/// It does not fit any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

/// A bounded queue of payloads, each with an `M`.
#[derive(Debug, Clone)]
pub struct Queue<M> {
    limits: QueueLimits,
    bytes: Vec<u8>,
    records: VecDeque<Record<M>>,
    /// Where the next payload goes, if it fits there.
    tail: usize,
    queued_bytes: usize,
    queued_datagrams: usize,
}

/// A payload, or a run of datagrams of which those at its front may have been taken.
#[derive(Debug, Clone, Copy)]
struct Record<M> {
    meta: M,
    at: u32,
    len: u32,
    segment_bytes: Option<NonZeroU16>,
}

impl<M> Record<M> {
    /// Bytes of the first datagram.
    fn first_len(&self) -> usize {
        let len = self.len as usize;
        self.segment_bytes.map_or(len, |bytes| len.min(bytes.get().into()))
    }

    fn datagrams(&self) -> usize {
        datagrams_in(self.len as usize, self.segment_bytes)
    }
}

impl<M> Queue<M> {
    /// An empty queue, without memory.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits: QueueLimits { bytes_max: limits.bytes_max.min(QUEUE_BYTES_MAX), ..limits },
            bytes: Vec::new(),
            records: VecDeque::new(),
            tail: 0,
            queued_bytes: 0,
            queued_datagrams: 0,
        }
    }

    /// Changes the bounds. What is queued stays, even if it is more than fits now.
    pub fn set_limits(&mut self, limits: QueueLimits) {
        self.limits = QueueLimits { bytes_max: limits.bytes_max.min(QUEUE_BYTES_MAX), ..limits };
    }

    /// Copies a payload to the end. With `segment_bytes` it is several datagrams of that size, the last of
    /// which may be shorter.
    ///
    /// # Errors
    /// The queue would hold more than its [`QueueLimits`] allow. Nothing has changed.
    pub fn push(
        &mut self,
        meta: M,
        payload: &[u8],
        segment_bytes: Option<NonZeroU16>,
    ) -> Result<(), QueueFull> {
        let len = payload.len();
        // What is no longer than one datagram is one.
        let segment_bytes = segment_bytes.filter(|bytes| usize::from(bytes.get()) < len);
        let datagrams = datagrams_in(len, segment_bytes);
        let fits_bytes = len <= self.limits.bytes_max.saturating_sub(self.queued_bytes);
        let fits_datagrams = datagrams <= self.limits.datagrams_max.saturating_sub(self.queued_datagrams);
        if !fits_bytes || !fits_datagrams {
            return Err(QueueFull);
        }
        let at = match self.room_for(len) {
            Some(at) => at,
            None => self.grow_for(len).ok_or(QueueFull)?,
        };
        let room = self.bytes.get_mut(at..at + len).ok_or(QueueFull)?;
        room.copy_from_slice(payload);
        // The ring is no longer than 2 * QUEUE_BYTES_MAX, so a u32 is enough.
        self.records.push_back(Record { meta, at: at as u32, len: len as u32, segment_bytes });
        self.tail = at + len;
        self.queued_bytes += len;
        self.queued_datagrams += datagrams;
        Ok(())
    }

    /// Lends the first datagram to `f` and takes it out; of a merged run only the first one. `None`: there
    /// is none.
    pub fn pop_with<R>(&mut self, f: impl FnOnce(&M, &[u8]) -> R) -> Option<R> {
        let record = self.records.front_mut()?;
        let (at, len) = (record.at as usize, record.first_len());
        let result = f(&record.meta, self.bytes.get(at..at + len)?);
        if len == record.len as usize {
            self.records.pop_front();
        } else {
            // Of a run: what is left begins after it.
            record.at += len as u32;
            record.len -= len as u32;
        }
        self.forget(len, 1);
        Some(result)
    }

    /// Lends all that is left of the first run to `f` and takes it out: with the bytes of each datagram if
    /// they are several.
    pub fn pop_run_with<R>(&mut self, f: impl FnOnce(&M, &[u8], Option<NonZeroU16>) -> R) -> Option<R> {
        let record = self.records.front()?;
        let (at, len, datagrams) = (record.at as usize, record.len as usize, record.datagrams());
        let segment_bytes = record.segment_bytes.filter(|_| datagrams > 1);
        let result = f(&record.meta, self.bytes.get(at..at + len)?, segment_bytes);
        self.records.pop_front();
        self.forget(len, datagrams);
        Some(result)
    }

    /// Lends the first datagram to `f`, and leaves it where it is.
    pub fn peek_with<R>(&self, f: impl FnOnce(&M, &[u8]) -> R) -> Option<R> {
        let record = self.records.front()?;
        let at = record.at as usize;
        Some(f(&record.meta, self.bytes.get(at..at + record.first_len())?))
    }

    /// Throws away what is queued, and gives back all memory.
    pub fn clear(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of payload that are queued.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Datagrams that are queued, each of a merged run counted.
    pub fn queued_datagrams(&self) -> usize {
        self.queued_datagrams
    }

    /// Bytes of memory that the queue holds, beside itself.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.records.capacity() * size_of::<Record<M>>()
    }

    /// Its bounds.
    pub fn limits(&self) -> QueueLimits {
        self.limits
    }

    fn forget(&mut self, bytes: usize, datagrams: usize) {
        self.queued_bytes -= bytes;
        self.queued_datagrams -= datagrams;
        if self.records.is_empty() {
            // From the start again: a queue that is emptied as fast as it fills stays in few cache lines.
            self.tail = 0;
        }
    }

    /// Where `len` bytes in one piece are free.
    fn room_for(&self, len: usize) -> Option<usize> {
        let (head, tail) = (self.records.front().map_or(0, |front| front.at as usize), self.tail);
        // With bytes queued, head and tail are the same only if nothing is free.
        let has_wrapped = self.queued_bytes > 0 && tail <= head;
        if has_wrapped {
            return (len <= head - tail).then_some(tail);
        }
        if len <= self.bytes.len() - tail {
            return Some(tail);
        }
        (len <= head).then_some(0)
    }

    /// Makes the ring long enough for `len` more bytes, with all that is queued at its start, and tells
    /// where they go. Each byte is moved once per doubling.
    fn grow_for(&mut self, len: usize) -> Option<usize> {
        let needed = self.queued_bytes.checked_add(len)?;
        let longer = (2 * self.bytes.len()).max(needed.next_power_of_two()).max(RING_BYTES_MIN);
        // Bounds that were lowered meanwhile do not count for what is queued already.
        let longest = (2 * self.limits.bytes_max).max(self.bytes.len()).max(needed);
        let mut bytes = vec![0; longer.min(longest)];
        let mut end = 0;
        for record in &mut self.records {
            let (at, len) = (record.at as usize, record.len as usize);
            bytes.get_mut(end..end + len)?.copy_from_slice(self.bytes.get(at..at + len)?);
            record.at = end as u32;
            end += len;
        }
        self.bytes = bytes;
        self.tail = end;
        self.room_for(len)
    }
}

/// How many datagrams a run of `len` bytes is.
fn datagrams_in(len: usize, segment_bytes: Option<NonZeroU16>) -> usize {
    segment_bytes.map_or(1, |bytes| len.div_ceil(bytes.get().into()).max(1))
}

/// Bytes of payload that a queue can be allowed to hold, at most: offsets are 32 bits.
pub const QUEUE_BYTES_MAX: usize = 1 << 30;

/// The ring of a queue that has anything: a few short datagrams.
const RING_BYTES_MIN: usize = 2048;

#[cfg(test)]
mod tests;
