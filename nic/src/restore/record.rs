//! What is in a record: lines of text, and who wrote them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Bytes of a file that is read at all.
pub(super) const FILE_BYTES_MAX: usize = 1 << 20;
/// Settings of a record.
pub(super) const ENTRIES_MAX: usize = 16_384;
/// Bytes of a key.
const KEY_BYTES_MAX: usize = 256;
/// Bytes of a value: a mask of 8192 CPUs has 2304.
const VALUE_BYTES_MAX: usize = 8192;

/// First line: what this is, and in which version.
const HEAD: &str = "wirestack restore 1";
/// Last line, without which a record is not whole.
const END: &str = "end";

/// A setting and its value from before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) old: String,
}

impl Entry {
    /// Whether it fits a line, and is one.
    pub(super) fn is_valid(&self) -> bool {
        let is_text = |text: &str| !text.chars().any(char::is_control);
        let fits = self.key.len() <= KEY_BYTES_MAX && self.old.len() <= VALUE_BYTES_MAX;
        fits && !self.key.is_empty() && is_text(&self.key) && is_text(&self.old)
    }
}

/// A process, so that another one of the same number is not taken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: u32,
    /// When it started, in clock ticks since the boot: field 22 of `/proc/PID/stat`.
    start_ticks: u64,
    /// The PID namespace in which `pid` is meant.
    pid_namespace: u64,
    /// The boot in which all of this is meant.
    boot: String,
}

impl Owner {
    /// This process.
    pub(super) fn this() -> io::Result<Self> {
        let pid = std::process::id();
        let start_ticks = start_ticks(pid).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("/proc/{pid}/stat cannot be read"))
        })?;
        Ok(Self { pid, start_ticks, pid_namespace: pid_namespace()?, boot: boot()? })
    }

    pub(super) fn is_of_this_boot(&self) -> bool {
        boot().is_ok_and(|boot| boot == self.boot)
    }

    /// Whether it still runs. One of another PID namespace is taken to, since nobody here can tell.
    pub(super) fn is_alive(&self) -> bool {
        if !self.is_of_this_boot() {
            return false;
        }
        if pid_namespace().map_or(true, |own| own != self.pid_namespace) {
            return true;
        }
        start_ticks(self.pid) == Some(self.start_ticks)
    }
}

/// `None`: there is no such process, or it has ended and is only waited for.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may have any character.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn pid_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Everything that is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) owner: Owner,
    pub(super) entries: Vec<Entry>,
}

impl Record {
    pub(super) fn new(owner: Owner) -> Self {
        Self { owner, entries: Vec::new() }
    }

    pub(super) fn to_text(&self) -> String {
        let Owner { pid, start_ticks, pid_namespace, boot } = &self.owner;
        let mut text = format!("{HEAD}\nboot {boot}\nowner {pid} {start_ticks} {pid_namespace}\n");
        for Entry { key, old } in &self.entries {
            text.push_str(&format!("{key}\t{old}\n"));
        }
        text.push_str(END);
        text.push('\n');
        text
    }

    /// Reads what [`to_text`](Record::to_text) wrote; anything else is an error that says what is wrong.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(format!("longer than {FILE_BYTES_MAX} bytes"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "no text".to_owned())?;
        let text = text.strip_suffix(&format!("{END}\n")).ok_or("the end is missing")?;
        let mut lines = text.split_terminator('\n');
        if lines.next() != Some(HEAD) {
            return Err(format!("the first line is not {HEAD:?}"));
        }
        let boot = lines.next().and_then(|line| line.strip_prefix("boot ")).ok_or("no boot")?.to_owned();
        let owner = lines.next().and_then(|line| line.strip_prefix("owner ")).ok_or("no owner")?;
        let mut numbers = owner.split(' ').map(str::parse::<u64>);
        let mut number = || numbers.next().and_then(Result::ok).ok_or("an owner is three numbers");
        let (pid, start_ticks, pid_namespace) = (number()?, number()?, number()?);
        let pid = u32::try_from(pid).map_err(|_| "no number of a process")?;
        let mut entries = Vec::new();
        for line in lines {
            let (key, old) = line.split_once('\t').ok_or("a line without a tab")?;
            let entry = Entry { key: key.to_owned(), old: old.to_owned() };
            if !entry.is_valid() || entries.len() == ENTRIES_MAX {
                return Err("a line that is no setting".to_owned());
            }
            entries.push(entry);
        }
        Ok(Self { owner: Owner { pid, start_ticks, pid_namespace, boot }, entries })
    }
}
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_process_is_alive_and_its_likes_are_not() {
        let this = Owner::this().unwrap();
        assert!(this.is_alive());
        // The same number at another time.
        assert!(!Owner { start_ticks: this.start_ticks + 1, ..this.clone() }.is_alive());
        assert!(!Owner { boot: "another".to_owned(), ..this.clone() }.is_alive());
        assert!(Owner { pid_namespace: 1, start_ticks: 0, ..this }.is_alive());
    }

    #[test]
    fn a_record_that_was_cut_is_none() {
        let mut record = Record::new(Owner::this().unwrap());
        record.entries.push(Entry { key: "a".to_owned(), old: "1".to_owned() });
        let text = record.to_text();
        assert_eq!(Record::parse(text.as_bytes()).unwrap(), record);
        for len in 0..text.len() {
            assert!(Record::parse(&text.as_bytes()[..len]).is_err(), "{len} of {} bytes", text.len());
        }
        assert!(Record::parse(&vec![b'x'; FILE_BYTES_MAX + 1]).unwrap_err().contains("longer"));
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(
            entries in prop::collection::vec(("[ -~]{1,40}", "[ -~]{0,40}"), 0..20),
        ) {
            let mut record = Record::new(Owner::this().unwrap());
            record.entries = entries.into_iter().map(|(key, old)| Entry { key, old }).collect();
            prop_assert_eq!(Record::parse(record.to_text().as_bytes()), Ok(record));
        }

        #[test]
        fn garbage_is_refused_and_not_more(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Record::parse(&bytes).is_err());
            let text = [HEAD.as_bytes(), b"\nboot x\nowner 1 2 3\n", &bytes, b"\nend\n"].concat();
            if let Ok(record) = Record::parse(&text) {
                prop_assert!(record.entries.iter().all(Entry::is_valid));
            }
        }
    }
}
