//! What is on the screen, and what keys do to it.

use std::collections::VecDeque;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rates::{Look, Row};
use crate::report::{Report, Sort};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) look: Look,
    /// The report of the look.
    last: Option<Report>,
    pub(super) sort: Sort,
    /// Rows that have this somewhere.
    pub(super) filter: String,
    /// The filter is being written.
    pub(super) is_filtering: bool,
    pub(super) is_paused: bool,
    pub(super) shows_help: bool,
    /// The first row that is shown.
    pub(super) first: usize,
    /// Rows that the screen has had room for.
    pub(super) page: usize,
    /// Rows that are shown, at most.
    count_max: usize,
    /// Bits per second, both directions, the newest last.
    pub(super) history: VecDeque<u64>,
    /// What is the matter with the program.
    pub(super) note: Option<String>,
}

/// What a key means for the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Stay,
    Quit,
}

impl View {
    /// Begins with a report.
    pub(super) fn new(first: Report, sort: Sort, count_max: usize) -> Self {
        let mut view = Self { sort, count_max, page: 1, ..Self::default() };
        view.take(first);
        view
    }

    /// Another report. While it is paused, nothing of it is shown.
    pub(super) fn take(&mut self, report: Report) {
        self.note = None;
        if self.is_paused {
            return;
        }
        self.look = Look::new(self.last.as_ref(), report.clone(), self.sort);
        if let Some(rates) = self.look.rates {
            self.history.push_back((rates.bits_in_per_second + rates.bits_out_per_second) as u64);
            if self.history.len() > HISTORY_LEN_MAX {
                self.history.pop_front();
            }
        }
        self.last = Some(report);
        self.stay_within();
    }

    /// The report that is shown.
    pub(super) fn report(&self) -> &Report {
        &self.look.report
    }

    /// The rows that pass the filter.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let filter = self.filter.to_lowercase();
        let passes = |row: &&Row| {
            let connection = &row.connection;
            let words =
                [&connection.state, &connection.limited_by, &connection.congestion, &connection.recovery];
            filter.is_empty()
                || words.iter().any(|word| word.to_lowercase().contains(&filter))
                || connection.remote.to_string().contains(&filter)
                || connection.local.to_string().contains(&filter)
        };
        self.look.rows.iter().filter(passes).take(self.count_max).collect()
    }

    /// What a key does.
    pub(super) fn press(&mut self, key: KeyEvent) -> Wish {
        let has_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if has_control && key.code == KeyCode::Char('c') {
            return Wish::Quit;
        }
        if self.is_filtering {
            self.write_filter(key.code, has_control);
            return Wish::Stay;
        }
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc if self.shows_help => self.shows_help = false,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('h' | '?') => self.shows_help = !self.shows_help,
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                self.look.sort(self.sort);
            }
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => self.is_filtering = true,
            KeyCode::Up => self.first = self.first.saturating_sub(1),
            KeyCode::Down => self.first += 1,
            KeyCode::PageUp => self.first = self.first.saturating_sub(self.page),
            KeyCode::PageDown => self.first += self.page,
            KeyCode::Home => self.first = 0,
            KeyCode::End => self.first = usize::MAX,
            _ => {}
        }
        self.stay_within();
        Wish::Stay
    }

    fn write_filter(&mut self, code: KeyCode, has_control: bool) {
        match code {
            KeyCode::Enter => self.is_filtering = false,
            KeyCode::Esc => {
                self.is_filtering = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char('u') if has_control => self.filter.clear(),
            KeyCode::Char(letter) if !has_control && self.filter.len() < FILTER_BYTES_MAX => {
                self.filter.push(letter);
            }
            _ => {}
        }
        self.stay_within();
    }

    /// The last page is full, if there are as many rows.
    pub(super) fn stay_within(&mut self) {
        self.first = self.first.min(self.rows().len().saturating_sub(self.page.max(1)));
    }
}

/// As many as the widest screen has columns.
const HISTORY_LEN_MAX: usize = 512;
/// Of a filter.
const FILTER_BYTES_MAX: usize = 64;
