//! Sending without a ring: entries collected one behind the other in memory, handed over by sendmmsg(2).
//!
//! ```text
//!   memory:  taken │ entry │ entry │ entry │ room
//!                  ▲ first          ▲ used
//! ```
//!
//! An entry takes as much memory as it is long, so that an ACK costs a cache line and a super-frame 64 KB;
//! and memory is written again as soon as the kernel has taken all, so that it stays in the cache.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use crate::Counters;
use crate::sys::batch::BATCH_LEN;

/// The queue of one socket.
#[derive(Debug)]
pub(crate) struct TxSend {
    memory: Vec<u8>,
    /// Where the entries are that the kernel has not taken.
    entries: VecDeque<Range<usize>>,
    /// Where the next entry goes.
    used: usize,
}

impl TxSend {
    /// A queue with this many bytes of memory.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { memory: vec![0; bytes], entries: VecDeque::with_capacity(BATCH_LEN), used: 0 }
    }

    /// Whether an entry of `len` bytes can be written now.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.entries.len() < ENTRIES_MAX && self.memory.len() - self.used >= len
    }

    /// Bytes of the longest entry.
    pub(crate) fn entry_len_max(&self) -> usize {
        self.memory.len()
    }

    /// Entries that the kernel has not taken.
    pub(crate) fn queued(&self) -> usize {
        self.entries.len()
    }

    /// Lets `f` write an entry of `len` bytes, and queues it. One for which there is no room is not written:
    /// `f` comes back.
    pub(crate) fn write<R, F: FnOnce(&mut [u8]) -> R>(&mut self, len: usize, f: F) -> Result<R, F> {
        if !self.has_room(len) {
            return Err(f);
        }
        let range = self.used..self.used + len;
        let Some(room) = self.memory.get_mut(range.clone()) else { return Err(f) };
        let result = f(room);
        self.used = range.end.next_multiple_of(ALIGNMENT).min(self.memory.len());
        self.entries.push_back(range);
        Ok(result)
    }

    /// Takes the oldest entry out of the queue.
    pub(crate) fn drop_oldest(&mut self) {
        self.entries.pop_front();
        self.settle();
    }

    /// Hands all queued entries over. `send` is one sendmmsg: it takes the first of them and says how many.
    /// `virtio_len` bytes of each entry are no frame.
    ///
    /// # Errors
    /// The error that left entries queued (no memory, interface down …): they are offered again by the next
    /// call. A refused frame is no error; it is counted.
    pub(crate) fn flush(
        &mut self,
        counters: &mut Counters,
        virtio_len: usize,
        mut send: impl FnMut(&mut dyn Iterator<Item = &[u8]>) -> io::Result<usize>,
    ) -> io::Result<()> {
        // Each round takes at least one entry out of the queue, or is the last.
        while !self.entries.is_empty() {
            counters.tx_kicks += 1;
            let memory = &self.memory;
            let mut entries = self.entries.iter().map(|range| memory.get(range.clone()).unwrap_or_default());
            match send(&mut entries) {
                Ok(0) => {
                    self.settle();
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(taken) => {
                    for range in self.entries.drain(..taken.min(self.entries.len())) {
                        counters.tx_frames += 1;
                        counters.tx_bytes += range.len().saturating_sub(virtio_len) as u64;
                    }
                }
                Err(error) if is_refusal(&error) => {
                    counters.tx_rejected += 1;
                    self.entries.pop_front();
                }
                Err(error) => {
                    self.settle();
                    return Err(error);
                }
            }
        }
        self.settle();
        Ok(())
    }

    /// Makes the memory of what was taken free again.
    fn settle(&mut self) {
        let Some(first) = self.entries.front().map(|range| range.start) else {
            self.used = 0;
            return;
        };
        // Moving what is left is worth it once more than half is free in front of it: then each byte is
        // moved at most once for each byte that was sent.
        let step = first / ALIGNMENT * ALIGNMENT;
        if step >= self.used - step && step > 0 {
            self.memory.copy_within(step..self.used, 0);
            self.used -= step;
            for range in &mut self.entries {
                *range = range.start - step..range.end - step;
            }
        }
    }
}

/// Whether the kernel refuses this very frame: too long, too short, or a virtio_net_hdr that it does not
/// accept. Everything else passes.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL | libc::EOPNOTSUPP))
}

/// Entries in the queue, at most.
const ENTRIES_MAX: usize = 8192;
/// Entries begin on cache lines, in bytes.
const ALIGNMENT: usize = 64;

#[cfg(test)]
mod tests;
