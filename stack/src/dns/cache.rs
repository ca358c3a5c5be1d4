//! Answers that are still good.

use std::collections::{BTreeMap, BTreeSet};

use smoltcp::time::Instant;

use super::Name;
use super::message::{Data, Question};

/// What is known about a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// The name that has the records, and what they say.
    Records { name: Name, data: Vec<Data> },
    /// There is no such name, or no such record.
    Nothing { is_name_error: bool },
}

/// A bounded table; if it is full, what ends first goes first.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries_max: usize,
    entries: BTreeMap<Question, (Known, Instant)>,
    by_end: BTreeSet<(Instant, Question)>,
}

impl Cache {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries_max, ..Self::default() }
    }

    /// What is known at `now`, and until when.
    pub(super) fn get(&mut self, now: Instant, question: &Question) -> Option<(&Known, Instant)> {
        let (_, expires) = self.entries.get(question)?;
        if *expires <= now {
            self.remove(question);
            return None;
        }
        self.entries.get(question).map(|(known, expires)| (known, *expires))
    }

    pub(super) fn insert(&mut self, question: Question, known: Known, expires: Instant) {
        self.remove(&question);
        if self.entries_max == 0 {
            return;
        }
        while self.entries.len() >= self.entries_max
            && let Some((_, oldest)) = self.by_end.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.by_end.insert((expires, question.clone()));
        self.entries.insert(question, (known, expires));
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.by_end.clear();
    }

    fn remove(&mut self, question: &Question) {
        if let Some((_, expires)) = self.entries.remove(question) {
            self.by_end.remove(&(expires, question.clone()));
        }
    }
}
