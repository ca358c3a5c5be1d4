//! Records of settings as they were, so that a process that is killed leaves nothing changed for long:
//! the next one puts back what the record has.
//!
//! Before a setting is changed its old value goes into a [`Journal`]; whoever puts everything back
//! itself then removes the record with [`Journal::finish`]. A journal that is only dropped leaves it.
//! [`recover`] at the next start finds it, makes sure that its owner is dead, and puts everything back.
//!
//! A record is a small text file with the rights 0600 in a folder with the rights 0700: see
//! [`folder`]. It is replaced as a whole, so it is never half written; one that cannot be read is
//! moved aside and reported, and nothing in it is trusted. Keys and values mean something to their
//! kind only, and it checks them again.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

mod record;

use record::{ENTRIES_MAX, Entry, FILE_BYTES_MAX, Owner, Record};

/// What the settings of a record belong to: an interface in a network namespace, and the folder in
/// which records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    folder: PathBuf,
    name: String,
}

impl Scope {
    /// An interface of the network namespace of the calling thread, in the usual [`folder`].
    ///
    /// Interfaces of one name in two namespaces are two, and so is one that was removed and made
    /// again: the old values are not its own. The record of one that is gone for good stays until the
    /// next boot; it is a file of a few hundred bytes.
    ///
    /// # Errors
    /// ENODEV: no such interface. ENOENT: `/proc` is not mounted. EACCES, EPERM: the folder belongs to
    /// somebody else.
    pub fn of_interface(interface: &str) -> io::Result<Self> {
        let index = crate::Interface::by_name(interface)?.index;
        Ok(Self::new(folder()?, interface, namespace()?, index))
    }

    /// The same with everything given.
    pub fn new(folder: PathBuf, interface: &str, namespace: u64, index: i32) -> Self {
        // Names of interfaces may have most characters; a file's name need not.
        let plain = |char: char| if char.is_ascii_alphanumeric() || "-_".contains(char) { char } else { '_' };
        let name: String = interface.chars().map(plain).collect();
        Self { folder, name: format!("{name}-{index}-{namespace}") }
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{kind}-{}", self.name))
    }

    /// Keeps all others that look into or change a record of this folder waiting, for as long as that
    /// takes.
    fn lock(&self) -> io::Result<Flock<File>> {
        let path = self.folder.join("lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }
}

/// The number of the network namespace of the calling thread.
///
/// # Errors
/// ENOENT: `/proc` is not mounted.
pub fn namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// Where records are: `/run/wirestack`, or `wirestack` in `$XDG_RUNTIME_DIR`, or `wirestack-UID` in
/// `/tmp`, whichever comes first that this user can have. It is made if it is not there.
///
/// # Errors
/// EACCES, EPERM, ENOTDIR: the last one is somebody else's, open to others, or no folder.
pub fn folder() -> io::Result<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let first = [Some(PathBuf::from("/run/wirestack")), runtime.map(|path| path.join("wirestack"))];
    if let Some(found) = first.into_iter().flatten().find(|path| own(path).is_ok()) {
        return Ok(found);
    }
    let last = PathBuf::from(format!("/tmp/wirestack-{}", geteuid()));
    own(&last).map(|()| last)
}

/// Makes a folder of our own, or makes sure that it is: not a link, ours, closed to others.
fn own(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{}: no folder", path.display())));
    }
    if found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 {
        let problem = format!("{}: not a folder that only this user can write to", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok(())
}

/// Why there is no journal, or nothing was put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A living process has changed settings of this kind here, and will put them back.
    #[error("process {pid} has changed the same settings and still runs; end it first ({})", path.display())]
    Held {
        /// That process, as its own PID namespace numbers it.
        pid: u32,
        /// Its record.
        path: PathBuf,
    },
    /// A dead process has left a record: [`recover`] comes first.
    #[error("a process that has ended left {}: recover it first", path.display())]
    Left {
        /// Its record.
        path: PathBuf,
    },
    /// Settings may not be put back by this user; the record stays for the next one who may.
    #[error("cannot put back {key} = {old}, as a process that was killed found it: {source}; try as root")]
    Denied {
        /// The first setting that failed.
        key: String,
        /// Its value.
        old: String,
        /// EPERM or EACCES.
        source: io::Error,
    },
    /// The record cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
}

impl From<JournalError> for io::Error {
    fn from(error: JournalError) -> Self {
        let kind = match &error {
            JournalError::Held { .. } | JournalError::Left { .. } => io::ErrorKind::ResourceBusy,
            JournalError::Denied { source, .. } | JournalError::File { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

/// The record of this process on one [`Scope`].
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    record: Record,
}

impl Journal {
    /// Begins a record. `kind` is a word of lower-case letters, one for each user of this module.
    ///
    /// # Errors
    /// [`JournalError::Held`], [`JournalError::Left`]: there is one. [`JournalError::File`].
    pub fn open(kind: &str, scope: &Scope) -> Result<Self, JournalError> {
        let path = scope.path(kind);
        let failed = |source| JournalError::File { path: path.clone(), source };
        let _lock = scope.lock().map_err(failed)?;
        match read(&path).map_err(failed)? {
            Found::Nothing => {}
            Found::Record(record) if record.owner.is_alive() => {
                return Err(JournalError::Held { pid: record.owner.pid, path });
            }
            Found::Record(_) | Found::Broken(_) => return Err(JournalError::Left { path }),
        }
        let journal = Self { record: Record::new(Owner::this().map_err(failed)?), path };
        journal.write()?;
        Ok(journal)
    }

    /// Notes the old value of a setting, before it is changed. Of several for one key the first counts.
    /// Keys have up to 256 bytes, values up to 8192, and neither has control characters.
    ///
    /// # Errors
    /// [`JournalError::File`]: EINVAL for a key or value that cannot be, EFBIG for too many.
    pub fn record(&mut self, key: &str, old: &str) -> Result<(), JournalError> {
        let failed = |source| JournalError::File { path: self.path.clone(), source };
        if self.record.entries.iter().any(|entry| entry.key == key) {
            return Ok(());
        }
        let entry = Entry { key: key.to_owned(), old: old.to_owned() };
        if !entry.is_valid() {
            return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        if self.record.entries.len() == ENTRIES_MAX {
            return Err(failed(io::Error::from_raw_os_error(libc::EFBIG)));
        }
        self.record.entries.push(entry);
        if self.record.to_text().len() > FILE_BYTES_MAX {
            // What could not be read back would be no record of anything.
            self.record.entries.pop();
            return Err(failed(io::Error::from_raw_os_error(libc::EFBIG)));
        }
        self.write()
    }

    /// Takes a setting out again, which was not changed after all.
    ///
    /// # Errors
    /// [`JournalError::File`].
    pub fn forget(&mut self, key: &str) -> Result<(), JournalError> {
        self.record.entries.retain(|entry| entry.key != key);
        self.write()
    }

    /// Removes the record: everything is as it was.
    ///
    /// # Errors
    /// [`JournalError::File`]: it is gone, or may not be removed.
    pub fn finish(self) -> Result<(), JournalError> {
        fs::remove_file(&self.path).map_err(|source| JournalError::File { path: self.path, source })
    }

    fn write(&self) -> Result<(), JournalError> {
        replace(&self.path, self.record.to_text().as_bytes())
            .map_err(|source| JournalError::File { path: self.path.clone(), source })
    }
}

/// What [`recover`] did.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The process that left the record, and what became of each setting, the last change first.
    pub entries: Vec<Recovered>,
    /// Process that left them.
    pub pid: Option<u32>,
    /// Where a record was moved that is none.
    pub broken: Option<PathBuf>,
}

impl Recovery {
    /// Whether there was nothing to do.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.broken.is_none()
    }

    /// What to tell a person, line by line.
    pub fn lines(&self) -> Vec<String> {
        let by = self.pid.map_or_else(String::new, |pid| format!(", which process {pid} left changed"));
        let entries = self.entries.iter().map(|Recovered { key, old, error }| match error {
            None => format!("put back {key} = {old}{by}"),
            Some(error) => format!("cannot put back {key} = {old}{by}: {error}"),
        });
        let broken = self.broken.iter().map(|path| {
            format!(
                "a record of changed settings cannot be read; it is now {}, and nothing was put back",
                path.display()
            )
        });
        entries.chain(broken).collect()
    }
}

/// A setting of a record.
#[derive(Debug)]
pub struct Recovered {
    /// Which.
    pub key: String,
    /// The value from before.
    pub old: String,
    /// Why it could not be put back.
    pub error: Option<io::Error>,
}

/// Puts back what a dead process left on record, the last change first, and removes the record.
/// `restore` gets a key and its old value, and checks both.
///
/// A record from before the last boot is removed: the settings went with the kernel that had them. One
/// of a living process is left alone, and so nothing was to be recovered.
///
/// # Errors
/// [`JournalError::Denied`]: `restore` said EPERM or EACCES; the record stays. Other failures of it are
/// in the result. [`JournalError::File`].
pub fn recover(
    kind: &str,
    scope: &Scope,
    mut restore: impl FnMut(&str, &str) -> io::Result<()>,
) -> Result<Recovery, JournalError> {
    let path = scope.path(kind);
    let failed = |source| JournalError::File { path: path.clone(), source };
    let _lock = scope.lock().map_err(failed)?;
    let record = match read(&path).map_err(failed)? {
        Found::Nothing => return Ok(Recovery::default()),
        Found::Record(record) if record.owner.is_alive() => return Ok(Recovery::default()),
        Found::Record(record) => record,
        Found::Broken(why) => {
            log::warn!("{}: {why}", path.display());
            let aside = path.with_extension("broken");
            fs::rename(&path, &aside).map_err(failed)?;
            return Ok(Recovery { broken: Some(aside), ..Recovery::default() });
        }
    };
    let mut recovery = Recovery { pid: Some(record.owner.pid), ..Recovery::default() };
    if record.owner.is_of_this_boot() {
        for Entry { key, old } in record.entries.into_iter().rev() {
            let error = restore(&key, &old).err();
            if let Some(source) = error {
                if source.kind() == io::ErrorKind::PermissionDenied {
                    return Err(JournalError::Denied { key, old, source });
                }
                recovery.entries.push(Recovered { key, old, error: Some(source) });
            } else {
                recovery.entries.push(Recovered { key, old, error: None });
            }
        }
    }
    fs::remove_file(&path).map_err(failed)?;
    Ok(recovery)
}

/// What is at the place of a record.
enum Found {
    Nothing,
    Record(Record),
    /// Something else, and why it is none.
    Broken(String),
}

fn read(path: &Path) -> io::Result<Found> {
    // Without the second flag a pipe at this place would stop us.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Ok(Found::Broken("a symbolic link".to_owned()));
        }
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != geteuid().as_raw() || found.mode() & 0o077 != 0 {
        return Ok(Found::Broken("not a file that is for this user alone".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(match Record::parse(&bytes) {
        Ok(record) => Found::Record(record),
        Err(why) => Found::Broken(why),
    })
}

/// Puts a file in place as a whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    // Left by a process of the same number.
    let _ = fs::remove_file(&temporary);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests;
