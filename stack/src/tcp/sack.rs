//! The scoreboard: what was sent and is not acknowledged, and what is known of it (RFC 2018, RFC 6675).
//!
//! ```text
//!  snd_una                                                          snd_nxt
//!    | record      | record | sacked       | record | record          |
//!    | resent      | lost   |              |        |                 |
//! ```
//! Records lie side by side from `snd_una` to `snd_nxt`. One begins as what left in one frame, up to 64 KB, and is split
//! where an ACK, a SACK block or a repetition ends within it. Neighbours that were both sacked become one, so that
//! a range that was reported before is passed over in one step. Everything is found by number in O(log n), and by age
//! in O(1): what was sent once lies in the order of its numbers, what was sent again is in a log of its own.
//!
//! **Bounds.** A peer that reports odd ranges splits records. Where segments begin, that is always done; elsewhere
//! only as long as there are few records for what is outstanding. A report that is not taken is no error: SACK is
//! advisory (RFC 2018 section 8). So there are no more records than frames and segments that were sent, and some.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smoltcp::time::Instant;

use super::seq::Seq;

/// A sequence number that does not wrap: its lower half is the number on the wire.
pub(super) type Position = u64;

/// Something that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// When it was sent last.
    pub(super) sent_at: Instant,
    /// TSval when it was sent last.
    pub(super) ts_val: Option<u32>,
    /// Numbers.
    pub(super) len: u32,
    /// Bytes in flight when it was sent, itself included.
    pub(super) tx_in_flight: u32,
    /// The total of delivered bytes when it was sent, modulo 2^32.
    pub(super) delivered: u32,
    /// The total of lost bytes when it was sent, modulo 2^32.
    pub(super) lost: u32,
    /// Microseconds between the last delivery before it was sent, and that.
    pub(super) since_delivered: u32,
    /// Microseconds between the first sending of the sampled flight, and that.
    pub(super) since_first_sent: u32,
    /// The application had nothing more.
    pub(super) is_app_limited: bool,
    /// Reported by SACK.
    pub(super) is_sacked: bool,
    /// Lost and not sent again since.
    pub(super) is_lost: bool,
    /// Sent more than once.
    pub(super) is_resent: bool,
}

/// Something was acknowledged for the first time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivered {
    /// The number behind its last one.
    pub(super) end: Position,
    /// As it was.
    pub(super) record: Record,
}

/// How old something that was sent is, in the eyes of the detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Nothing that was sent later has arrived.
    Young,
    /// Something has; it may still come.
    Waiting,
    /// It does not come any more.
    Expired,
}

/// What [`Scoreboard::detect`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Detected {
    /// Bytes marked as lost.
    pub(super) lost: u32,
    /// Something is [`Age::Waiting`].
    pub(super) is_waiting: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Scoreboard {
    records: BTreeMap<Position, Record>,
    una: Position,
    nxt: Position,
    /// Before this, nothing that was sent once waits for its age.
    fresh: Position,
    repair: Option<Box<Repair>>,
}

/// What there is only while something is missing.
#[derive(Debug, Default)]
struct Repair {
    /// Bytes reported by SACK; lost; sent again and in flight.
    sacked_bytes: u32,
    lost_bytes: u32,
    resent_bytes: u32,
    /// Segments that were sacked, as far as they can be told.
    sacked_segments: u32,
    /// Where lost records begin.
    lost: BTreeSet<Position>,
    /// What was sent again, in that order. Entries that say nothing any more are found when they are looked at.
    log: VecDeque<Repetition>,
}

#[derive(Debug, Clone, Copy)]
struct Repetition {
    start: Position,
    end: Position,
    sent_at: Instant,
}

impl Scoreboard {
    /// Nothing was sent yet.
    pub(super) fn new(start: Seq) -> Self {
        // One turn of the number space on, so that there are numbers below the first one.
        let start = (1 << 32) + u64::from(start.0);
        Self { records: BTreeMap::new(), una: start, nxt: start, fresh: start, repair: None }
    }

    #[inline]
    pub(super) fn una(&self) -> Position {
        self.una
    }

    #[inline]
    pub(super) fn nxt(&self) -> Position {
        self.nxt
    }

    /// The position of a number near `snd_una`.
    #[inline]
    pub(super) fn position(&self, seq: Seq) -> Position {
        let distance = seq.0.wrapping_sub(self.una as u32) as i32;
        self.una.wrapping_add_signed(i64::from(distance))
    }

    /// Bytes sent and not acknowledged by number.
    #[inline]
    pub(super) fn outstanding(&self) -> u32 {
        (self.nxt - self.una) as u32
    }

    /// Of these, reported by SACK.
    #[inline]
    pub(super) fn sacked(&self) -> u32 {
        self.repair.as_ref().map_or(0, |repair| repair.sacked_bytes)
    }

    /// Of these, lost and not sent again since.
    #[inline]
    pub(super) fn lost(&self) -> u32 {
        self.repair.as_ref().map_or(0, |repair| repair.lost_bytes)
    }

    /// Of these, sent again and in flight.
    #[inline]
    pub(super) fn resent(&self) -> u32 {
        self.repair.as_ref().map_or(0, |repair| repair.resent_bytes)
    }

    /// Segments reported by SACK, as far as they can be told.
    #[inline]
    pub(super) fn sacked_segments(&self) -> u32 {
        self.repair.as_ref().map_or(0, |repair| repair.sacked_segments)
    }

    /// The number at which the first lost record begins, and its length.
    pub(super) fn first_lost(&self) -> Option<(Position, u32)> {
        let start = *self.repair.as_ref()?.lost.first()?;
        self.records.get(&start).map(|record| (start, record.len))
    }

    /// The same, with what is lost behind it without a gap, up to `len_max` or a little more.
    pub(super) fn first_lost_run(&self, len_max: u32) -> Option<(Position, u32)> {
        let lost = &self.repair.as_ref()?.lost;
        let start = *lost.first()?;
        let mut end = start;
        for key in lost {
            if *key != end || end - start >= u64::from(len_max) {
                break;
            }
            end += u64::from(self.records.get(key)?.len);
        }
        Some((start, (end - start) as u32))
    }

    /// The last segment that was sent.
    pub(super) fn last_segment(&self, mss: u32) -> Option<(Position, u32)> {
        let (start, record) = self.records.last_key_value()?;
        let before = record.len.saturating_sub(1) / mss.max(1) * mss.max(1);
        Some((start + u64::from(before), record.len - before))
    }

    /// The oldest record.
    pub(super) fn first(&self) -> Option<&Record> {
        self.records.first_key_value().map(|(_, record)| record)
    }

    /// Something was sent for the first time.
    pub(super) fn push(&mut self, record: Record) {
        self.records.insert(self.nxt, record);
        self.nxt += u64::from(record.len);
    }

    /// Something was sent again, as `like` says; what of it is sacked stays so. `is_aged`: its age will be asked for.
    /// Returns how many bytes.
    pub(super) fn resend(&mut self, start: Position, end: Position, like: &Record, is_aged: bool) -> u32 {
        let (start, end) = (start.max(self.una), end.min(self.nxt));
        if start >= end {
            return 0;
        }
        self.split(start);
        self.split(end);
        let (mut at, mut bytes) = (start, 0);
        while let Some((&key, &old)) = self.records.range(at..end).next() {
            at = key + u64::from(old.len);
            if !old.is_sacked {
                self.replace(key, &old, Record { len: old.len, is_resent: true, ..*like });
                bytes += old.len;
            }
        }
        if is_aged && bytes > 0 {
            self.log(Repetition { start, end, sent_at: like.sent_at });
        }
        bytes
    }

    /// Everything before `ack` has arrived. `each` is told of what was not known to have.
    pub(super) fn acknowledge(&mut self, ack: Position, mss: u32, mut each: impl FnMut(&Delivered)) {
        while let Some(entry) = self.records.first_entry() {
            let start = *entry.key();
            if start >= ack {
                break;
            }
            let mut record = entry.remove();
            self.uncount(start, &record);
            let end = start + u64::from(record.len);
            if end > ack {
                let rest = Record { len: (end - ack) as u32, ..record };
                record.len = (ack - start) as u32;
                self.records.insert(ack, rest);
                self.count(ack, &rest);
            }
            if record.is_sacked {
                if let Some(repair) = &mut self.repair {
                    repair.sacked_segments = repair.sacked_segments.saturating_sub(record.len.div_ceil(mss));
                }
            } else {
                each(&Delivered { end: end.min(ack), record });
            }
        }
        self.una = ack;
        self.fresh = self.fresh.max(ack);
        if self.records.is_empty() {
            self.repair = None;
        }
        if let Some(repair) = &mut self.repair
            && repair.sacked_bytes == 0
        {
            repair.sacked_segments = 0;
        }
    }

    /// What lies between `start` and `end`, which are in order and within what is outstanding, has arrived. `each` is
    /// told of what was not known to have.
    pub(super) fn sack(
        &mut self,
        start: Position,
        end: Position,
        mss: u32,
        mut each: impl FnMut(&Delivered),
    ) {
        let mut at = self.cut_from(start, mss);
        while at < end {
            let Some((&key, record)) = self.records.range(at..end).next() else { break };
            let record_end = key + u64::from(record.len);
            at = record_end;
            if record.is_sacked {
                continue;
            }
            if record_end > end {
                let cut = key + self.boundary_before((end - key) as u32, mss);
                if cut == key {
                    break;
                }
                self.split(cut);
            }
            self.mark_sacked(key, mss, &mut each);
        }
    }

    /// Where marking may begin, for a block that begins at `start`.
    fn cut_from(&mut self, start: Position, mss: u32) -> Position {
        let Some((&key, record)) = self.records.range(..=start).next_back() else { return start };
        let end = key + u64::from(record.len);
        if key == start || record.is_sacked || end <= start {
            return if key == start { start } else { end.max(start) };
        }
        let offset = (start - key) as u32;
        let down = self.boundary_before(offset, mss);
        let cut = if down == u64::from(offset) { start } else { (key + down + u64::from(mss)).min(end) };
        self.split(cut);
        cut
    }

    /// `offset` behind the start of a record, or the last boundary of segments before it.
    fn boundary_before(&self, offset: u32, mss: u32) -> u64 {
        let records_max = RECORDS_FREE + 2 * (self.outstanding() / mss.max(1)) as usize;
        if self.records.len() < records_max {
            return u64::from(offset);
        }
        u64::from(offset / mss.max(1) * mss.max(1))
    }

    fn mark_sacked(&mut self, key: Position, mss: u32, each: &mut impl FnMut(&Delivered)) {
        let Some(&old) = self.records.get(&key) else { return };
        each(&Delivered { end: key + u64::from(old.len), record: old });
        self.replace(key, &old, Record { is_sacked: true, is_lost: false, ..old });
        let repair = self.repair.get_or_insert_default();
        repair.sacked_segments = repair.sacked_segments.saturating_add(old.len.div_ceil(mss.max(1)));
        // Neighbours that are sacked too become one with it.
        let (mut key, mut len) = (key, old.len);
        if let Some((&before, record)) = self.records.range_mut(..key).next_back()
            && record.is_sacked
        {
            record.len += len;
            (len, key) = (record.len, {
                self.records.remove(&key);
                before
            });
        }
        let behind = key + u64::from(len);
        if let Some(next) = self.records.get(&behind).copied()
            && next.is_sacked
            && let Some(record) = self.records.get_mut(&key)
        {
            record.len += next.len;
            self.records.remove(&behind);
        }
    }

    /// Records end at `position`, if something outstanding lies there.
    pub(super) fn split(&mut self, position: Position) {
        let Some((&key, record)) = self.records.range_mut(..position).next_back() else { return };
        let end = key + u64::from(record.len);
        if end <= position {
            return;
        }
        let rest = Record { len: (end - position) as u32, ..*record };
        record.len = (position - key) as u32;
        self.records.insert(position, rest);
        if rest.is_lost {
            self.repair.get_or_insert_default().lost.insert(position);
        }
    }

    /// Marks the record that begins at `key` as lost. Returns its bytes, or 0 if it was lost or sacked before.
    pub(super) fn mark_lost(&mut self, key: Position) -> u32 {
        match self.records.get(&key) {
            Some(&old) if !old.is_sacked && !old.is_lost => {
                self.replace(key, &old, Record { is_lost: true, ..old });
                old.len
            }
            _ => 0,
        }
    }

    /// Marks all records as lost that are neither sacked nor lost, and of which `is_lost` says so. Returns their bytes.
    pub(super) fn mark_lost_if(&mut self, mut is_lost: impl FnMut(Position, &Record) -> bool) -> u32 {
        let found = self.records.iter().filter(|(key, record)| is_lost(**key, record));
        let keys: Vec<_> = found.map(|(key, _)| *key).collect();
        keys.into_iter().map(|key| self.mark_lost(key)).sum()
    }

    /// What was marked as lost was not: it is in flight as before.
    pub(super) fn unmark_lost(&mut self) {
        let Some(repair) = &mut self.repair else { return };
        let keys = std::mem::take(&mut repair.lost);
        for key in keys {
            if let Some(&old) = self.records.get(&key) {
                self.replace(key, &old, Record { is_lost: false, ..old });
            }
        }
        self.fresh = self.una;
        let resent = self.records.iter().filter(|(_, record)| record.is_resent && !record.is_sacked);
        let repetition = |(key, record): (&Position, &Record)| Repetition {
            start: *key,
            end: key + u64::from(record.len),
            sent_at: record.sent_at,
        };
        let mut log: Vec<_> = resent.map(repetition).collect();
        log.sort_by_key(|repetition| repetition.sent_at);
        if let Some(repair) = &mut self.repair {
            repair.log = log.into();
        }
    }

    /// The peer may have thrown away what it had reported: no report counts any more.
    pub(super) fn forget_sacks(&mut self) {
        let sacked = self.records.iter().filter(|(_, record)| record.is_sacked);
        let keys: Vec<_> = sacked.map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(&old) = self.records.get(&key) {
                self.replace(key, &old, Record { is_sacked: false, ..old });
            }
        }
        if let Some(repair) = &mut self.repair {
            repair.sacked_segments = 0;
        }
    }

    /// Marks as lost what `age` says has expired: it is asked for the time of sending and the end of what is in
    /// flight, in the order of sending, until something is not expired.
    pub(super) fn detect(&mut self, age: impl Fn(Instant, Position) -> Age) -> Detected {
        let mut found = Detected::default();
        self.detect_fresh(&age, &mut found);
        self.detect_resent(&age, &mut found);
        found
    }

    fn detect_fresh(&mut self, age: &impl Fn(Instant, Position) -> Age, found: &mut Detected) {
        let mut at = self.fresh.max(self.una);
        while let Some((&key, record)) = self.records.range(at..).next() {
            let end = key + u64::from(record.len);
            if !record.is_sacked && !record.is_lost && !record.is_resent {
                match age(record.sent_at, end) {
                    Age::Young => break,
                    Age::Waiting => {
                        found.is_waiting = true;
                        break;
                    }
                    Age::Expired => found.lost += self.mark_lost(key),
                }
            }
            at = end;
        }
        self.fresh = at;
    }

    fn detect_resent(&mut self, age: &impl Fn(Instant, Position) -> Age, found: &mut Detected) {
        while let Some(oldest) = self.repair.as_ref().and_then(|repair| repair.log.front().copied()) {
            let age = age(oldest.sent_at, oldest.end);
            if oldest.end > self.una && age == Age::Young {
                break;
            }
            if age == Age::Waiting && self.live(&oldest, self.una).is_some() {
                found.is_waiting = true;
                break;
            }
            let mut at = self.una;
            while let Some((key, end)) = self.live(&oldest, at) {
                found.lost += self.mark_lost(key);
                at = end;
            }
            if let Some(repair) = &mut self.repair {
                repair.log.pop_front();
            }
        }
    }

    /// The first record from `from` on that is in flight since this repetition.
    fn live(&self, of: &Repetition, from: Position) -> Option<(Position, Position)> {
        let from = from.max(of.start);
        if from >= of.end {
            return None;
        }
        let mut records = self.records.range(from..of.end);
        let is_live = |record: &Record| {
            record.is_resent && record.sent_at == of.sent_at && !record.is_sacked && !record.is_lost
        };
        records.find(|(_, record)| is_live(record)).map(|(key, record)| (*key, key + u64::from(record.len)))
    }

    fn log(&mut self, repetition: Repetition) {
        // Of what was repeated over and over again, only the last time counts.
        let len_max = RECORDS_FREE + 2 * self.records.len();
        if self.repair.as_ref().is_some_and(|repair| repair.log.len() >= len_max) {
            let mut log =
                self.repair.as_mut().map(|repair| std::mem::take(&mut repair.log)).unwrap_or_default();
            log.retain(|repetition| self.live(repetition, self.una).is_some());
            self.repair.get_or_insert_default().log = log;
        }
        self.repair.get_or_insert_default().log.push_back(repetition);
    }

    /// Records.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Counts everything anew.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let (mut at, mut sums, mut lost) = (self.una, [0, 0, 0], BTreeSet::new());
        for (&key, record) in &self.records {
            assert_eq!(key, at, "records lie side by side");
            assert!(record.len > 0 && !(record.is_sacked && record.is_lost));
            at = key + u64::from(record.len);
            let index = if record.is_sacked {
                0
            } else if record.is_lost {
                1
            } else {
                2
            };
            if record.is_lost {
                lost.insert(key);
            }
            sums[index] += if index < 2 || record.is_resent { record.len } else { 0 };
        }
        assert_eq!(at, self.nxt);
        assert_eq!(sums, [self.sacked(), self.lost(), self.resent()], "sacked, lost, resent");
        let listed = self.repair.as_ref().map(|repair| repair.lost.clone()).unwrap_or_default();
        assert_eq!(listed, lost);
        let log = self.repair.as_ref().map_or(0, |repair| repair.log.len());
        assert!(log <= RECORDS_FREE + 2 * self.records.len() + 1, "{log} repetitions");
    }

    fn replace(&mut self, key: Position, old: &Record, new: Record) {
        self.uncount(key, old);
        self.count(key, &new);
        self.records.insert(key, new);
    }

    fn count(&mut self, key: Position, record: &Record) {
        if record.is_sacked {
            self.repair.get_or_insert_default().sacked_bytes += record.len;
        } else if record.is_lost {
            let repair = self.repair.get_or_insert_default();
            repair.lost_bytes += record.len;
            repair.lost.insert(key);
        } else if record.is_resent {
            self.repair.get_or_insert_default().resent_bytes += record.len;
        }
    }

    fn uncount(&mut self, key: Position, record: &Record) {
        let Some(repair) = &mut self.repair else { return };
        if record.is_sacked {
            repair.sacked_bytes -= record.len;
        } else if record.is_lost {
            repair.lost_bytes -= record.len;
            repair.lost.remove(&key);
        } else if record.is_resent {
            repair.resent_bytes -= record.len;
        }
    }
}

/// So many records, and two for each segment that is outstanding, may be there before records are split between
/// segments no more.
const RECORDS_FREE: usize = 64;

#[cfg(test)]
mod tests;
