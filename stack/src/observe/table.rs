//! Tables for people: a title, a line of headings, and aligned columns.

use std::fmt;

use serde::Serialize;

/// Something that is shown as a line of a table.
pub trait Row {
    /// What the table is about.
    const TITLE: &'static str;
    /// Headings, one for each cell.
    const COLUMNS: &'static [&'static str];

    /// What stands below the headings; `-` is written for what is empty.
    fn cells(&self) -> Vec<String>;
}

/// Some entries of a table of the stack, and how many it has. It prints as lines for people; an empty one as
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Table<T> {
    /// As many as were asked for at most.
    pub entries: Vec<T>,
    /// Entries in the stack.
    pub total: usize,
}

impl<T> Table<T> {
    /// The first `entries_max` of these. It costs a step for each entry, to count them.
    pub fn new(all: impl Iterator<Item = T>, entries_max: usize) -> Self {
        let mut total = 0;
        let all = all.inspect(|_| total += 1);
        let mut entries = Vec::new();
        for (index, entry) in all.enumerate() {
            if index < entries_max {
                entries.push(entry);
            }
        }
        Self { entries, total }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), total: 0 }
    }
}

impl<T: Row> fmt::Display for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.total == 0 {
            return Ok(());
        }
        writeln!(f, "{}", T::TITLE)?;
        let headings: Vec<_> = T::COLUMNS.iter().map(ToString::to_string).collect();
        write_aligned(f, &[headings], self.entries.iter().map(T::cells).collect())?;
        match self.total - self.entries.len() {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more; {} in all", self.total),
        }
    }
}

/// Lines whose columns begin one below the other.
fn write_aligned(
    f: &mut fmt::Formatter<'_>,
    headings: &[Vec<String>],
    lines: Vec<Vec<String>>,
) -> fmt::Result {
    let all = || headings.iter().chain(&lines);
    let columns = all().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| all().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0).max(1)).collect();
    for line in all() {
        let cells = line.iter().zip(&widths).map(|(cell, width)| {
            let cell = if cell.is_empty() { "-" } else { cell };
            format!("  {cell:<width$}")
        });
        writeln!(f, "{}", cells.collect::<String>().trim_end())?;
    }
    Ok(())
}

/// What may be missing.
pub(super) fn or_none(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Milliseconds as people read them: seconds with as many digits as tell something.
pub(super) fn time(millis: u64) -> String {
    match millis {
        0..10_000 => format!("{}.{:03}s", millis / 1_000, millis % 1_000),
        _ => format!("{}s", millis / 1_000),
    }
}

/// The same of what may be for ever.
pub(super) fn until(millis: Option<u64>) -> String {
    millis.map_or_else(|| "forever".to_owned(), time)
}

/// What is either so or not.
pub(super) fn flag(is_set: bool, name: &str) -> String {
    if is_set { name.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair(&'static str, u32);

    impl Row for Pair {
        const TITLE: &'static str = "pairs";
        const COLUMNS: &'static [&'static str] = &["NAME", "N"];

        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), self.1.to_string()]
        }
    }

    #[test]
    fn columns_are_aligned_and_what_is_left_out_is_counted() {
        let pairs = || [Pair("a", 1), Pair("", 20), Pair("long name", 300)].into_iter();
        let text = |entries_max| Table::new(pairs(), entries_max).to_string();
        assert_eq!(text(3), "pairs\n  NAME       N\n  a          1\n  -          20\n  long name  300\n");
        assert_eq!(text(1), "pairs\n  NAME  N\n  a     1\n  and 2 more; 3 in all\n");
        assert_eq!(Table::<Pair>::default().to_string(), "");
    }

    #[test]
    fn times_have_the_digits_that_tell_something() {
        for (millis, expected) in [(0, "0.000s"), (9_999, "9.999s"), (10_000, "10s"), (86_400_999, "86400s")]
        {
            assert_eq!(time(millis), expected);
        }
        assert_eq!(until(None), "forever");
    }
}
