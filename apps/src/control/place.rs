//! Where control sockets are: `/run/wirestack/PID.sock` of root, `$XDG_RUNTIME_DIR/wirestack/PID.sock` of others.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// A program that runs and can be asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// Its socket.
    pub path: PathBuf,
}

/// Directories for this user's sockets, the best first.
pub(super) fn directories() -> Vec<PathBuf> {
    // Root of a user namespace may not have the first one, and have the second.
    let of_root = geteuid().is_root().then(|| PathBuf::from(OF_ROOT));
    [of_root, of_user()].into_iter().flatten().collect()
}

fn of_user() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    dir.is_absolute().then(|| dir.join("wirestack"))
}

/// Makes the directory, if it is not there, and takes away what dead processes have left in it.
pub(super) fn make_directory(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(dir)?;
    // Where others may write, they could put their socket in the place of ours.
    if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 {
        let problem = format!("{} is no directory that only this user can write to", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    list(dir);
    Ok(())
}

/// All programs that run, and whose sockets are in the usual places. Sockets of dead ones are removed, as far as may be.
pub fn running() -> Vec<Running> {
    let mut all: Vec<_> =
        [Some(PathBuf::from(OF_ROOT)), of_user()].into_iter().flatten().flat_map(|dir| list(&dir)).collect();
    all.sort();
    all
}

/// The programs of a directory.
pub(super) fn list(dir: &Path) -> Vec<Running> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let is_alive = |Running { pid, path }: &Running| {
        let is_dead = is_dead(path) && !Path::new(&format!("/proc/{pid}")).exists();
        if is_dead {
            let _ = fs::remove_file(path);
        }
        !is_dead
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let sockets = paths.filter(|path| path.extension().is_some_and(|extension| extension == "sock"));
    let named =
        sockets.filter_map(|path| Some(Running { pid: path.file_stem()?.to_str()?.parse().ok()?, path }));
    named.take(SOCKETS_MAX).filter(is_alive).collect()
}

/// Whether nobody listens at a socket any more.
fn is_dead(path: &Path) -> bool {
    UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Listens at a path, for this user only. What a dead process has left there is replaced.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file, which is no socket"));
        }
        Ok(_) if !is_dead(path) => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        Ok(_) | Err(_) => {}
    }
    // Under another name first: from the moment at which it can be found, it is as it is to be.
    let mut new = OsString::from(path);
    new.push(".new");
    let new = PathBuf::from(new);
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    let made = fs::set_permissions(&new, Permissions::from_mode(0o600)).and_then(|()| fs::rename(&new, path));
    made.inspect_err(|_| drop(fs::remove_file(&new)))?;
    Ok(listener)
}

/// Of root.
const OF_ROOT: &str = "/run/wirestack";
/// Sockets that are looked at.
const SOCKETS_MAX: usize = 1_000;
