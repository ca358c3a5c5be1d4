//! One group: who wants what of it, and what routers have still to hear of that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use smoltcp::time::Instant;

use super::filter::{Filter, FilterMode};
use super::message::{Record, RecordKind};

/// A group of which somebody wants something, or of which routers are still told that nobody does.
#[derive(Debug)]
pub(super) struct Group {
    /// What each socket wants.
    pub(super) sockets: BTreeMap<u32, Filter>,
    /// What they want together.
    pub(super) merged: Filter,
    pub(super) change: Change,
    pub(super) response: Option<Response>,
    /// Whether we were the last to report it, as far as we heard (older versions).
    pub(super) is_last_reporter: bool,
}

/// A change of `merged` that is reported several times. In older versions: reports that nobody asked for.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// When the next report goes; `None`: there is nothing to tell.
    pub(super) at: Option<Instant>,
    /// How often the filter mode is still to be told.
    pub(super) mode_left: u8,
    /// How often it is still to be told of a source whether it is wanted.
    pub(super) sources_left: BTreeMap<IpAddr, u8>,
}

/// An answer to a query about this group. In older versions: to any query.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) at: Instant,
    /// Sources that were asked about; none: any.
    pub(super) sources: BTreeSet<IpAddr>,
}

impl Group {
    pub(super) fn new() -> Self {
        Self {
            sockets: BTreeMap::new(),
            merged: Filter::none(),
            change: Change::default(),
            response: None,
            is_last_reporter: false,
        }
    }

    /// What is wanted has changed: notes what is to be told `robustness` times, from now on.
    pub(super) fn note_change(&mut self, old: &Filter, now: Instant, robustness: u8, sources_max: usize) {
        let Self { merged, change, .. } = self;
        if old == merged {
            return;
        }
        if old.mode == merged.mode {
            let differing = old.sources.symmetric_difference(&merged.sources);
            change.sources_left.extend(differing.map(|&source| (source, robustness)));
        }
        // Of many sources that come and go, the whole is told instead of the parts.
        if old.mode != merged.mode || change.sources_left.len() > sources_max.saturating_mul(2) {
            change.sources_left.clear();
            change.mode_left = robustness;
        }
        //= rfc3376#5.1
        //# each such additional change triggers the immediate transmission of a new State-Change Report
        change.at = Some(now);
    }

    /// Takes the records of one State-Change Report; `next` is when the next one goes.
    pub(super) fn take_change(&mut self, group: IpAddr, next: Instant, records: &mut Vec<Record>) {
        let Self { merged, change, .. } = self;
        if change.mode_left > 0 {
            change.mode_left -= 1;
            let kind = match merged.mode {
                FilterMode::Include => RecordKind::ToInclude,
                FilterMode::Exclude => RecordKind::ToExclude,
            };
            records.push(Record { kind, group, sources: merged.sources.iter().copied().collect() });
        } else {
            let (allow, block): (Vec<_>, Vec<_>) =
                change.sources_left.keys().copied().partition(|&source| merged.passes(source));
            for (kind, sources) in [(RecordKind::Allow, allow), (RecordKind::Block, block)] {
                if !sources.is_empty() {
                    records.push(Record { kind, group, sources });
                }
            }
            change.sources_left.retain(|_, left| {
                *left -= 1;
                *left > 0
            });
        }
        let is_left = change.mode_left > 0 || !change.sources_left.is_empty();
        change.at = is_left.then_some(next);
    }

    /// The record that tells all of it; `None`: nothing is wanted.
    pub(super) fn current(&self, group: IpAddr) -> Option<Record> {
        let kind = match self.merged.mode {
            FilterMode::Include if self.merged.sources.is_empty() => return None,
            FilterMode::Include => RecordKind::IsInclude,
            FilterMode::Exclude => RecordKind::IsExclude,
        };
        Some(Record { kind, group, sources: self.merged.sources.iter().copied().collect() })
    }

    /// The answer to a query about these sources (RFC 3376 section 5.2).
    pub(super) fn answer(&self, group: IpAddr, asked: &BTreeSet<IpAddr>) -> Option<Record> {
        if asked.is_empty() {
            return self.current(group);
        }
        let sources: Vec<_> = asked.iter().copied().filter(|&source| self.merged.passes(source)).collect();
        (!sources.is_empty()).then_some(Record { kind: RecordKind::IsInclude, group, sources })
    }

    /// A query about this group whose answer is due at `at` (RFC 3376 section 5.2, rules 3 to 5).
    pub(super) fn note_query(&mut self, at: Instant, sources: BTreeSet<IpAddr>, sources_max: usize) {
        let Some(pending) = &mut self.response else {
            // More sources than anybody here has: all are told.
            let sources = if sources.len() > sources_max { BTreeSet::new() } else { sources };
            self.response = Some(Response { at, sources });
            return;
        };
        pending.at = pending.at.min(at);
        if sources.is_empty()
            || pending.sources.is_empty()
            || pending.sources.len() + sources.len() > sources_max
        {
            pending.sources.clear();
        } else {
            pending.sources.extend(sources);
        }
    }

    /// When something of this group is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let response = self.response.as_ref().map(|response| response.at);
        [self.change.at, response].into_iter().flatten().min()
    }
}
